"""A talking head: known pose, expression and gaze, on anyone's face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch

from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.facemesh import load_face_mesh
from vidsynth.stream import Chunk
from vidsynth.worlds import face
from vidsynth.worlds.face import Look, random_look
from vidsynth.worlds.figure import Array, Figure, Light, Part, draw, smoothstep, tube, unit
from vidsynth.worlds.motion import turns, wandering
from vidsynth.worlds.skin import EYEBALL_CM
from vidsynth.worlds.skull import (
    HEAD,
    LEFT_EYEBALL,
    LOWER_TEETH,
    RIGHT_EYEBALL,
    TRUNK,
    head_parts,
)
from vidsynth.worlds.sound import Samples, voice
from vidsynth.worlds.texture import PATTERNS, Colour, Pattern, cloth, floats, hsv, noise

# T frames, N bones, V vertices, H, W pixels; centimetres of the canonical face

CHUNK_FRAMES = 16
NECK_PIVOT = (0.0, -7.0, -4.5)
"""The point that the head turns about."""
NUM_FACE = 468
IRIS_CM = 0.58


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitter:
    """Someone in front of a camera."""

    look: Look
    shirt: Colour
    shirt_trim: Colour
    pattern: Pattern
    backdrop: Colour
    backdrop_seed: int
    light: Light
    field_cm: float
    """Centimetres that the picture's shorter side shows."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Talk:
    """A motion, frame by frame, that any face can do."""

    fps: float
    turn: Array
    """(T, 3) yaw, pitch, roll of the head in radians, see `motion.turns`."""
    shift: Array
    """(T, 2) how far the sitter has moved, right and up, in centimetres of the canonical face."""
    expression: Array
    """(T, 5) coefficients in [0, 1] of `face.EXPRESSIONS`."""
    gaze: Array
    """(T, 2) yaw and pitch of the eyes against the head, in radians."""

    def __len__(self) -> int:
        return len(self.turn)

    def __getitem__(self, key: slice) -> Talk:
        arrays: dict[str, Any] = {
            f.name: value[key]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)


def make_identity(seed: int) -> Sitter:
    """Someone; different seeds give clearly different people and surroundings."""
    rng = np.random.default_rng((seed, 12))
    hue = rng.random()
    side = float(rng.choice([-1, 1]))
    return Sitter(
        look=random_look(rng),
        shirt=hsv(hue, rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.85)),
        shirt_trim=hsv(hue + 0.5, 0.3, 0.9),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        backdrop=hsv(rng.random(), rng.uniform(0.15, 0.45), rng.uniform(0.45, 0.8)),
        backdrop_seed=int(rng.integers(1 << 30)),
        light=Light(towards=(side * rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.7), 0.8)),
        field_cm=rng.uniform(32, 37),
    )


def make_motion(seed: int, num_frames: int, fps: float = 25.0) -> Talk:
    """Talking, nodding, looking about; the first frames of a longer one are the same."""
    rng = np.random.default_rng((seed, 13))
    seconds = np.arange(num_frames) / fps
    slow = wandering(rng, 5, seconds, 0.45)
    mood = wandering(rng, 3, seconds, 0.5)
    syllables = wandering(rng, 2, seconds, 4.5)
    phrase = smoothstep(-0.5, 0.1, wandering(rng, 1, seconds, 0.6)[:, 0])
    jaw = phrase * np.clip(0.34 + 0.5 * syllables[:, 0], 0, 1)
    smile = np.clip(0.35 + 0.65 * mood[:, 0], 0, 1) * (1 - 0.4 * jaw)
    pucker = phrase * np.clip(0.8 * syllables[:, 1] - 0.1, 0, 0.8) * (1 - smile)
    expression = [jaw, smile, pucker, np.clip(0.9 * mood[:, 1], 0, 1), _blinks(rng, seconds)]
    turn = slow[:, :3] * np.deg2rad((28, 13, 10))
    return Talk(
        fps=fps,
        turn=floats(turn + 0.03 * wandering(rng, 3, seconds, 2.0)),
        shift=floats(slow[:, 3:5] * (2.2, 1.0)),
        expression=floats(np.stack(expression, axis=1)),
        gaze=floats(_glances(rng, seconds) - 0.25 * turn[:, :2]),
    )


def _blinks(rng: np.random.Generator, seconds: Array) -> Array:
    """(T,) 0 with the eyes open, 1 in the middle of a blink of a fifth of a second."""
    closed = np.zeros(len(seconds), np.float32)
    at = rng.uniform(0.5, 2.5)
    while len(seconds) and at < seconds[-1] + 1:
        closed = np.maximum(closed, 1 - smoothstep(0.03, 0.13, np.abs(seconds - at)))
        at += rng.uniform(1.2, 4.0)
    return closed


