"""What happens in the street: a camera that drives along it, cars, people on the pavements.

Metres and seconds; x to the right, y up, z along the street. Everything moves by closed formulas,
so that every moment is known by itself, and things are rigid, so that every point can be followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vidsynth.worlds.motion import wandering

# T frames

Real = NDArray[np.float64]

# The data set's ids (Cityscapes).
ROAD, PAVEMENT, BUILDING, SKY, PERSON, CAR = 7, 8, 11, 23, 24, 26
NUM_CLASSES = 34

ROAD_EDGE = 5.6
"""Half the road's width."""
FRONT = 8.8
"""How far the houses stand from the middle of the road."""
EYE = 1.5
"""The camera's height."""
SIGHT = 70.0
"""How far ahead there is traffic."""
SPEED = 8.0
"""Of the camera, metres per second."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Drive:
    """A drive along a street, frame by frame."""

    seed: int
    """Of what stands and moves in the street."""
    fps: float
    seconds: Real
    """(T,)."""
    place: Real
    """(T, 2) the camera's x and z."""
    yaw: Real
    """(T,) radians; positive looks to the right."""

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, key: slice) -> Drive:
        return replace(self, seconds=self.seconds[key], place=self.place[key], yaw=self.yaw[key])


def make_drive(seed: int, num_frames: int, fps: float = 25.0) -> Drive:
    """A drive of any length; the first frames of a longer one are the same."""
    seconds = np.arange(num_frames) / fps
    sway = wandering(np.random.default_rng((seed, 31)), 3, seconds, 0.35).astype(np.float64)
    along = SPEED * seconds + 1.5 * sway[:, 0]
    across = LANE + 0.35 * sway[:, 1]
    return Drive(
        seed=seed,
        fps=fps,
        seconds=seconds,
        place=np.stack([across, along], axis=1),
        yaw=0.06 * sway[:, 2],
    )


LANE = 1.8
"""Where the camera's own lane is; traffic keeps to the right."""


@dataclass(frozen=True, slots=True)
class Row:
    """Things of one sort, one behind the other, all at one speed."""

    label: int
    x: float
    spread: float
    """How far they stray from x."""
    speed: float
    """Along z, metres per second."""
    spacing: float
    """Metres from one to the next."""
    share: float
    """Of the places that are taken."""


ROWS = (
    Row(CAR, -LANE, 0.15, -9.0, 24.0, 0.9),
    Row(CAR, 4.5, 0.1, 0.0, 7.0, 0.5),
    Row(CAR, -4.5, 0.1, 0.0, 7.0, 0.4),
    Row(PERSON, 7.2, 1.0, 1.3, 6.0, 0.7),
    Row(PERSON, -7.2, 1.0, -1.1, 6.0, 0.7),
)
AHEAD = len(ROWS)
"""The row of the one car that drives in front of the camera."""
NUMBERED = 150
"""Things of a row have numbers of their own within so many places."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One car or person."""

    row: int
    place: int
    label: int
    x: float
    z: float
    """Where it is at 0 s."""
    speed: float
    pace: float
    """Of a person's steps: radians per second; and the size of a car, as a share."""

    @property
    def instance(self) -> int:
        return self.label * 1000 + self.row * NUMBERED + self.place % NUMBERED


@lru_cache(maxsize=4096)
def _thing(seed: int, row: int, place: int) -> Thing | None:
    """What stands at a place of a row, if anything does."""
    kind = ROWS[row]
    rng = np.random.default_rng((seed, 32, row, place + 1_000_000))
    taken, along, across, pace = rng.random(4).tolist()
    if taken > kind.share:
        return None
    return Thing(
        row=row,
        place=place,
        label=kind.label,
        x=kind.x + kind.spread * (2 * across - 1),
        z=(place + 0.15 * (2 * along - 1)) * kind.spacing,
        speed=kind.speed,
        pace=5.5 + 2 * pace if kind.label == PERSON else 0.92 + 0.16 * pace,
    )


