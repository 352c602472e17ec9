"""Scores over whole frames and over parts of them, against torchmetrics and closed forms."""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.errors import NoSubjectFound, NotMeasurable, PluginError
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth.testing import nodding_face, times
from vidsynth.testing.metrics import film_of
from vidsynth_plugins.metrics.parts import FacePSNR, region_psnr
from vidsynth_plugins.metrics.pixels import L1, MSSSIM, PSNR, SSIM, Sharpness

# T frames, H, W pixels


def film(frames: Tensor, **kwargs: Any) -> Film:
    return film_of(Clip(frames, times(len(frames))), **kwargs)


def noise(num_frames: int, side: int, seed: int = 0) -> Tensor:
    """Smooth random pictures."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (num_frames, 3, side // 8, side // 8), generator=rng).float()
    large = torch.nn.functional.interpolate(small, (side, side), mode="bilinear")
    return large.round().to(torch.uint8)


def measured(metric: Metric, made: Tensor, real: Tensor) -> Measurement:
    metric.update(film(made), film(real))
    return metric.compute()


def test_scores_are_those_of_torchmetrics() -> None:
    from torchmetrics.functional import image

    real, made = noise(3, 176), noise(3, 176)
    made[:, :, 20:90] = noise(3, 176, seed=1)[:, :, 20:90]
    ours = [measured(m, made, real).value for m in (PSNR(), SSIM(), MSSSIM())]
    x, y = made.double(), real.double()
    psnr = image.peak_signal_noise_ratio(x, y, data_range=255.0, dim=(1, 2, 3))
    assert ours[0] == pytest.approx(float(psnr), rel=1e-6)
    _, ssim = image.structural_similarity_index_measure(
        x, y, data_range=255.0, return_full_image=True
    )
    assert ours[1] == pytest.approx(float(ssim[:, :, 5:-5, 5:-5].mean()), rel=1e-6)
    ms_ssim = image.multiscale_structural_similarity_index_measure(x, y, data_range=255.0)
    assert ours[2] == pytest.approx(float(ms_ssim), abs=1e-5)


def test_zeros_against_ones_have_the_known_answers() -> None:
    made, real = torch.zeros(2, 3, 64, 64).byte(), torch.full((2, 3, 64, 64), 255).byte()
    assert measured(PSNR(), made, real).value == pytest.approx(0.0, abs=1e-6)
    assert measured(SSIM(), made, real).value == pytest.approx(9.999e-5, rel=1e-3)
    assert measured(L1(), made, real).value == 255


def test_ms_ssim_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotMeasurable, match="at least 176 pixels; these are 160x160"):
        measured(MSSSIM(), noise(1, 160), noise(1, 160))

    real_import = builtins.__import__

    def without_torchmetrics(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torchmetrics"):
            raise ImportError("No module named 'torchmetrics'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torchmetrics)
    with pytest.raises(PluginError, match=r'pip install "vidsynth\[eval\]"'):
        measured(MSSSIM(), noise(1, 176), noise(1, 176))


def test_sharpness_is_the_share_of_fine_detail() -> None:
    real = torch.randint(64, 192, (2, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    half = (real - 128) // 2 + 128
    real, half = real.byte(), half.byte()
    assert measured(Sharpness(), real, real).value == pytest.approx(1.0)
    assert measured(Sharpness(), half, real).value == pytest.approx(0.25, rel=0.02)
    noisy = measured(Sharpness(), real, half)
    assert noisy.value > 3.5 and "noise or ringing" in noisy.caveat
    assert not measured(Sharpness(), half, real).caveat


def test_a_real_picture_without_detail_says_nothing_of_sharpness() -> None:
    with pytest.raises(NotMeasurable):
        measured(Sharpness(), noise(1, 48), torch.full((1, 3, 48, 48), 90).byte())


def test_a_part_is_scored_inside_its_mask_only() -> None:
    real = torch.full((3, 3, 8, 8), 100).byte()
    made = real.clone()
    made[0, :, :4] += 10
    made[1, :, 4:] += 10
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:2, :4] = True
    inside, outside, absent = region_psnr(made, real, mask).tolist()
    assert inside == pytest.approx(20 * torch.tensor(25.5).log10().item(), rel=1e-6)
    assert outside == 100.0
    assert absent != absent


def test_a_face_is_followed_in_the_real_film() -> None:
    face = nodding_face(20, 64, 64)
    hidden = torch.arange(20) == 17
    signal = replace(face, seen=~hidden)
    real = replace(film(noise(20, 64)), track=lambda _: signal)
    made = noise(20, 64)
    made[:, :, :4] = 0  # above the face
    made[3, :, 28:36, 28:36] ^= 255
    metric = FacePSNR()
    metric.update(film(made), real)
    per_frame = metric.compute().per_frame
    assert per_frame is not None
    assert per_frame.isnan().nonzero().flatten().tolist() == [17]
    worse = (per_frame < 100).nonzero().flatten().tolist()
    assert worse == [3]


def test_a_part_that_no_frame_shows_is_not_measurable() -> None:
    def nobody(extractor: str) -> Any:
        raise NoSubjectFound("nobody here")

    metric = FacePSNR()
    metric.update(film(noise(2, 32)), replace(film(noise(2, 32)), track=nobody))
    with pytest.raises(NotMeasurable, match="saw no face in the real video"):
        metric.compute()


def test_films_of_other_lengths_or_sizes_are_refused() -> None:
    with pytest.raises(NotMeasurable, match="3 frames of 32x32 and film has 2 frames of 32x32"):
        measured(PSNR(), noise(3, 32), noise(2, 32))
    with pytest.raises(NotMeasurable, match="40x40"):
        measured(PSNR(), noise(2, 32), noise(2, 40))
    with pytest.raises(ValueError, match="needs a real film"):
        PSNR().update(film(noise(2, 32)), None)
