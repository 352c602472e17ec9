"""A head: the canonical face mesh with a painted skin, eyes, teeth, ears, skull, hair and neck.

Lengths are centimetres of the canonical face: x to the right of the picture, y up, z to the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds.figure import Array, Part, ball, bend, sheet, smoothstep, tube, unit
from vidsynth.worlds.texture import Colour, floats, noise, painted, plain

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

HEAD, RIGHT_EYEBALL, LEFT_EYEBALL, TRUNK = range(4)
"""The bones of a head."""
LOWER_TEETH = 5
"""Place of the lower teeth among `head_parts`."""
EYEBALL_CM = 1.35
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
    """Centimetres that it stands off the skull."""
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
        hair_volume=rng.uniform(1.0, 2.0),
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
    points[upper], points[lower] = middle + (0, 0.02, 0), middle - (0, 0.02, 0)
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


def skin_texture(look: Look, size: int) -> Array:
    """(size, size, 3): the face, painted on the mesh's texture coordinates."""
    uv = load_face_mesh().uv
    detail = 512  # painted at one size, so that the person does not depend on the picture's
    rng = np.random.default_rng(look.seed)
    skin = floats(look.skin)
    picture = plain(look.skin, detail) * (1 + 0.05 * noise(rng, detail, 24)[..., None])
    picture += 3 * noise(rng, detail, 128)[..., None]

    def tint(points: list[int], colour: NDArray | Colour, strength: float, blur: float = 1) -> None:
        area = painted(uv[points] * detail, detail, blur)[..., None] * strength
        picture[:] = picture * (1 - area) + floats(colour) * area

    def spot(point: int, radius: tuple[float, float], colour: NDArray | Colour, strength: float):
        offset = (np.mgrid[:detail, :detail][::-1].transpose(1, 2, 0) / detail - uv[point]) / radius
        area = strength * np.exp(-(offset**2).sum(-1, keepdims=True))
        picture[:] = picture * (1 - area) + floats(colour) * area

    for cheek in (50, 280):
        spot(cheek, (0.09, 0.07), skin * (1.02, 0.74, 0.72), 0.45)
    for side in (133, 362):  # shade beside the bridge of the nose
        spot(side, (0.035, 0.05), skin * 0.62, 0.55)
    for side in (129, 358):
        spot(side, (0.02, 0.03), skin * 0.66, 0.6)
    spot(17, (0.07, 0.018), skin * 0.68, 0.5)
    spot(5, (0.014, 0.09), np.minimum(skin * 1.18, 255), 0.6)
    spot(2, (0.05, 0.012), skin * 0.66, 0.5)
    for nostril in (242, 462):
        spot(nostril, (0.014, 0.008), skin * 0.22, 0.9)
    if look.freckles:
        dots = smoothstep(1.2, 1.8, noise(rng, detail, 90))[..., None]
        where = sum(
            np.exp(
                -(
                    (
                        (np.mgrid[:detail, :detail][::-1].transpose(1, 2, 0) / detail - uv[p])
                        / (0.1, 0.06)
                    )
                    ** 2
                ).sum(-1)
            )
            for p in (50, 280)
        )
        picture -= 60 * look.freckles * dots * np.asarray(where)[..., None]
    if look.beard:
        lower_face = [132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288]
        lower_face += [361, 435, 434, 322, 393, 164, 167, 92, 214, 215]
        rough = 0.8 + 0.25 * noise(rng, detail, 200)
        area = painted(uv[lower_face] * detail, detail, 9)[..., None] * look.beard
        area = area * rough[..., None]
        picture[:] = picture * (1 - area) + floats(look.hair) * area
    for fold, ring in ((RIGHT_LID_FOLD, RIGHT_EYE), (LEFT_LID_FOLD, LEFT_EYE)):
        tint([ring[0], *fold, ring[8], *ring[7:0:-1]], skin * (0.72, 0.62, 0.6), 0.5, 3)
    tint(OUTER_LIPS, look.lips, 0.9, 1.2)
    _line(picture, uv[[*INNER_LIPS[:11]]] * detail, floats(look.lips) * 0.45, 3)
    for ring in (RIGHT_EYE, LEFT_EYE):
        _line(picture, uv[ring[:9]] * detail, (32, 22, 20), 5)
        _line(picture, uv[[*ring[8:], ring[0]]] * detail, skin * 0.55, 2)
    for brow in (RIGHT_BROW, LEFT_BROW):
        points = uv[brow]
        middle = np.concatenate([points[:5], points[4::-1] * 0 + points[5:]]).mean(0)
        thick = middle + (points - middle) * (1.0, 0.75 * look.brow_thickness)
        hairs = 0.85 + 0.15 * noise(rng, detail, 160)[..., None]
        area = painted(thick * detail, detail, 2.5)[..., None] * hairs
        picture[:] = picture * (1 - area) + floats(look.hair) * 0.75 * area
    return cv2.resize(np.clip(picture, 0, 255), (size, size), interpolation=cv2.INTER_AREA)


