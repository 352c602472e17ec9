"""Faces: who someone is, the canonical mesh in their shape, and how expressions move it.

Lengths are centimetres of the canonical face: x to the right of the picture, y up, z to the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds.figure import Array, smoothstep, unit
from vidsynth.worlds.texture import Colour, floats

# Rings of the mesh, as numbered by MediaPipe; "right" is the subject's right, left in the picture.
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
OVAL += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
RIGHT_EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
LEFT_EYE = [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249]
OUTER_LIPS = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181]
OUTER_LIPS += [91, 146]
INNER_LIPS = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178]
INNER_LIPS += [88, 95]
RIGHT_BROW = [46, 53, 52, 65, 55, 107, 66, 105, 63, 70]
LEFT_BROW = [276, 283, 282, 295, 285, 336, 296, 334, 293, 300]
RIGHT_LID_FOLD = [247, 30, 29, 27, 28, 56, 190]
LEFT_LID_FOLD = [467, 260, 259, 257, 258, 286, 414]

EXPRESSIONS = ("jaw_open", "smile", "pucker", "brow_raise", "blink")
"""Coefficients every identity shares; 0 is neutral, 1 the full movement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What makes a head somebody's. Ratios are relative to the canonical face."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    width: float = 1.0
    jaw: float = 1.0
    """Width of the jaw against that of the temples."""
    length: float = 1.0
    nose: float = 1.0
    eyes: float = 1.0
    lip_fullness: float = 1.0
    brow_thickness: float = 1.0
    hair_length: float = 0.0
    """Centimetres that the hair falls below the ears; 0 is short hair."""
    hair_volume: float = 1.0
    """Centimetres that it stands off the crown."""
    fringe: float = 1.0
    """Centimetres that it reaches down the forehead."""
    beard: float = 0.0
    """Darkness of the beard, 0 to 1."""
    freckles: float = 0.0
    seed: int = 0
    """For the noise in skin and hair."""


def random_look(rng: np.random.Generator) -> Look:
    """Someone."""
    skins = [(236, 200, 176), (224, 178, 148), (205, 155, 120), (172, 120, 88), (128, 84, 60)]
    hairs = [(38, 28, 24), (72, 46, 30), (120, 78, 44), (186, 142, 84), (92, 88, 90), (140, 60, 34)]
    irises = [(84, 56, 34), (70, 100, 130), (84, 110, 72), (58, 44, 34)]
    skin = np.array(skins[rng.integers(len(skins))]) + rng.uniform(-8, 8, 3)
    long_haired = rng.random() < 0.5
    return Look(
        skin=_colour(skin),
        hair=_colour(np.array(hairs[rng.integers(len(hairs))]) + rng.uniform(-8, 8, 3)),
        iris=irises[rng.integers(len(irises))],
        lips=_colour(skin * (0.86, 0.62, 0.62) + (14, 0, 4)),
        width=rng.uniform(0.93, 1.05),
        jaw=rng.uniform(0.86, 1.04),
        length=rng.uniform(0.97, 1.06),
        nose=rng.uniform(0.85, 1.2),
        eyes=rng.uniform(1.0, 1.16),
        lip_fullness=rng.uniform(0.85, 1.25),
        brow_thickness=rng.uniform(0.7, 1.3),
        hair_length=rng.uniform(8, 16) if long_haired else 0.0,
        hair_volume=rng.uniform(0.7, 1.8),
        fringe=rng.uniform(0.0, 1.6),
        beard=0.0 if long_haired else float(rng.choice([0.0, 0.0, 0.35, 0.6])),
        freckles=float(rng.choice([0.0, 0.0, 0.5])),
        seed=int(rng.integers(1 << 30)),
    )


def _colour(rgb: NDArray[np.floating]) -> Colour:
    red, green, blue = np.clip(rgb, 12, 245).tolist()
    return red, green, blue


