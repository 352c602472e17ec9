"""The parametric head: named expressions and eyes on the canonical face mesh.

Made from the mesh alone (`vidsynth.facemesh`, Apache-2.0): no scan, no learned statistics, nothing
with another licence. Whose face it is, is a shape of 468 points; how it moves is told by
EXPRESSIONS, directions defined by hand that mean the same on everybody and are fitted to the size
of each one's mouth and eyes. Names follow the facial action coding customs of animation.

Lengths are centimetres of the canonical face: x to the right of the picture, y up, z to the viewer.
Left and right are the person's own, so that left is at positive x.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import faces
from vidsynth.facemesh import load_face_mesh

# T frames, E expressions, V vertices (468 of the mesh, then 2 x 5 of the irises)

NUM_MESH = 468
_CENTRAL = (
    "jaw_open", "jaw_side", "mouth_side", "pucker", "funnel", "lips_press", "upper_lip_raise",
    "lower_lip_drop", "chin_raise", "brow_inner_up", "cheek_puff",
)  # fmt: skip
_PAIRED = (
    "smile", "frown", "stretch", "brow_up", "brow_down", "blink", "cheek_raise", "sneer",
)  # fmt: skip
EXPRESSIONS = _CENTRAL + tuple(f"{name}_{side}" for name in _PAIRED for side in ("left", "right"))
"""Names of the coefficients. 0 is at rest and 1 a full movement; the two `_side` ones go from -1,
towards the person's right, to 1. A negative blink is a widened eye."""
BIPOLAR = ("jaw_side", "mouth_side")
LIMITS = tuple((-1.2, 1.2) if name in BIPOLAR else (-0.3, 1.6) for name in EXPRESSIONS)
"""Smallest and largest coefficient that a fit may find."""

EYEBALL_CM = 1.25
"""From the middle of an eyeball to its iris, about which it turns (anatomy: 1.1 to 1.3)."""
IRIS_CM = 0.585
"""Radius of an iris, which hardly differs between people (11.7 mm across)."""
_RIM_CM = (EYEBALL_CM**2 - IRIS_CM**2) ** 0.5
IRIS_POINTS_CM = (EYEBALL_CM + 4 * _RIM_CM) / 5
"""From the middle of an eyeball to the mean of the iris's five points."""
_MOUTH_CORNERS = (61, 291)
_FOLDS = ((247, 30, 29, 27, 28, 56, 190), (467, 260, 259, 257, 258, 286, 414))
_LOWER_INNER = (95, 88, 178, 87, 14, 317, 402, 318, 324)
_UPPER_INNER = (415, 310, 311, 312, 13, 82, 81, 80, 191)


def expression_basis(shape_V3: Tensor) -> Tensor:
    """How far each vertex moves for a full coefficient, on the face of this shape.

    Args:
        shape_V3: (468, 3) neutral face, centimetres.

    Returns:
        (E, 478, 3) centimetres, in the order of EXPRESSIONS; irises do not move with them.
    """
    shape = shape_V3.double()
    basis = _canonical_basis().clone()
    canonical = _canonical()
    mouth = _span(shape, *_MOUTH_CORNERS) / _span(canonical, *_MOUTH_CORNERS)
    brows = _span(shape, 33, 263) / _span(canonical, 33, 263)
    for row, name in enumerate(EXPRESSIONS):
        if name.startswith("blink"):
            basis[row] = _blink(shape, side=int(name.endswith("left")))
        elif name.startswith("brow"):
            basis[row] *= brows
        else:
            basis[row] *= mouth
    irises = torch.zeros(len(basis), 10, 3, dtype=basis.dtype)
    return torch.cat([basis, irises], dim=1).to(shape_V3)


def eye_centres(shape_V3: Tensor) -> Tensor:
    """(2, 3): middles of the right and the left eyeball behind the lids, which lie on it."""
    lids = shape_V3[torch.tensor([ring for ring, _ in faces.EYES])].mean(dim=1)
    return lids - lids.new_tensor([0.0, 0.0, EYEBALL_CM - 0.15])


def gaze_directions(gaze_T4: Tensor) -> Tensor:
    """(T, 2, 3) unit vectors of the right and the left eye, against the head.

    Args:
        gaze_T4: radians: yaw (to the right of the picture) and pitch (down) of the right eye, then
            of the left one.
    """
    yaw, pitch = gaze_T4.unflatten(-1, (2, 2)).unbind(-1)
    return torch.stack([yaw.sin() * pitch.cos(), -pitch.sin(), yaw.cos() * pitch.cos()], dim=-1)


