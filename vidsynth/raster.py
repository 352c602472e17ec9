"""Triangles to pixels, in numpy: faces for conditioning maps, bodies and heads for the worlds."""

from __future__ import annotations

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
    corners_F33 = vertices[triangles]
    corners_F33, triangles = _worth_drawing(corners_F33, triangles, height, width, cull)

    depth = np.full(height * width, np.inf, np.float32)
    image = np.zeros((height * width, attributes.shape[1]), np.float32)
    for batch in _batches(corners_F33, height, width):
        pixel, triangle, weights_N3 = _fragments(corners_F33[batch], height, width)
        z = np.einsum("nk,nk->n", weights_N3, corners_F33[batch, :, 2][triangle])
        np.minimum.at(depth, pixel, z)
        nearest = np.flatnonzero(z == depth[pixel])
        corners = triangles[batch][triangle[nearest]]
        image[pixel[nearest]] = sum(
            weights_N3[nearest, k, None] * attributes[corners[:, k]] for k in range(3)
        )
    mask = np.isfinite(depth).reshape(height, width)
    return Raster(image.reshape(height, width, -1), mask, depth.reshape(height, width))


def _worth_drawing(
    corners_F33: NDArray[np.float32],
    triangles: NDArray[np.integer],
    height: int,
    width: int,
    cull: bool,
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Triangles with an area that reach into the picture (and face the viewer, if `cull`)."""
    area_F = _twice_area(corners_F33)
    kept = area_F < 0 if cull else area_F != 0
    low, high = corners_F33[..., :2].min(axis=1), corners_F33[..., :2].max(axis=1)
    kept &= (high > 0).all(axis=1) & (low < (width, height)).all(axis=1)
    return corners_F33[kept], triangles[kept]


def _twice_area(corners_F33: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed: positive for corners that run clockwise as seen in the picture (y points down)."""
    (ax, ay), (bx, by) = ((corners_F33[:, k, :2] - corners_F33[:, 0, :2]).T for k in (1, 2))
    return ax * by - ay * bx


def _boxes(
    corners_F33: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel (x, y) and number of pixels (x, y) of the centres in each bounding box."""
    limit = (width, height)
    low = np.clip(corners_F33[..., :2].min(axis=1), 0, limit)
    high = np.clip(corners_F33[..., :2].max(axis=1), 0, limit)
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
    """Every pixel inside every triangle: flat pixel index, triangle index, weights of corners."""
    first, extent = _boxes(corners_F33, height, width)
    # One entry per row of each box, then one per pixel of each row.
    triangle = np.repeat(np.arange(len(extent)), extent[:, 1])
    row = _counting(extent[:, 1]) + first[triangle, 1]
    length = extent[triangle, 0]
    column = _counting(length) + np.repeat(first[triangle, 0], length)
    triangle, row = np.repeat(triangle, length), np.repeat(row, length)

    # Barycentric weights grow linearly with the offset from corner 0.
    origin = corners_F33[:, 0, :2]
    edge1, edge2 = corners_F33[:, 1, :2] - origin, corners_F33[:, 2, :2] - origin
    inverse_area = 1 / _twice_area(corners_F33)
    slope1 = np.stack([edge2[:, 1], -edge2[:, 0]], 1) * inverse_area[:, None]
    slope2 = np.stack([-edge1[:, 1], edge1[:, 0]], 1) * inverse_area[:, None]
    dx = (column + np.float32(0.5)).astype(np.float32) - origin[triangle, 0]
    dy = (row + np.float32(0.5)).astype(np.float32) - origin[triangle, 1]
    w1 = slope1[triangle, 0] * dx + slope1[triangle, 1] * dy
    w2 = slope2[triangle, 0] * dx + slope2[triangle, 1] * dy
    # The tolerance closes the seams that rounding opens between neighbouring triangles.
    tolerance = np.float32(-1e-5)
    inside = np.flatnonzero((w1 >= tolerance) & (w2 >= tolerance) & (w1 + w2 <= 1 - tolerance))
    w1, w2 = w1[inside], w2[inside]
    weights_N3 = np.stack([1 - w1 - w2, w1, w2], axis=1)
    return (row * width + column)[inside], triangle[inside], weights_N3
