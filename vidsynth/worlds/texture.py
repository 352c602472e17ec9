"""Small painted pictures: noise, cloth, soft shapes. All are (h, w, 3) float32 RGB in [0, 255]."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Colour = tuple[float, float, float]
"""RGB in [0, 255]."""
Pattern = Literal["plain", "stripes", "hoops", "checks", "dots", "panel"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


def floats(values: ArrayLike) -> Array:
    return np.asarray(values, np.float32)


def hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Colour of a hue in turns, a saturation and a value in [0, 1]."""
    pixel = floats([[[hue % 1 * 360, saturation, value]]])
    red, green, blue = (cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255).tolist()
    return red, green, blue


def plain(colour: Colour, size: int) -> Array:
    return np.full((size, size, 3), colour, np.float32)


def noise(rng: np.random.Generator, size: int, cells: int) -> Array:
    """(size, size) smooth noise of about unit variance with `cells` bumps across."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return smooth / max(float(smooth.std()), 1e-6)


def painted(polygon: NDArray[np.floating], size: int, blur: float) -> Array:
    """(size, size) coverage in [0, 1] of a polygon (n, 2) in pixels, with a soft edge."""
    area = np.zeros((size, size), np.float32)
    cv2.fillPoly(area, [np.round(polygon * 16).astype(np.int32)], (1.0,), cv2.LINE_AA, 4)
    return floats(cv2.GaussianBlur(area, (0, 0), blur))


def shrunk(picture: NDArray[np.floating], size: int) -> Array:
    """A square picture at another size, averaged."""
    return floats(cv2.resize(floats(picture), (size, size), interpolation=cv2.INTER_AREA))


def cloth(
    first: Colour, second: Colour, pattern: Pattern, rng: np.random.Generator, size: int
) -> Array:
    """Woven cloth with soft folds; the pattern repeats so that it reads at a glance."""
    detail = 256
    y, x = (np.mgrid[:detail, :detail] + 0.5) / detail
    where = {
        "plain": 0 * x,
        "stripes": np.sin(2 * np.pi * 10 * x) > 0.2,
        "hoops": np.sin(2 * np.pi * 6 * y) > 0.1,
        "checks": 0.5 * (np.sin(2 * np.pi * 8 * x) > 0) + 0.5 * (np.sin(2 * np.pi * 7 * y) > 0),
        "dots": np.hypot((x * 12) % 1 - 0.5, (y * 9) % 1 - 0.5) < 0.28,
        "panel": (y > 0.42) & (y < 0.62),
    }[pattern]
    area = np.asarray(where, np.float32)[..., None]
    picture = floats(first) * (1 - area) + floats(second) * area
    folds = 0.06 * noise(rng, detail, 7) + 0.03 * noise(rng, detail, 20)
    return shrunk(np.clip(picture * (1 + folds[..., None]), 0, 255), size)
