"""Moving shapes: one coloured shape that moves in one way, over a plain ground. Classes, captions.

A class is a motion, a shape and a colour; within a class, place, pace, size, shade and ground
differ. What leaves the picture on one side comes back on the other, so that every motion goes on
for ever, and the picture is known at any size from closed formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import LabelMaps
from vidsynth.stream import Chunk
from vidsynth.worlds.sound import Samples, hum
from vidsynth.worlds.texture import hsv

# T frames, H, W pixels

Real = NDArray[np.float64]
CHUNK_FRAMES = 16
CIRCLING_RADIUS = 0.2
"""Of the path, in shorter sides of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """A shape and what it lies on."""

    shape: str
    colour: str
    rgb: tuple[float, float, float]
    ground: tuple[float, float, float]
    """RGB in [0, 255]."""
    radius: float
    """From the middle to a corner or to the rim, in shorter sides of the picture."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Motion:
    """Where the middle of a shape is, and how large the shape, at each frame."""

    kind: str
    fps: float
    seconds: Real
    """(T,)."""
    start: tuple[float, float]
    """x, y in shares of the picture's width and height."""
    pace: float
    """Shorter sides of the picture per second, or turns per second."""
    phase: float
    """In turns, for what turns."""

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, key: slice) -> Motion:
        return replace(self, seconds=self.seconds[key])


def _straight(x: float, y: float) -> Callable[[Motion], tuple[Real, Real]]:
    def path(motion: Motion) -> tuple[Real, Real]:
        along = motion.pace * motion.seconds
        return np.stack([x * along, y * along], axis=1), np.ones(len(motion))

    return path


def _circling(motion: Motion) -> tuple[Real, Real]:
    turn = 2 * np.pi * (motion.phase + motion.pace * motion.seconds)
    path = CIRCLING_RADIUS * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return path, np.ones(len(motion))


def _pulsing(motion: Motion) -> tuple[Real, Real]:
    turn = 2 * np.pi * (motion.phase + motion.pace * motion.seconds)
    return np.zeros((len(motion), 2)), 1 + 0.35 * np.sin(turn)


# Name -> (T, 2) offsets from the start in shorter sides of the picture, and (T,) sizes.
MOTIONS = {
    "right": _straight(1, 0),
    "down": _straight(0, 1),
    "left": _straight(-1, 0),
    "up": _straight(0, -1),
    "circling": _circling,
    "pulsing": _pulsing,
}
# Ways to say a motion, the usual one first.
_VERBS = {
    "circling": ("goes round in a circle", "moves in a circle", "circling"),
    "pulsing": ("grows and shrinks", "growing and shrinking", "pulsing"),
    "right": ("moves right", "moves to the right", "moving right", "goes right"),
    "left": ("moves left", "moves to the left", "moving left", "goes left"),
    "up": ("moves up", "moving up", "goes up"),
    "down": ("moves down", "moving down", "goes down"),
}
SHAPES = ("circle", "square", "triangle")
HUES = {"red": 0.0, "blue": 0.62, "green": 0.34, "yellow": 0.15}


def class_names(
    motions: Sequence[str] = tuple(MOTIONS),
    shapes: Sequence[str] = SHAPES,
    colours: Sequence[str] = tuple(HUES),
) -> tuple[str, ...]:
    """All classes that these make: "red-circle-right" and so on."""
    return tuple(f"{c}-{s}-{m}" for m, s, c in product(motions, shapes, colours))


def make_identity(seed: int, *, shape: str | None = None, colour: str | None = None) -> Looks:
    """Some looks; the shape and the colour can be chosen."""
    rng = np.random.default_rng((seed, 41))
    some_shape, some_colour = str(rng.choice(SHAPES)), str(rng.choice(list(HUES)))
    colour = colour or some_colour
    return Looks(
        shape=shape or some_shape,
        colour=colour,
        rgb=hsv(HUES[colour] + rng.uniform(-0.02, 0.02), rng.uniform(0.8, 1), rng.uniform(0.8, 1)),
        ground=hsv(rng.random(), rng.uniform(0, 0.25), rng.uniform(0.06, 0.4)),
        radius=float(rng.uniform(0.17, 0.23)),
    )


def make_motion(
    seed: int, num_frames: int, fps: float = 25.0, *, kind: str | None = None
) -> Motion:
    """Some motion of any length; its kind can be chosen."""
    rng = np.random.default_rng((seed, 42))
    some_kind = str(rng.choice(list(MOTIONS)))
    x, y = rng.random(2)
    return Motion(
        kind=kind or some_kind,
        fps=fps,
        seconds=np.arange(num_frames) / fps,
        start=(float(x), float(y)),
        pace=float(rng.uniform(0.5, 0.8)),
        phase=float(rng.random()),
    )


