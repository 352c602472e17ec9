"""A small differentiable renderer: triangles to pixels in torch, many frames at once.

Which triangle a pixel shows is decided without a gradient; where in that triangle it lies, and so
every interpolated value, is a differentiable function of the vertices and of the attributes. What
moves across an outline is not (no pixel changes hands), as is usual when the inside of a textured
surface is compared with a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# T frames, V vertices, F triangles, A attributes, M covered pixels of all frames, H, W pixels

MOST_CANDIDATES = 1 << 22
"""Pixels tested at once; bounds memory to about 250 MB."""
# Real spherical harmonics up to the second order, in the usual order: 1, y, z, x, xy, yz, 3z^2 - 1,
# xz, x^2 - y^2 (Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance
# Environment Maps").
_BAND0, _BAND1, _XY, _Z2, _X2Y2 = 0.282095, 0.488603, 1.092548, 0.315392, 0.546274


class Shown(NamedTuple):
    """What is seen where: the covered pixels of all frames, one after the other."""

    frame: Tensor
    """(M,) int64 in [0, T)."""
    pixel: Tensor
    """(M,) int64: row * W + column."""
    triangle: Tensor
    """(M,) int64."""
    weights: Tensor
    """(M, 3): of the triangle's corners, summing to 1; differentiable by the vertices."""

    def interpolate(self, attributes: Tensor, triangles_F3: Tensor) -> Tensor:
        """(M, A) from (V, A), the same in all frames, or (T, V, A)."""
        corners = triangles_F3[self.triangle]
        if attributes.dim() == 2:
            values_M3A = attributes[corners]
        else:
            values_M3A = attributes[self.frame[:, None], corners]
        return (self.weights[..., None] * values_M3A).sum(dim=1)

    def image(self, values_MA: Tensor, size: tuple[int, int, int]) -> Tensor:
        """(T, A, H, W) from the covered pixels' values; 0 elsewhere. `size`: T, H, W."""
        count, height, width = size
        canvas = values_MA.new_zeros(count * height * width, values_MA.shape[1])
        canvas = canvas.index_copy(0, self.frame * (height * width) + self.pixel, values_MA)
        return canvas.view(count, height, width, canvas.shape[1]).permute(0, 3, 1, 2)


