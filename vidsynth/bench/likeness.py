"""How like the truth frames are: over whole frames and inside the parts that people look at."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import registry, weights
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import MissingWeights, NotMeasurable
from vidsynth.kinds import Film, Metric
from vidsynth.scores import score

# T frames, H, W pixels

LUMA = (0.299, 0.587, 0.114)
PARTS = ("subject", "face", "mouth", "eyes", "limbs", "hands")
TREMBLE = {"flow_warp": "e-3", "flicker": "levels"}
"""Metrics of how much a film trembles, and their units."""
UNITS = {"PSNR": "dB", "SSIM": "", "L1": "levels", "LPIPS": "", "sharpness": "x", **TREMBLE}
LOWER_IS_BETTER = ("L1", "LPIPS", *TREMBLE)


def judged(
    made: Tensor, real: Tensor, masks: Mapping[str, Tensor], *, perceptual: bool = True
) -> dict[str, float]:
    """Everything that is scored, by name: "PSNR", "face PSNR"...

    Args:
        made: (T, 3, H, W) uint8.
        real: the same moments as they are.
        masks: (T, H, W) bool by part; parts that are never seen are left out.
        perceptual: also LPIPS, where its weights are on this machine.
    """
    whole = score(made, real)
    found = {"PSNR": whole.psnr, "SSIM": whole.ssim, "L1": whole.l1}
    if perceptual and (distance := lpips(made, real)) is not None:
        found["LPIPS"] = distance
    found["sharpness"] = sharpness(made, real)
    for part in PARTS:
        mask = masks.get(part)
        if mask is not None and mask.any():
            found[f"{part} PSNR"] = psnr_inside(made, real, mask)
            found[f"{part} sharpness"] = sharpness(made, real, mask)
    return found


def tremble(made: Tensor, real: Tensor) -> dict[str, float]:
    """Flow-warp error and flicker of (T, 3, H, W) uint8 frames; NaN where they cannot be told."""
    found = {}
    ours, theirs = film_of("made", made), film_of("real", real)
    for name in TREMBLE:
        metric = registry.load("metric", name)()
        assert isinstance(metric, Metric)
        try:
            metric.update(ours, None if metric.against == "nothing" else theirs)
            found[name] = metric.compute().value
        except NotMeasurable:
            found[name] = float("nan")
    return found


def unit_of(name: str) -> str:
    """Of a score that `judged` or `tremble` gives."""
    return UNITS[name.split()[-1]]


def psnr_inside(made: Tensor, real: Tensor, mask_THW: Tensor) -> float:
    """Mean dB over the frames in which the mask is not empty; 100 for equal ones."""
    error = (made.double() - real.double()).square().mean(dim=1) * mask_THW
    area = mask_THW.flatten(1).sum(dim=1)
    mse = error.flatten(1).sum(dim=1)[area > 0] / area[area > 0]
    return float((10 * torch.log10(255.0**2 / mse.clamp_min(255.0**2 * 1e-10))).mean())


def sharpness(made: Tensor, real: Tensor, mask_THW: Tensor | None = None) -> float:
    """High-frequency energy over the truth's, all frames together: 1 is as sharp, 0 is flat.

    The energy is the mean square of what lies above a Gaussian blur of 1.5 px in the luma.
    """
    energy = [_detail(frames).square() for frames in (made, real)]
    energy = [e[..., 5:-5, 5:-5] if mask_THW is None else e[mask_THW] for e in energy]
    return float(energy[0].mean() / energy[1].mean().clamp_min(1e-6))


def _detail(frames_T3HW: Tensor) -> Tensor:
    """(T, H, W) luma less its blur; the border repeats."""
    luma = torch.einsum("c,tchw->thw", torch.tensor(LUMA), frames_T3HW.float())[:, None]
    taps = torch.exp(-(torch.arange(11.0) - 5).square() / (2 * 1.5**2))
    taps /= taps.sum()
    smooth = F.conv2d(F.pad(luma, (5, 5, 5, 5), mode="replicate"), taps.view(1, 1, -1, 1))
    return (luma - F.conv2d(smooth, taps.view(1, 1, 1, -1)))[:, 0]


def lpips(made: Tensor, real: Tensor) -> float | None:
    """By the metric plugin; None when there is none, or its weights are not on this machine."""
    if "lpips" not in registry.names("metric"):
        return None
    metric = registry.load("metric", "lpips")()
    assert isinstance(metric, Metric)
    try:
        with weights.staying_offline():
            metric.update(film_of("made", made), film_of("real", real))
            return metric.compute().value
    except (MissingWeights, NotMeasurable):
        return None


def film_of(name: str, frames: Tensor) -> Film:
    """Frames as metrics see them, at 25 a second."""
    pts = torch.arange(len(frames), dtype=torch.float64) / 25

    @cache
    def track(extractor: str) -> Conditioning:
        plugin: Any = registry.load("extractor", extractor)
        return plugin.produces.concat(list(plugin().extract(iter([Clip(frames, pts)]))))

    spec = VideoSpec(height=frames.shape[2], width=frames.shape[3], fps=Fraction(25))
    return Film(name, spec, pts, lambda: iter([Clip(frames, pts)]), track)
