"""MediaPipe's lists of landmarks as arrays, fast: buffers are read as they go over the wire."""

from __future__ import annotations

from functools import cache
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
    if size * count != len(raw) or size < 2 + 5 * fields:
        return None
    messages = np.frombuffer(raw, _message(fields, size))
    tags = {"tag": 0x0A, "length": size - 2} | {f"tag{n}": 8 * n + 5 for n in range(1, fields + 1)}
    if not all((messages[name] == value).all() for name, value in tags.items()):
        return None
    table = np.empty((count, fields), np.float32)
    for n in range(fields):
        table[:, n] = messages[f"field{n + 1}"]
    return table


@cache
def _message(fields: int, size: int) -> np.dtype[np.void]:
    """How one landmark of so many fields lies among `size` bytes."""
    layout: dict[str, tuple[str, int]] = {"tag": ("u1", 0), "length": ("u1", 1)}
    for n in range(1, fields + 1):
        layout |= {f"tag{n}": ("u1", 5 * n - 3), f"field{n}": ("<f4", 5 * n - 2)}
    formats, offsets = zip(*layout.values(), strict=True)
    names = list(layout)
    return np.dtype(
        {"names": names, "formats": list(formats), "offsets": list(offsets), "itemsize": size}
    )
