"""A drive along a street: label maps with instances, shaded frames, exact flow and occlusion.

Identities are looks (colours, light, textures), motions are drives: the label maps belong to the
drive alone, so that what "street B under the maps of A" really looks like is known. Every surface
keeps its colour wherever it is seen from, so that following the flow finds it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import LabelMaps
from vidsynth.stream import Chunk
from vidsynth.worlds.rays import FIRST_PART, GROUND, LEFT, RIGHT, SKY_AT, Hits, Lens, Moment, look
from vidsynth.worlds.sound import Samples, traffic_noise
from vidsynth.worlds.texture import hsv
from vidsynth.worlds.traffic import (
    BUILDING,
    EYE,
    FRONT,
    HOUSE,
    NUM_CLASSES,
    PAVEMENT,
    PERSON,
    ROAD,
    ROAD_EDGE,
    SKY,
    Drive,
    Part,
    Real,
    block_of,
    house_number,
    make_drive,
    scattered,
)

# T frames, H, W pixels, N places in a picture

CHUNK_FRAMES = 8
SUPERSAMPLING = 2
"""Rays per pixel and direction."""
SAME_PLACE = 0.02
"""A point is seen where it should be if what is seen there is as far away, within this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Street:
    """How a street looks."""

    seed: int
    asphalt: Real
    pavement: Real
    sky: Real
    horizon: Real
    glass: Real
    light: Real
    """What all colours but the sky's are multiplied with."""
    hue: float
    """Of the houses, about, in turns; and how rich and bright it is, in [0, 1]."""
    rich: float
    bright: float
    bays: int
    """Windows side by side in a house."""


def make_identity(seed: int) -> Street:
    """A street; different seeds give clearly different ones."""
    rng = np.random.default_rng((seed, 33))
    warm = rng.uniform(-1, 1)
    blue = rng.uniform(0.52, 0.64)
    return Street(
        seed=seed,
        asphalt=np.full(3, rng.uniform(60, 125)) * (1 + 0.06 * warm * np.array([1, 0, -1])),
        pavement=np.array(
            hsv(rng.uniform(0.02, 0.14), rng.uniform(0.05, 0.3), rng.uniform(0.5, 0.8))
        ),
        sky=np.array(hsv(blue, rng.uniform(0.3, 0.65), rng.uniform(0.7, 0.95))),
        horizon=np.array(hsv(blue - 0.5 * (warm > 0.5), 0.12, rng.uniform(0.85, 0.98))),
        glass=np.array(hsv(rng.uniform(0.5, 0.65), 0.3, rng.uniform(0.2, 0.4))),
        light=rng.uniform(0.72, 1.05) * (1 + 0.1 * warm * np.array([1.0, 0.2, -0.8])),
        hue=float(rng.random()),
        rich=float(rng.uniform(0.1, 0.5)),
        bright=float(rng.uniform(0.5, 0.85)),
        bays=int(rng.integers(3, 5)),
    )


def make_motion(seed: int, num_frames: int, fps: float = 25.0) -> Drive:
    """A drive that any street can be filmed on."""
    return make_drive(seed, num_frames, fps)


def render(identity: Street, motion: Drive, *, height: int, width: int) -> Iterator[Chunk]:
    """Film the drive, a few frames at a time."""
    lens = Lens(height, width)
    x, y = _places(height, width, SUPERSAMPLING)
    for start in range(0, len(motion), CHUNK_FRAMES):
        frames = []
        for t in range(start, min(start + CHUNK_FRAMES, len(motion))):
            moment = Moment.at(motion, t)
            colours = _colours(identity, moment, lens, look(moment, lens, x, y))
            fine = colours.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3)
            frames.append(np.rint(fine.mean(axis=(1, 3))).clip(0, 255).astype(np.uint8))
        pts = torch.arange(start, start + len(frames), dtype=torch.float64) / motion.fps
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        yield Chunk(pts, Clip(pixels, pts))


