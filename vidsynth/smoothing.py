"""Points that tremble, made steady: causal, and by the clock of the video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# T frames, N points, C numbers of each, x and y first

Points = NDArray[np.float32]


class Smoother:
    """A causal low-pass filter whose cutoff rises with the speed of each point (a "One Euro"
    filter): gentle at rest, hardly there in motion. Its clock is the timestamps."""

    SPEED_CUTOFF = 2.0
    """Hz: how quickly the estimate of the speed follows."""
    FORGET = 0.5
    """Seconds without a sighting after which the filter starts anew."""

    def __init__(self, rest_seconds: float, agility: float) -> None:
        self._rest_seconds = rest_seconds
        self._agility = agility
        self._last: tuple[float, Points, Points] | None = None

    def __call__(self, points: Points, seconds: float, unit: float) -> Points:
        """The smoothed (N, C) points. `unit`: size of the subject in the scale of the points."""
        if self._rest_seconds <= 0:
            return points
        if self._last is None or self._starts_anew(points, seconds, unit):
            self._last = seconds, points, np.zeros_like(points[:, :2])
            return points
        then, before, velocity = self._last
        elapsed = seconds - then
        moved = (points[:, :2] - before[:, :2]) / (elapsed * unit)
        velocity = velocity + _gain(self.SPEED_CUTOFF, elapsed) * (moved - velocity)
        speed = np.hypot(velocity[:, :1], velocity[:, 1:])
        cutoff = 1 / (2 * np.pi * self._rest_seconds) + self._agility * speed
        smoothed = before + _gain(cutoff, elapsed) * (points - before)
        self._last = seconds, smoothed, velocity
        return smoothed

    def _starts_anew(self, points: Points, seconds: float, unit: float) -> bool:
        """After a long absence, or when most points have leapt half the subject's size."""
        assert self._last is not None
        then, before, _ = self._last
        if seconds - then > self.FORGET:
            return True
        leap = np.hypot(*(points[:, :2] - before[:, :2]).T)
        # The median costs more than all the rest, and nearly always nothing has leapt at all.
        return bool(leap.max(initial=0) > unit / 2 and np.median(leap) > unit / 2)


def _gain(cutoff: Any, elapsed: float) -> Any:
    """Weight of the new value in a first-order low-pass filter of this cutoff in Hz."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * elapsed))


def smoothed(
    points_TNC: Points,
    seconds_T: Sequence[float],
    present_T: Sequence[bool],
    units_T: Sequence[float],
    *,
    rest_seconds: float,
    agility: float,
) -> Points:
    """A whole track through one `Smoother`; frames where the subject is not present stay.

    Args:
        points_TNC: x and y first.
        seconds_T: when each frame is shown.
        present_T: which frames count.
        units_T: size of the subject in the scale of the points.
        rest_seconds: time constant for a point at rest.
        agility: how much the cutoff rises with speed, in Hz per subject size a second.
    """
    smoother, result = Smoother(rest_seconds, agility), points_TNC.copy()
    for t in np.flatnonzero(present_T):
        result[t] = smoother(points_TNC[t], seconds_T[t], units_T[t])
    return result
