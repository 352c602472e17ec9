"""What a camera in the street sees at any place of its picture, and where a point of it appears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidsynth.worlds.traffic import (
    EYE,
    FRONT,
    Drive,
    Part,
    Real,
    block_of,
    heights,
    parts_at,
    things_near,
)

# N places in a picture

HORIZON = 0.46
"""Share of the picture's height above the horizon."""
SKY_AT, GROUND, LEFT, RIGHT, FIRST_PART = -1, 0, 1, 2, 3
"""Surfaces; parts of things count on from FIRST_PART."""
NEAR = 0.05
"""Metres: nothing nearer is seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The street and the camera at one time."""

    drive: Drive
    eye: Real
    """(3,)."""
    yaw: float
    parts: tuple[Part, ...]

    @staticmethod
    def at(drive: Drive, t: int, things_of: int | None = None) -> Moment:
        """Frame `t`, with the things that are near in frame `things_of` (by default the same)."""
        x, z = drive.place[t].tolist()
        near = things_near(drive, t if things_of is None else things_of)
        seconds = float(drive.seconds[t])
        parts = tuple(part for thing in near for part in parts_at(thing, seconds))
        return Moment(drive, np.array([x, EYE, z]), float(drive.yaw[t]), parts)


@dataclass(frozen=True, slots=True)
class Lens:
    height: int
    width: int

    @property
    def focal(self) -> float:
        """Pixels."""
        return float(min(self.height, self.width))

    def directions(self, x: Real, y: Real, yaw: float) -> Real:
        """(N, 3) of the rays through places (N,) in pixels, one metre deep."""
        right = (x - self.width / 2) / self.focal
        up = (self.height * HORIZON - y) / self.focal
        c, s = np.cos(yaw), np.sin(yaw)
        return np.stack([right * c + s, up, c - right * s], axis=-1)

    def project(self, offsets_N3: Real, yaw: float) -> tuple[Real, Real, Real]:
        """x, y in pixels and the depth in metres of points, given as offsets from the eye."""
        c, s = np.cos(yaw), np.sin(yaw)
        right = offsets_N3[:, 0] * c - offsets_N3[:, 2] * s
        depth = offsets_N3[:, 0] * s + offsets_N3[:, 2] * c
        safe = np.where(depth > 1e-6, depth, np.nan)
        x = self.width / 2 + self.focal * right / safe
        y = self.height * HORIZON - self.focal * offsets_N3[:, 1] / safe
        return x, y, depth


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What rays meet first."""

    surface: NDArray[np.int64]
    """(N,)."""
    depth: Real
    """(N,) metres along the view; infinite for the sky."""
    place: Real
    """(N, 3): in the street; of a part, in its own axes; of the sky, the direction."""


def look(moment: Moment, lens: Lens, x: Real, y: Real) -> Hits:
    """Follow the rays through places (N,) of the picture, in pixels from its corner."""
    rays = lens.directions(x, y, moment.yaw)
    surface = np.full(len(x), SKY_AT)
    depth = np.full(len(x), np.inf)
    _meet_ground(moment, rays, surface, depth)
    for side in (LEFT, RIGHT):
        _meet_houses(moment, rays, side, surface, depth)
    known = np.where(np.isfinite(depth), depth, 0.0)[:, None]
    place = np.where(surface[:, None] == SKY_AT, rays, moment.eye + known * rays)
    for index, part in enumerate(moment.parts, FIRST_PART):
        _meet_part(moment, lens, part, index, (x, y, rays), (surface, depth, place))
    return Hits(surface, depth, place)


def _meet_ground(moment: Moment, rays: Real, surface: NDArray, depth: Real) -> None:
    below = rays[:, 1] < -1e-9
    depth[below] = moment.eye[1] / -rays[below, 1]
    surface[below] = GROUND


def _meet_houses(moment: Moment, rays: Real, side: int, surface: NDArray, depth: Real) -> None:
    wall = FRONT if side == RIGHT else -FRONT
    towards = rays[:, 0] * wall > 1e-9
    far = np.full(len(rays), np.inf)
    far[towards] = (wall - moment.eye[0]) / rays[towards, 0]
    hit = towards & (far < depth)
    up = moment.eye[1] + far[hit] * rays[hit, 1]
    along = moment.eye[2] + far[hit] * rays[hit, 2]
    hit[hit] = up < heights(moment.drive.seed, side, block_of(along))
    depth[hit], surface[hit] = far[hit], side


def _meet_part(
    moment: Moment,
    lens: Lens,
    part: Part,
    index: int,
    seen: tuple[Real, Real, Real],
    found: tuple[NDArray, Real, Real],
) -> None:
    x, y, rays = seen
    surface, depth, place = found
    inside = np.flatnonzero(_may_show(moment, lens, part, x, y))
    if not len(inside):
        return
    origin = (moment.eye - part.centre) @ part.turn
    local = rays[inside] @ part.turn
    far = (_enter_ellipsoid if part.round else _enter_box)(origin / part.half, local / part.half)
    nearer = (far > NEAR) & (far < depth[inside])
    hit, far = inside[nearer], far[nearer]
    surface[hit], depth[hit] = index, far
    place[hit] = origin + far[:, None] * local[nearer]


def _may_show(moment: Moment, lens: Lens, part: Part, x: Real, y: Real) -> NDArray[np.bool_]:
    """Places inside the rectangle round a part's corners."""
    signs = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
    corners = part.centre + (signs * part.half) @ part.turn.T
    px, py, away = lens.project(corners - moment.eye, moment.yaw)
    if away.max() < NEAR:
        return np.zeros(len(x), bool)
    if away.min() < NEAR:
        return np.ones(len(x), bool)
    return (x >= px.min()) & (x <= px.max()) & (y >= py.min()) & (y <= py.max())


def _enter_box(origin: Real, rays: Real) -> Real:
    """(N,) how far along rays the cube [-1, 1]^3 begins; infinite where it is missed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-1 - origin) / rays, (1 - origin) / rays
    enter = np.fmin(one, other).max(axis=1)
    leave = np.fmax(one, other).min(axis=1)
    return np.where(enter < leave, enter, np.inf)


def _enter_ellipsoid(origin: Real, rays: Real) -> Real:
    """The same for the unit ball."""
    a, b = np.einsum("ni,ni->n", rays, rays), rays @ origin
    under = b * b - a * (origin @ origin - 1)
    return np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / a, np.inf)
