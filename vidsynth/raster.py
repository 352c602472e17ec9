"""Triangles to pixels, in numpy: faces for conditioning maps, bodies and heads for the worlds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# V vertices, F triangles, N fragments (a pixel of a triangle), A attributes, H, W pixels

MOST_FRAGMENTS = 1 << 20
"""Pixels tested at once; bounds memory to about 60 MB whatever the picture's size."""


class Raster(NamedTuple):
    """What `rasterise` gives: `image, mask, depth = rasterise(...)`."""

    image: NDArray[np.float32]
    """(H, W, A) interpolated attributes, 0 where nothing is drawn."""
    mask: NDArray[np.bool_]
    """(H, W): a triangle covers the pixel's centre."""
    depth: NDArray[np.float32]
    """(H, W) z of the nearest triangle, infinity where nothing is drawn."""


def rasterise(
    vertices: NDArray[np.floating],
    triangles: NDArray[np.integer],
    attributes: NDArray[np.floating],
    height: int,
    width: int,
    *,
    cull: bool = False,
) -> Raster:
    """Draw triangles with a depth buffer; attributes vary linearly over the picture.

    Pixel (row i, column j) covers x in [j, j + 1] and y in [i, i + 1] and is sampled at its centre,
    so that coordinates scale with the picture. Interpolation is affine in the picture (no
    perspective division), which is exact for orthographic views.

    Args:
        vertices: (V, 3) x right, y down in pixels; z depth in any unit, smaller is nearer.
        triangles: (F, 3) indices of vertices.
        attributes: (V, A) values to interpolate, e.g. colours or texture coordinates.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        cull: leave out triangles whose corners run clockwise as seen in the picture: the back of
            a closed surface whose normals point outwards.
    """
    vertices = np.asarray(vertices, np.float32)
    attributes = np.asarray(attributes, np.float32)
    depth = np.full(height * width, np.inf, np.float32)
    image = np.zeros((height * width, attributes.shape[1]), np.float32)
    for pixel, triangle, planes_N4 in _nearest(vertices, triangles, depth, height, width, cull):
        image[pixel] = sum(
            planes_N4[:, k, None] * np.take(attributes, triangles[triangle, k], axis=0)
            for k in range(3)
        )
    mask = np.isfinite(depth).reshape(height, width)
    return Raster(image.reshape(height, width, -1), mask, depth.reshape(height, width))


def visible_triangles(
    vertices: NDArray[np.floating], triangles: NDArray[np.integer], height: int, width: int
) -> NDArray[np.int64]:
    """(H, W): which triangle is nearest at each pixel's centre, -1 where there is none.

    Arguments as of `rasterise`.
    """
    depth = np.full(height * width, np.inf, np.float32)
    shown = np.full(height * width, -1, np.int64)
    vertices = np.asarray(vertices, np.float32)
    for pixel, triangle, _ in _nearest(vertices, triangles, depth, height, width, cull=False):
        shown[pixel] = triangle
    return shown.reshape(height, width)


def _nearest(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.integer],
    depth: NDArray[np.float32],
    height: int,
    width: int,
    cull: bool,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Fragments nearer than `depth` (H * W,), which is kept up to date: flat pixel, triangle,
    and the weights of its corners and z (N, 4). What comes later lies in front."""
    corners_F33 = vertices[triangles]
    kept = _worth_drawing(corners_F33, height, width, cull)
    corners_F33 = corners_F33[kept]
    # np.take is twice as fast as indexing, and as np.repeat, for gathers as large as these.
    for batch in _batches(corners_F33, height, width):
        pixel, triangle, planes_N4 = _fragments(corners_F33[batch], height, width)
        z = planes_N4[:, 3]
        np.minimum.at(depth, pixel, z)
        nearest = np.flatnonzero(z == np.take(depth, pixel))
        triangle = np.take(kept[batch], np.take(triangle, nearest))
        yield np.take(pixel, nearest), triangle, np.take(planes_N4, nearest, axis=0)


def _worth_drawing(
    corners_F33: NDArray[np.float32], height: int, width: int, cull: bool
) -> NDArray[np.int64]:
    """Triangles with an area that cover a pixel's centre (and face the viewer, if `cull`)."""
    area_F = _twice_area(corners_F33)
    kept = area_F < 0 if cull else area_F != 0
    _, extent = _boxes(corners_F33, height, width)
    return np.flatnonzero(kept & extent.all(axis=1))