def gaze_angles(directions_T23: Tensor) -> Tensor:
    """The inverse of `gaze_directions`: (T, 4) radians."""
    x, y, z = torch.nn.functional.normalize(directions_T23, dim=-1).unbind(-1)
    return torch.stack([torch.atan2(x, z), -torch.asin(y.clamp(-1, 1))], dim=-1).flatten(-2)


def irises(centres_23: Tensor, gaze_T4: Tensor) -> Tensor:
    """(T, 10, 3): middle and four points around each iris, in the mesh's order: right, then left.

    Args:
        centres_23: as of `eye_centres`.
        gaze_T4: as of `gaze_directions`.
    """
    ahead = gaze_directions(gaze_T4)
    up = torch.zeros_like(ahead)
    up[..., 1] = 1.0
    side = torch.nn.functional.normalize(torch.linalg.cross(up, ahead), dim=-1)
    above = torch.linalg.cross(ahead, side)
    rim = [_RIM_CM * ahead + IRIS_CM * move for move in (side, above, -side, -above)]
    points = torch.stack([EYEBALL_CM * ahead, *rim], dim=-2)
    return (centres_23[:, None] + points).flatten(-3, -2)


def face_points(
    shape_V3: Tensor, basis_EV3: Tensor, expression_TE: Tensor, gaze_T4: Tensor
) -> Tensor:
    """(T, 478, 3) centimetres: the face in its own axes, making these expressions.

    Args:
        shape_V3: (468, 3) the person's face at rest.
        basis_EV3: what `expression_basis` gives for it, or the person's own.
        expression_TE: coefficients of EXPRESSIONS.
        gaze_T4: radians, as of `gaze_directions`.
    """
    moves_TV3 = torch.einsum("te,evc->tvc", expression_TE, basis_EV3[:, :NUM_MESH])
    mesh = shape_V3 + moves_TV3
    return torch.cat([mesh, irises(eye_centres(shape_V3), gaze_T4)], dim=1)


# The directions


@cache
def _canonical() -> Tensor:
    return torch.from_numpy(load_face_mesh().vertices.astype(np.float64))


def _span(shape: Tensor, first: int, second: int) -> Tensor:
    return (shape[first] - shape[second]).norm()


def _blink(shape_V3: Tensor, *, side: int) -> Tensor:
    """(468, 3): the upper lid comes down onto the lower one, which rises a little. Side 1: left."""
    ring, fold = list(faces.EYES[side][0]), list(_FOLDS[side])
    lower, upper = ring[1:8], ring[:8:-1]
    moves = torch.zeros(NUM_MESH, 3, dtype=shape_V3.dtype)
    drop = shape_V3[lower] - shape_V3[upper]
    moves[upper], moves[lower] = 0.92 * drop, -0.08 * drop
    moves[upper, 2] += 0.1  # over the bulge of the eyeball
    moves[fold] = 0.45 * drop
    return moves


def _ramp(low: float, high: float, x: NDArray[np.floating]) -> NDArray[np.float64]:
    """0 at `low`, 1 at `high`, smooth in between; `low` may be the larger."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@cache
def _canonical_basis() -> Tensor:
    """(E, 468, 3) on the canonical face; blinks are left out."""
    points = load_face_mesh().vertices.astype(np.float64)
    moves = _central(points)
    mirror = _mirror(points)
    for name, left in _left(points).items():
        right = left[mirror] * (-1, 1, 1)
        moves |= {f"{name}_left": left, f"{name}_right": right}
    nothing = np.zeros_like(points)
    rows = [moves.get(name, nothing) for name in EXPRESSIONS]
    return torch.from_numpy(np.stack(rows))


def _mirror(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """(468,): which vertex is the mirror image of each; the mesh is symmetrical."""
    flipped = points * (-1, 1, 1)
    return np.linalg.norm(points[:, None] - flipped, axis=2).argmin(axis=1)


def _bump(
    points: NDArray[np.float64], at: tuple[float, float], width: float, height: float
) -> NDArray[np.float64]:
    """(468,): 1 at a place of the face, fading over `width` and `height` centimetres."""
    away = (points[:, :2] - at) / (width, height)
    return np.exp(-(away**2).sum(axis=1))


def _lips(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(468,) each: how much a vertex belongs to the lower lip and what hangs on it, and to the
    upper one. They meet at the corners of the mouth, and nowhere else."""
    inner = list(_LOWER_INNER + _UPPER_INNER)
    near = np.linalg.norm(points[:, None, :2] - points[inner, :2], axis=2).argmin(axis=1)
    is_lower = near < len(_LOWER_INNER)
    across = np.clip(1 - (points[:, 0] / 2.75) ** 2, 0, 1)
    around = _bump(points, (0, -4.3), 3.0, 1.9)
    return is_lower * across * around, ~is_lower * across * around


