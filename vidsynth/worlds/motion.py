"""Smooth, seeded curves over time, and the rotations that go with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Angles = NDArray[np.float32] | np.float32


def spline(keys: NDArray[np.floating], at: NDArray[np.floating]) -> Array:
    """A Catmull-Rom curve through `keys` (K, ...), one per unit of time, read at times `at` (T,).

    Stays at the first and last key beyond them.
    """
    keys = np.asarray(keys, np.float64)
    at = np.clip(at, 0, len(keys) - 1)
    index = np.minimum(at.astype(int), max(len(keys) - 2, 0))
    t = (at - index).reshape(-1, *[1] * (keys.ndim - 1))
    p0, p1, p2, p3 = (keys[np.clip(index + k, 0, len(keys) - 1)] for k in (-1, 0, 1, 2))
    curve = p1 + 0.5 * t * (
        p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    )
    return curve.astype(np.float32)


def eased(keys: NDArray[np.floating], at: NDArray[np.floating]) -> Array:
    """Like `spline`, but resting at every key: what a planted foot does."""
    keys = np.asarray(keys, np.float64)
    at = np.clip(at, 0, len(keys) - 1)
    index = np.minimum(at.astype(int), max(len(keys) - 2, 0))
    t = np.clip((at - index) * 1.6 - 0.3, 0, 1).reshape(-1, *[1] * (keys.ndim - 1))
    t = t * t * (3 - 2 * t)
    after = keys[np.minimum(index + 1, len(keys) - 1)]
    return (keys[index] * (1 - t) + after * t).astype(np.float32)


def wandering(
    rng: np.random.Generator, num_curves: int, seconds: NDArray[np.floating], fastest_hz: float
) -> Array:
    """(T, num_curves) sums of four sines of random pace: about uniform in [-1, 1], never still."""
    pace = rng.uniform(0.15, 1, (4, num_curves)) * fastest_hz
    phase = rng.uniform(0, 2 * np.pi, (4, num_curves))
    waves = np.sin(2 * np.pi * pace * np.asarray(seconds)[:, None, None] + phase)
    return np.clip(0.6 * waves.sum(axis=1), -1, 1).astype(np.float32)


def turns(yaw: Angles, pitch: Angles, roll: Angles) -> Array:
    """(..., 3, 3) rotations by angles in radians, in axes x right, y up, z towards the viewer.

    Positive yaw turns the front to the right of the picture, positive pitch nods it down, positive
    roll tilts the top to the left of the picture. Roll is applied first, yaw last.
    """
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    rows = [
        [cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp],
        [cp * sr, cp * cr, -sp],
        [cy * sp * sr - sy * cr, sy * sr + cy * sp * cr, cy * cp],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2).astype(np.float32)


def shortest_arc(start: Array, end: Array) -> Array:
    """(..., 3, 3) the smallest rotation that takes unit vectors `start` to `end`.

    Undefined for opposite vectors, where it gives some finite matrix.
    """
    v = np.cross(start, end)
    c = (start * end).sum(-1)
    zero = np.zeros_like(c)
    cross = np.stack(
        [
            np.stack([zero, -v[..., 2], v[..., 1]], -1),
            np.stack([v[..., 2], zero, -v[..., 0]], -1),
            np.stack([-v[..., 1], v[..., 0], zero], -1),
        ],
        -2,
    )
    scale = 1 / np.maximum(1 + c, 1e-6)
    return (np.eye(3) + cross + cross @ cross * scale[..., None, None]).astype(np.float32)
