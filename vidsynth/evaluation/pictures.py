"""What people look at in a report: the worst moments, and a few frames spread over a film."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from vidsynth.evaluation.cases import Case
from vidsynth.evaluation.results import Row, Table
from vidsynth.kinds import Film

# T frames, H, W pixels

STRIP_FRAMES = 8
STRIP_FILMS = 4
MOMENTS = 6
APART_SECONDS = 0.25
"""Worst frames nearer to each other than this are one moment."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame that is worth looking at."""

    frame: int
    """Counted over the films of the table, end to end."""
    film: int
    local: int
    """Counted in its film."""
    worst: list[tuple[Row, float]] = field(default_factory=list)
    """The metrics that are worst here, or within APART_SECONDS, with their worst values."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shown:
    """A frame with what it is held against."""

    made: Tensor
    """(3, H, W) uint8."""
    real: Tensor | None
    """(3, H, W) uint8 of the size of its own film."""
    second: float


def worst_moments(table: Table, cases: Sequence[Case]) -> list[Moment]:
    """The worst frame of every metric that has values per frame; near ones are one moment.

    Those at which most metrics are worst, at most MOMENTS of them, come first.
    """
    ends = list(accumulate(film.frames for film in table.films))
    moments: list[Moment] = []
    for row in table.measured:
        frame = row.worst_frame
        if frame is None or row.per_frame is None:
            continue
        film = next(i for i, end in enumerate(ends) if frame < end)
        near = round(APART_SECONDS * float(cases[film].made.spec.fps))
        known = [m for m in moments if m.film == film and abs(m.frame - frame) <= near]
        if not known:
            local = frame - (ends[film] - table.films[film].frames)
            known = [Moment(frame, film, local)]
            moments += known
        known[0].worst.append((row, float(row.per_frame[frame])))
    return sorted(moments, key=lambda m: -len(m.worst))[:MOMENTS]


def compared(case: Case) -> Film | None:
    """The film that is shown beside the made one, frame by frame."""
    return case.references.get("truth") or case.references.get("motion")


def frames_of(case: Case, wanted: Collection[int]) -> dict[int, Shown]:
    """These frames of a case, by number, with their partners."""
    made = _picked(case.made, wanted)
    partner = compared(case)
    real = {} if partner is None else {i: frame for i, _, frame in _picked(partner, wanted)}
    return {i: Shown(made=frame, real=real.get(i), second=second) for i, second, frame in made}


def spread(of: Film, count: int = STRIP_FRAMES) -> list[int]:
    """Frame numbers evenly over a film, its first and its last included."""
    return torch.linspace(0, len(of) - 1, min(count, len(of))).round().long().tolist()


def strip(of: Film) -> list[Tensor]:
    """(3, H, W) uint8 frames evenly over a film."""
    return [frame for _, _, frame in _picked(of, spread(of))]


def _picked(of: Film, wanted: Collection[int]) -> Iterator[tuple[int, float, Tensor]]:
    """(number, second, frame) of the wanted ones; reads no further than the last."""
    before, last = 0, max(wanted, default=-1)
    for clip in of.read():
        if before > last:
            return
        for i in range(len(clip)):
            if before + i in wanted:
                yield before + i, float(clip.pts[i]), clip.frames[i]
        before += len(clip)


def difference(made: Tensor, real: Tensor) -> Tensor:
    """(H, W) float32 in [0, 1]: mean over channels of the absolute difference."""
    return (made.float() - real.float()).abs().mean(0) / 255
