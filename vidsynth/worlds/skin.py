"""What is painted on a head: skin with its features, eyes, hair."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds.face import (
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    LEFT_LID_FOLD,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_LID_FOLD,
    Look,
)
from vidsynth.worlds.figure import Array, smoothstep
from vidsynth.worlds.texture import Colour, floats, noise, painted, plain, shrunk

DETAIL = 512
"""Everything is painted at this size, so that a person does not depend on the picture's."""
EYEBALL_CM = 1.35
EYEBALL_REACH = np.deg2rad(80)
"""How far from its front an eyeball's texture goes."""
CHEEKS = (50, 280)
NOSTRILS = ([79, 166, 75, 60, 20, 238], [309, 392, 305, 290, 250, 458])
"""Rims of the right and the left one."""
LOWER_FACE = [132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361]
LOWER_FACE += [435, 434, 322, 393, 164, 167, 92, 214, 215]


class _Skin:
    """A picture of skin in the face mesh's texture coordinates; places are points of the mesh."""

    def __init__(self, picture: Array) -> None:
        self.picture = picture
        self.uv = load_face_mesh().uv

    def blend(self, area: NDArray[np.floating], colour: NDArray | Colour) -> None:
        area = floats(area)[..., None]
        self.picture += area * (floats(colour) - self.picture)

    def tint(
        self, points: list[int], colour: NDArray | Colour, strength: float, blur: float
    ) -> None:
        """Colour a polygon."""
        self.blend(strength * painted(self.uv[points] * DETAIL, DETAIL, blur), colour)

    def bump(self, point: int, radius: tuple[float, float]) -> Array:
        """(DETAIL, DETAIL) 1 at a point, fading over `radius` (u, v)."""
        at = (np.arange(DETAIL) + 0.5) / DETAIL
        u, v = (np.exp(-(((at - self.uv[point, k]) / radius[k]) ** 2)) for k in (0, 1))
        return floats(np.outer(v, u))

    def spot(
        self, point: int, radius: tuple[float, float], colour: NDArray | Colour, strength: float
    ) -> None:
        self.blend(strength * self.bump(point, radius), colour)

    def line(self, points: list[int], colour: NDArray | Colour, thickness: int) -> None:
        red, green, blue = (float(c) for c in colour)
        path = np.round(self.uv[points] * DETAIL * 16).astype(np.int32)
        cv2.polylines(self.picture, [path], False, (red, green, blue), thickness, cv2.LINE_AA, 4)


def skin_texture(look: Look, size: int) -> Array:
    """(size, size, 3): the face, painted on the mesh's texture coordinates."""
    rng = np.random.default_rng(look.seed)
    rough = 0.025 * noise(rng, DETAIL, 24) + 0.02 * noise(rng, DETAIL, 128)
    skin = _Skin(plain(look.skin, DETAIL) * (1 + rough[..., None]))
    _shade(skin, floats(look.skin))
    if look.freckles:
        dots = smoothstep(1.2, 1.8, noise(rng, DETAIL, 90))
        cheeks = skin.bump(CHEEKS[0], (0.1, 0.06)) + skin.bump(CHEEKS[1], (0.1, 0.06))
        skin.blend(0.4 * look.freckles * dots * cheeks, floats(look.skin) * (0.6, 0.45, 0.4))
    if look.beard:
        stubble = 0.8 + 0.25 * noise(rng, DETAIL, 200)
        area = painted(skin.uv[LOWER_FACE] * DETAIL, DETAIL, 9)
        skin.blend(np.clip(look.beard * area * stubble, 0, 1), look.hair)
    _features(skin, look, 0.85 + 0.15 * noise(rng, DETAIL, 160))
    return shrunk(np.clip(skin.picture, 0, 255), size)


def _shade(skin: _Skin, colour: Array) -> None:
    """The blush and the soft shadows that make a face of a mask."""
    for cheek in CHEEKS:
        skin.spot(cheek, (0.09, 0.07), colour * (1.02, 0.74, 0.72), 0.45)
    for side in (133, 362):  # beside the bridge of the nose
        skin.spot(side, (0.035, 0.05), colour * 0.62, 0.55)
    for wing in (129, 358):  # of the nose
        skin.spot(wing, (0.02, 0.03), colour * 0.66, 0.6)
    skin.spot(17, (0.07, 0.018), colour * 0.68, 0.5)  # below the lower lip
    skin.spot(5, (0.014, 0.09), np.minimum(colour * 1.18, 255), 0.6)  # along the nose
    skin.spot(2, (0.05, 0.012), colour * 0.66, 0.5)  # below it
    for nostril in NOSTRILS:
        skin.tint(nostril, colour * 0.22, 0.9, 2)


def _features(skin: _Skin, look: Look, hairs: Array) -> None:
    """Eyelids, lips, lashes and eyebrows."""
    colour = floats(look.skin)
    for fold, ring in ((RIGHT_LID_FOLD, RIGHT_EYE), (LEFT_LID_FOLD, LEFT_EYE)):
        lid = [ring[0], *fold, ring[8], *ring[7:0:-1]]
        skin.tint(lid, colour * (0.72, 0.62, 0.6), 0.5, 3)
    skin.tint(OUTER_LIPS, look.lips, 0.9, 1.2)
    skin.line(INNER_LIPS[:11], floats(look.lips) * 0.45, 3)
    for ring in (RIGHT_EYE, LEFT_EYE):
        skin.line(ring[:9], (32, 22, 20), 5)
        skin.line([*ring[8:], ring[0]], colour * 0.55, 2)
    for brow in (RIGHT_BROW, LEFT_BROW):
        points = skin.uv[brow]
        middle = points.mean(axis=0)
        thick = middle + (points - middle) * (1.0, 0.75 * look.brow_thickness)
        skin.blend(painted(thick * DETAIL, DETAIL, 2.5) * hairs, floats(look.hair) * 0.75)


def eye_texture(look: Look, size: int) -> Array:
    """(size, size, 3): the iris in the middle of the white, seen from the front of the eye."""
    at = (np.mgrid[:DETAIL, :DETAIL] + 0.5) / DETAIL * 2 - 1
    r = np.hypot(*at) * EYEBALL_REACH * EYEBALL_CM  # centimetres along the eyeball
    streaks = noise(np.random.default_rng(look.seed + 1), DETAIL, 60)
    white = floats((238, 234, 230)) - floats((0, 18, 20)) * smoothstep(0.7, 1.6, r)[..., None]
    shade = (1 + 0.25 * streaks) * (1.25 - 0.5 * smoothstep(0.3, 0.62, r))
    picture = np.where((r < 0.62)[..., None], floats(look.iris) * shade[..., None], white)
    picture *= 1 - 0.97 * smoothstep(0.3, 0.25, r)[..., None]
    return shrunk(picture, size)


def hair_texture(look: Look, size: int) -> Array:
    """(size, size, 3): strands along v."""
    rng = np.random.default_rng(look.seed + 2)
    strands = cv2.resize(floats(rng.normal(size=(6, 160))), (256, 256))
    fine = cv2.resize(floats(rng.normal(size=(3, 256))), (256, 256))
    shade = 1 + 0.22 * strands + 0.12 * fine
    return shrunk(np.clip(floats(look.hair) * shade[..., None], 0, 255), size)
