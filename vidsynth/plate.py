"""The still background of a per-subject video, and whether there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import drawing
from vidsynth.conditioning import Conditioning

# N frames looked at, H, W pixels

SAMPLED_FRAMES = 48
STILL_LEVELS = 6.0
"""A background pixel is still when its median deviation from the plate is below this (of 255)."""
STILL_SHARE = 0.93
"""The camera is still when this share of the uncovered background pixels is."""
_BINS = 16
UNLIKE_LEVELS = (10.0, 30.0)
"""A pixel that differs from the plate by less is background, by more is subject (of 255)."""
COMMON_SHARE = 0.01
"""A colour that more of the pixels have is one of theirs."""
CLOSE = 0.015
"""Of the picture's height: as far as a subject reaches beyond its core, and as colours reach."""
UNCOVERED_SHARE = 0.35
"""At least this share of the picture must be seen uncovered, or a plate is no help."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BackgroundPlate(Conditioning):
    """The still background of a video whose camera does not move, the same for every frame."""

    kind: ClassVar[str] = "background"
    per_frame: ClassVar[tuple[str, ...]] = ("frame_index",)

    image: Tensor
    """(3, H, W) uint8 RGB."""
    frame_index: Tensor
    """(T,) int64: only its length matters."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.image.shape[1], self.image.shape[2])

    def draw(self, height: int, width: int) -> Tensor:
        plate = drawing.resize(self.image[None], height, width)
        return plate.expand(len(self), -1, -1, -1)

    def crop(self, box: tuple[int, int, int, int]) -> BackgroundPlate:
        x0, y0, x1, y1 = box
        return replace(self, image=self.image[:, y0:y1, x0:x1])


def estimate_plate(
    frames: Tensor,
    silhouettes: Callable[[Tensor], Tensor | None],
    cores: Callable[[Tensor], Tensor | None] = lambda _: None,
) -> Tensor | None:
    """The median of what is seen around the subject, when the camera does not move.

    Args:
        frames: (T, 3, H, W) uint8.
        silhouettes: gives (N, 1, H, W) uint8, 255 generously over the subject, for frame indices
            (N,).
        cores: gives (N, 1, H, W) uint8, 255 surely on it (`Conditioning.core`). Where silhouettes
            always hide the background, between legs say, what is away from the core, still, and
            of a colour of the background beside it is background too; a skirt is not.

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
    seen = _often(~hidden)
    if seen.mean() < UNCOVERED_SHARE:
        return None
    plate, still = _median(pictures, hidden, seen)
    if still[seen].mean() < STILL_SHARE:
        return None
    core = cores(index)
    if core is not None:
        near = _grown(core[:, 0].numpy())
        between = _often(~near) & ~seen
        beside, still = _median(pictures, near, between)
        plate[between] = beside[between]
        own = _common_colours(pictures[core[:, 0].numpy() > 127])
        between &= still & _alike(plate, seen) & ~own[_bins(plate)]
        seen |= between
    holes = (~seen).astype(np.uint8)
    filled = cv2.inpaint(plate, holes, 5, cv2.INPAINT_TELEA) if holes.any() else plate
    return torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1)))


def _often(seen_NHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): where enough frames show something for a median."""
    return seen_NHW.sum(0) >= max(2, len(seen_NHW) // 20)


def _median(
    pictures_NHW3: NDArray[np.uint8], hidden_NHW: NDArray[np.bool_], wanted_HW: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Of what is not hidden, where wanted, (H, W, 3) and 0 elsewhere; and where it is still."""
    plate = np.zeros(pictures_NHW3.shape[1:], np.uint8)
    deviation = np.zeros(wanted_HW.shape, np.float32)
    for row in range(len(wanted_HW)):  # row by row: the masked copy of all frames would be large
        pictures = pictures_NHW3[:, row].astype(np.float32)
        masked = np.where(hidden_NHW[:, row, :, None], np.nan, pictures)
        masked[:, ~wanted_HW[row]] = 0.0
        middle = np.nanmedian(masked, axis=0)
        plate[row] = np.round(middle).astype(np.uint8)
        deviation[row] = np.nanmedian(np.abs(masked - middle).mean(-1), axis=0)
    return plate, deviation < STILL_LEVELS


def _grown(core_NHW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The cores and what is close to them: anything there may be the subject's edge."""
    reach = max(1, round(CLOSE * core_NHW.shape[1]))
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.stack([cv2.dilate(core, shape) for core in core_NHW]) > 127


def _alike(plate_HW3: NDArray[np.uint8], seen_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): in a colour of what is seen at about the same height."""
    alike = np.zeros(seen_HW.shape, np.bool_)
    reach = max(1, round(CLOSE * len(seen_HW)))
    for row in range(len(seen_HW)):
        band = slice(max(0, row - reach), row + reach + 1)
        colours = _common_colours(plate_HW3[band][seen_HW[band]])
        alike[row] = colours[_bins(plate_HW3[row])]
    return alike


def _common_colours(pixels_P3: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(B, B, B): the bins of RGB that COMMON_SHARE of the pixels are in, and those next to them."""
    counts = np.zeros((_BINS,) * 3, np.int64)
    np.add.at(counts, _bins(pixels_P3), 1)
    common = torch.from_numpy(counts > COMMON_SHARE * len(pixels_P3)).float()
    return F.max_pool3d(common[None], 3, stride=1, padding=1)[0].numpy() > 0


def _bins(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], ...]:
    """Of RGB in the last axis: the bins, as indices."""
    return tuple(np.moveaxis((pixels // (256 // _BINS)).astype(np.int64), -1, 0))


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