def _glances(rng: np.random.Generator, seconds: Array) -> Array:
    """(T, 2) gaze angles that rest for a second or so and then jump."""
    gaze = np.zeros((len(seconds), 2))
    at = 0.0
    while len(seconds) and at <= seconds[-1]:
        arrived = smoothstep(at, at + 0.08, seconds)[:, None]
        gaze = gaze * (1 - arrived) + arrived * rng.uniform(-1, 1, 2) * np.deg2rad((18, 9))
        at += rng.uniform(0.5, 1.8)
    return floats(gaze)


# Pictures -----------------------------------------------------------------------------------------


def _figure(identity: Sitter, texture_px: int) -> tuple[Figure, Array]:
    """The sitter at rest, and (5, V, 3) how each expression moves the vertices."""
    parts = head_parts(identity.look, texture_px)
    figure = Figure.joined([*parts, _shoulders(identity, texture_px)])
    basis = np.zeros((len(face.EXPRESSIONS), len(figure.vertices), 3), np.float32)
    basis[:, :NUM_FACE] = face.expression_basis(figure.vertices[:NUM_FACE])
    first = sum(len(p.vertices) for p in parts[:LOWER_TEETH])
    teeth = slice(first, first + len(parts[LOWER_TEETH].vertices))
    basis[face.EXPRESSIONS.index("jaw_open"), teeth] = (0, -1.9, -0.6)
    return figure, basis


def _pivots(neutral: Array) -> Array:
    """(4, 3) the point that each bone turns about."""
    pivots = np.zeros((4, 3), np.float32)
    pivots[HEAD] = NECK_PIVOT
    pivots[RIGHT_EYEBALL] = face.eye_pivot(neutral[face.RIGHT_EYE])
    pivots[LEFT_EYEBALL] = face.eye_pivot(neutral[face.LEFT_EYE])
    return pivots


def _shoulders(identity: Sitter, texture_px: int) -> Part:
    rng = np.random.default_rng(identity.backdrop_seed)
    size = int(np.clip(texture_px, 32, 512))
    shirt = cloth(identity.shirt, identity.shirt_trim, identity.pattern, rng, size)
    y = floats([-13.2, -14.0, -15.0, -16.2, -18.0, -21.0, -26.0, -34.0])
    wide = floats([6.2, 7.6, 10.5, 14.0, 17.5, 20.0, 21.5, 22.5])
    deep = floats([5.6, 6.6, 7.6, 8.6, 9.6, 10.6, 11.5, 12.0])
    path = np.stack([0 * y, y, 0 * y - 5.0], -1)
    return tube(path, np.stack([wide, deep], -1), shirt, sides=28, bone=TRUNK)


def _bones(pivots_N3: Array, motion: Talk) -> tuple[Array, Array]:
    """Rotations (T, 4, 3, 3) and shifts (T, 4, 3) of the head, the eyeballs and the trunk."""
    count = len(motion)
    rotation = np.tile(np.eye(3, dtype=np.float32), (count, 4, 1, 1))
    shift = np.zeros((count, 4, 3), np.float32)
    moved = np.concatenate([motion.shift, 0 * motion.shift[:, :1]], axis=1)
    head = turns(*motion.turn.T)
    rotation[:, HEAD] = head
    shift[:, HEAD] = pivots_N3[HEAD] - head @ pivots_N3[HEAD] + moved
    shift[:, TRUNK] = 0.8 * moved
    look = head @ turns(motion.gaze[:, 0], motion.gaze[:, 1], 0 * motion.gaze[:, 0])
    for eye in (RIGHT_EYEBALL, LEFT_EYEBALL):
        rotation[:, eye] = look
        centre = head @ pivots_N3[eye] + shift[:, HEAD]
        shift[:, eye] = centre - look @ pivots_N3[eye]
    return rotation, shift


def _to_pixels(identity: Sitter, points: Array, height: int, width: int) -> Array:
    """(..., 3) centimetres -> x right and y down in pixels, and depth in pixels."""
    scale = _pixels_per_cm(identity, height, width)
    x = width / 2 + scale * points[..., 0]
    y = 0.47 * height - scale * points[..., 1]
    return np.stack([x, y, -scale * points[..., 2]], axis=-1).astype(np.float32)


def _pixels_per_cm(identity: Sitter, height: int, width: int) -> float:
    return min(height, width) / identity.field_cm


