"""What a face looks like: its texture and the light on it, taken apart.

A pixel of skin is albedo times irradiance; irradiance is nine spherical harmonics of the normal per
colour (Ramamoorthi and Hanrahan 2001). Colours are those of the picture in [0, 1], as filmed: no
gamma is undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import faces
from vidsynth.facemesh import load_face_mesh
from vidsynth_plugins.face3d.fitting import Performance, Person, project
from vidsynth_plugins.face3d.model import NUM_MESH
from vidsynth_plugins.face3d.rendering import harmonics, rasterise, vertex_normals

# T frames, V vertices, F triangles, N texels, S side of a crop, C channels

TEXTURE_PX = 128
CROP_PX = 96
CROP_MARGIN = 0.12
"""Of the face's larger side, on each side of it."""
LEAST_FACING = 0.25
"""Cosine between normal and view below which skin is seen too much from the side to be read."""
LIGHT_CALM, FINE_LIGHT_CALM = 0.005, 0.1
"""How much a light of no direction counts, against all that is seen of the face, in its first and
in its second order."""
STEADY_LIGHT = 2.0
"""How much the light of all frames counts for each frame, against what is seen in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Square cut-outs of the frames around the face, all of one size."""

    images: Tensor
    """(T, 3, S, S) float32 in [0, 1]."""
    inside: Tensor
    """(T, 1, S, S) float32: 1 where the frame has a pixel there."""
    corner: Tensor
    """(T, 2) float64: where each begins, in pixels of the frame."""
    zoom: Tensor
    """(T,) float64: pixels of the crop per pixel of the frame."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: slice | Tensor) -> Crops:
        return Crops(self.images[key], self.inside[key], self.corner[key], self.zoom[key])

    @staticmethod
    def concat(parts: list[Crops]) -> Crops:
        return Crops(*(torch.cat([getattr(p, n) for p in parts]) for n in Crops.__slots__))

    def enter(self, seen: Performance) -> Performance:
        """The same performance in pixels of the crops."""
        place = (seen.translation - self.corner) * self.zoom[:, None]
        return replace(seen, scale=seen.scale * self.zoom, translation=place)

    def leave(self, seen: Performance) -> Performance:
        """The inverse of `enter`."""
        place = seen.translation / self.zoom[:, None] + self.corner
        return replace(seen, scale=seen.scale / self.zoom, translation=place)

    def landmarks(self, landmarks_TV3: Tensor) -> Tensor:
        """(T, 478, 3) in pixels of the crops."""
        moved = landmarks_TV3.double().clone()
        moved[..., :2] -= self.corner[:, None]
        return moved * self.zoom[:, None, None]

    def halved(self) -> Crops:
        """At half the size."""
        images, inside = (F.avg_pool2d(x, 2) for x in (self.images, self.inside))
        return Crops(images, inside, self.corner, self.zoom / 2)


def cut_crops(frames_T3HW: Tensor, landmarks_TV3: Tensor, size: int = CROP_PX) -> Crops:
    """Around each frame's face, area-averaged to size x size; beyond the frame its edge repeats.

    Args:
        frames_T3HW: uint8.
        landmarks_TV3: (T, 478, 3) pixels.
        size: S.
    """
    height, width = frames_T3HW.shape[2:]
    points = landmarks_TV3[:, :NUM_MESH, :2].double().cpu().numpy()
    low, high = points.min(axis=1), points.max(axis=1)
    sides = np.maximum(np.ceil((high - low).max(axis=1) * (1 + 2 * CROP_MARGIN)), 8).astype(int)
    corners = np.floor((low + high - sides[:, None]) / 2).astype(int)
    count = len(frames_T3HW)
    images = np.empty((count, size, size, 3), np.uint8)
    inside = np.empty((count, size, size), np.float32)
    for t, ((x0, y0), side) in enumerate(zip(corners.tolist(), sides.tolist(), strict=True)):
        x, y = np.arange(x0, x0 + side), np.arange(y0, y0 + side)
        rows, columns = y.clip(0, height - 1), x.clip(0, width - 1)
        cut = frames_T3HW[t][:, torch.from_numpy(rows)][:, :, torch.from_numpy(columns)]
        picture = np.ascontiguousarray(cut.permute(1, 2, 0).cpu().numpy())
        how = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
        images[t] = cv2.resize(picture, (size, size), interpolation=how)
        there = np.outer(rows == y, columns == x).astype(np.float32)
        inside[t] = cv2.resize(there, (size, size), interpolation=how)
    return Crops(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
        inside=torch.from_numpy(inside)[:, None],
        corner=torch.from_numpy(corners.astype(np.float64)),
        zoom=torch.from_numpy(size / sides.astype(np.float64)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """What a person's face looks like, and the light it was seen in."""

    texture: Tensor
    """(3, N, N) float32: albedo over the mesh's texture coordinates; 1 is as bright as the face is
    on average under the light."""
    certainty: Tensor
    """(1, N, N) float32 in [0, 1]: how well the frames agree on it; 0 where it was never seen."""
    illumination: Tensor
    """(27,) float32: nine harmonics times three colours, of all frames together."""


