"""The puppet's surfaces: body, clothes, hands, shoes and head; and its landmarks.

Metres, as in `skeleton`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidsynth.worlds import face
from vidsynth.worlds.figure import Array, Figure, Part, ball, bend, sheet, smoothstep, tube
from vidsynth.worlds.skeleton import (
    CHEST,
    FOOT,
    FORE,
    HAND,
    PELVIS,
    SHIN,
    SIDES,
    SKULL,
    THIGH,
    UPPER,
    Body,
    Rest,
    limb,
    rest,
)
from vidsynth.worlds.skull import head_parts
from vidsynth.worlds.texture import Colour, Pattern, cloth, floats, plain

# T frames, V vertices


@dataclass(frozen=True, slots=True, kw_only=True)
class Clothes:
    top: Colour
    top_trim: Colour
    pattern: Pattern
    bottom: Colour
    shoes: Colour
    sleeve: float
    """Share of the arm that is covered."""
    leg: float
    """Share of the leg that is covered."""
    skirt: bool
    seed: int = 0


def build(body: Body, look: face.Look, clothes: Clothes, texture_px: int) -> Figure:
    """The whole puppet at rest; `texture_px` is about its width in the picture."""
    still = rest(body)
    rng = np.random.default_rng(clothes.seed)
    size = int(np.clip(texture_px, 32, 256))
    top = cloth(clothes.top, clothes.top_trim, clothes.pattern, rng, size)
    sleeve = cloth(clothes.top, clothes.top_trim, clothes.pattern, rng, size)
    bottom = cloth(clothes.bottom, clothes.bottom, "plain", rng, size)
    skin = plain(look.skin, size)
    parts = [_torso(body, still, top), _pelvis(body, still, bottom)]
    for side in SIDES:
        parts.append(
            _arm(body, still, _covered(sleeve, skin, clothes.sleeve), clothes.sleeve, side)
        )
        parts += _hand(still, skin, side)
        bare = 0.42 if clothes.skirt else clothes.leg
        parts.append(_leg(body, still, _covered(bottom, skin, bare), bare, side))
        parts.append(_shoe(still, plain(clothes.shoes, 8), side))
    if clothes.skirt:
        parts += [_skirt(body, still, bottom, side) for side in SIDES]
    return Figure.joined([*parts, *_head(body, still, look, texture_px)])


def _covered(cover: Array, skin: Array, share: float) -> Array:
    """Cloth down to `share` of the length, skin below, with a dark hem."""
    rows = round(share * len(cover))
    picture = np.concatenate([cover[:rows], skin[rows:]])
    picture[max(rows - max(1, len(cover) // 64), 0) : rows] *= 0.7
    return picture


def _torso(body: Body, still: Rest, texture: Array) -> Part:
    h, w = body.height, body.girth
    y = np.array([0.312, 0.300, 0.285, 0.262, 0.225, 0.185, 0.14, 0.105, 0.075, 0.05, 0.03]) * h
    shoulder, hip = body.shoulders, body.hips
    x = [0.036, 0.060, 0.084 * shoulder, 0.102 * shoulder, 0.104 * shoulder**0.7]
    x += [0.095 * w, 0.086 * w, 0.083 * w, 0.090 * hip * w**0.7, 0.099 * hip * w**0.7]
    x += [0.106 * hip * w**0.7]
    z = np.array([0.034, 0.042, 0.050, 0.060, 0.066, 0.065, 0.060, 0.058, 0.062, 0.068, 0.073]) * w
    z = z * (1 + 0.22 * body.bust * np.exp(-(((y / h - 0.215) / 0.035) ** 2)))
    path = np.stack([0 * y, y + still.joints[PELVIS, 1], 0 * y - 0.004 * h], -1)
    part = tube(path, np.stack([np.array(x) * h, z * h], -1), texture, sides=20, bone=PELVIS)
    share = smoothstep(0.02 * h, 0.15 * h, part.vertices[:, 1] - still.joints[PELVIS, 1])
    return bend(part, CHEST, share)


def _pelvis(body: Body, still: Rest, texture: Array) -> Part:
    h, w = body.height, body.girth**0.7
    y = np.array([0.08, 0.04, 0.01, -0.025, -0.060]) * h
    x = np.array([0.082, 0.096, 0.102, 0.094, 0.050]) * h * body.hips * w
    z = np.array([0.056, 0.066, 0.069, 0.060, 0.030]) * h * w
    path = np.stack([0 * y, y + still.joints[PELVIS, 1], 0 * y - 0.004 * h], -1)
    return tube(path, np.stack([x, z], -1), texture, sides=18, bone=PELVIS)


def _chain(length_a: float, length_b: float, rows: int) -> tuple[Array, Array]:
    """Distances from a limb's root, closer about the joint, and there the share of the far bone."""
    s = np.linspace(0, 1, rows)
    total = length_a + length_b
    along = s * total
    share = smoothstep(length_a - 0.09 * total, length_a + 0.09 * total, along)
    return along.astype(np.float32), share