def render(identity: Sitter, motion: Talk, *, height: int, width: int) -> Iterator[Chunk]:
    """Film the identity doing the motion, a few frames at a time."""
    plate = _backdrop(identity, height, width)
    face_px = 17 * _pixels_per_cm(identity, height, width)
    figure, basis = _figure(identity, int(np.clip(2 * face_px, 32, 512)))
    rotation, shift = _bones(_pivots(figure.vertices[:NUM_FACE]), motion)
    triangles = load_face_mesh().triangles
    for start in range(0, len(motion), CHUNK_FRAMES):
        frames = []
        for t in range(start, min(start + CHUNK_FRAMES, len(motion))):
            vertices = figure.vertices + np.tensordot(motion.expression[t], basis, 1)
            normals = figure.normals.copy()
            normals[:NUM_FACE] = face.vertex_normals(vertices[:NUM_FACE], triangles)
            made = replace(figure, vertices=floats(vertices), normals=normals)
            posed, normals = made.posed(rotation[t], shift[t])
            pixels = _to_pixels(identity, posed, height, width)
            colour, coverage = draw(made, pixels, normals, identity.light, height, width)
            frames.append(np.rint(colour + (1 - coverage) * plate).astype(np.uint8))
        pts = torch.arange(start, start + len(frames), dtype=torch.float64) / motion.fps
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        yield Chunk(pts, Clip(pixels, pts))


def _backdrop(identity: Sitter, height: int, width: int) -> Array:
    """(H, W, 3) a room out of focus."""
    rng = np.random.default_rng((identity.backdrop_seed, 1))
    detail = 256
    y, x = (np.mgrid[:detail, :detail] + 0.5) / detail
    picture = floats(identity.backdrop) * (1.12 - 0.35 * y)[..., None]
    for _ in range(7):
        left, top = rng.uniform(-0.2, 1, 2)
        wide, high = rng.uniform(0.1, 0.45, 2)
        inside = ((x > left) & (x < left + wide) & (y > top) & (y < top + high))[..., None]
        tint = floats(hsv(rng.random(), 0.35, rng.uniform(0.3, 0.95)))
        picture = np.where(inside, 0.55 * picture + 0.45 * tint, picture)
    picture = cv2.GaussianBlur(floats(picture), (0, 0), 5)
    picture *= 1 + 0.02 * noise(rng, detail, 128)[..., None]
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return floats(np.clip(picture, 0, 255))


def truth(identity: Sitter, motion: Talk, *, height: int, width: int) -> FaceSequence:
    """The true mesh, irises and pose of every frame of `render`.

    `parameters` holds "expression" (T, 5), coefficients of `face.EXPRESSIONS`, and "gaze" (T, 2).
    """
    neutral = face.shape(identity.look)
    pivots_N3 = _pivots(neutral)
    rotation, shift = _bones(pivots_N3, motion)
    faces = neutral + np.tensordot(motion.expression, face.expression_basis(neutral), 1)
    points = faces @ rotation[:, HEAD].transpose(0, 2, 1) + shift[:, None, HEAD]
    irises = [
        _iris(pivots_N3[eye]) @ rotation[:, eye].transpose(0, 2, 1) + shift[:, None, eye]
        for eye in (RIGHT_EYEBALL, LEFT_EYEBALL)
    ]
    pixels = _to_pixels(identity, np.concatenate([points, *irises], axis=1), height, width)
    origin = _to_pixels(identity, shift[:, HEAD], height, width)[:, :2]
    scale = _pixels_per_cm(identity, height, width)
    return FaceSequence(
        landmarks=torch.from_numpy(pixels),
        rotation=torch.from_numpy(floats([[1], [-1], [-1]]) * rotation[:, HEAD]),
        translation=torch.from_numpy(origin),
        scale=torch.full((len(motion),), scale),
        seen=torch.ones(len(motion), dtype=torch.bool),
        frame_size=(height, width),
        parameters={
            "expression": torch.from_numpy(motion.expression),
            "gaze": torch.from_numpy(motion.gaze),
        },
    )


def _iris(pivot: Array) -> Array:
    """(5, 3): centre, then to the right of the picture, above, to the left, below."""
    aim = floats([[0, 0, 1], [IRIS_CM, 0, 1.2], [0, IRIS_CM, 1.2], [-IRIS_CM, 0, 1.2]])
    aim = np.concatenate([aim, floats([[0, -IRIS_CM, 1.2]])])
    return pivot + EYEBALL_CM * unit(aim)


def soundtrack(seed: int, motion: Talk) -> Samples:
    """A voice that follows the mouth."""
    return voice(seed, motion.expression[:, face.EXPRESSIONS.index("jaw_open")], motion.fps)