class Texels(NamedTuple):
    """Which point of the mesh each texel shows."""

    corners: Tensor
    """(N, 3) int64 vertices."""
    weights: Tensor
    """(N, 3) float32."""
    place: Tensor
    """(N,) int64: row * TEXTURE_PX + column."""

    def of(self, attributes_TVA: Tensor) -> Tensor:
        """(T, N, A)."""
        return (self.weights[..., None] * attributes_TVA[:, self.corners]).sum(dim=2)


@cache
def skin_triangles() -> Tensor:
    """(F, 3) int64: the mesh with holes for the eyes and the mouth."""
    triangles = load_face_mesh().triangles
    holes = np.zeros(len(triangles), bool)
    for ring in (faces.RIGHT_EYE, faces.LEFT_EYE, faces.LIPS_INNER):
        holes |= np.isin(triangles, ring).all(axis=1)
    return torch.from_numpy(triangles[~holes].astype(np.int64))


@cache
def texture_coordinates() -> Tensor:
    """(468, 2) float32 in [0, 1]."""
    return torch.from_numpy(load_face_mesh().uv.copy())


@cache
def texels() -> Texels:
    """Of a texture of TEXTURE_PX: those that the skin covers."""
    flat = F.pad(texture_coordinates() * TEXTURE_PX, (0, 1))[None]
    triangles = skin_triangles()
    shown = rasterise(flat, triangles, TEXTURE_PX, TEXTURE_PX)
    return Texels(triangles[shown.triangle], shown.weights, shown.pixel)


class Readings(NamedTuple):
    """What the crops show at each texel."""

    colours: Tensor
    """(T, N, 3) float32."""
    weights: Tensor
    """(T, N) float32: how squarely it faces the camera; 0 where it is not seen."""
    harmonics: Tensor
    """(T, N, 9) float32 of its normal."""


def read(crops: Crops, person: Person, seen: Performance) -> Readings:
    """The crops at each texel; `seen` in pixels of the crops."""
    points = project(person, seen)[:, :NUM_MESH].float()
    normals = texels().of(camera_normals(points))
    normals = F.normalize(normals, dim=-1)
    place = texels().of(points[..., :2])
    side = crops.images.shape[-1]
    grid = (place / side * 2 - 1)[:, :, None]
    pictures = torch.cat([crops.images, crops.inside], dim=1)
    values = F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)[..., 0].mT
    facing = (normals[..., 2] - LEAST_FACING).clamp(min=0)
    return Readings(values[..., :3], facing * (values[..., 3] > 0.99), harmonics(normals))


def camera_normals(points_TV3: Tensor) -> Tensor:
    """(T, 468, 3): normals with x right, y up, z to the viewer, of points in picture axes."""
    upright = points_TV3 * points_TV3.new_tensor([1.0, -1.0, -1.0])
    return vertex_normals(upright, all_triangles())


@cache
def all_triangles() -> Tensor:
    """(F, 3) int64: the whole mesh."""
    return torch.from_numpy(load_face_mesh().triangles.astype(np.int64))


def estimate_appearance(readings: Readings, *, rounds: int = 2) -> Appearance:
    """Albedo and light of all frames, by least squares in turns.

    Faces are taken to be alike on both sides, and skin to be of one colour, as far as the frames
    leave it open: light from the left and a dark left cheek look the same otherwise.
    """
    colours, weights, basis = readings
    mean = (weights[..., None] * colours).sum((0, 1)) / weights.sum().clamp(min=1e-6)
    albedo = mean.expand(colours.shape[1], 3)
    light = _light(readings, albedo)
    seen = weights[..., None]
    for _ in range(rounds):
        shade = basis @ light
        top = (seen * colours * shade).sum(dim=0) + 0.5 * mean * _STUBBORN * len(colours)
        bottom = (seen * shade.square()).sum(dim=0) + 0.5 * _STUBBORN * len(colours)
        albedo = top / bottom
        light = _light(readings, _balanced(albedo))
    # Brightness is the light's: the face is 1 on average where it is seen.
    shade = basis @ light
    made = (albedo * shade - colours).square().mean(dim=-1)
    doubt = (weights * made).sum(dim=0) / weights.sum(dim=0).clamp(min=1e-6)
    sure = (weights.sum(dim=0) > 0.02 * len(colours)) / (1 + doubt / _NOISE**2)
    return Appearance(
        texture=_as_texture(albedo),
        certainty=_as_texture(sure[:, None]),
        illumination=light.flatten(),
    )


_STUBBORN = 0.1
_NOISE = 0.06