def _arm(body: Body, still: Rest, texture: Array, sleeve: float, side: int) -> Part:
    h = body.height
    along, share = _chain(still.upper, still.fore, 14)
    at = along / along[-1]
    radius = (
        np.interp(
            at,
            [0, 0.12, 0.3, 0.5, 0.56, 0.66, 0.85, 1],
            [0.030, 0.0295, 0.0265, 0.0225, 0.0225, 0.0235, 0.018, 0.0155],
        )
        * h
        * body.girth**0.8
    )
    radius += 0.0055 * h * smoothstep(sleeve + 0.05, sleeve - 0.02, at)
    root = still.joints[limb(UPPER, side)]
    path = root - np.stack([0 * along, along, 0 * along], -1)
    part = tube(path, np.stack([radius, radius], -1), texture, sides=10, round_ends=(True, True))
    return _chained(part, root[1] - part.vertices[:, 1], along, share, UPPER, FORE, side)


def _leg(body: Body, still: Rest, texture: Array, cover: float, side: int) -> Part:
    h = body.height
    along, share = _chain(still.thigh, still.shin, 16)
    at = along / along[-1]
    radius = (
        np.interp(
            at,
            [0, 0.1, 0.3, 0.47, 0.53, 0.66, 0.85, 1],
            [0.053, 0.051, 0.043, 0.0325, 0.031, 0.033, 0.0225, 0.020],
        )
        * h
        * body.girth**0.8
    )
    radius += (0.004 + 0.012 * at) * h * smoothstep(cover + 0.04, cover - 0.02, at)
    root = still.joints[limb(THIGH, side)]
    start = 0.022 * h  # below the joint, so that the dome stays under the shirt
    down = start + along * (1 - start / along[-1])
    path = root - np.stack([0 * along, down, 0.006 * h * np.sin(np.pi * at)], -1)
    part = tube(path, np.stack([radius, radius], -1), texture, sides=12, round_ends=(True, False))
    return _chained(part, root[1] - part.vertices[:, 1], along, share, THIGH, SHIN, side)


def _chained(
    part: Part, down: Array, along: Array, share: Array, near: int, far: int, side: int
) -> Part:
    """Hang a tube on two bones."""
    part = replace(part, bones=np.full_like(part.bones, limb(near, side)))
    return bend(part, limb(far, side), np.interp(down, along, share))


def _hand(still: Rest, skin: Array, side: int) -> list[Part]:
    """A palm, four fingers and a thumb, hanging from the wrist, palm towards the thigh."""
    out, n = 1 - 2 * side, still.hand
    wrist, bone = still.joints[limb(HAND, side)], limb(HAND, side)
    palm = wrist + floats((0, -0.26 * n, 0))
    parts = [ball(palm, (0.12 * n, 0.32 * n, 0.22 * n), skin, bone=bone)]
    for k, (length, tilt) in enumerate(((0.40, -0.10), (0.46, -0.03), (0.44, 0.05), (0.34, 0.13))):
        # From the index finger, which is forwards, to the little one.
        start = wrist + floats((0, -0.50 * n, (0.15 - 0.10 * k) * n))
        t = np.linspace(0, 1, 4)[:, None]
        path = start + t * length * n * floats([-0.12 * out, -1, -tilt])
        path[:, 0] -= out * 0.10 * n * t[:, 0] ** 2
        radius = n * floats([0.065, 0.060, 0.055, 0.035])[:, None].repeat(2, 1)
        parts.append(tube(path, radius, skin, sides=5, bone=bone))
    t = np.linspace(0, 1, 4)[:, None]
    thumb = wrist + floats((0, -0.14 * n, 0.12 * n)) + t * n * floats([-0.10 * out, -0.34, 0.26])
    radius = n * floats([0.085, 0.075, 0.065, 0.04])[:, None].repeat(2, 1)
    return [*parts, tube(thumb, radius, skin, sides=5, bone=bone)]


