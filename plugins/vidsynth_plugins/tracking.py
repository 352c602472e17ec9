"""From single sightings to one steady track: who is followed, what is smoothed, what is filled in.

Shared by the body and the face extractor. Everything is decided frame by frame, so that it does
not matter how a video is cut into clips.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from vidsynth import bodies
from vidsynth.clip import Clip
from vidsynth.smoothing import Points, Smoother
from vidsynth_plugins.mediapipe_models import Picture, Tracker
from vidsynth_plugins.sighting import Box, Sighting

# T frames, N points

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, inside the picture."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 4.0
"""Seconds between two searches of the whole picture while the subject is out of sight: each that
fails doubles the wait, so that a video without a subject is not slow."""


class Frame(NamedTuple):
    """One frame of a track."""

    seconds: float
    parts: Mapping[str, Points]
    """Named point clouds (N, C); the last known ones (or zeros) where not seen."""
    seen: bool


def pictures(clip: Clip) -> Iterator[Picture]:
    """The frames of a clip as mediapipe takes them; each lasts until the next is asked for."""
    frames_THWC = clip.frames.cpu().permute(0, 2, 3, 1)
    if frames_THWC.is_contiguous():  # as decoders leave them
        yield from frames_THWC.numpy()
        return
    memory = np.empty((clip.height, clip.width, 3), np.uint8)  # fresh memory costs more than copies
    for frame in clip.frames.cpu().numpy():
        yield cv2.merge(list(frame), memory)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """What bodies and faces have in common; each documents the fields in its own words."""

    person: int | None = None
    min_confidence: float = 0.5
    smoothing: float = 0.05
    max_gap_seconds: float = 0.5
    model_bundle: Path | None = None

    def __post_init__(self) -> None:
        if self.person is not None and self.person < 1:
            raise ValueError(f"person counts from 1; got {self.person}")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must be in [0, 1]; got {self.min_confidence}")
        if self.smoothing < 0 or self.max_gap_seconds < 0:
            raise ValueError("smoothing and max_gap_seconds must not be negative")


def follow(
    clips: Iterable[Clip],
    open_tracker: Callable[[], Tracker],
    measure: Callable[[Sighting], Mapping[str, Points]],
    options: TrackingOptions,
    *,
    margin: float,
    agility: float,
    parts: tuple[int, ...] = (2,),
) -> Iterator[tuple[list[Frame], tuple[int, int]]]:
    """One subject through consecutive clips of one video: frames and (height, width) per clip.

    Frames are held back, `options.max_gap_seconds` at most, while the subject is out of sight.

    Args:
        clips: frames of one size.
        open_tracker: makes the tracker of this stream; it is closed when the stream ends.
        measure: what to keep of a sighting, as named point clouds (N, C), x and y first; "world"
            is in metres, the others are in pixels.
        options: which subject, and how it is smoothed.
        margin: width of the surroundings watched around one subject of several, in its own size.
        agility: how much the smoothing's cutoff rises with speed, in Hz per subject size a second.
        parts: fractions of the picture to search one by one (2: half its width and height), in
            turn, when a search of the whole finds nobody.
    """
    waiting: deque[tuple[int, tuple[int, int]]] = deque()  # clips whose frames are on their way
    with closing(open_tracker()) as tracker:
        person = (options.person or 1) - 1
        follower = Follower(tracker, person=person, margin=margin, parts=parts)
        smoothers: dict[str, Smoother] = {}

        def sightings() -> Iterator[tuple[float, Mapping[str, Points] | None]]:
            for clip in clips:
                waiting.append((len(clip), (clip.height, clip.width)))
                moments = zip(pictures(clip), clip.pts.tolist(), strict=True)
                # The whole clip first, then what was seen in it: see `sighting`.
                seen = [(t, follower(picture, t), follower.size) for picture, t in moments]
                yield from (smooth(*at) for at in seen)

        def smooth(
            seconds: float, found: Sighting | None, size: float
        ) -> tuple[float, Mapping[str, Points] | None]:
            clouds = measure(found) if found else {}
            for name in clouds:
                smoothers.setdefault(name, Smoother(options.smoothing, agility))
            units = {"world": bodies.BODY_METRES}
            steady = {n: smoothers[n](c, seconds, units.get(n, size)) for n, c in clouds.items()}
            return seconds, steady or None

        batch: list[Frame] = []
        for frame in fill_gaps(sightings(), options.max_gap_seconds):
            batch.append(frame)
            while waiting and len(batch) >= waiting[0][0]:
                count, size = waiting.popleft()
                yield batch[:count], size
                del batch[:count]
        yield from (([], size) for _, size in waiting)  # clips without frames, at the end


def fill_gaps(
    sightings: Iterable[tuple[float, Mapping[str, Points] | None]], max_gap_seconds: float
) -> Iterator[Frame]:
    """One Frame per sighting, in order; absences of at most `max_gap_seconds` are interpolated.

    The length of an absence is the time from the last sighting before it to the first after it.
    """
    last: Frame | None = None
    absent: list[float] = []
    for seconds, parts in sightings:
        if parts is None:
            absent.append(seconds)
        else:
            frame = Frame(seconds, parts, True)
            yield from (_between(last, frame, t) if last else Frame(t, {}, False) for t in absent)
            yield frame
            last, absent = frame, []
        if absent and (last is None or absent[-1] - last.seconds >= max_gap_seconds):
            # Too long already: nothing to wait for, now and until the next sighting.
            held = last.parts if last else {}
            yield from (Frame(t, held, False) for t in absent)
            last, absent = (Frame(-np.inf, held, False) if last else None), []
    yield from (Frame(t, last.parts if last else {}, False) for t in absent)


def _between(last: Frame, following: Frame, seconds: float) -> Frame:
    share = (seconds - last.seconds) / (following.seconds - last.seconds)
    parts = {
        name: (1 - share) * last.parts[name] + share * points
        for name, points in following.parts.items()
    }
    return Frame(seconds, parts, True)


class Follower:
    """Keeps one subject in sight.

    MediaPipe follows a subject from picture to picture by itself, but may start with any of
    several, or slip to another. So the first sighting, and every jump, makes a search of the whole
    picture: it tells who is there, and where several are, only a window around the subject is
    shown to the tracker from then on. Subjects too small to be found in the whole picture are
    searched for in parts of it.
    """

    def __init__(
        self, tracker: Tracker, *, person: int, margin: float, parts: tuple[int, ...] = (2,)
    ) -> None:
        self._tracker = tracker
        self._parts = parts
        self._person = person
        self._margin = margin
        self._window: Window | None = None
        self._last: tuple[float, Box] | None = None  # when and where: seconds, box
        self._in_sight = False
        self._alone = True  # nobody else was ever seen
        self._next_look = -np.inf
        self._wait = FIRST_WAIT

    @property
    def size(self) -> float:
        """Larger side of the subject's box when last seen, in pixels."""
        return _size(self._last[1]) if self._last else 1.0

    def __call__(self, picture: Picture, seconds: float) -> Sighting | None:
        found = self._track(picture, seconds)
        appeared = found is not None and not self._in_sight
        self._in_sight = found is not None
        if found is None or self._last is None or self._distance(found.box, seconds) > 1:
            due = appeared or self._is_due(found, seconds)
            found = self._look(picture, seconds, found) if due else None
        if found is not None:
            self._last = seconds, found.box
            self._keep_in_window(picture)
            self._next_look, self._wait = -np.inf, FIRST_WAIT
        return found

    def _is_due(self, found: Sighting | None, seconds: float) -> bool:
        """Whether to search now. A tracker that is shown the whole picture gets time to find a
        lost subject by itself."""
        if found is None and self._window is None and self._last is not None:
            return seconds >= max(self._next_look, self._last[0] + FIRST_WAIT)
        return seconds >= self._next_look

    def _track(self, picture: Picture, seconds: float) -> Sighting | None:
        if self._window is None:
            return self._tracker.track(picture, seconds)
        x0, y0, x1, y1 = self._window
        found = self._tracker.track(np.ascontiguousarray(picture[y0:y1, x0:x1]), seconds)
        return found and found.moved(x0, y0)

    def _distance(self, seen: Box, seconds: float) -> float:
        """How unlike the last box this one is; up to 1 it can be of the same subject. Half a size
        to the side, or half as large again, is too much at once; time allows for more."""
        assert self._last is not None
        then, box = self._last
        shift = math.dist(_centre(seen), _centre(box)) / max(_size(box), 1)
        growth = abs(math.log(max(_size(seen), 1) / max(_size(box), 1)))
        return (shift + growth) / (0.5 + 2 * (seconds - then))

    def _look(self, picture: Picture, seconds: float, tracked: Sighting | None) -> Sighting | None:
        """Search the whole picture for the subject; set window and tracker on it."""
        everybody = _everybody(self._tracker, picture, self._parts)
        self._alone = self._alone and len(everybody) <= 1
        chosen = self._choose(everybody, seconds)
        if chosen is None:
            self._next_look = seconds + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            return None
        before, self._window = self._window, self._window_for(chosen, picture)
        on_it = tracked is not None and _overlap(tracked.box, chosen.box) > 0.5
        if not on_it or self._window != before:
            self._tracker.reset()
        return tracked if on_it else chosen

    def _window_for(self, chosen: Sighting, picture: Picture) -> Window | None:
        """None, the whole picture, for one who is alone and large enough to be found in it."""
        large = _size(chosen.box) > min(picture.shape[:2]) / 4
        return None if self._alone and large else self._around(chosen.box, picture)

    def _choose(self, everybody: list[Sighting], seconds: float) -> Sighting | None:
        if self._last is None:
            return everybody[self._person] if self._person < len(everybody) else None
        if self._alone and everybody:
            return everybody[0]
        likely = [s for s in everybody if self._distance(s.box, seconds) <= 1]
        return min(likely, key=lambda s: self._distance(s.box, seconds), default=None)

    def _keep_in_window(self, picture: Picture) -> None:
        """Move the window when the subject comes near its edge or has become small in it."""
        if self._window is None or self._last is None:
            return
        wanted = self._around(self._last[1], picture)
        slack = 0.5 * self._margin * self.size
        if max(abs(a - b) for a, b in zip(wanted, self._window, strict=True)) > slack:
            self._window = wanted
            self._tracker.reset()

    def _around(self, box: Box, picture: Picture) -> Window:
        height, width = picture.shape[:2]
        reach = self._margin * _size(box)
        x0, x1 = _within(box[0] - reach, box[2] + reach, width)
        y0, y1 = _within(box[1] - reach, box[3] + reach, height)
        return x0, y0, x1, y1


