"""Where the pixels of one picture are found in another of the same person: dense warps, and those
of faces.

Batched, on any device, and differentiable in the points of both pictures; only which triangle of a
face lies in front at each pixel is decided outside the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import faces
from vidsynth.facemesh import load_face_mesh
from vidsynth.raster import visible_triangles

# T frames, N points, F triangles, A anchors, H, W pixels; h, w those of a coarser grid


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """How to bring one picture to the pose of another."""

    flow_T2HW: Tensor
    """x then y displacement in pixels, from a pixel of the pose that is wanted to where the known
    picture shows the same: what `blocks.warp` takes."""
    valid_T1HW: Tensor
    """In [0, 1]: how sure it is that the known picture shows it at all."""


# Faces

FINE_PX = 192
"""Larger pictures have their mesh drawn at half the resolution: a flow is smooth."""
SURE_SHRUNK = 0.5
"""A triangle at least this share of its wanted area in the known picture, or a limb of its
length, is shown well enough."""
AROUND = 0.5
"""How sure anything beyond the mesh is: hair, neck and background have no landmarks."""
SKULL_FROM = -3.0
"""Centimetres: what of the face's outline lies above this is backed by skull."""
SKULL_RINGS = ((1.4, 5.0),)
"""Times the outline's size, and centimetres behind it."""
NUM_POINTS = 478
"""Of a face: its mesh, then two irises."""
_OUTSIDE_CELL = 8
_EDGE_ANCHORS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A face in a picture: its mesh, and the pose of the head that carries it."""

    landmarks_TN3: Tensor
    """N = 478: x and y in pixels; z smaller is nearer."""
    rotation_T33: Tensor
    """Canonical face to picture axes, as in `FaceSequence`."""
    translation_T2: Tensor
    """Pixels."""
    scale_T: Tensor
    """Pixels per centimetre."""

    def carried(self, points_A3: Tensor) -> Tensor:
        """Where points that are fixed to the head, in centimetres, appear: (T, A, 2) pixels."""
        turned = points_A3 @ self.rotation_T33[:, :2].mT
        return self.scale_T[:, None, None] * turned + self.translation_T2[:, None]


def face_warp(known: Head, wanted: Head, height: int, width: int) -> Warp:
    """From a face's mesh in two pictures.

    On the mesh each triangle is an affine map. Around it displacements are interpolated from the
    face's outline, a skull that moves rigidly with the head (ears, hair), and the picture's edge,
    which stays (Shepard 1968, "A two-dimensional interpolation function for irregularly-spaced
    data").

    Args:
        known: T frames of the picture that is there.
        wanted: T frames of the pose that is wanted.
        height, width: of both pictures.
    """
    known_TN3, wanted_TN3 = _with_iris_edges(known.landmarks_TN3, wanted.landmarks_TN3)
    coarse = 2 if min(height, width) >= FINE_PX else 1
    h, w = -(-height // coarse), -(-width // coarse)
    inside_T2hw, sure_T1hw, covered_T1hw = _on_mesh(known_TN3, wanted_TN3, h, w, height, width)
    around_T2hw = _around(known, wanted, h, w, height, width)
    flow_T2hw = torch.where(covered_T1hw, inside_T2hw, around_T2hw)
    sure_T1hw = torch.where(covered_T1hw, sure_T1hw, AROUND)
    return full_size(flow_T2hw, sure_T1hw, height, width)


def _on_mesh(
    known_TN3: Tensor, wanted_TN3: Tensor, h: int, w: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Displacement (T, 2, h, w) in pixels, certainty and coverage (T, 1, h, w)."""
    device, triangles = wanted_TN3.device, _triangles()
    corners_F3 = torch.from_numpy(triangles).to(device)
    zoom = wanted_TN3.new_tensor([w / width, h / height, w / width])
    drawn = (wanted_TN3.detach() * zoom).cpu().numpy()
    shown_Thw = torch.from_numpy(_visible(drawn, h, w)).to(device)

    # Per triangle: the affine map from wanted to known pixels, and how much of it is shown.
    wanted_TF32, known_TF32 = (p[:, corners_F3][..., :2] for p in (wanted_TN3, known_TN3))
    wanted_TF22 = (wanted_TF32[:, :, 1:] - wanted_TF32[:, :, :1]).mT
    known_TF22 = (known_TF32[:, :, 1:] - known_TF32[:, :, :1]).mT
    area_TF, seen_area_TF = determinant(wanted_TF22), determinant(known_TF22)
    area_TF = torch.where(area_TF.abs() < 1e-6, 1e-6, area_TF)
    linear_TF22 = known_TF22 @ adjugate(wanted_TF22) / area_TF[..., None, None]
    offset_TF2 = known_TF32[:, :, 0] - (linear_TF22 @ wanted_TF32[:, :, 0, :, None])[..., 0]
    sure_TF = (seen_area_TF / area_TF / SURE_SHRUNK).clamp(0, 1)
    of_TF7 = torch.cat([linear_TF22.flatten(2), offset_TF2, sure_TF[..., None]], dim=2)

    # Rows of one table, since gathering whole rows is many times faster than numbers.
    frame_T11 = torch.arange(len(shown_Thw), device=device)[:, None, None] * len(triangles)
    row_Thw = shown_Thw.clamp_min(0) + frame_T11
    a, b, c, d, x0, y0, sure_Thw = of_TF7.flatten(0, 1)[row_Thw.flatten()].unbind(1)
    x, y = centres(h, w, height, width, wanted_TN3).expand(len(shown_Thw), -1, -1, -1).unbind(3)
    x, y = x.flatten(), y.flatten()
    flow_2Thw = torch.stack([a * x + b * y + x0 - x, c * x + d * y + y0 - y])
    flow_T2hw = flow_2Thw.view(2, *shown_Thw.shape).transpose(0, 1)
    return flow_T2hw, sure_Thw.view_as(shown_Thw)[:, None], (shown_Thw >= 0)[:, None]


def _visible(points_TN3: NDArray[np.float32], h: int, w: int) -> NDArray[np.int64]:
    """(T, h, w) triangle in front, -1 for none; a pose that is repeated is drawn once."""
    shown: list[NDArray[np.int64]] = []
    for t, points in enumerate(points_TN3):
        if t and np.array_equal(points, points_TN3[t - 1]):
            shown.append(shown[-1])
        else:
            shown.append(visible_triangles(points, _triangles(), h, w))
    return np.stack(shown)


def _with_iris_edges(known_TN3: Tensor, wanted_TN3: Tensor) -> tuple[Tensor, Tensor]:
    """Both faces with a point more for each of a lid, where the line from the iris's centre to it
    leaves the iris: that is moved as a disc, and only the white around it is stretched.

    Where the lids cut the disc off, the point is where they do. The known picture then shows as
    much of its own iris there as its lids leave.
    """
    known, wanted = [known_TN3], [wanted_TN3]
    for lids, iris in faces.EYES:
        to, there = (_Iris.of(points, lids, iris) for points in (wanted_TN3, known_TN3))
        edge_TL1 = torch.minimum(to.reach_TL1, to.radius_T11)
        shown_TL1 = torch.minimum(edge_TL1 * there.radius_T11 / to.radius_T11, there.reach_TL1)
        turned_TL2 = to.towards_TL2 @ _turn(to.towards_TL2, there.towards_TL2)
        wanted.append(to.centre_T13 + F.pad(edge_TL1 * to.towards_TL2, (0, 1)))
        known.append(there.centre_T13 + F.pad(shown_TL1 * turned_TL2, (0, 1)))
    return torch.cat(known, dim=1), torch.cat(wanted, dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Iris:
    """An iris in a picture, and where its lids are from there."""

    centre_T13: Tensor
    radius_T11: Tensor
    reach_TL1: Tensor
    """Pixels from the centre to each point of the lids."""
    towards_TL2: Tensor
    """Unit vectors."""

    @staticmethod
    def of(points_TN3: Tensor, lids: tuple[int, ...], iris: tuple[int, ...]) -> _Iris:
        centre_T13 = points_TN3[:, iris[:1]]
        away_TN2 = (points_TN3 - centre_T13)[..., :2]
        apart_TN1 = away_TN2.square().sum(dim=2, keepdim=True).add(1e-6).sqrt()
        return _Iris(
            centre_T13=centre_T13,
            radius_T11=apart_TN1[:, iris[1:]].mean(dim=1, keepdim=True),
            reach_TL1=apart_TN1[:, lids],
            towards_TL2=(away_TN2 / apart_TN1)[:, lids],
        )


def _turn(these_TL2: Tensor, those_TL2: Tensor) -> Tensor:
    """(T, 2, 2): what turns rows of directions to others, as nearly as one turn can."""
    both_T22 = these_TL2.mT @ those_TL2
    cosine_T, sine_T = both_T22[:, 0, 0] + both_T22[:, 1, 1], both_T22[:, 0, 1] - both_T22[:, 1, 0]
    turn_T22 = torch.stack([cosine_T, sine_T, -sine_T, cosine_T], dim=1).unflatten(1, (2, 2))
    return turn_T22 / (cosine_T.square() + sine_T.square() + 1e-12).sqrt()[:, None, None]


@cache
def _triangles() -> NDArray[np.int64]:
    """(F, 3): the face mesh, in which each eye is an iris and a ring of white, so that gaze
    follows; with the points of `_with_iris_edges`."""
    triangles = load_face_mesh().triangles.astype(np.int64)
    eyes: list[tuple[int, int, int]] = []
    edge = NUM_POINTS
    for lids, iris in faces.EYES:
        triangles = triangles[~np.isin(triangles, lids).all(axis=1)]
        count = len(lids)
        for k, after in pairwise([*range(count), 0]):
            eyes += [
                (iris[0], edge + k, edge + after),
                (edge + k, lids[k], lids[after]),
                (edge + k, lids[after], edge + after),
            ]
        edge += count
    return np.concatenate([triangles, np.array(eyes)])


def _around(known: Head, wanted: Head, h: int, w: int, height: int, width: int) -> Tensor:
    """Displacement beyond the mesh: (T, 2, h, w) pixels."""
    outlines = [head.landmarks_TN3[:, list(faces.OVAL), :2] for head in (known, wanted)]
    skull_A3 = _skull().to(outlines[0])
    skulls = [head.carried(skull_A3) for head in (known, wanted)]
    edge_TA2 = _edge(height, width, outlines[0]).expand(len(outlines[0]), -1, -1)
    anchors = [outlines[1], skulls[1], edge_TA2]
    moves = [outlines[0] - outlines[1], skulls[0] - skulls[1], torch.zeros_like(edge_TA2)]
    at_TA2, move_TA2 = torch.cat(anchors, dim=1), torch.cat(moves, dim=1)

    rows, columns = -(-h // _OUTSIDE_CELL) + 1, -(-w // _OUTSIDE_CELL) + 1
    place_G2 = centres(rows, columns, height, width, edge_TA2).flatten(0, 1)
    nearness_TGA = 1 / (torch.cdist(place_G2.expand(len(at_TA2), -1, -1), at_TA2) + 1.0) ** 3
    share_TGA = nearness_TGA / nearness_TGA.sum(dim=2, keepdim=True)
    coarse = (share_TGA @ move_TA2).mT.unflatten(2, (rows, columns))
    return F.interpolate(coarse, (h, w), mode="bilinear")


@cache
def _skull() -> Tensor:
    """(A, 3) centimetres: rings round the upper face, further out and further back."""
    outline = torch.from_numpy(load_face_mesh().vertices[list(faces.OVAL)])
    upper = outline[outline[:, 1] > SKULL_FROM]
    middle = outline.mean(dim=0)
    rings = []
    for grown, back in SKULL_RINGS:
        ring = middle + grown * (upper - middle)
        ring[:, 2] -= back
        rings.append(ring)
    return torch.cat(rings)


def _edge(height: int, width: int, like: Tensor) -> Tensor:
    """(A, 2) points along the picture's edge."""
    along = torch.linspace(0, 1, _EDGE_ANCHORS + 1, device=like.device, dtype=like.dtype)[:-1]
    zero, one = torch.zeros_like(along), torch.ones_like(along)
    sides = [(along, zero), (one, along), (1 - along, one), (zero, 1 - along)]
    unit = torch.cat([torch.stack(side, dim=-1) for side in sides])
    return unit * unit.new_tensor([width, height])


# Plane geometry


def determinant(matrix: Tensor) -> Tensor:
    """Of (..., 2, 2)."""
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def adjugate(matrix: Tensor) -> Tensor:
    """Of (..., 2, 2): the inverse times the determinant."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    return torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)


def centres(rows: int, columns: int, height: int, width: int, like: Tensor) -> Tensor:
    """(rows, columns, 2): x, y of the cells' centres in pixels of a (height, width) picture."""
    y = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) * (height / rows)
    x = (torch.arange(columns, device=like.device, dtype=like.dtype) + 0.5) * (width / columns)
    return torch.stack(torch.broadcast_tensors(x, y[:, None]), dim=-1)


def full_size(flow_T2hw: Tensor, sure_T1hw: Tensor, height: int, width: int) -> Warp:
    """At the picture's resolution; what would be read beyond its edge is not there."""
    both = torch.cat([flow_T2hw, sure_T1hw], dim=1)
    if both.shape[2:] != (height, width):
        both = F.interpolate(both, (height, width), mode="bilinear")
    flow_T2HW, sure_T1HW = both[:, :2], both[:, 2:]
    place = centres(height, width, height, width, flow_T2HW).permute(2, 0, 1) + flow_T2HW
    limit = place.new_tensor([width, height])[:, None, None]
    beyond = torch.maximum(-place, place - limit).amax(dim=1, keepdim=True)
    return Warp(flow_T2HW, sure_T1HW * (1 - beyond).clamp(0, 1))
