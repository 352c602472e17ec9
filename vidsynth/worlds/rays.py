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
    order = np.argsort(y, kind="stable")  # from the top, so that a part meets few rays
    x, y = x[order], y[order]
    rays = lens.directions(x, y, moment.yaw)
    surface = np.full(len(x), SKY_AT)
    depth = np.full(len(x), np.inf)
    _meet_ground(moment, rays, surface, depth)
    for side in (LEFT, RIGHT):
        _meet_houses(moment, rays, side, surface, depth)
    known = np.where(np.isfinite(depth), depth, 0.0)[:, None]
    place = np.where(surface[:, None] == SKY_AT, rays, moment.eye + known * rays)
    hits = Hits(surface, depth, place)
    for index, part in enumerate(moment.parts, FIRST_PART):
        near = _may_meet(moment, lens, part, x, y)
        if len(near):
            _meet_part(moment, part, index, near, rays[near], hits)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return Hits(surface[back], depth[back], place[back])


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
    moment: Moment, part: Part, index: int, near: NDArray[np.int64], rays: Real, hits: Hits
) -> None:
    """Put a part before what the rays (M, 3) with the indices `near` (M,) have met so far."""
    origin = (moment.eye - part.centre) @ part.turn
    local = rays @ part.turn
    far = (_enter_ellipsoid if part.round else _enter_box)(origin / part.half, local / part.half)
    first = (far > NEAR) & (far < hits.depth[near])
    met, far = near[first], far[first]
    hits.surface[met], hits.depth[met] = index, far
    hits.place[met] = origin + far[:, None] * local[first]


def _may_meet(moment: Moment, lens: Lens, part: Part, x: Real, y: Real) -> NDArray[np.int64]:
    """Indices of the places, sorted by y, inside the rectangle round a part's corners."""
    corners = part.centre + (_CORNERS * part.half) @ part.turn.T
    px, py, away = lens.project(corners - moment.eye, moment.yaw)
    if away.max() < NEAR:
        return np.empty(0, np.int64)
    if away.min() < NEAR:
        return np.arange(len(x))
    top, bottom = np.searchsorted(y, py.min()), np.searchsorted(y, py.max(), "right")
    rows = x[top:bottom]
    return top + np.flatnonzero((rows >= px.min()) & (rows <= px.max()))


_CORNERS = np.stack(np.meshgrid(*[(-1.0, 1.0)] * 3), axis=-1).reshape(-1, 3)


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