def truth(identity: Street, motion: Drive, *, height: int, width: int) -> LabelMaps:
    """What each pixel's centre shows, in the classes of Cityscapes, and which car, person or house;
    what comes in no number has its class for an instance, as there."""
    lens = Lens(height, width)
    x, y = _places(height, width, 1)
    labels = torch.empty(len(motion), height, width, dtype=torch.uint8)
    instances = torch.empty(len(motion), height, width, dtype=torch.int32)
    for t in range(len(motion)):
        moment = Moment.at(motion, t)
        classes, things = _ids(moment, look(moment, lens, x, y))
        labels[t] = torch.from_numpy(classes.reshape(height, width))
        instances[t] = torch.from_numpy(things.reshape(height, width))
    return LabelMaps(labels=labels, num_classes=NUM_CLASSES, instances=instances)


def flow(motion: Drive, *, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Where what each pixel's centre shows is in the next frame, for every frame but the last.

    Yields:
        (2, height, width) float32: x then y displacement in pixels, as `blocks.warp` takes it to
        bring the next frame to this one; and (1, height, width) bool: hidden, or outside the
        picture, in the next frame.
    """
    lens = Lens(height, width)
    x, y = _places(height, width, 1)
    for t in range(len(motion) - 1):
        now, after = Moment.at(motion, t), Moment.at(motion, t + 1, things_of=t)
        hits = look(now, lens, x, y)
        x1, y1, away = lens.project(_moved(hits, after), after.yaw)
        shown = (x1 >= 0.5) & (x1 <= width - 0.5) & (y1 >= 0.5) & (y1 <= height - 0.5)
        met = look(Moment.at(motion, t + 1), lens, np.nan_to_num(x1), np.nan_to_num(y1))
        with np.errstate(invalid="ignore"):
            there = np.abs(met.depth - away) <= SAME_PLACE * away
        there = np.where(hits.surface == SKY_AT, met.surface == SKY_AT, there)
        steps = np.nan_to_num(np.stack([x1 - x, y1 - y])).astype(np.float32)
        hidden = ~(shown & there)
        yield (
            torch.from_numpy(steps.reshape(2, height, width)),
            torch.from_numpy(hidden.reshape(1, height, width)),
        )


def soundtrack(seed: int, motion: Drive) -> Samples:
    """The engine, and tyres on the road."""
    return traffic_noise(seed, len(motion) / motion.fps)


def _places(height: int, width: int, fine: int) -> tuple[Real, Real]:
    """(N,) x and y of the centres of all pixels, cut into `fine` x `fine`, row by row."""
    y, x = (np.mgrid[: height * fine, : width * fine] + 0.5) / fine
    return x.ravel(), y.ravel()


def _ids(moment: Moment, hits: Hits) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    parts = moment.parts
    classes = np.array([0, BUILDING, BUILDING, *(p.thing.label for p in parts), SKY])
    things = np.array([0, 0, 0, *(p.thing.instance for p in parts), SKY])
    # The sky is -1: the last.
    labels, instances = classes[hits.surface], things[hits.surface]
    ground = hits.surface == GROUND
    labels[ground] = np.where(np.abs(hits.place[ground, 0]) < ROAD_EDGE, ROAD, PAVEMENT)
    instances[ground] = labels[ground]
    for side in (LEFT, RIGHT):
        wall = hits.surface == side
        instances[wall] = house_number(side, block_of(hits.place[wall, 2]))
    return labels.astype(np.uint8), instances.astype(np.int32)


def _moved(hits: Hits, after: Moment) -> Real:
    """(N, 3) where the points are in another moment, as offsets from its eye."""
    offsets = np.where((hits.surface == SKY_AT)[:, None], hits.place, hits.place - after.eye)
    for index, part in enumerate(after.parts, FIRST_PART):
        on_it = hits.surface == index
        offsets[on_it] = part.centre + hits.place[on_it] @ part.turn.T - after.eye
    return offsets


# Colours. Detail fades out before it is finer than the rays: what it would alias to moves on its
# own.


def _colours(street: Street, moment: Moment, lens: Lens, hits: Hits) -> Real:
    """(N, 3) RGB."""
    colours = np.empty((len(hits.depth), 3))
    per_metre = hits.depth / (lens.focal * SUPERSAMPLING)  # of a ray, across it
    for surface in (SKY_AT, GROUND, LEFT, RIGHT):
        where = hits.surface == surface
        place, fine = hits.place[where], per_metre[where]
        if surface == SKY_AT:
            colours[where] = _sky(street, place)
        elif surface == GROUND:
            colours[where] = street.light * _ground(street, place, fine, hits.depth[where])
        else:
            seen = moment.drive.seed, surface
            colours[where] = street.light * _houses(street, seen, place, fine, hits.depth[where])
    for index, part in enumerate(moment.parts, FIRST_PART):
        where = np.flatnonzero(hits.surface == index)
        if len(where):
            colours[where] = street.light * _part(street, part, hits.place[where])
    return colours


def _sky(street: Street, rays: Real) -> Real:
    ahead = np.hypot(rays[:, 0], rays[:, 2])
    up: Real = rays[:, 1] / ahead
    around: Real = np.arctan2(rays[:, 0], rays[:, 2])
    clouds = _noise(street.seed, 4.0 * around, 10.0 * up)
    clouds += 0.5 * _noise(street.seed, 9.0 * around, 22.0 * up)
    high = np.clip(up / 0.8, 0, 1)[:, None]
    clear = street.horizon * (1 - high) + street.sky * high
    white = np.clip(0.35 * clouds, 0, 1)[:, None]
    return clear * (1 - white) + 248 * white


def _ground(street: Street, place: Real, fine: Real, depth: Real) -> Real:
    x, z = place[:, 0], place[:, 2]
    along = fine * np.maximum(depth / EYE, 1)  # the ground is seen at a grazing angle
    road = np.abs(x) < ROAD_EDGE
    grain = np.zeros(len(x))
    for n in (1, 2, 4):
        grain += 0.10 / n * _faded(along, 1.4 / n) * _noise(street.seed + n, x * n, z * n)
    colours = np.where(road[:, None], street.asphalt, street.pavement) * (1 + grain)[:, None]
    slab = _stripe(x, fine, 1.1, 0.06) + _stripe(z, along, 1.6, 0.06)
    colours = colours * (1 - 0.25 * np.where(road, 0, np.clip(slab, 0, 1)))[:, None]
    middle = _band(x, fine, 0.0, 0.09) * _stripe(z, along, HOUSE / 2, 2.2)
    edge = _band(np.abs(x), fine, ROAD_EDGE - 2.3, 0.07)
    paint = np.clip(np.where(road, middle + edge, 0), 0, 1)[:, None]
    kerb = _band(np.abs(x), fine, ROAD_EDGE + 0.12, 0.12)[:, None]
    colours = colours * (1 - paint) + 225 * paint
    return colours * (1 - kerb) + 1.12 * street.pavement * kerb


def _houses(street: Street, seen: tuple[int, int], place: Real, fine: Real, depth: Real) -> Real:
    drive, side = seen
    y, z = place[:, 1], place[:, 2]
    along = fine * np.maximum(depth / FRONT, 1)
    block = block_of(z)
    own = [
        scattered(street.seed + 7 * side + 31 * drive, block, np.full_like(block, n))
        for n in range(3)
    ]
    wall = _hues(
        street.hue + 0.05 * (own[0] - 0.5),
        street.rich * (0.8 + 0.4 * own[1]),
        street.bright * (0.88 + 0.24 * own[2]),
    )
    wall = wall * (1 + 0.06 * _faded(along, 0.8) * _noise(street.seed, y * 1.5, z * 1.5))[:, None]
    bay, storey = HOUSE / street.bays, 2.9
    window = _window(z, along, bay, 0.52) * _window(y - 0.5, fine, storey, 0.55)
    ledge = _stripe(y, fine, storey, 0.14)
    colours = wall * (1 - 0.16 * np.clip(ledge, 0, 1))[:, None]
    dark = np.clip(window, 0, 1)[:, None]
    colours = colours * (1 - dark) + street.glass * dark
    corner = _stripe(z, along, HOUSE, 0.2)
    return colours * ((0.82 if side == LEFT else 1.0) * (1 - 0.3 * np.clip(corner, 0, 1)))[:, None]


def _part(street: Street, part: Part, place: Real) -> Real:
    """Shaded by which way each piece of it faces in its own axes, whatever way it turns."""
    near = place / part.half
    face = np.abs(near).argmax(axis=1)
    sign = np.sign(np.take_along_axis(near, face[:, None], axis=1)[:, 0])
    if part.round:
        shade = 0.85 + 0.2 * near[:, 1] + 0.08 * near[:, 0]
    else:
        shade = np.array([0.86, 1.12, 0.76])[face] + 0.05 * sign * (face == 0)
    key = np.array([part.thing.place])
    own = [
        float(scattered(street.seed * 5 + part.thing.row, key, np.array([n]))[0]) for n in range(5)
    ]
    colour = (
        _on_person(part, own) if part.thing.label == PERSON else _on_car(street, part, own, near)
    )
    return np.broadcast_to(colour, place.shape) * shade[:, None]


def _on_car(street: Street, part: Part, own: list[float], near: Real) -> Real:
    if part.name == "wheels":
        return np.full(3, 28.0)
    paint = np.array(hsv(own[0], 0.75 * (own[1] > 0.4), 0.25 + 0.7 * own[2]))
    if part.name == "cabin":
        glass = (np.abs(near[:, 1]) < 0.98)[:, None] & (np.abs(near[:, 1]) < 0.7)[:, None]
        return np.where(glass, street.glass, paint)
    behind, front = near[:, 2] < -0.97, near[:, 2] > 0.97
    lamp = (np.abs(near[:, 0]) > 0.62) & (np.abs(near[:, 1]) < 0.45)
    oncoming = part.thing.speed < 0
    red, white = np.array([190.0, 24.0, 20.0]), np.array([250.0, 244.0, 220.0])
    tail, head = (front, behind) if oncoming else (behind, front)
    colours = np.where((tail & lamp)[:, None], red, paint)
    return np.where((head & lamp)[:, None], white, colours)


def _on_person(part: Part, own: list[float]) -> Real:
    if part.name == "head":
        return np.array(hsv(0.06, 0.25 + 0.4 * own[0], 0.45 + 0.5 * own[1]))
    if part.name == "torso":
        return np.array(hsv(own[2], 0.7, 0.35 + 0.6 * own[3]))
    return np.array(hsv(own[4], 0.3, 0.2 + 0.3 * own[0]))


def _hues(hue: Real, saturation: Real, value: Real) -> Real:
    """(N, 3) RGB of hues in turns, saturations and values in [0, 1]."""
    turn = (hue[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    dip = np.clip(np.minimum(turn, 4 - turn), 0, 1)
    return 255 * value[:, None] * (1 - saturation[:, None] * dip)


def _noise(seed: int, u: Real, v: Real) -> Real:
    """Smooth in [-1, 1], with about one bump per unit."""
    i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    s, t = u - i, v - j
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    low = scattered(seed, i, j) * (1 - s) + scattered(seed, i + 1, j) * s
    high = scattered(seed, i, j + 1) * (1 - s) + scattered(seed, i + 1, j + 1) * s
    return 2 * (low * (1 - t) + high * t) - 1


def _faded(fine: Real, period: float | Real) -> Real:
    """How much of a detail of this period is left where rays are `fine` apart: 1 to 0."""
    return np.clip(2 - 4 * fine / period, 0, 1)


def _band(at: Real, fine: Real, middle: float, half: float) -> Real:
    """How much of a ray's width lies within `half` of the middle."""
    wide = np.maximum(fine, 1e-6)
    return np.clip((half - np.abs(at - middle)) / wide + 0.5, 0, 1) * np.clip(2 * half / wide, 0, 1)


def _stripe(at: Real, fine: Real, period: float | Real, width: float) -> Real:
    """Coverage by stripes of a width that come back every period; their mean where rays are too
    far apart to tell them."""
    off = np.abs((at + period / 2) % period - period / 2)
    sharp = np.clip((width / 2 - off) / np.maximum(fine, 1e-6) + 0.5, 0, 1)
    left = _faded(fine, period)
    return left * sharp + (1 - left) * width / period


def _window(at: Real, fine: Real, period: float | Real, share: float) -> Real:
    """The same, by what share of the period is covered, in its middle."""
    off = np.abs(at % period - period / 2)
    sharp = np.clip((share * period / 2 - off) / np.maximum(fine, 1e-6) + 0.5, 0, 1)
    left = _faded(fine, period)
    return left * sharp + (1 - left) * share