def rasterise(vertices_TV3: Tensor, triangles_F3: Tensor, height: int, width: int) -> Shown:
    """What each pixel's centre shows, nearest first; triangles seen from behind are left out.

    Pixel (row i, column j) covers x in [j, j + 1] and y in [i, i + 1].

    Args:
        vertices_TV3: x right, y down in pixels; z in any unit, smaller is nearer.
        triangles_F3: (F, 3) int64, counter-clockwise in the picture as seen from outside.
        height, width: of the pictures.
    """
    seen = vertices_TV3.detach()
    parts = []
    group = max(1, MOST_CANDIDATES // (3 * height * width))
    for start in range(0, len(seen), group):
        frame, pixel, triangle = _nearest(seen[start : start + group], triangles_F3, height, width)
        parts.append((frame + start, pixel, triangle))
    if not parts:
        nothing = torch.zeros(0, dtype=torch.long, device=seen.device)
        return Shown(nothing, nothing, nothing, vertices_TV3.new_zeros(0, 3))
    frame, pixel, triangle = (torch.cat(column) for column in zip(*parts, strict=True))
    corners_M32 = vertices_TV3[frame[:, None], triangles_F3[triangle]][..., :2]
    x, y = (pixel % width).to(corners_M32) + 0.5, (pixel // width).to(corners_M32) + 0.5
    return Shown(frame, pixel, triangle, _weights(corners_M32, x, y))


def _weights(corners_M32: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(M, 3) barycentric weights of points x, y (M,)."""
    (ax, ay), (bx, by), (cx, cy) = (corner.unbind(-1) for corner in corners_M32.unbind(-2))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    second = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
    third = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
    return torch.stack([1 - second - third, second, third], dim=-1)


def _nearest(
    vertices_TV3: Tensor, triangles_F3: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(M,) each: frame, pixel and triangle of the covered pixels."""
    corners_N33 = vertices_TV3[:, triangles_F3].flatten(0, 1)
    (ax, ay), (bx, by), (cx, cy) = (c[:, :2].unbind(-1) for c in corners_N33.unbind(1))
    area_N = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    limit = corners_N33.new_tensor([width, height])
    low_N2 = (corners_N33[..., :2].amin(dim=1).clamp(min=0).minimum(limit) - 0.5).ceil().long()
    high_N2 = (corners_N33[..., :2].amax(dim=1).clamp(min=0).minimum(limit) - 0.5).floor().long()
    extent_N2 = (high_N2 - low_N2 + 1).clamp(min=0)
    extent_N2 = extent_N2 * (area_N < -1e-9)[:, None]  # y points down: outside is negative
    count_N = extent_N2.prod(dim=1)

    # Every pixel of every bounding box.
    piece_K = torch.repeat_interleave(count_N)
    first_N = count_N.cumsum(0) - count_N
    place_K = torch.arange(len(piece_K), device=piece_K.device) - first_N[piece_K]
    across_K = extent_N2[piece_K, 0]
    column_K = low_N2[piece_K, 0] + place_K % across_K
    row_K = low_N2[piece_K, 1] + place_K // across_K
    weights_K3 = _weights(corners_N33[piece_K][..., :2], column_K + 0.5, row_K + 0.5)
    inside = (weights_K3 >= -1e-6).all(dim=1)  # the tolerance closes seams between neighbours
    piece_K, weights_K3 = piece_K[inside], weights_K3[inside]
    pixel_K = (row_K * width + column_K)[inside]
    frame_K = piece_K // len(triangles_F3)
    depth_K = (weights_K3 * corners_N33[piece_K][..., 2]).sum(dim=1)

    # The nearest of each pixel's; of two as near, the later one.
    size = len(vertices_TV3) * height * width
    slot_K = frame_K * (height * width) + pixel_K
    nearest = torch.full((size,), torch.inf, dtype=depth_K.dtype, device=depth_K.device)
    nearest = nearest.scatter_reduce(0, slot_K, depth_K, "amin")
    front = depth_K <= nearest[slot_K]
    chosen = torch.full((size,), -1, dtype=torch.long, device=depth_K.device)
    triangle_K = (piece_K % len(triangles_F3))[front]
    chosen = chosen.scatter_reduce(0, slot_K[front], triangle_K, "amax")
    covered = (chosen >= 0).nonzero()[:, 0]
    return covered // (height * width), covered % (height * width), chosen[covered]


def vertex_normals(vertices_TV3: Tensor, triangles_F3: Tensor) -> Tensor:
    """(T, V, 3) unit vectors outwards: the mean of the triangles around, weighted by their area."""
    a, b, c = vertices_TV3[:, triangles_F3].unbind(2)
    flat_TF3 = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices_TV3)
    for corner in triangles_F3.unbind(1):
        normals = normals.index_add(1, corner, flat_TF3)
    return F.normalize(normals, dim=-1, eps=1e-9)


def harmonics(normals: Tensor) -> Tensor:
    """(..., 9): real spherical harmonics up to the second order at unit vectors (..., 3)."""
    x, y, z = normals.unbind(-1)
    rows = [
        torch.full_like(x, _BAND0),
        _BAND1 * y,
        _BAND1 * z,
        _BAND1 * x,
        _XY * x * y,
        _XY * y * z,
        _Z2 * (3 * z * z - 1),
        _XY * x * z,
        _X2Y2 * (x * x - y * y),
    ]
    return torch.stack(rows, dim=-1)


def light_direction(illumination_T27: Tensor) -> Tensor:
    """(T, 3): unit vectors towards where most light comes from, x right, y up, z to the viewer.

    The first-order part of an illumination's luminance; nothing but noise where the light is even
    from all sides.
    """
    luminance = illumination_T27.unflatten(-1, (9, 3)) @ illumination_T27.new_tensor(
        [0.299, 0.587, 0.114]
    )
    return F.normalize(luminance[..., [3, 1, 2]], dim=-1, eps=1e-9)


def sample(texture_CHW: Tensor, uv_M2: Tensor) -> Tensor:
    """(M, C): a texture read at places in [0, 1], linearly; differentiable by both."""
    grid = (uv_M2 * 2 - 1).view(1, -1, 1, 2)
    values = F.grid_sample(
        texture_CHW[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, :, :, 0].T