def _twice_area(corners_F33: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed: positive for corners that run clockwise as seen in the picture (y points down)."""
    (ax, ay), (bx, by) = ((corners_F33[:, k, :2] - corners_F33[:, 0, :2]).T for k in (1, 2))
    return ax * by - ay * bx


def _boxes(
    corners_F33: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel (x, y) and number of pixels (x, y) of the centres in each bounding box."""
    a, b, c = corners_F33[..., :2].transpose(1, 0, 2)
    limit = (width, height)
    low = np.clip(np.minimum(np.minimum(a, b), c), 0, limit)
    high = np.clip(np.maximum(np.maximum(a, b), c), 0, limit)
    first = np.ceil(low - 0.5).astype(np.int64)
    return first, np.maximum(np.floor(high - 0.5).astype(np.int64) + 1 - first, 0)


def _batches(corners_F33: NDArray[np.float32], height: int, width: int) -> list[slice]:
    """Runs of triangles of at most MOST_FRAGMENTS candidate pixels (or of one triangle)."""
    _, extent = _boxes(corners_F33, height, width)
    before = np.cumsum(extent.prod(axis=1)) // MOST_FRAGMENTS
    starts = np.flatnonzero(np.diff(before, prepend=-1)).tolist()
    return [slice(a, b) for a, b in pairwise([*starts, len(before)])]


def _counting(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ..., n - 1 for each n of `lengths`, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _fragments(
    corners_F33: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Every pixel inside every triangle.

    Returns:
        Flat pixel index (N,), triangle index (N,), and (N, 4): weights of the corners, and z.
    """
    first, extent = _boxes(corners_F33, height, width)
    triangle = np.repeat(np.arange(len(extent)), extent[:, 1])  # one entry per row of each box
    down = _counting(extent[:, 1])

    # Weights and z are planes: they grow by `slopes` per pixel right and down.
    origin = corners_F33[:, 0, :2]
    edge1, edge2 = corners_F33[:, 1, :2] - origin, corners_F33[:, 2, :2] - origin
    inverse_area = 1 / _twice_area(corners_F33)
    slope1 = np.stack([edge2[:, 1], -edge2[:, 0]], 1) * inverse_area[:, None]
    slope2 = np.stack([-edge1[:, 1], edge1[:, 0]], 1) * inverse_area[:, None]
    depth = np.diff(corners_F33[:, :, 2], axis=1).cumsum(axis=1)[:, None]  # against corner 0
    slope_z = slope1 * depth[..., 0] + slope2 * depth[..., 1]
    slopes_F24 = np.stack([-slope1 - slope2, slope1, slope2, slope_z], axis=2)
    to_first = first.astype(np.float32) + np.float32(0.5) - origin
    start_F4 = np.einsum("fa,fak->fk", to_first, slopes_F24)
    start_F4[:, 0] += 1
    start_F4[:, 3] += corners_F33[:, 0, 2]
    slope_R4 = np.take(slopes_F24[:, 0], triangle, axis=0)
    base_R4 = np.take(slopes_F24[:, 1], triangle, axis=0) * down[:, None].astype(np.float32)
    base_R4 += np.take(start_F4, triangle, axis=0)

    begin, length = _spans(base_R4[:, :3], slope_R4[:, :3], extent[triangle, 0])
    row = np.repeat(np.arange(len(length)), length)
    along = np.arange(len(row)) + np.take(begin - np.cumsum(length) + length, row)
    row_start = (down + first[triangle, 1]) * width + first[triangle, 0]
    planes_N4 = np.take(slope_R4, row, axis=0) * along[:, None].astype(np.float32)
    planes_N4 += np.take(base_R4, row, axis=0)
    return np.take(row_start, row) + along, np.take(triangle, row), planes_N4


def _spans(
    base_R3: NDArray[np.float32], slope_R3: NDArray[np.float32], room: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel and number of pixels, among `room` of a row, where no weight is negative."""
    # The tolerance closes the seams that rounding opens between neighbouring triangles.
    height = base_R3 + np.float32(1e-5)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -height / slope_R3
    begin = np.ceil(np.where(slope_R3 > 0, crossing, 0)).clip(0)
    end = np.floor(np.where(slope_R3 < 0, crossing, np.inf))
    end = np.where((slope_R3 == 0) & (height < 0), -1, end)
    begin = np.maximum(np.maximum(begin[:, 0], begin[:, 1]), begin[:, 2])
    end = np.minimum(np.minimum(end[:, 0], end[:, 1]), np.minimum(end[:, 2], room - 1))
    length = np.maximum(end - begin + 1, 0)
    return np.where(length > 0, begin, 0).astype(np.int64), length.astype(np.int64)
