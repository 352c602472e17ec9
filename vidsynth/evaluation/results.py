"""What an evaluation found, and its JSON.

The JSON is

    {"format": 1,
     "versions": {"vidsynth": "0.1.0", "torch": "..."},
     "tables": [
       {"kind": "self-reenactment" or "cross-reenactment",
        "films": [{"made": name, "references": {"truth": name, ...}, "frames": int,
                   "height": int, "width": int}],
        "rows": [{"metric": name, "about": text, "unit": "dB", "higher_is_better": bool,
                  "against": "truth" or "motion" or "looks" or "nothing",
                  "value": number or null, "interval": [low, high] or null, "interval_rule": text,
                  "floor": number or null, "floor_rule": text, "count": int, "protocol": text,
                  "caveat": text, "problem": text, "per_frame": [number or null, ...] or null}],
        "notes": [text]}]}

`value` is null exactly where `problem` says why. `per_frame` has the films end to end. Numbers that
are not finite become null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vidsynth import __version__
from vidsynth.evaluation.intervals import Interval
from vidsynth.kinds import Against

FORMAT = 1

TableKind = Literal["self-reenactment", "cross-reenactment"]
EXPLAINED: dict[TableKind, str] = {
    "self-reenactment": "the made film against the same moments as they really look",
    "cross-reenactment": "the made film against another's motion and its own person's looks",
}
HELD: Mapping[Against, str] = {
    "truth": "against the truth",
    "motion": "against the motion that is meant",
    "looks": "against the looks that are meant",
    "nothing": "the made film alone",
}
"""What metrics compare, in words, in the order of a table."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One metric over the films of a table."""

    metric: str
    about: str = ""
    """One sentence on what it measures."""
    unit: str = ""
    higher_is_better: bool = True
    against: Against = "truth"
    value: float | None = None
    interval: Interval | None = None
    """Only where the value is the mean of its frames."""
    floor: float | None = None
    """The value for real against real."""
    floor_rule: str = ""
    """What the floor compares, or why there is none."""
    count: int = 0
    protocol: str = ""
    caveat: str = ""
    problem: str = ""
    """Why there is no value, and how to get one; empty when there is one."""
    per_frame: Tensor | None = None
    """(T,) float64, the films end to end, NaN where nothing was measured."""

    @property
    def arrow(self) -> str:
        """Where better values lie."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def worst_frame(self) -> int | None:
        """Number of the frame with the worst value; None where frames have none, or all one."""
        if self.per_frame is None:
            return None
        found = self.per_frame[self.per_frame.isfinite()]
        if not len(found) or found.min() == found.max():
            return None
        goodness = self.per_frame if self.higher_is_better else -self.per_frame
        return int(torch.where(goodness.isfinite(), goodness, torch.inf).argmin())

    def to_dict(self) -> dict[str, Any]:
        found = self.interval
        return {
            "metric": self.metric,
            "about": self.about,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "against": self.against,
            "value": _finite(self.value),
            "interval": found and [_finite(found.low), _finite(found.high)],
            "interval_rule": found.rule if found else "",
            "floor": _finite(self.floor),
            "floor_rule": self.floor_rule,
            "count": self.count,
            "protocol": self.protocol,
            "caveat": self.caveat,
            "problem": self.problem,
            "per_frame": None
            if self.per_frame is None
            else [_finite(value) for value in self.per_frame.tolist()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmFacts:
    """Which film was held against which."""

    made: str
    references: dict[str, str]
    """Name of the film by what it serves for: "truth", "motion", "looks"."""
    frames: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """The metrics of one kind of comparison."""

    kind: TableKind
    films: Sequence[FilmFacts]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    """What was not measured, and why."""

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.value is not None]

    @property
    def unmeasured(self) -> list[str]:
        """Why the others have no value: one sentence for all that lack the same."""
        reasons: dict[str, list[str]] = {}
        for row in self.rows:
            if row.problem:
                reasons.setdefault(row.problem, []).append(row.metric)
        return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()] + [
            *self.notes
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What `evaluate` gives back."""

    tables: Sequence[Table]

    @property
    def versions(self) -> dict[str, str]:
        return {"vidsynth": __version__, "torch": torch.__version__}

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON file; see the module's docstring."""
        return {
            "format": FORMAT,
            "versions": self.versions,
            "tables": [
                {
                    "kind": table.kind,
                    "films": [asdict(film) for film in table.films],
                    "rows": [row.to_dict() for row in table.rows],
                    "notes": list(table.notes),
                }
                for table in self.tables
            ],
        }


def number(value: float | None, digits: int = 4) -> str:
    """For people: "31.96", "0.9755", "151.3", "1720"; "-" for nothing."""
    if value is None:
        return "-"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:#.{digits}g}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
