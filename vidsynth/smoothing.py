"""Points that tremble, made steady: causal, and by the clock of the video."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._last: tuple[float, Points, Points] | None = None  # seconds, (C, N), (2, N)

    def __call__(self, points: Points, seconds: float, unit: float) -> Points:
        """The smoothed (N, C) points. `unit`: size of the subject in the scale of the points."""
        if self._rest_seconds <= 0:
            return points
        now = np.ascontiguousarray(points.T)  # by coordinate: numpy is slow along short rows
        if self._last is None or seconds - self._last[0] > self.FORGET:
            return self._begin(now, seconds)
        then, before, velocity = self._last
        elapsed = seconds - then
        moved = now[:2] - before[:2]
        if _most_leapt(moved, unit / 2):
            return self._begin(now, seconds)
        gain = 1 / (1 + 1 / (2 * np.pi * self.SPEED_CUTOFF * elapsed))
        velocity = velocity + gain * (moved / (elapsed * unit) - velocity)
        # The cutoff, times 2 pi and the time that has passed.
        turned = 2 * np.pi * self._agility * elapsed * np.hypot(*velocity)
        turned += elapsed / self._rest_seconds
        smoothed = before + turned / (1 + turned) * (now - before)
        self._last = seconds, smoothed, velocity
        return smoothed.T

    def _begin(self, points_CN: Points, seconds: float) -> Points:
        self._last = seconds, points_CN, np.zeros_like(points_CN[:2])
        return points_CN.T


def _most_leapt(moved_2N: Points, distance: float) -> bool:
    """Whether most points have moved so far."""
    # The median costs more than all the rest, and nearly always nothing has leapt at all.
    if max(moved_2N.max(initial=0), -moved_2N.min(initial=0)) <= distance / 2:
        return False
    return bool(np.median(np.hypot(*moved_2N)) > distance)


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
