"""Textured, skinned meshes and how they are lit: what both the puppet and the head are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vidsynth.raster import rasterise
from vidsynth.worlds.texture import floats

# V vertices, F triangles, R rings, S points of a ring, N bones, H, W pixels

Array = NDArray[np.float32]
SUPERSAMPLING = 2
"""Figures are drawn at this multiple of the picture's size and averaged: smooth outlines."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A piece of surface at rest, with the picture on it and the bones that carry it."""

    vertices: Array
    """(V, 3) x right, y up, z towards the viewer."""
    normals: Array
    """(V, 3) unit length, outwards."""
    uv: Array
    """(V, 2) in [0, 1], v down from the texture's top row."""
    triangles: NDArray[np.int32]
    """(F, 3)."""
    texture: Array
    """(h, w, 3) RGB in [0, 255]."""
    bones: NDArray[np.int32]
    """(V, 2): each vertex moves with two bones..."""
    blend: Array
    """(V,): ...with this much of the second."""
    gloss: float = 0.0
    """Strength of the highlight, 0 (cloth) to 1 (wet)."""
    closed: bool = True
    """The inside is never seen, so that what faces away need not be drawn."""


def smoothstep(low: float, high: float, x: NDArray[np.floating]) -> Array:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def unit(vectors: NDArray[np.floating]) -> Array:
    """The last axis scaled to length 1."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return (vectors / np.maximum(length, 1e-9)[..., None]).astype(np.float32)


def sheet(
    points_RS3: NDArray[np.floating],
    texture: Array,
    *,
    bone: int = 0,
    gloss: float = 0.0,
    closed: bool = True,
) -> Part:
    """A grid of points as a surface; u runs along S, v along R. A first column repeated as the last
    closes it. Normals point to the side from which u runs to the right and v down.
    """
    rings, sides, _ = points_RS3.shape
    along = np.gradient(points_RS3, axis=0)
    if np.allclose(points_RS3[:, 0], points_RS3[:, -1]):
        wrapped = np.concatenate([points_RS3[:, -2:-1], points_RS3, points_RS3[:, 1:2]], axis=1)
        around = (wrapped[:, 2:] - wrapped[:, :-2]) / 2
    else:
        around = np.gradient(points_RS3, axis=1)
    # A pole has no direction around: borrow the next ring's.
    for pole, beside in ((0, 1), (-1, -2)):
        if np.ptp(points_RS3[pole], axis=0).max() < 1e-6:
            around[pole] = around[beside]
    r, s = np.mgrid[: rings - 1, : sides - 1]
    a, b = r * sides + s, (r + 1) * sides + s
    quads = np.stack([np.stack([a, b, b + 1], -1), np.stack([a, b + 1, a + 1], -1)])
    v, u = np.mgrid[:rings, :sides]
    count = rings * sides
    return Part(
        vertices=points_RS3.reshape(-1, 3).astype(np.float32),
        normals=unit(np.cross(along, around)).reshape(-1, 3),
        uv=np.stack([u / (sides - 1), v / (rings - 1)], -1).reshape(-1, 2).astype(np.float32),
        triangles=quads.reshape(-1, 3).astype(np.int32),
        texture=texture,
        bones=np.full((count, 2), bone, np.int32),
        blend=np.zeros(count, np.float32),
        gloss=gloss,
        closed=closed,
    )


def tube(
    path_R3: NDArray[np.floating],
    radii_R2: NDArray[np.floating],
    texture: Array,
    *,
    sides: int = 12,
    bone: int = 0,
    gloss: float = 0.0,
    round_ends: tuple[bool, bool] = (False, False),
) -> Part:
    """A tube with elliptic rings (radius along x, along z) around a path that runs downwards."""
    path, radii = np.asarray(path_R3, np.float32), np.asarray(radii_R2, np.float32)
    if round_ends[0]:
        path, radii = _rounded(path, radii)
    if round_ends[1]:
        path, radii = (a[::-1] for a in _rounded(path[::-1], radii[::-1]))
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([-np.sin(angle), 0 * angle, -np.cos(angle)], -1)  # starts at the back
    scale = np.stack([radii[:, 0], 0 * radii[:, 0], radii[:, 1]], -1)
    return sheet(path[:, None] + scale[:, None] * ring, texture, bone=bone, gloss=gloss)


def _rounded(path: Array, radii: Array) -> tuple[Array, Array]:
    """A dome of three rings before the first one."""
    outwards = unit(path[0] - path[1]) * radii[0].mean()
    angle = np.deg2rad([90, 60, 30])[:, None]
    return (
        np.concatenate([path[0] + np.sin(angle) * outwards, path]).astype(np.float32),
        np.concatenate([np.cos(angle) * radii[0], radii]).astype(np.float32),
    )


def ball(
    centre: Sequence[float],
    radii: Sequence[float],
    texture: Array,
    *,
    bone: int = 0,
    rings: int = 8,
) -> Part:
    """An ellipsoid."""
    polar = np.linspace(0, np.pi, rings)
    path = np.array([0, 1, 0]) * np.cos(polar)[:, None] * radii[1] + np.asarray(centre)
    across = floats(np.outer(np.sin(polar), (radii[0], radii[2])))
    return tube(path, across, texture, sides=10, bone=bone)


def bend(part: Part, second: int, share: NDArray[np.floating]) -> Part:
    """Let `share` (V,) of each vertex move with the bone `second`."""
    bones = part.bones.copy()
    bones[:, 1] = second
    return replace(part, bones=bones, blend=np.asarray(share, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """All parts joined, with one texture for all."""

    vertices: Array
    normals: Array
    uv: Array
    """(V, 2) pixels of `atlas`."""
    triangles: NDArray[np.int32]
    bones: NDArray[np.int32]
    blend: Array
    gloss: Array
    closed: NDArray[np.bool_]
    """(F,)."""
    atlas: Array
    """(h, w, 3) RGB in [0, 255]: the parts' textures below one another."""

    @staticmethod
    def joined(parts: Sequence[Part]) -> Figure:
        width = max(p.texture.shape[1] for p in parts)
        offset, top = 0, 0
        triangles, uvs, rows = [], [], []
        for part in parts:
            height, own_width = part.texture.shape[:2]
            uvs.append(part.uv * (own_width - 1, height - 1) + (0, top))
            triangles.append(part.triangles + offset)
            rows.append(np.pad(part.texture, ((0, 0), (0, width - own_width), (0, 0)), "edge"))
            offset, top = offset + len(part.vertices), top + height
        gloss = [np.full(len(p.vertices), p.gloss, np.float32) for p in parts]
        return Figure(
            vertices=np.concatenate([p.vertices for p in parts]),
            normals=np.concatenate([p.normals for p in parts]),
            uv=np.concatenate(uvs).astype(np.float32),
            triangles=np.concatenate(triangles).astype(np.int32),
            bones=np.concatenate([p.bones for p in parts]),
            blend=np.concatenate([p.blend for p in parts]),
            gloss=np.concatenate(gloss),
            closed=np.concatenate([np.full(len(p.triangles), p.closed) for p in parts]),
            atlas=np.concatenate(rows).astype(np.float32),
        )

    def posed(self, rotation_N33: Array, shift_N3: Array) -> tuple[Array, Array]:
        """Vertices and normals after each bone has moved its part: x -> rotation x + shift.

        Linear blend skinning: a vertex of two bones goes to the mean of where each takes it.
        """
        share = self.blend[:, None]
        first, second = self.bones.T
        rotation = (1 - share[:, None]) * rotation_N33[first] + share[:, None] * rotation_N33[
            second
        ]
        shift = (1 - share) * shift_N3[first] + share * shift_N3[second]
        vertices = np.einsum("vij,vj->vi", rotation, self.vertices) + shift
        return vertices, unit(np.einsum("vij,vj->vi", rotation, self.normals))


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp and the light of the room; colours are multipliers of RGB."""

    towards: tuple[float, float, float] = (-0.45, 0.65, 0.6)
    """Direction from the figure to the lamp."""
    lamp: tuple[float, float, float] = (0.62, 0.60, 0.56)
    room: tuple[float, float, float] = (0.52, 0.53, 0.56)


def draw(
    figure: Figure, projected: Array, normals: Array, light: Light, height: int, width: int
) -> tuple[Array, Array]:
    """A lit picture of a posed figure.

    Args:
        figure: what to draw.
        projected: (V, 3) x right and y down in pixels, z depth, smaller nearer, in pixels too.
        normals: (V, 3) in scene axes (y up, z towards the viewer).
        light: of the scene.
        height: of the picture in pixels.
        width: of the picture in pixels.

    Returns:
        RGB in [0, 255] multiplied by coverage (H, W, 3), and coverage in [0, 1] (H, W, 1).
    """
    n = SUPERSAMPLING
    colour = np.zeros((height, width, 3), np.float32)
    coverage = np.zeros((height, width, 1), np.float32)
    # Only the box around the figure is rasterised; its corners are whole pixels of the picture.
    low = np.clip(np.floor(projected[:, :2].min(0)).astype(int) - 1, 0, (width, height))
    high = np.clip(np.ceil(projected[:, :2].max(0)).astype(int) + 1, low, (width, height))
    small = (int(high[0] - low[0]), int(high[1] - low[1]))
    if not all(small):
        return colour, coverage
    local = floats((projected - (*low, 0)) * n)
    triangles = figure.triangles[~figure.closed | _facing(local[figure.triangles])]
    attributes = np.concatenate([figure.uv, _shades(normals, figure.gloss, light)], axis=1)
    image, mask, depth = rasterise(local, triangles, attributes, small[1] * n, small[0] * n)
    seen = mask.astype(np.float32)
    texture = cv2.remap(
        figure.atlas,
        image[..., 0],
        image[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    lit = texture * image[..., 2:5] + image[..., 5:]
    lit *= (seen * _occlusion(depth, seen))[..., None]
    box = slice(low[1], high[1]), slice(low[0], high[0])
    colour[box] = cv2.resize(np.minimum(lit, 255), small, interpolation=cv2.INTER_AREA)
    coverage[box] = cv2.resize(seen, small, interpolation=cv2.INTER_AREA)[..., None]
    return colour, coverage


def _facing(corners_F33: Array) -> NDArray[np.bool_]:
    """(F,) triangles whose corners run counter-clockwise as seen in the picture."""
    a, b, c = corners_F33[..., :2].transpose(1, 2, 0)
    return (b[0] - a[0]) * (c[1] - a[1]) < (b[1] - a[1]) * (c[0] - a[0])


def _shades(normals: Array, gloss: Array, light: Light) -> Array:
    """(V, 4): what the light multiplies the texture's RGB by, and the highlight it adds."""
    normals = normals * np.where(normals[:, 2:] < 0, floats(-1), floats(1))  # open surfaces' inside
    towards = unit(floats(light.towards))
    facing = np.clip((normals @ towards + 0.25) / 1.25, 0, 1)  # wrapped: a soft terminator
    sky = 0.75 + 0.25 * normals[:, 1]
    shine = 140 * gloss * np.clip(normals @ unit(towards + floats((0, 0, 1))), 0, 1) ** 24
    lit = np.outer(facing, light.lamp) + np.outer(sky, light.room)
    return floats(np.concatenate([lit, shine[:, None]], axis=1))


def _occlusion(depth: Array, seen: Array) -> Array:
    """Darker where the surroundings are nearer to the viewer: arms shade the body behind them."""
    step = 2  # of a smooth thing, half the resolution is enough
    depth, seen = depth[::step, ::step], seen[::step, ::step]
    size = max(3, round(0.035 * max(seen.shape)) | 1)
    known = np.where(seen > 0, depth, 0)
    around = cv2.blur(known, (size, size)) / np.maximum(cv2.blur(seen, (size, size)), 1e-3)
    behind = np.where(seen > 0, known - around, 0) / (size * step)
    shade = floats(1 - 0.35 * np.clip(behind * 1.5, 0, 1))
    return floats(cv2.resize(shade, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR))
