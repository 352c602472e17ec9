"""Whether the lines of a made film are where those of the real one are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.errors import NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth_sketch.sketch import Sketch

# T frames, H, W pixels

BLOCK = 16


@dataclass(frozen=True, kw_only=True)
class LineAgreementOptions:
    """What counts as the same place.

    Attributes:
        tolerance: pixels that a line may lie off.
    """

    tolerance: int = 1

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance cannot be negative; got {self.tolerance}")


class LineAgreement(Metric):
    """F-score of lines: how many of the made ones are real, and of the real ones are made."""

    Options = LineAgreementOptions
    unit = "%"
    higher_is_better = True
    against = "truth"
    options: LineAgreementOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._found: list[Tensor] = []

    def update(self, made: Film, real: Film | None) -> None:
        assert real is not None, "measured against the truth"
        # The evaluation runs our extractor on each film once, whoever asks for it.
        ours, theirs = made.track("sketch"), real.track("sketch")
        assert isinstance(ours, Sketch) and isinstance(theirs, Sketch)
        for start in range(0, len(ours), BLOCK):
            span = slice(start, start + BLOCK)
            self._found.append(f_score(ours.ink[span], theirs.ink[span], self.options.tolerance))

    def compute(self) -> Measurement:
        per_frame = torch.cat(self._found) if self._found else torch.empty(0)
        known = per_frame[~per_frame.isnan()]
        if not len(known):
            raise NotMeasurable("no frame has a line; give films that show something")
        return Measurement(
            value=float(known.mean()),
            count=len(known),
            protocol=f"line_agreement 1: lines of 'sketch', within {self.options.tolerance} px",
            per_frame=per_frame,
        )


def f_score(ours_THW: Tensor, theirs_THW: Tensor, tolerance: int) -> Tensor:
    """(T,) float64 in percent, of two films of ink; NaN where neither has a line."""
    ours, theirs = ((x > 127).double() for x in (ours_THW, theirs_THW))
    found, true = (_share(a, _near(b, tolerance)) for a, b in ((ours, theirs), (theirs, ours)))
    none = (ours.flatten(1).sum(1) == 0) & (theirs.flatten(1).sum(1) == 0)
    score = 200 * found * true / (found + true).clamp_min(1e-9)
    return score.masked_fill(none, torch.nan)


def _near(lines_THW: Tensor, tolerance: int) -> Tensor:
    return F.max_pool2d(lines_THW[:, None], 2 * tolerance + 1, 1, tolerance)[:, 0]


def _share(lines_THW: Tensor, inside_THW: Tensor) -> Tensor:
    """(T,) of the lines, how much lies inside."""
    count = lines_THW.flatten(1).sum(dim=1)
    return (lines_THW * inside_THW).flatten(1).sum(dim=1) / count.clamp_min(1.0)