def of_class(name: str, seed: int, num_frames: int, fps: float = 25.0) -> tuple[Looks, Motion]:
    """A member of a class; other seeds, other members."""
    colour, shape, kind = name.split("-")
    return (
        make_identity(seed, shape=shape, colour=colour),
        make_motion(seed, num_frames, fps, kind=kind),
    )


def class_of(identity: Looks, motion: Motion) -> str:
    """The class that a film of these belongs to."""
    return f"{identity.colour}-{identity.shape}-{motion.kind}"


def caption(identity: Looks, motion: Motion) -> str:
    """What a film of these shows, in words: "a red circle moves right"."""
    return captions(class_of(identity, motion))[0]


def captions(name: str) -> tuple[str, ...]:
    """Ways to say in words what the films of a class show, the usual one first."""
    colour, shape, kind = name.split("-")
    return tuple(f"{a} {colour} {shape} {verb}" for a in ("a", "the") for verb in _VERBS[kind])


def held_out(names: Sequence[str], every: int) -> tuple[str, ...]:
    """One class in so many, such that where `every` is 6 each colour and shape lacks one motion,
    and any two of the three are seen together without it; () for 0."""
    if not every:
        return ()

    def number(name: str) -> int:
        colour, shape, kind = name.split("-")
        return list(HUES).index(colour) + SHAPES.index(shape) + list(MOTIONS).index(kind)

    return tuple(name for name in names if number(name) % every == 0)


def film(name: str, seed: int, num_frames: int, fps: float, size: int) -> Tensor:
    """(T, 3, size, size) uint8: a member of a class, as `of_class`."""
    identity, motion = of_class(name, seed, num_frames, fps)
    frames = [c.clip.frames for c in render(identity, motion, height=size, width=size) if c.clip]
    return torch.cat(frames)


def render(identity: Looks, motion: Motion, *, height: int, width: int) -> Iterator[Chunk]:
    """Film the shape, a few frames at a time."""
    for start in range(0, len(motion), CHUNK_FRAMES):
        part = motion[start : start + CHUNK_FRAMES]
        inside = np.clip(0.5 - _distance(identity, part, height, width), 0, 1)[..., None]
        colours = inside * np.array(identity.rgb) + (1 - inside) * np.array(identity.ground)
        frames = torch.from_numpy(np.rint(colours).astype(np.uint8)).permute(0, 3, 1, 2)
        index = torch.arange(start, start + len(part), dtype=torch.float64)
        pts = index / motion.fps
        yield Chunk(pts, Clip(frames.contiguous(), pts))


def truth(identity: Looks, motion: Motion, *, height: int, width: int) -> LabelMaps:
    """Which pixels' centres show the shape: class 1, one instance."""
    inside = torch.from_numpy(_distance(identity, motion, height, width) < 0)
    return LabelMaps(labels=inside.to(torch.uint8), num_classes=2, instances=inside.int())


def soundtrack(seed: int, motion: Motion) -> Samples:
    """A hum of one note."""
    return hum(seed, len(motion) / motion.fps)


def middles(motion: Motion, height: int, width: int) -> tuple[Real, Real]:
    """(T, 2) x and y of the middle in pixels, inside of the picture, and (T,) sizes."""
    offset, sizes = MOTIONS[motion.kind](motion)
    picture = np.array([width, height], float)
    return (np.array(motion.start) * picture + offset * min(height, width)) % picture, sizes


def _distance(identity: Looks, motion: Motion, height: int, width: int) -> Real:
    """(T, H, W) pixels from each pixel's centre to the shape's edge, negative inside."""
    places, sizes = middles(motion, height, width)
    radius = (identity.radius * min(height, width) * sizes)[:, None, None]
    x = _nearest(np.arange(width) + 0.5 - places[:, :1], width)[:, None, :]
    y = _nearest(np.arange(height) + 0.5 - places[:, 1:], height)[:, :, None]
    if identity.shape == "circle":
        return np.hypot(x, y) - radius
    if identity.shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.85 * radius
    # A triangle with its tip up: how far beyond the farthest of its three sides.
    slope = np.sqrt(3) / 2 * abs(x) - y / 2
    return np.maximum(slope, y) - 0.55 * radius


def _nearest(offset: Real, period: int) -> Real:
    """The offset to the nearest of the copies of a place that repeats."""
    return (offset + period / 2) % period - period / 2
