"""Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", for clips: what
is drawn holds for a whole clip, so that a change over time is always the clip's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth_plugins.dvdgan.options import Augmentation

# B batch, T frames, C channels, H, W pixels

SHIFT = 1 / 8
"""Of the picture's sides, at most."""
HOLE = 1 / 2
"""Of the picture's sides."""


def augmented(frames_BTCHW: Tensor, policy: Sequence[Augmentation]) -> Tensor:
    """The clips, each changed at random in the ways named; gradients pass."""
    for name in policy:
        frames_BTCHW = _CHANGES[name](frames_BTCHW)
    return frames_BTCHW


def _colour(frames_BTCHW: Tensor) -> Tensor:
    """Brightness by up to 0.5 either way, saturation from none to double, contrast by half."""
    brightness, saturation, contrast = _drawn(frames_BTCHW, 3)
    frames = frames_BTCHW + (brightness - 0.5)
    grey = frames.mean(dim=2, keepdim=True)
    frames = grey + (frames - grey) * (2 * saturation)
    mean = frames.mean(dim=(1, 2, 3, 4), keepdim=True)
    return mean + (frames - mean) * (contrast + 0.5)


def _translation(frames_BTCHW: Tensor) -> Tensor:
    """By whole pixels, up to SHIFT; what comes in is grey."""
    height, width = frames_BTCHW.shape[-2:]
    reach_y, reach_x = round(height * SHIFT), round(width * SHIFT)
    padded = F.pad(frames_BTCHW, (reach_x, reach_x, reach_y, reach_y))
    down, right = _drawn(frames_BTCHW, 2)
    y_B = (down.flatten() * (2 * reach_y + 1)).long()
    x_B = (right.flatten() * (2 * reach_x + 1)).long()
    rows_BH = y_B[:, None] + torch.arange(height, device=y_B.device)
    columns_BW = x_B[:, None] + torch.arange(width, device=x_B.device)
    clip_B11 = torch.arange(len(padded), device=x_B.device)[:, None, None]
    moved_BHWTC = padded.permute(0, 3, 4, 1, 2)[clip_B11, rows_BH[:, :, None], columns_BW[:, None]]
    return moved_BHWTC.permute(0, 3, 4, 1, 2)


def _cutout(frames_BTCHW: Tensor) -> Tensor:
    """A grey box of HOLE times the picture's sides, anywhere, partly outside too."""
    height, width = frames_BTCHW.shape[-2:]
    y, x = _drawn(frames_BTCHW, 2)
    rows = torch.arange(height, device=y.device).view(1, 1, 1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, 1, -1)
    inside = ((rows - y * height).abs() < height * HOLE / 2) & (
        (columns - x * width).abs() < width * HOLE / 2
    )
    return frames_BTCHW * ~inside


def _drawn(frames_BTCHW: Tensor, count: int) -> list[Tensor]:
    """So many uniform numbers in [0, 1) for each clip, (B, 1, 1, 1, 1) each."""
    shape = (len(frames_BTCHW), 1, 1, 1, 1)
    return [torch.rand(shape, device=frames_BTCHW.device) for _ in range(count)]


_CHANGES: dict[Augmentation, Callable[[Tensor], Tensor]] = {
    "colour": _colour,
    "translation": _translation,
    "cutout": _cutout,
}