def _line(picture: Array, points: Array, colour: NDArray | Colour, thickness: int) -> None:
    red, green, blue = (float(c) for c in colour)
    path = np.round(points * 16).astype(np.int32)
    cv2.polylines(picture, [path], False, (red, green, blue), thickness, cv2.LINE_AA, 4)


def head_parts(look: Look, texture_px: int) -> list[Part]:
    """Everything above the shoulders, at rest; the first part is the face, in the mesh's order.

    Args:
        look: whose head.
        texture_px: side of the face's texture, about the face's width in the picture.
    """
    face = shape(look)
    small = max(8, texture_px // 4)
    skin, hair = plain(look.skin, small), hair_texture(look, max(16, texture_px))
    return [
        face_part(face, skin_texture(look, texture_px)),
        *(
            eyeball(face[ring], look, max(16, texture_px // 2), bone)
            for ring, bone in ((RIGHT_EYE, RIGHT_EYEBALL), (LEFT_EYE, LEFT_EYEBALL))
        ),
        *mouth_parts(face, small),
        skull(face, skin),
        *(ball((side * 7.9 * look.width, 0.6, -3.2), (0.9, 2.9, 1.7), skin) for side in (-1, 1)),
        hair_cap(face, look, hair),
        *([hair_curtain(look, hair)] if look.hair_length else []),
        neck(look, skin),
    ]


def face_part(points: Array, texture: Array) -> Part:
    """The skin of the face, with holes for eyes and mouth."""
    mesh = load_face_mesh()
    holes = np.zeros(len(mesh.triangles), bool)
    for ring in (RIGHT_EYE, LEFT_EYE, INNER_LIPS):
        holes |= np.isin(mesh.triangles, ring).all(axis=1)
    triangles = mesh.triangles[~holes]
    count = len(points)
    return Part(
        vertices=points,
        normals=vertex_normals(points, mesh.triangles),
        uv=mesh.uv,
        triangles=triangles,
        texture=texture,
        bones=np.full((count, 2), HEAD, np.int32),
        blend=np.zeros(count, np.float32),
        gloss=0.18,
    )


def vertex_normals(points: Array, triangles: NDArray[np.int32]) -> Array:
    """(V, 3): the mean normal of the triangles around each point, weighted by their area."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    each = np.repeat(flat, 3, axis=0)
    around = triangles.ravel()
    sums = [np.bincount(around, each[:, k], len(points)) for k in range(3)]
    return unit(np.stack(sums, axis=1))


def eyeball(ring: Array, look: Look, size: int, bone: int) -> Part:
    """The front of an eyeball, around its own pivot (see `eye_pivots`)."""
    reach = np.deg2rad(80)
    polar, angle = np.linspace(0, reach, 7)[:, None], np.linspace(0, 2 * np.pi, 17)
    direction = np.stack(
        [-np.sin(polar) * np.sin(angle), np.sin(polar) * np.cos(angle), np.cos(polar) + 0 * angle],
        -1,
    )
    part = sheet(
        EYEBALL_CM * direction + eye_pivot(ring), eye_texture(look, size), bone=bone, gloss=0.8
    )
    flat = direction[..., :2] * (polar / np.maximum(np.sin(polar), 1e-6))[..., None] / reach
    uv = np.stack([0.5 + flat[..., 0] / 2, 0.5 - flat[..., 1] / 2], -1).reshape(-1, 2)
    return replace(
        part, uv=uv.astype(np.float32), normals=direction.reshape(-1, 3).astype(np.float32)
    )


def eye_pivot(ring: Array) -> Array:
    """(3,): centre of the eyeball behind a ring of eyelid points."""
    return (ring.mean(0) - (0, 0, 1.22)).astype(np.float32)


def eye_texture(look: Look, size: int) -> Array:
    """(size, size, 3): the iris in the middle of the white, seen from the front of the eye."""
    detail = 256
    at = (np.mgrid[:detail, :detail] + 0.5) / detail * 2 - 1
    r = np.hypot(*at) * np.deg2rad(80) * EYEBALL_CM  # centimetres along the eyeball
    streaks = noise(np.random.default_rng(look.seed + 1), detail, 40)[..., None]
    white = floats((238, 234, 230)) - (0, 18, 20) * smoothstep(0.7, 1.6, r)[..., None]
    iris = (
        floats(look.iris)
        * (1 + 0.25 * streaks)
        * (1.25 - 0.5 * smoothstep(0.3, 0.62, r))[..., None]
    )
    picture = np.where((r < 0.62)[..., None], iris, white)
    picture *= 1 - 0.97 * smoothstep(0.3, 0.25, r)[..., None]
    return cv2.resize(floats(picture), (size, size), interpolation=cv2.INTER_AREA)


def mouth_parts(face: Array, size: int) -> list[Part]:
    """The dark inside of the mouth, and the upper and lower teeth."""
    corner, top = face[308], face[13]
    x = np.linspace(-1, 1, 9)
    arch = 1 - 0.55 * x**2

    def strip(y0: float, y1: float, depth: float, texture: Array, rows: int = 2) -> Part:
        y = np.linspace(y0, y1, rows)[:, None] + 0 * x
        points = np.stack(
            [x * corner[0] * 1.02 + 0 * y, y, top[2] - depth + 2.2 * (arch - 1) + 0 * y], -1
        )
        return sheet(points, texture, closed=False)

    teeth = plain((226, 220, 208), size)
    gaps = np.abs((np.arange(size) / size * 8) % 1 - 0.5) > 0.44
    teeth[:, gaps] *= 0.8
    return [
        strip(top[1] + 1.0, top[1] - 4.2, 1.5, plain((62, 20, 22), 8)),
        strip(top[1] + 0.8, top[1] - 0.35, 0.75, teeth),
        strip(top[1] - 0.45, top[1] - 1.4, 0.95, teeth * 0.92),
    ]


def skull(face: Array, texture: Array, inflate: float = 0.0) -> Part:
    """From the rim of the face around the back of the head."""
    return sheet(_behind(face[[*OVAL, OVAL[0]]], inflate), texture)


def _behind(rim_S3: Array, inflate: float | Array = 0.0, rings: int = 9) -> Array:
    """(R, S, 3) rings from the rim of the face to the pole at the back of the head."""
    pole = floats((0, 1.5, -11.5))
    t = np.linspace(0, np.pi / 2, rings)[:, None, None]
    bulge = np.cos(t) + 0.0 * rim_S3
    points = pole * (1 - bulge) + rim_S3 * bulge
    points[..., 2] = rim_S3[:, 2] + (pole[2] - rim_S3[:, 2]) * np.sin(t)[..., 0]
    # The crown is higher, and the temples are wider, than the rim of the face.
    points[..., 1] += 3.4 * smoothstep(1, 8, rim_S3[:, 1]) * np.sin(2 * t)[..., 0] ** 0.7
    points[..., 0] *= 1 + 0.06 * np.sin(2 * t)[..., 0]
    away = unit((points - (0, 0.5, -3)) * (1, 1, 0.8))
    return points + away * (np.asarray(inflate)[..., None] if np.ndim(inflate) else inflate)


def hair_cap(face: Array, look: Look, texture: Array) -> Part:
    """Hair on the skull: from the forehead over the top to the neck, sinking in below the ears."""
    rim = face[[*OVAL, OVAL[0]]].copy()
    high = smoothstep(-1.5, 3.0, rim[:, 1])
    points = _behind(rim, (look.hair_volume + 0.2) * high[None] - 0.6 * (1 - high[None]))
    nape = smoothstep(-7, -3, points[..., 1]) * smoothstep(-1, -6, points[..., 2])
    points += nape[..., None] * 0.5 * unit(points - (0, 0.5, -3))
    # The hairline: the first ring reaches over the forehead, the next stands up from it.
    front = points[:1] + high[None, :, None] * floats((0, -1.6, 0.15))
    front = front - high[None, :, None] * 0.35 * look.hair_volume * unit(points[:1])
    return sheet(np.concatenate([front, points]), texture, gloss=0.25, closed=False)


def hair_curtain(look: Look, texture: Array) -> Part:
    """Long hair: falls around the sides and the back of the head."""
    angle = np.deg2rad(np.linspace(-128, 128, 25))
    fall = np.linspace(0, 1, 12)
    y = 9.5 - (12.5 + look.hair_length) * fall**1.3
    out = (7.2 + look.hair_volume) * np.minimum(0.55 + 4 * fall, 1) ** 0.6 + 1.2 * np.sin(3 * fall)
    wave = 0.35 * np.sin(9 * angle + look.seed)
    x = -np.sin(angle) * (out * look.width)[:, None] - np.sin(angle) * wave * fall[:, None]
    z = -2.6 - np.cos(angle) * (out * 1.02)[:, None]
    points = np.stack([x, y[:, None] + 0 * x, z], -1)
    part = sheet(points[:, ::-1], texture, gloss=0.25, closed=False)
    return bend(part, TRUNK, np.repeat(0.7 * smoothstep(0.4, 1, fall), 25))


def hair_texture(look: Look, size: int) -> Array:
    """(size, size, 3): strands along v."""
    rng = np.random.default_rng(look.seed + 2)
    strands = cv2.resize(rng.normal(size=(6, 160)).astype(np.float32), (256, 256))
    fine = cv2.resize(rng.normal(size=(3, 256)).astype(np.float32), (256, 256))
    shade = 1 + 0.22 * strands + 0.12 * fine
    picture = np.clip(floats(look.hair) * shade[..., None], 0, 255)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def neck(look: Look, texture: Array) -> Part:
    """From under the jaw into the shoulders; the lower end stays with the trunk."""
    y = np.linspace(-4, -16, 8)
    path = np.stack([0 * y, y, -3.4 - 0.12 * (-4 - y)], -1)
    radius = 5.6 * look.width * (1 + 0.02 * np.maximum(-11 - y, 0) ** 2)
    part = tube(path, np.stack([radius, radius * 0.95], -1), texture * 0.93, sides=16)
    share = smoothstep(-6, -14, part.vertices[:, 1])
    return bend(part, TRUNK, share)
