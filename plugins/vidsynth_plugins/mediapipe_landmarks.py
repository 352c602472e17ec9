"""MediaPipe's lists of landmarks as arrays, fast: buffers are read as they go over the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def coordinates(landmarks: Any) -> NDArray[np.float32]:
    """(N, 3) x, y, z of any list of landmarks."""
    return values(landmarks, ("x", "y", "z"))


def values(landmarks: Any, names: tuple[str, ...]) -> NDArray[np.float32]:
    """(N, F) the first F fields of landmarks: a protocol buffer, or a list of objects.

    Asking a buffer for 478 landmarks one by one takes a fifth of the time of tracking them.
    """
    if hasattr(landmarks, "SerializeToString"):
        raw = landmarks.SerializeToString()
        found = _off_the_wire(raw, len(landmarks.landmark), len(names))
        if found is not None:
            return found
        landmarks = landmarks.landmark
    flat = (getattr(p, name) for p in landmarks for name in names)
    return np.fromiter(flat, np.float32, len(names) * len(landmarks)).reshape(-1, len(names))


def _off_the_wire(raw: bytes, count: int, fields: int) -> NDArray[np.float32] | None:
    """(count, fields) of `count` equal messages of float fields numbered from 1; None for others.

    On the wire each is a tag and a length, then for each field a tag and a little-endian float.
    """
    size = len(raw) // max(count, 1)
    if size * count != len(raw) or not 2 + 5 * fields <= size < 2 + 128:
        return None
    tags = {0: 0x0A, 1: size - 2} | {2 + 5 * n: 13 + 8 * n for n in range(fields)}
    if any(raw[place::size].count(tag) != count for place, tag in tags.items()):
        return None
    return np.ndarray((count, fields), "<f4", raw, 3, (size, 5)).astype(np.float32)
