"""Pictures of conditioning: the shared strokes, label maps, resizing and the preview overlay.

What a body or a face looks like as a map is in `bodies` and `faces`; both use the strokes here.
Picture coordinates count from the corner of the first pixel, so that they scale with the picture;
OpenCV counts from its centre, and only `_fixed` knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth.clip import Clip

if TYPE_CHECKING:
    from vidsynth.conditioning import Conditioning, LabelMaps

# T frames, C channels, H, W pixels, N points

Colour = tuple[int, ...] | int

SUBPIXEL_BITS = 4  # cv2 takes fixed-point coordinates: a sixteenth of a pixel


def _fixed(points: np.ndarray) -> np.ndarray:
    # Far points (a tracker's guess outside the frame) must not overflow cv2's 16.16 arithmetic.
    bounded = np.clip(np.nan_to_num(points) - 0.5, -8192, 24576)
    return np.rint(bounded * (1 << SUBPIXEL_BITS)).astype(np.int32)


def fill_convex(canvas: np.ndarray, points: np.ndarray, colour: Colour) -> None:
    """Fill a convex polygon, anti-aliased. `points`: (N, 2) pixels of `canvas` (H, W[, C])."""
    cv2.fillConvexPoly(canvas, _fixed(points), colour, cv2.LINE_AA, SUBPIXEL_BITS)  # pyright: ignore


def fill_polygon(canvas: np.ndarray, points: np.ndarray, colour: Colour) -> None:
    """Fill any simple polygon, anti-aliased."""
    cv2.fillPoly(canvas, [_fixed(points)], colour, cv2.LINE_AA, SUBPIXEL_BITS)  # pyright: ignore


def stroke(
    canvas: np.ndarray,
    points: np.ndarray,
    colour: Colour,
    *,
    thickness: float = 1,
    closed: bool = False,
) -> None:
    """Draw a polyline with round joints. Thickness in pixels, rounded, at least 1."""
    width = min(max(1, round(thickness)), 32767)
    corners = [_fixed(points)]
    cv2.polylines(canvas, corners, closed, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)  # pyright: ignore


def fill_disc(canvas: np.ndarray, centre: np.ndarray, radius: float, colour: Colour) -> None:
    """Fill a disc, anti-aliased. Centre and radius in pixels."""
    x, y = _fixed(centre).tolist()
    fixed_radius = max(1, round(min(radius, 8192) * (1 << SUBPIXEL_BITS)))
    cv2.circle(canvas, (x, y), fixed_radius, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)  # pyright: ignore


def as_maps(canvases: np.ndarray) -> Tensor:
    """(T, H, W, C) pictures as (T, C, H, W) uint8 maps."""
    return torch.from_numpy(np.ascontiguousarray(canvases.transpose(0, 3, 1, 2)))


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale (T, C, H, W) uint8 to (T, C, height, width): area averages down, linear up."""
    if tuple(frames.shape[2:]) == (height, width):
        return frames
    shrinking = height <= frames.shape[2] and width <= frames.shape[3]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    made = np.empty((len(frames), height, width, frames.shape[1]), np.uint8)
    for picture, out in zip(frames.permute(0, 2, 3, 1).cpu().numpy(), made, strict=True):
        scaled = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method)
        out[:] = scaled.reshape(out.shape)
    return as_maps(made)


def draw_labels(maps: LabelMaps, height: int, width: int) -> Tensor:
    """One channel per class, 255 where a pixel is of it; then the instance edges if ids are known.

    A pixel of no class (`conditioning.VOID`) is 0 in all of them. An edge pixel's id differs from
    that of any of its four neighbours, as in pix2pixHD.

    Returns:
        (T, num_classes or num_classes + 1, height, width) uint8, 0 or 255.
    """
    labels = nearest(maps.labels, height, width)
    classes = torch.arange(maps.num_classes, dtype=labels.dtype).view(1, -1, 1, 1)
    hot = (labels[:, None] == classes).to(torch.uint8) * 255
    if maps.instances is None:
        return hot
    edges = instance_edges(nearest(maps.instances, height, width))
    return torch.cat([hot, edges[:, None].to(torch.uint8) * 255], dim=1)


def instance_edges(ids: Tensor) -> Tensor:
    """(T, H, W) bool: pixels whose id differs from that of any of their four neighbours."""
    edges = torch.zeros_like(ids, dtype=torch.bool)
    across = ids[:, :, 1:] != ids[:, :, :-1]
    down = ids[:, 1:] != ids[:, :-1]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return edges


def nearest(maps: Tensor, height: int, width: int) -> Tensor:
    """(T, H, W) ids at another size, on the CPU: that of the pixel which holds each new pixel's
    centre. Ids are never mixed."""
    rows = ((torch.arange(height) + 0.5) * maps.shape[1] / height).long()
    columns = ((torch.arange(width) + 0.5) * maps.shape[2] / width).long()
    return maps.cpu()[:, rows][:, :, columns]


def overlay(clip: Clip, conditioning: Conditioning, *, strength: float = 0.75) -> Clip:
    """The conditioning drawn over the frames it was extracted from, for people to look at.

    Args:
        clip: T frames.
        conditioning: T frames of a kind that can be drawn.
        strength: how opaque the drawing is, in [0, 1]; undrawn pixels keep the frame.
    """
    drawn = coloured(conditioning, clip.height, clip.width).float()
    opacity = drawn.amax(dim=1, keepdim=True) / 255 * strength
    frames = clip.frames.cpu().float()
    # Drawn colours are already dimmed towards black, so they are scaled by strength alone.
    mixed = frames * (1 - opacity) + drawn * strength
    return Clip(mixed.round().clamp(0, 255).to(torch.uint8), clip.pts)


def coloured(conditioning: Conditioning, height: int, width: int) -> Tensor:
    """What is drawn of it as (T, 3, height, width) uint8 colours, for people to look at."""
    maps = conditioning.draw(height, width)
    # Maps of bodies and faces begin with a picture, however many channels follow.
    return in_colours(maps) if conditioning.kind == "labels" or maps.shape[1] < 3 else maps[:, :3]


def in_colours(maps: Tensor) -> Tensor:
    """Maps of any number of channels as (T, 3, H, W) uint8 colours."""
    if maps.shape[1] == 1:  # one channel has no class to colour, only a brightness
        return maps.expand(-1, 3, -1, -1)
    if maps.shape[1] in (3, 6):
        return maps[:, :3]
    hues = np.linspace(0, 180, maps.shape[1], endpoint=False, dtype=np.float32)
    hsv = np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)
    palette = torch.from_numpy(cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0])
    return palette[maps.argmax(dim=1)].permute(0, 3, 1, 2)
