"""What is held against what: which frames of two videos show one moment, and what is the floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vidsynth.errors import BadOption
from vidsynth.evaluation.films import Recording, encoded, film, halves, kept
from vidsynth.kinds import Against, Film
from vidsynth.report import Reporter

# T frames

SAME_MOMENT = 0.25
"""Frames show one moment when their times differ by less than this share of a frame."""
ENOUGH_PARTNERS = 0.9
ASPECT_TOLERANCE = 0.1

FLOORS: Mapping[Against, str] = {
    "truth": "the real film after vidsynth's own encoding, against itself",
    "motion": "the film whose motion is meant, after vidsynth's own encoding, against itself",
    "looks": "the first half of the real film against its second half",
    "nothing": "the real film",
}
"""What the real-versus-real floor is, by what a metric compares."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Case:
    """A made film and all that it is held against."""

    made: Film
    references: Mapping[Against, Film | None]
    """What `Metric.update` gets beside the made film; a metric against anything else cannot be
    measured here."""
    floors: Mapping[Against, tuple[Film, Film | None] | None]
    """The two films whose comparison is the floor; None where they cannot be had."""
    pairing: str
    """How frames found their partners, for the protocol."""

    def kept(self) -> Case:
        """The same case, its films in memory where they are small."""
        found: dict[int, Film] = {}

        def once(of: Film | None) -> Film | None:
            return of and found.setdefault(id(of), kept(of))

        floors = {
            against: pair and (once(pair[0]) or pair[0], once(pair[1]))
            for against, pair in self.floors.items()
        }
        return replace(
            self,
            made=once(self.made) or self.made,
            references={against: once(of) for against, of in self.references.items()},
            floors=floors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Which frames are compared."""

    start: float | None = None
    """Seconds: the made film's beginning on the clock of what it is held against."""
    end: float | None = None
    stride: int = 1
    """Every so manieth of the frames that have a partner."""


def reenacted(
    made: Recording,
    real: Recording,
    *,
    size: int | None,
    timing: Timing,
    folder: Path,
    reporter: Reporter,
    index: Tensor | None = None,
) -> Case:
    """A made film against the same moments as they really look (self-reenactment).

    Args:
        made: the made film.
        real: the film that shows the truth.
        size: pixels of the shorter side at which both are compared; by default the made film's.
        timing: what part of `real` the made film shows.
        folder: where the encoded real film goes.
        reporter: told what is left out.
        index: frames of `real` that are the made film's, one each; by default found by their time.

    Raises:
        BadOption: the two do not show the same moments, or not the same picture.
    """
    _same_picture(made, real)
    at = made.size if size is None else made.scaled(size)
    if index is None:
        ours, theirs, pairing = same_moments(made, real, timing, reporter)
    else:
        every = torch.arange(len(made.pts))[:: timing.stride]
        ours, theirs, pairing = every, index[every], "frames paired by number"
    truth = film(real, size=at, index=theirs)
    perfect = _flawless(real, theirs, made.size, at, folder, reporter)
    return Case(
        made=film(made, size=at, index=ours),
        references={"truth": truth, "motion": truth, "looks": truth, "nothing": None},
        floors={
            "truth": (perfect, truth),
            "motion": (perfect, truth),
            "looks": halves(real, size=at, index=theirs),
            "nothing": (truth, None),
        },
        pairing=pairing,
    )


def crossed(
    made: Recording,
    source: Recording | None,
    target: Recording | None,
    *,
    size: int | None,
    timing: Timing,
    folder: Path,
    reporter: Reporter,
) -> Case:
    """A made film against another's motion and its own person's looks (cross-reenactment).

    Source and target keep their own aspect; their shorter side is brought to the made film's.

    Raises:
        BadOption: `made` and `source` do not show the same moments, or `made` shows both.
    """
    _not_side_by_side(made, source, target)
    at = made.size if size is None else made.scaled(size)
    ours, pairing = torch.arange(len(made.pts))[:: timing.stride], "frames not paired"
    references: dict[Against, Film | None] = {"nothing": None}
    floors: dict[Against, tuple[Film, Film | None] | None] = {}
    if source is not None:
        ours, theirs, pairing = same_moments(made, source, timing, reporter)
        there = source.scaled(min(at))
        motion = film(source, size=there, index=theirs)
        native = source.scaled(min(made.size))
        perfect = _flawless(source, theirs, native, there, folder, reporter)
        references["motion"], floors["motion"] = motion, (perfect, motion)
        floors["nothing"] = (motion, None)
    if target is not None:
        there, every = target.scaled(min(at)), torch.arange(len(target.pts))[:: timing.stride]
        looks = film(target, size=there, index=every)
        references["looks"], floors["looks"] = looks, halves(target, size=there, index=every)
        floors["nothing"] = (looks, None)
    return Case(
        made=film(made, size=at, index=ours), references=references, floors=floors, pairing=pairing
    )


def _flawless(
    real: Recording,
    index: Tensor,
    native: tuple[int, int],
    at: tuple[int, int],
    folder: Path,
    reporter: Reporter,
) -> Film:
    """What a generator that makes no error would leave after the codec: the floor's made film."""
    written = encoded(film(real, size=native, index=index), folder, reporter=reporter)
    return film(written, size=at, name=f"{real.path.name}, encoded")


def same_moments(
    made: Recording, real: Recording, timing: Timing, reporter: Reporter
) -> tuple[Tensor, Tensor, str]:
    """Frames of both that show the same moments: two rising indices (T,), and how they were found.

    By their timestamps where nine of ten made frames have a partner; else by number where there are
    equally many, since another program may have written other timestamps.

    Raises:
        BadOption: neither goes.
    """
    start, end = timing.start or 0.0, timing.end
    inside = real.pts >= start - 1e-6
    if end is not None:
        inside &= real.pts < end
    candidates = inside.nonzero()[:, 0]
    ours, theirs = _nearest(made.pts, real.pts[candidates] - start)
    every = slice(None, None, timing.stride)
    if len(ours) >= ENOUGH_PARTNERS * len(made.pts):
        if missing := len(made.pts) - len(ours):
            reporter.warn(
                f"{made.path.name}: {missing} of {len(made.pts)} frames have no partner at their "
                f"time in {real.path.name} and are left out"
            )
        return ours[every], candidates[theirs][every], "frames paired by time"
    if len(candidates) == len(made.pts):
        reporter.warn(
            f"{made.path.name} and {real.path.name} have other timestamps and equally many frames: "
            "they are compared by number"
        )
        return (
            torch.arange(len(candidates))[every],
            candidates[every],
            "frames paired by number",
        )
    raise BadOption(
        f"{made.path} and {real.path} do not show the same moments: of {len(made.pts)} frames "
        f"({_span(made.pts)}) only {len(ours)} have a partner among {len(candidates)} "
        f"({_span(real.pts[candidates])}); if the film was made from a part, give the same --start "
        "and --end"
    )


def _nearest(times: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the times, rising, that lie within SAME_MOMENT of a frame of one another."""
    nothing = torch.empty(0, dtype=torch.int64)
    if not len(others):
        return nothing, nothing
    frame = min((t.diff().median().item() for t in (times, others) if len(t) > 1), default=0.04)
    after = torch.searchsorted(others, times).clamp(1, max(len(others) - 1, 1))
    before = after - 1
    after = after.clamp(max=len(others) - 1)
    closer = (others[after] - times).abs() < (others[before] - times).abs()
    nearest = torch.where(closer, after, before)
    close = (others[nearest] - times).abs() <= SAME_MOMENT * frame
    close[1:] &= nearest.diff() > 0
    return close.nonzero()[:, 0], nearest[close]


def _span(pts: Tensor) -> str:
    return f"{float(pts[0]):.2f} to {float(pts[-1]):.2f} s" if len(pts) else "none"


def _same_picture(made: Recording, real: Recording) -> None:
    ratio = made.aspect / real.aspect
    if abs(ratio - 1) <= ASPECT_TOLERANCE:
        return
    what = "this looks like two pictures side by side" if ratio > 1.4 else "one of them is cut"
    raise BadOption(
        f"{made.path} is {_words(made.size)} px and {real.path} is {_words(real.size)} px: {what}, "
        "and pixels cannot be compared; give the made film alone (render it without "
        "--side-by-side), or the same part of the real one"
    )


def _not_side_by_side(made: Recording, source: Recording | None, target: Recording | None) -> None:
    """A film rendered with --side-by-side is as wide as the source and the result together."""
    if source is None or (target and _close(made.aspect, target.aspect)):
        return
    results = (target.aspect, 1) if target else (1, source.aspect)
    if any(_close(made.aspect, source.aspect + result) for result in results):
        raise BadOption(
            f"{made.path} ({_words(made.size)} px) looks like two pictures side by side, which "
            "would be scored as one; render it without --side-by-side"
        )


def _close(one: float, other: float) -> bool:
    return abs(one / other - 1) < 0.03


def _words(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