def _within(low: float, high: float, length: int) -> tuple[int, int]:
    """A stretch of at least one pixel, within so many pixels."""
    first = min(max(math.floor(low), 0), length - 1)
    return first, min(max(math.ceil(high), first + 1), length)


def _size(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _everybody(tracker: Tracker, picture: Picture, parts: tuple[int, ...]) -> list[Sighting]:
    """Who is in the picture, largest first; if the whole shows nobody, its parts are searched."""
    found = list(tracker.scan(picture))
    for fraction in parts:
        if found or min(picture.shape[:2]) < 64 * fraction:
            break
        for x0, y0, x1, y1 in _tiles(picture, fraction):
            part = np.ascontiguousarray(picture[y0:y1, x0:x1])
            moved = [sighting.moved(x0, y0) for sighting in tracker.scan(part)]
            found += [m for m in moved if all(_overlap(m.box, f.box) < 0.3 for f in found)]
    return sorted(found, key=lambda s: -_size(s.box))


def _tiles(picture: Picture, fraction: int) -> Iterator[Window]:
    """Windows of a fraction of the picture's sides, each overlapping its neighbours by half."""
    height, width = picture.shape[0] // fraction, picture.shape[1] // fraction
    for row, column in np.ndindex(2 * fraction - 1, 2 * fraction - 1):
        x0, y0 = column * width // 2, row * height // 2
        yield (x0, y0, x0 + width, y0 + height)


def _overlap(one: Box, other: Box) -> float:
    """Intersection of two boxes over their union."""
    x0, y0 = map(max, one[:2], other[:2])
    x1, y1 = map(min, one[2:], other[2:])
    shared = _area((x0, y0, x1, y1))
    return shared / max(_area(one) + _area(other) - shared, 1e-6)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
