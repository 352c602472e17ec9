"""What a tracker saw of somebody in one picture.

Where the subject is, is known at once; its points are read off MediaPipe's buffers when they are
asked for. Between two pictures that takes five times as long as for a whole clip afterwards:
MediaPipe leaves nothing else in a core's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth.notes import Finding

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Clouds:
    """The points of one person or face."""

    points: NDArray[np.float32]
    """(N, 4): x and y in pixels, z in the scale of x (smaller is nearer), visibility in [0, 1].
    N is 33 for bodies and 478 for faces."""
    world: NDArray[np.float32] | None = None
    """(33, 3) metres, origin between the hips, x right, y down, z away. Bodies only."""
    hands: NDArray[np.float32] | None = None
    """(42, 4) as `points`, left then right; visibility 0 where a hand was not found."""
    face: NDArray[np.float32] | None = None
    """(478, 4) as `points`; visibility 0 where the face was not found."""

    def moved(self, x: float, y: float) -> Clouds:
        """The same in the coordinates of a picture whose window started at (x, y)."""
        offset = np.array([x, y, 0, 0], np.float32)
        return Clouds(
            points=self.points + offset,
            world=self.world,
            hands=None if self.hands is None else self.hands + offset,
            face=None if self.face is None else self.face + offset,
        )


class Sighting:
    """One person or face found in one picture."""

    def __init__(self, box: Box, read: Callable[[], Clouds]) -> None:
        """Somebody within `box`, whose points `read` gives."""
        self.box = box
        self._read = read

    @cached_property
    def clouds(self) -> Clouds:
        """The points."""
        return self._read()

    @staticmethod
    def of(clouds: Clouds) -> Sighting:
        """One whose points are known already."""
        return Sighting(box_around(clouds.points[:, [0, 1, 3]].tolist()), lambda: clouds)

    def moved(self, x: float, y: float) -> Sighting:
        """The same in the coordinates of a picture whose window started at (x, y)."""
        x0, y0, x1, y1 = self.box
        return Sighting((x0 + x, y0 + y, x1 + x, y1 + y), lambda: self.clouds.moved(x, y))


def box_around(points: Sequence[Sequence[float]]) -> Box:
    """The box around those of some points (x, y, visibility) that are rather visible than not."""
    clear = [point for point in points if point[2] >= 0.5]
    x, y, _ = zip(*(clear if len(clear) >= 2 else points), strict=True)
    return min(x), min(y), max(x), max(y)


class Sightings(Mapping[str, Tensor]):
    """What was found in one picture, as a finding to note: its tensors are made when asked for."""

    def __init__(self, found: Sequence[Sighting]) -> None:
        self.found = found

    @staticmethod
    def of(finding: Finding) -> Sightings:
        """Those of a finding that was noted before."""
        if isinstance(finding, Sightings):
            return finding
        by_number: dict[str, dict[str, Any]] = {}
        for key, tensor in finding.items():
            number, _, name = key.partition("/")
            by_number.setdefault(number, {})[name] = tensor.numpy()
        return Sightings([_noted(**arrays) for _, arrays in sorted(by_number.items())])

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        named = {
            f"{number}/{cloud.name}": torch.from_numpy(points)
            for number, sighting in enumerate(self.found)
            for cloud in fields(Clouds)
            if (points := getattr(sighting.clouds, cloud.name)) is not None
        }
        boxes = enumerate(sighting.box for sighting in self.found)
        return named | {f"{n}/box": torch.tensor(box, dtype=torch.float64) for n, box in boxes}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _noted(box: NDArray[np.float64], **clouds: NDArray[np.float32]) -> Sighting:
    x0, y0, x1, y1 = box.tolist()
    made = Clouds(**clouds)
    return Sighting((x0, y0, x1, y1), lambda: made)