def _central(points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    x, y, z = points.T
    lower, upper = _lips(points)
    lips = _bump(points, (0, -4.3), 2.9, 1.7)
    # What the jaw carries: all below the mouth, less towards the ears.
    jaw = _ramp(-4.2, -6.0, y) * _ramp(-2.5, 2.0, z)
    mouth = np.hypot(x / 2.9, (y + 4.4) / 1.4) < 1
    hanging = np.where(lower > 0, 1 - 0.75 * np.clip(np.abs(x) / 2.5, 0, 1) ** 2, 0.0)
    jaw = np.where(mouth, hanging, jaw)
    jaw[list(_MOUTH_CORNERS)] = jaw[[78, 308]] = 0.25
    moves = {name: np.zeros_like(points) for name in _CENTRAL}
    moves["jaw_open"][:] = jaw[:, None] * (0, -2.6, -0.9)
    moves["jaw_open"][:, 0] = -0.06 * x * jaw
    moves["jaw_side"][:, 0] = 1.0 * np.maximum(jaw, 0.5 * lips)
    moves["mouth_side"][:, 0] = 1.0 * lips
    moves["pucker"][:, 0] = -0.42 * x * lips
    moves["pucker"][:, 2] = 0.7 * _bump(points, (0, -4.3), 1.8, 1.5)
    moves["funnel"][:, 0] = -0.25 * x * lips
    moves["funnel"][:, 1] = 0.55 * (upper - lower)
    moves["funnel"][:, 2] = 0.45 * lips
    moves["lips_press"][:, 1] = -0.3 * upper + 0.3 * lower
    moves["lips_press"][:, 2] = -0.25 * (upper + lower)
    moves["upper_lip_raise"][:, 1] = 0.6 * upper
    moves["lower_lip_drop"][:, 1] = -0.7 * lower
    moves["chin_raise"][:, 1] = 0.6 * _bump(points, (0, -6.6), 2.6, 1.8) + 0.2 * (lower + upper)
    moves["chin_raise"][:, 2] = 0.2 * lower
    moves["brow_inner_up"][:, 1] = 0.8 * _bump(points, (0, 4.8), 2.4, 1.5) * _ramp(3.0, 3.8, y)
    cheeks = _bump(np.abs(points), (4.3, 3.0), 1.8, 2.2) * (y < 0)
    moves["cheek_puff"][:, 0] = 0.6 * np.sign(x) * cheeks
    moves["cheek_puff"][:, 2] = 0.5 * cheeks
    return moves


def _left(points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The left one of each pair."""
    x, y, _ = points.T
    corner = _bump(points, (2.6, -4.3), 1.7, 1.7) * _ramp(-0.1, 1.2, x)
    cheek = _bump(points, (4.3, -0.8), 2.0, 2.0)
    brow = _ramp(3.1, 3.9, y) * _bump(points, (3.6, 4.9), 2.4, 1.7)
    inner = _ramp(3.1, 3.9, y) * _bump(points, (2.0, 4.6), 2.2, 1.5)
    under = _bump(points, (3.2, 1.2), 1.9, 1.0) * _ramp(2.5, 1.8, y)
    wing = _bump(points, (1.5, -1.5), 1.3, 1.7)
    moves = {
        "smile": corner[:, None] * (0.75, 0.8, -0.4) + cheek[:, None] * (0.1, 0.35, 0.3),
        "frown": corner[:, None] * (0.1, -0.8, -0.1),
        "stretch": corner[:, None] * (0.9, -0.15, -0.45),
        "brow_up": brow[:, None] * (0, 0.9, 0),
        "brow_down": inner[:, None] * (-0.25, -0.7, 0.1),
        "cheek_raise": under[:, None] * (0, 0.45, 0.1) + cheek[:, None] * (0, 0.3, 0.15),
        "sneer": wing[:, None] * (0.1, 0.5, 0.1),
    }
    ring = list(faces.LEFT_EYE)
    for name in ("brow_up", "brow_down", "cheek_raise"):
        moves[name][ring] = 0.0  # lids have coefficients of their own
    return moves
