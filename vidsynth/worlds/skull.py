"""The parts of a head: face, eyes, teeth, ears, skull, hair and neck, as `figure.Part`s.

Lengths are centimetres of the canonical face: x to the right of the picture, y up, z to the viewer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds.face import (
    INNER_LIPS,
    LEFT_EYE,
    OVAL,
    RIGHT_EYE,
    Look,
    eye_pivot,
    shape,
    vertex_normals,
)
from vidsynth.worlds.figure import Array, Part, ball, bend, sheet, smoothstep, tube, unit
from vidsynth.worlds.skin import (
    EYEBALL_CM,
    EYEBALL_REACH,
    eye_texture,
    hair_texture,
    skin_texture,
)
from vidsynth.worlds.texture import floats, plain

HEAD, RIGHT_EYEBALL, LEFT_EYEBALL, TRUNK = range(4)
"""The bones of a head."""
LOWER_TEETH = 5
"""Place of the lower teeth among `head_parts`."""


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


def eyeball(ring: Array, look: Look, size: int, bone: int) -> Part:
    """The front of an eyeball, around its own pivot (see `eye_pivots`)."""
    polar, angle = np.linspace(0, EYEBALL_REACH, 7)[:, None], np.linspace(0, 2 * np.pi, 17)
    direction = np.stack(
        [-np.sin(polar) * np.sin(angle), np.sin(polar) * np.cos(angle), np.cos(polar) + 0 * angle],
        -1,
    )
    part = sheet(
        EYEBALL_CM * direction + eye_pivot(ring), eye_texture(look, size), bone=bone, gloss=0.8
    )
    flat = direction[..., :2] * (polar / np.maximum(np.sin(polar), 1e-6))[..., None] / EYEBALL_REACH
    uv = np.stack([0.5 + flat[..., 0] / 2, 0.5 - flat[..., 1] / 2], -1).reshape(-1, 2)
    return replace(
        part, uv=uv.astype(np.float32), normals=direction.reshape(-1, 3).astype(np.float32)
    )


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


def skull(face: Array, texture: Array) -> Part:
    """From the rim of the face around the back of the head."""
    return sheet(_behind(face[[*OVAL, OVAL[0]]], 0.0), texture)


def _behind(rim_S3: Array, inflate: float | Array, rings: int = 9) -> Array:
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
    return points + away * np.asarray(inflate)[..., None]


def hair_cap(face: Array, look: Look, texture: Array) -> Part:
    """Hair on the skull: from the forehead over the top to the neck, sinking in below the ears."""
    rim = face[[*OVAL, OVAL[0]]]
    high = smoothstep(-1.5, 3.0, rim[:, 1])
    thickness = 0.35 + look.hair_volume * (0.35 + 0.65 * smoothstep(2, 8, rim[:, 1]))
    points = _behind(rim, thickness * high - 0.6 * (1 - high))
    nape = smoothstep(-7, -3, points[..., 1]) * smoothstep(-1, -6, points[..., 2])
    points += nape[..., None] * 0.5 * unit(points - (0, 0.5, -3))
    # The hairline: the first ring lies on the forehead, the next stands up from it.
    front = points[0] - high[:, None] * (
        floats((0, look.fringe, -0.1)) + 0.5 * thickness[:, None] * unit(points[0])
    )
    return sheet(np.concatenate([front[None], points]), texture, gloss=0.25, closed=False)


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


def neck(look: Look, texture: Array) -> Part:
    """From under the jaw into the shoulders; the lower end stays with the trunk."""
    y = np.linspace(-4, -16, 8)
    path = np.stack([0 * y, y, -3.4 - 0.12 * (-4 - y)], -1)
    radius = 5.6 * look.width * (1 + 0.02 * np.maximum(-11 - y, 0) ** 2)
    part = tube(path, np.stack([radius, radius * 0.95], -1), texture * 0.93, sides=28)
    share = smoothstep(-6, -14, part.vertices[:, 1])
    return bend(part, TRUNK, share)
