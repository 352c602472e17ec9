"""Scores over whole frames, against the truth: PSNR, SSIM, MS-SSIM, L1 and sharpness."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import scores
from vidsynth.errors import NotMeasurable, PluginError
from vidsynth.kinds import Film
from vidsynth_plugins.metrics.common import FrameMetric, given, pairs

# T frames, H, W pixels

_LUMA = (0.299, 0.587, 0.114)
_SHARPER_THAN_REAL = 1.1


class PairMetric(FrameMetric):
    """One number per pair of frames, from the two pictures alone."""

    @abstractmethod
    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        """(T,) from two blocks (T, 3, H, W) uint8."""

    def measure(self, made: Film, real: Film | None) -> Tensor:
        found = [self.compare(ours, theirs) for ours, theirs in pairs(made, given(real))]
        return torch.cat(found) if found else torch.empty(0)


class PSNR(PairMetric):
    """Peak signal-to-noise ratio. Blind to parts that are small, kind to blur."""

    unit = "dB"
    higher_is_better = True

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        return scores.psnr(made, real)

    def protocol(self) -> str:
        return "psnr 1: RGB, peak 255, mean of dB over frames, equal frames count 100 dB"


class SSIM(PairMetric):
    """Structural similarity.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity".
    """

    paper = (
        "Wang et al. 2004, 'Image Quality Assessment: From Error Visibility to Structural "
        "Similarity'"
    )
    unit = ""
    higher_is_better = True

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        if min(made.shape[2:]) < 11:
            raise NotMeasurable("SSIM needs frames of at least 11 pixels; give a larger video")
        return scores.ssim(made, real)

    def protocol(self) -> str:
        return "ssim 1: RGB, Gaussian window 11 px, sigma 1.5, no padding, K 0.01 0.03"


class MSSSIM(PairMetric):
    """Structural similarity over five scales, as torchmetrics computes it.

    Raises PluginError without torchmetrics.
    """

    paper = "Wang et al. 2003, 'Multiscale Structural Similarity for Image Quality Assessment'"
    unit = ""
    higher_is_better = True
    checked: ClassVar = {"height": 176, "width": 176}
    smallest = 176
    """Pixels: after four halvings an 11-pixel window must still fit."""

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        if min(made.shape[2:]) < self.smallest:
            raise NotMeasurable(
                f"MS-SSIM needs frames of at least {self.smallest} pixels; these are "
                f"{made.shape[3]}x{made.shape[2]}; give a larger video"
            )
        function = _torchmetrics_ms_ssim()
        return function(made.float(), real.float(), data_range=255.0, reduction="none")

    def protocol(self) -> str:
        return "ms_ssim 1: torchmetrics, RGB, Gaussian window 11 px, sigma 1.5, five scales"


def _torchmetrics_ms_ssim():
    try:
        from torchmetrics.functional.image import (
            multiscale_structural_similarity_index_measure as function,
        )
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit
        raise PluginError(
            f"MS-SSIM needs torchmetrics, which cannot be imported ({error}); "
            'install it with: pip install "vidsynth[eval]"'
        ) from error
    return function


class L1(PairMetric):
    """Mean absolute difference."""

    unit = "levels of 255"
    higher_is_better = False

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        return (made.float() - real.float()).abs().mean(dim=(1, 2, 3))

    def protocol(self) -> str:
        return "l1 1: RGB, mean absolute difference"


class Sharpness(PairMetric):
    """Fine detail of the made frames over that of the real ones; 1 is ideal.

    Less is blur, which PSNR rewards; more is noise or ringing, and is said in the caveat, since
    `higher_is_better` can only tell of the usual case.
    """

    unit = "of the truth's"
    higher_is_better = True

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        return sharpness(made, real)

    def protocol(self) -> str:
        return "sharpness 1: energy of luma above a Gaussian of sigma 1.5 px, made over real"

    def caveat(self, value: float) -> str:
        if value <= _SHARPER_THAN_REAL:
            return ""
        return "more fine detail than the real frames have: noise or ringing; 1 is ideal"


def sharpness(made: Tensor, real: Tensor) -> Tensor:
    """(T,) high-frequency energy of (T, 3, H, W) frames over that of the real ones.

    NaN where the real frame has none.
    """
    ours, theirs = (_detail(frames) for frames in (made, real))
    return torch.where(theirs > 1e-6, ours / theirs.clamp_min(1e-6), torch.nan)


def _detail(frames: Tensor) -> Tensor:
    """(T,) mean square of luma minus its Gaussian blur; borders, where it is unknown, left out."""
    luma = torch.einsum("c,tchw->thw", torch.tensor(_LUMA, dtype=torch.float64), frames.double())
    taps = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-taps.square() / (2 * 1.5**2))
    window /= window.sum()
    smooth = F.conv2d(luma[:, None], window.view(1, 1, -1, 1), padding=(5, 0))
    smooth = F.conv2d(smooth, window.view(1, 1, 1, -1), padding=(0, 5))[:, 0]
    inside = (luma - smooth)[:, 5:-5, 5:-5]
    return inside.square().flatten(1).mean(dim=1)