def shape(look: Look) -> Array:
    """(468, 3): the neutral face of this look, lips closed."""
    points = load_face_mesh().vertices.copy()
    x, y = points[:, 0].copy(), points[:, 1].copy()
    points[:, 0] *= look.width * (1 + (look.jaw - 1) * smoothstep(1, -8, y))
    points[:, 1] = y * look.length
    nose = np.exp(-(x**2) / 4 - (y + 0.6) ** 2 / 6)
    points[:, 2] += (look.nose - 1) * 4 * nose
    points[:, 0] *= 1 + (look.nose - 1) * 0.6 * nose
    for ring, fold in ((RIGHT_EYE, RIGHT_LID_FOLD), (LEFT_EYE, LEFT_LID_FOLD)):
        centre = points[ring].mean(0)
        near = np.exp(-((points[:, :2] - centre[:2]) ** 2 / (3.0, 1.6)).sum(1))
        near[ring] = 1
        points[:, 1] += near * (look.eyes * 1.25 - 1) * (points[:, 1] - centre[1])
        points[fold, 1] += 0.1
    upper, lower = INNER_LIPS[1:10], INNER_LIPS[:10:-1]
    middle = (points[upper] + points[lower]) / 2
    # Lips that just touch.
    points[upper], points[lower] = middle + floats((0, 0.02, 0)), middle - floats((0, 0.02, 0))
    lips = np.exp(-(x**2) / 6 - (y + 4.3) ** 2 / 1.5)
    points[:, 1] += (look.lip_fullness - 1) * lips * (points[:, 1] - middle[4, 1])
    return points


def expression_basis(neutral: Array) -> Array:
    """(5, 468, 3): how far each point moves for a full EXPRESSIONS coefficient, in centimetres."""
    basis = np.zeros((len(EXPRESSIONS), len(neutral), 3), np.float32)
    x, y, z = load_face_mesh().vertices.T
    jaw, smile, pucker, brow, blink = basis

    # The jaw turns about the ears: what is below the lips goes down and back.
    share = smoothstep(-3.9, -5.2, y) * smoothstep(-1.5, 2.5, z)
    upper, lower = INNER_LIPS[1:10], INNER_LIPS[:10:-1]
    share[upper] = 0
    share[OUTER_LIPS[:11]] = 0
    share[lower] = 1 - (x[lower] / 2.4) ** 2
    share[OUTER_LIPS[11:]] = 1 - 0.8 * (x[OUTER_LIPS[11:]] / 2.6) ** 2
    share[[61, 291, 78, 308]] = 0.3
    jaw[:] = share[:, None] * (0, -2.3, -0.7)
    jaw[:, 0] -= share * 0.08 * x

    corner = np.exp(-((np.abs(x) - 2.6) ** 2) / 3 - (y + 4.2) ** 2 / 3)
    cheek = np.exp(-((np.abs(x) - 4.2) ** 2) / 4 - (y + 0.5) ** 2 / 5)
    smile[:, 0] = np.sign(x) * 0.75 * corner
    smile[:, 1] = 0.75 * corner + 0.35 * cheek
    smile[:, 2] = -0.35 * corner + 0.3 * cheek

    mouth = np.exp(-((x / 3) ** 4) - (y + 4.4) ** 2 / 4)
    pucker[:, 0] = -0.38 * x * mouth
    pucker[:, 2] = 0.55 * mouth * np.exp(-(x**2) / 4)

    brow[:, 1] = 0.85 * np.exp(-((y - 4.8) ** 2) / 2.2) * smoothstep(3.2, 4.0, y)

    for ring, fold in ((RIGHT_EYE, RIGHT_LID_FOLD), (LEFT_EYE, LEFT_LID_FOLD)):
        top, bottom = ring[1:8], ring[:8:-1]
        drop = neutral[bottom] - neutral[top]
        blink[top] = 0.92 * drop + (0, 0, 0.12)
        blink[bottom] = -0.08 * drop
        blink[fold] = 0.45 * drop + (0, 0, 0.1)
    return basis


def vertex_normals(points: Array, triangles: NDArray[np.int32]) -> Array:
    """(V, 3): the mean normal of the triangles around each point, weighted by their area."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    each = np.repeat(flat, 3, axis=0)
    around = triangles.ravel()
    sums = [np.bincount(around, each[:, k], len(points)) for k in range(3)]
    return unit(floats(np.stack(sums, axis=1)))


def eye_pivot(ring: Array) -> Array:
    """(3,): centre of the eyeball behind a ring of eyelid points."""
    return (ring.mean(0) - (0, 0, 1.22)).astype(np.float32)
