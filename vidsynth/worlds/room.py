"""Still rooms for the puppet to dance in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from vidsynth.worlds.figure import Array, smoothstep
from vidsynth.worlds.texture import Colour, floats

Wallpaper = Literal["plaster", "stripes", "bricks", "panels"]
Flooring = Literal["planks", "tiles", "carpet"]
WALLPAPERS: tuple[Wallpaper, ...] = get_args(Wallpaper)
FLOORINGS: tuple[Flooring, ...] = get_args(Flooring)
WALL_Z = -1.3
"""Where the wall stands, metres behind the dancer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Looks straight ahead along -z from (0, eye_height, distance)."""

    distance: float = 4.4
    eye_height: float = 1.03
    field: float = 2.36
    """Metres that must fit into the picture's shorter side, at the dancer."""

    def focal_px(self, height: int, width: int) -> float:
        return self.distance * min(height, width) / self.field

    def project(self, points: Array, height: int, width: int) -> Array:
        """(..., 3) metres -> x right and y down in pixels, and depth in pixels."""
        focal = self.focal_px(height, width)
        away = self.distance - points[..., 2]
        x = width / 2 + focal * points[..., 0] / away
        y = height / 2 - focal * (points[..., 1] - self.eye_height) / away
        return np.stack([x, y, away * focal / self.distance], axis=-1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    wall: Colour
    wall_trim: Colour
    wallpaper: Wallpaper
    floor: Colour
    flooring: Flooring
    picture: Colour
    seed: int = 0


def paint(room: Room, camera: Camera, height: int, width: int) -> Array:
    """(height, width, 3) RGB in [0, 255]."""
    n = 2
    rows, columns = (np.mgrid[: height * n, : width * n] + 0.5) / n
    focal = camera.focal_px(height, width)
    right, down = (columns - width / 2) / focal, (rows - height / 2) / focal
    away = camera.distance - WALL_Z
    x, y = right * away, camera.eye_height - down * away
    picture = _wall(room, x, y)
    depth = camera.eye_height / np.maximum(down, 1e-3)
    ground = _floor(room, right * depth, camera.distance - depth)
    picture = np.where((y < 0)[..., None], ground, picture)
    # The lamp is up on the left; corners are darker.
    light = (
        1.06
        - 0.10 * right / max(right.max(), 1e-6)
        - 0.16 * (right**2 + down**2) / ((right**2 + down**2).max())
    )
    picture = np.clip(picture * light[..., None], 0, 255).astype(np.float32)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _wall(room: Room, x: Array, y: Array) -> Array:
    rng = np.random.default_rng(room.seed)
    brick_row = np.floor(y / 0.11)
    mortar = ((y / 0.11) % 1 < 0.12) | (((x + 0.12 * (brick_row % 2)) / 0.24) % 1 < 0.06)
    trim = {
        "plaster": 0 * x,
        "stripes": (x / 0.22) % 1 < 0.5,
        "bricks": mortar,
        "panels": (np.abs((x / 0.7) % 1 - 0.5) > 0.47) | (np.abs(y - 0.95) < 0.025),
    }[room.wallpaper]
    area = np.asarray(trim, np.float32)[..., None]
    picture = floats(room.wall) * (1 - area) + floats(room.wall_trim) * area
    picture = picture * (1 + 0.03 * _scattered(rng, x, y, 1.0))[..., None]
    for left, bottom, wide, high in ((-1.5, 1.15, 0.62, 0.8), (0.85, 1.3, 0.75, 0.55)):
        left += rng.uniform(-0.1, 0.1)
        picture = _framed(picture, x - left, y - bottom, wide, high, room, rng)
    skirting = (smoothstep(0.0, 0.01, y) * (1 - smoothstep(0.10, 0.11, y)))[..., None]
    return picture * (1 - skirting) + floats((228, 224, 216)) * skirting


def _framed(
    picture: Array,
    x: Array,
    y: Array,
    wide: float,
    high: float,
    room: Room,
    rng: np.random.Generator,
) -> Array:
    """Hang a framed landscape on the wall."""
    inside = (x > 0) & (x < wide) & (y > 0) & (y < high)
    canvas = inside & (x > 0.04) & (x < wide - 0.04) & (y > 0.04) & (y < high - 0.04)
    hills = high * (0.35 + 0.15 * np.sin(9 * x / wide + rng.uniform(0, 6)))
    sky = floats((200, 214, 226)) * (0.8 + 0.2 * y / high)[..., None]
    land = floats(room.picture) * (0.7 + 0.5 * y / high)[..., None]
    scene = np.where((y < hills)[..., None], land, sky)
    framed = np.where(canvas[..., None], scene, floats((70, 52, 40)))
    return np.where(inside[..., None], framed, picture)


def _floor(room: Room, x: Array, z: Array) -> Array:
    rng = np.random.default_rng((room.seed, 1))
    plank = np.floor(x / 0.14)
    cell = np.floor(x / 0.4) + np.floor(z / 0.4)
    shade = {
        "planks": 0.10 * np.sin(plank * 12.9898) - 0.35 * ((x / 0.14) % 1 < 0.05),
        "tiles": 0.16 * (cell % 2) - 0.25 * (((x / 0.4) % 1 < 0.02) | ((z / 0.4) % 1 < 0.02)),
        "carpet": 0.05 * np.sin(40 * x) * np.sin(40 * z),
    }[room.flooring]
    stretched = 4.0 if room.flooring == "planks" else 1.0
    grain = 0.06 * _scattered(rng, x * 2, z * 2 / stretched, 1.0)
    fade = 1 / (1 + 0.05 * np.maximum(-z, 0))
    return floats(room.floor) * ((1 + shade + grain) * fade)[..., None]


def _scattered(rng: np.random.Generator, x: Array, y: Array, metres: float) -> Array:
    """Noise of about unit variance on a plane, which repeats every `metres`."""
    cells = 24
    tile = floats(rng.normal(size=(cells, cells)))
    u, v = (floats((a / metres) % 1 * cells) for a in (x, y))
    return 1.5 * floats(cv2.remap(tile, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP))
