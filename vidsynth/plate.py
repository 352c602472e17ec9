"""The still background of a per-subject video, and whether there is one."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# N frames looked at, H, W pixels

SAMPLED_FRAMES = 48
STILL_LEVELS = 6.0
"""A background pixel is still when its median deviation from the plate is below this (of 255)."""
STILL_SHARE = 0.93
"""The camera is still when this share of the uncovered background pixels is."""
UNLIKE_LEVELS = (10.0, 30.0)
"""A pixel that differs from the plate by less is background, by more is subject (of 255)."""
UNCOVERED_SHARE = 0.35
"""At least this share of the picture must be seen uncovered, or a plate is no help."""


def estimate_plate(frames: Tensor, silhouettes: Callable[[Tensor], Tensor | None]) -> Tensor | None:
    """The median of what is seen around the subject, when the camera does not move.

    Args:
        frames: (T, 3, H, W) uint8.
        silhouettes: gives (N, 1, H, W) uint8, 255 over the subject, for frame indices (N,).

    Returns:
        (3, H, W) uint8, holes filled in from their surroundings; None when the camera moves, or
        when the subject hides most of the picture throughout.
    """
    index = torch.linspace(0, len(frames) - 1, min(SAMPLED_FRAMES, len(frames))).long()
    covered = silhouettes(index)
    if covered is None:
        return None
    pictures = frames[index].permute(0, 2, 3, 1).numpy()
    hidden = covered[:, 0].numpy() > 127
    times_seen = (~hidden).sum(0)
    seen = times_seen >= max(2, len(index) // 20)
    if seen.mean() < UNCOVERED_SHARE:
        return None

    plate = np.zeros(pictures.shape[1:], np.uint8)
    deviation = np.zeros(seen.shape, np.float32)
    for row in range(len(seen)):  # row by row: the masked copy of all frames would be large
        masked = np.where(hidden[:, row, :, None], np.nan, pictures[:, row].astype(np.float32))
        masked[:, ~seen[row]] = 0.0
        middle = np.nanmedian(masked, axis=0)
        plate[row] = np.round(middle).astype(np.uint8)
        deviation[row] = np.nanmedian(np.abs(masked - middle).mean(-1), axis=0)
    if (deviation[seen] < STILL_LEVELS).mean() < STILL_SHARE:
        return None
    holes = (~seen).astype(np.uint8)
    filled = cv2.inpaint(plate, holes, 5, cv2.INPAINT_TELEA) if holes.any() else plate
    return torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1)))


def cut_out(frames: Tensor, plate: Tensor, silhouettes: Tensor | None) -> Tensor:
    """How surely each pixel shows the subject, and not the still background.

    Args:
        frames: (T, 3, H, W) uint8.
        plate: (3, H, W) uint8.
        silhouettes: (T, 1, H, W) uint8, 255 generously over the subject; None when unknown.

    Returns:
        (T, 1, H, W) uint8: 0 where a frame is as the plate is, or beyond the silhouette.
    """
    least, most = UNLIKE_LEVELS
    covers = []
    for t, frame in enumerate(frames):  # one by one: as floats, all frames would be large
        unlike = (frame.float() - plate.float()).abs()
        unlike = F.avg_pool2d(unlike, 3, stride=1, padding=1, count_include_pad=False).amax(0)
        cover = (255 * (unlike - least) / (most - least)).clamp(0, 255).to(torch.uint8)
        covers.append(cover if silhouettes is None else cover.minimum(silhouettes[t, 0]))
    return torch.stack(covers)[:, None]