def things_near(drive: Drive, t: int) -> list[Thing]:
    """Everything between a little behind the camera and the end of its sight."""
    here, now = float(drive.place[t, 1]), float(drive.seconds[t])
    found: list[Thing] = []
    for index, row in enumerate(ROWS):
        start = here - 4 - row.speed * now
        first, last = int(start // row.spacing), int((start + SIGHT) // row.spacing) + 1
        for place in range(first, last + 1):
            thing = _thing(drive.seed, index, place)
            if thing and start <= thing.z <= start + SIGHT:
                found.append(thing)
    return [*found, Thing(AHEAD, 0, CAR, LANE, 13.0, SPEED, 1.0)]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A rigid piece of a thing: a box, or an ellipsoid."""

    thing: Thing
    name: str
    centre: Real
    """(3,)."""
    turn: Real
    """(3, 3) from its own axes to the street's."""
    half: Real
    """(3,) half its size along its own axes."""
    round: bool


def parts_at(thing: Thing, seconds: float) -> Iterator[Part]:
    """The pieces of a thing at a moment; always the same ones in the same order."""
    z = thing.z + thing.speed * seconds
    if thing.row == AHEAD:
        z += 3.0 * np.sin(0.6 * seconds)
    pieces = _car(thing.pace) if thing.label == CAR else _person(thing.pace * seconds)
    for name, centre, half, pitch in pieces:
        yield Part(
            thing,
            name,
            np.array([thing.x, 0.0, z]) + centre,
            _nodding(pitch),
            np.array(half),
            round=name in ("torso", "head"),
        )


Piece = tuple[str, tuple[float, float, float], tuple[float, float, float], float]
"""Name, centre, half size, pitch."""


def _car(scale: float) -> list[Piece]:
    wide, long = 0.88, 2.1 * scale
    return [
        ("body", (0.0, 0.68, 0.0), (wide, 0.36, long), 0.0),
        ("cabin", (0.0, 1.28, -0.1), (0.86 * wide, 0.26, 0.55 * long), 0.0),
        ("wheels", (0.0, 0.3, 0.62 * long), (1.02 * wide, 0.3, 0.3), 0.0),
        ("wheels", (0.0, 0.3, -0.62 * long), (1.02 * wide, 0.3, 0.3), 0.0),
    ]


def _person(phase: float) -> list[Piece]:
    hip, leg = 0.84, 0.42
    swing = 0.45 * np.sin(phase)
    legs: list[Piece] = [
        (
            "leg",
            (side * 0.1, hip - leg * float(np.cos(angle)), -leg * float(np.sin(angle))),
            (0.08, leg, 0.09),
            float(angle),
        )
        for side, angle in ((-1, swing), (1, -swing))
    ]
    return [
        *legs,
        ("torso", (0.0, 1.12, 0.0), (0.24, 0.4, 0.16), 0.0),
        ("head", (0.0, 1.6, 0.0), (0.11, 0.14, 0.12), 0.0),
    ]


def _nodding(pitch: float) -> Real:
    """Rotation about x."""
    c, s = np.cos(pitch), np.sin(pitch)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def block_of(z: Real) -> NDArray[np.int64]:
    """Which house a place along the street is at."""
    return np.floor(z / HOUSE).astype(np.int64)


HOUSE = 9.0
"""Width of a house."""


def house_number(side: int, block: NDArray[np.int64]) -> NDArray[np.int64]:
    """Instance ids of houses: neighbours have different ones."""
    return BUILDING * 1000 + 500 * (side % 2) + block % 500


def heights(seed: int, side: int, block: NDArray[np.int64]) -> Real:
    """Of the houses on the left (side 0) or right (1)."""
    return 5.0 + 3.0 * np.floor(4 * scattered(seed + 17 * side, block, np.full_like(block, 5)))


def scattered(seed: int, u: NDArray[np.int64], v: NDArray[np.int64]) -> Real:
    """A number in [0, 1) for each pair of whole numbers, without pattern."""
    with np.errstate(over="ignore"):
        mixed = u.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= v.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed += np.uint64(seed * 2654435761 + 12345)
        for shift in (29, 32):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
