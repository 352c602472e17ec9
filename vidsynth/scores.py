"""How close made frames come to real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# T frames, H, W pixels


class Judged(Protocol):
    """What training is told of a model's quality; as text, one line."""

    of: ClassVar[str]
    """What was judged."""

    def row(self) -> dict[str, float]:
        """Numbers to keep, by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Means over frames."""

    of: ClassVar[str] = "held-out frames"

    psnr: float
    """dB, peak 255."""
    ssim: float
    """In [-1, 1]; 1 for equal pictures."""
    l1: float
    """Mean absolute difference, levels of 255."""

    def row(self) -> dict[str, float]:
        return {"psnr": round(self.psnr, 3), "ssim": round(self.ssim, 4), "l1": round(self.l1, 3)}

    def __str__(self) -> str:
        return f"PSNR {self.psnr:.2f} dB, SSIM {self.ssim:.3f}, L1 {self.l1:.2f}"


def score(made: Tensor, real: Tensor) -> Scores:
    """Compare (T, 3, H, W) uint8 frames pairwise."""
    if made.shape != real.shape or made.dtype != torch.uint8 or real.dtype != torch.uint8:
        raise ValueError(
            f"score compares uint8 clips of one shape; got {made.dtype} {tuple(made.shape)} and "
            f"{real.dtype} {tuple(real.shape)}"
        )
    return Scores(
        psnr=float(psnr(made, real).mean()),
        ssim=float(ssim(made, real).mean()),
        l1=float((made.float() - real.float()).abs().mean()),
    )


def psnr(made: Tensor, real: Tensor) -> Tensor:
    """(T,) peak signal-to-noise ratio in dB of uint8 frames; 100 for equal ones."""
    mse = (made.float() - real.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255.0**2 / mse.clamp_min(255.0**2 * 1e-10))


def ssim(made: Tensor, real: Tensor) -> Tensor:
    """(T,) structural similarity of uint8 frames, mean over channels and pixels.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity":
    11x11 Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03, biased moments.
    """
    taps = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-taps.square() / (2 * 1.5**2))
    window /= window.sum()

    def blurred(x: Tensor) -> Tensor:
        channels = x.shape[1]
        rows = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    x, y = made.double(), real.double()  # variances are differences of large numbers
    if min(x.shape[2:]) < 11:
        raise ValueError(f"SSIM needs frames of at least 11 px; got {tuple(x.shape[2:])}")
    mean_x, mean_y = blurred(x), blurred(y)
    var_x = blurred(x * x) - mean_x.square()
    var_y = blurred(y * y) - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))