def _shoe(still: Rest, texture: Array, side: int) -> Part:
    """Heel to toe, flat below."""
    ankle, n = still.joints[limb(FOOT, side)], still.foot
    t = np.linspace(0, 1, 9)[:, None]
    angle = np.linspace(0, 2 * np.pi, 11)
    wide = n * np.interp(t, [0, 0.1, 0.4, 0.75, 0.92, 1], [0.06, 0.15, 0.16, 0.21, 0.17, 0.05])
    high = n * np.interp(t, [0, 0.1, 0.35, 0.6, 0.9, 1], [0.12, 0.38, 0.42, 0.28, 0.18, 0.08])
    x = ankle[0] + wide * np.sin(angle)
    y = np.maximum(high * (0.5 + 0.5 * np.cos(angle)) * 1.05 - 0.05 * high, 0)
    z = ankle[2] - 0.27 * n + t * n + 0 * angle
    # Seen from the front u runs over the shoe to the right and the toes are below.
    return sheet(np.stack([x, y, z], -1), texture, bone=limb(FOOT, side), gloss=0.25)


def _skirt(body: Body, still: Rest, texture: Array, side: int) -> Part:
    """Half of a skirt: it hangs from the hips and follows its thigh."""
    h = body.height
    t = np.linspace(0, 1, 7)[:, None]
    angle = np.linspace(0, np.pi, 13) if side == 0 else np.linspace(np.pi, 2 * np.pi, 13)
    wide = (0.094 + 0.050 * t) * h * body.hips * body.girth**0.7
    deep = (0.068 + 0.056 * t) * h * body.girth**0.7
    pleats = 1 + 0.03 * t * np.cos(10 * angle)
    y = still.joints[PELVIS, 1] + 0.03 * h - t * 0.225 * h
    points = [wide * np.sin(angle) * pleats, y + 0 * angle, deep * np.cos(angle) * pleats]
    part = sheet(np.stack(points, -1)[:, ::-1], texture, bone=PELVIS, closed=False)
    sideways = np.abs(part.vertices[:, 0]) / np.repeat(wide[:, 0], 13)
    share = 0.8 * smoothstep(0.0, 0.7, np.repeat(t[:, 0], 13)) * smoothstep(0.0, 0.5, sideways)
    return bend(part, limb(THIGH, side), share)


def head_scale(body: Body) -> float:
    """Metres per centimetre of the canonical face."""
    return 0.0062 * body.height * body.head


def head_origin(body: Body, still: Rest) -> Array:
    """(3,) where the canonical face's origin is at rest."""
    return still.joints[SKULL] + head_scale(body) * floats([0, 4.5, 3.8])


def _head(body: Body, still: Rest, look: face.Look, texture_px: int) -> list[Part]:
    bones = np.array([SKULL, SKULL, SKULL, CHEST], np.int32)
    scale, origin = head_scale(body), head_origin(body, still)
    size = int(np.clip(texture_px * 0.35, 24, 256))
    return [
        replace(p, vertices=p.vertices * scale + origin, bones=bones[p.bones])
        for p in head_parts(look, size)
    ]


def landmarks(body: Body, look: face.Look, rotation: Array, place: Array) -> Array:
    """(T, 33, 3) the points that body trackers look for, in MediaPipe Pose's order."""
    still = rest(body)
    points = face.shape(look)
    scale, origin = head_scale(body), head_origin(body, still)
    ears = [floats([s * 8.3 * look.width, 0.6, -3.0]) for s in (1, -1)]
    eyes = [points[[a, b]].mean(0) for a, b in ((386, 374), (159, 145))]
    on_head = [points[4], points[362], eyes[0], points[263], points[133], eyes[1], points[33]]
    on_head += [*ears, points[291], points[61]]
    rows = [(SKULL, origin + scale * p) for p in on_head]

    def both(part: int, offset: tuple[float, float, float] = (0, 0, 0)) -> None:
        for side in SIDES:
            mirrored = floats(offset) * (1 - 2 * side, 1, 1)
            rows.append((limb(part, side), still.joints[limb(part, side)] + mirrored))

    n, f = still.hand, still.foot
    both(UPPER)
    both(FORE)
    both(HAND)
    both(HAND, (0, -0.52 * n, -0.15 * n))
    both(HAND, (0, -0.55 * n, 0.15 * n))
    both(HAND, (-0.07 * n, -0.36 * n, 0.28 * n))
    both(THIGH)
    both(SHIN)
    both(FOOT)
    both(FOOT, (0, -0.7 * still.ankle, -0.22 * f))
    both(FOOT, (0, -0.8 * still.ankle, 0.68 * f))
    bones = [bone for bone, _ in rows]
    local = np.stack([at - still.joints[bone] for bone, at in rows]).astype(np.float32)
    return np.einsum("tkij,kj->tki", rotation[:, bones], local) + place[:, bones]