def frame_lights(readings: Readings, appearance: Appearance) -> Tensor:
    """(T, 27): the light of each frame: as bright as it is there, near that of all in its kind."""
    albedo = appearance.texture.flatten(1)[:, texels().place].T
    matrix, vector = _light_equations(readings, albedo, each=True)
    common = appearance.illumination.view(9, 3).T[..., None]  # (3, 9, 1)
    # A lamp that is dimmed, or a camera that adapts, changes all of it at once.
    wanted, had = common.mT @ vector, common.mT @ matrix @ common
    common = common * ((wanted + 1e-6) / (had + 1e-6)).clamp(0.02, 50.0)  # (T, 3, 9, 1)
    calm = STEADY_LIGHT * matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-6)
    stiff = calm[..., None, None] * torch.eye(9)
    light = torch.linalg.solve(matrix + stiff, vector + stiff @ common)
    return light[..., 0].mT.flatten(1)


def resemblance(readings: Readings, appearance: Appearance, lights_T27: Tensor) -> Tensor:
    """(T,) in [-1, 1]: how far the pattern of the skin is that of the texture, whatever the light;
    1 where too little is seen to tell.

    Trackers go on finding a face in hair, or in a hand; there it is about 0.
    """
    shade = readings.harmonics @ lights_T27.unflatten(1, (9, 3))
    grey = torch.tensor([0.299, 0.587, 0.114])
    found = (readings.colours / shade.clamp(min=0.05)).clamp(max=3.0) @ grey
    known = (appearance.texture.flatten(1)[:, texels().place].T @ grey).expand_as(found)
    weight = readings.weights * appearance.certainty.flatten()[texels().place]
    blank = weight.sum(dim=1) < 1e-3
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
    found, known = (x - (weight * x).sum(dim=1, keepdim=True) for x in (found, known))
    both, one, other = ((weight * x).sum(dim=1) for x in (found * known, found**2, known**2))
    return torch.where(blank | (other < 1e-6), 1.0, both / (one * other).sqrt().clamp(min=1e-6))


def _light(readings: Readings, albedo_N3: Tensor) -> Tensor:
    """(9, 3), from plain skin; what it cannot explain there (hair, shadows) is let go."""
    chosen = _plain_skin()  # every fourth texel is plenty for 27 numbers
    plain = Readings(*(field[:, chosen] for field in readings))
    albedo_N3 = albedo_N3[chosen]
    calm = torch.diag(torch.tensor([0.0, *[LIGHT_CALM] * 3, *[FINE_LIGHT_CALM] * 5]))
    light = torch.zeros(9, 3)
    trust = torch.ones_like(plain.weights)
    for _ in range(3):
        weighed = plain._replace(weights=plain.weights * trust)
        matrix, vector = _light_equations(weighed, albedo_N3, each=False)
        light = torch.linalg.solve(matrix + calm * matrix[..., :1, :1], vector)[..., 0].T
        error = albedo_N3 * (plain.harmonics @ light) - plain.colours
        trust = 1 / (1 + error.square().sum(dim=-1) / _NOISE**2).square()
    return light


@cache
def _plain_skin() -> Tensor:
    """Every fourth texel of the middle of the face, where no hair hangs, less lips and brows."""
    canonical = torch.from_numpy(load_face_mesh().vertices.copy())
    x, y, _ = (texels().weights[..., None] * canonical[texels().corners]).sum(dim=1).unbind(1)
    plain = (x.abs() < 5.5) & (y < 7.0) & (y > -8.0)
    brows_and_eyes = (faces.LEFT_BROW, faces.RIGHT_BROW, faces.LEFT_EYE, faces.RIGHT_EYE)
    for group in (faces.LIPS_OUTER, *brows_and_eyes):
        low, high = (getattr(canonical[list(group)], f)(dim=0) for f in ("amin", "amax"))
        box = (x > low[0] - 0.4) & (x < high[0] + 0.4) & (y > low[1] - 0.3) & (y < high[1] + 0.3)
        plain &= ~box
    return plain.nonzero()[::4, 0]


def _light_equations(readings: Readings, albedo_N3: Tensor, *, each: bool) -> tuple[Tensor, Tensor]:
    """(..., 3, 9, 9) and (..., 3, 9, 1), of each frame or of all."""
    left = readings.weights[..., None] * readings.harmonics
    square = torch.stack(
        [left.mT @ (readings.harmonics * albedo[:, None].square()) for albedo in albedo_N3.T], dim=1
    )
    vector = left.mT @ (readings.colours * albedo_N3)  # (T, 9, 3)
    if not each:
        square, vector = square.sum(dim=0), vector.sum(dim=0)
    return square, vector.mT[..., None]


def _balanced(albedo_N3: Tensor) -> Tensor:
    """The mean of both halves of the face."""
    texture = _as_texture(albedo_N3)
    mirrored = texture.flip(-1)
    there = _as_texture(torch.ones(len(albedo_N3), 1))
    both = (texture + mirrored) / (there + there.flip(-1)).clamp(min=1)
    return both.flatten(1)[:, texels().place].T


def _as_texture(values_NA: Tensor) -> Tensor:
    """(A, TEXTURE_PX, TEXTURE_PX), 0 where the mesh has no skin."""
    canvas = values_NA.new_zeros(TEXTURE_PX * TEXTURE_PX, values_NA.shape[1])
    canvas = canvas.index_copy(0, texels().place, values_NA)
    return canvas.T.reshape(-1, TEXTURE_PX, TEXTURE_PX)
