"""Values over time as inline SVG: drawn here, since a report must not need anything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from vidsynth.evaluation.results import Row, number

# T frames

WIDTH, HEIGHT = 560, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
_COLUMNS = 480
"""More values than this are drawn as their mean and range."""


def plot(row: Row, seconds: Tensor, lengths: Sequence[int]) -> str:
    """An <svg> of a row's values per frame: (T,) against (T,) seconds, the films end to end.

    The line breaks where nothing was measured. The mean (with its interval) and the floor are
    drawn across, the floor only where it does not squash the line; the worst frame has a dot.
    """
    assert row.per_frame is not None
    x, y, low, high = _thinned(seconds, row.per_frame)
    frame = _Frame(x, low, high, row)
    parts = [frame.grid(), frame.films(seconds, lengths), frame.across(row)]
    if len(x) < len(seconds):
        parts.append(frame.band(x, low, high))
    parts += [frame.line(x, y), frame.worst(row, seconds)]
    label = f"{row.metric} over time"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def end_to_end(pts: Sequence[Tensor]) -> Tensor:
    """Timestamps of several films as one clock: each begins where the one before ended."""
    clock, times = 0.0, []
    for film in pts:
        step = float(film.diff().median()) if len(film) > 1 else 0.04
        times.append(film - film[0] + clock)
        clock = float(times[-1][-1]) + step
    return torch.cat(times)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about so many."""
    span = high - low
    raw = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _thinned(seconds: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, means, minima and maxima of at most _COLUMNS groups of neighbours."""
    if len(values) <= _COLUMNS:
        return seconds, values, values, values
    groups = [
        (s.mean(), v.nanmean(), _nan_to(v, math.inf).min(), _nan_to(v, -math.inf).max())
        for s, v in zip(seconds.tensor_split(_COLUMNS), values.tensor_split(_COLUMNS), strict=True)
    ]
    x, y, low, high = (torch.stack(column) for column in zip(*groups, strict=True))
    return x, y, low, high


def _nan_to(values: Tensor, other: float) -> Tensor:
    return torch.where(values.isnan(), other, values)


class _Frame:
    """From values to pixels."""

    def __init__(self, x: Tensor, low: Tensor, high: Tensor, row: Row) -> None:
        lows, highs = low[low.isfinite()], high[high.isfinite()]
        bottom = float(lows.min()) if len(lows) else 0.0
        top = float(highs.max()) if len(highs) else 1.0
        span = top - bottom or abs(top) or 1.0
        if row.floor is not None and bottom - span <= row.floor <= top + span:
            bottom, top = min(bottom, row.floor), max(top, row.floor)
        margin = 0.06 * (top - bottom or span)
        self.bottom, self.top = bottom - margin, top + margin
        self.first, self.last = float(x[0]), max(float(x[-1]), float(x[0]) + 1e-6)

    def px(self, second: float) -> float:
        share = (second - self.first) / (self.last - self.first)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def py(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> str:
        lines = []
        for value in ticks(self.bottom, self.top):
            y = self.py(value)
            lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" {_ys(y)}/>')
            lines.append(
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        for second in ticks(self.first, self.last, 6):
            words = f"{second:g} s"
            x = min(max(self.px(second), _LEFT + 8), WIDTH - _RIGHT - 12)
            lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{words}</text>')
        return "".join(lines)

    def films(self, seconds: Tensor, lengths: Sequence[int]) -> str:
        """Where one film ends and the next begins."""
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)[1:]
        bounds = f'y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"'
        return "".join(
            f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" {bounds}/>'
            for x in (self.px(float(seconds[i])) for i in starts.tolist())
        )

    def across(self, row: Row) -> str:
        ends = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}"'
        parts = []
        if row.interval is not None and row.value is not None:
            y1, y0 = self.py(row.interval.low), self.py(row.interval.high)
            wide = WIDTH - _LEFT - _RIGHT
            parts.append(
                f'<rect class="interval" x="{_LEFT}" y="{y0:.1f}" width="{wide}" '
                f'height="{max(y1 - y0, 1):.1f}"/>'
                f'<line class="mean" {ends} {_ys(self.py(row.value))}/>'
            )
        if row.floor is not None and self.bottom <= row.floor <= self.top:
            parts.append(f'<line class="floor" {ends} {_ys(self.py(row.floor))}/>')
        return "".join(parts)

    def line(self, x: Tensor, y: Tensor) -> str:
        """A path with gaps; a value with gaps on both sides is a short dash."""
        pieces, drawing = [], False
        for second, value in zip(x.tolist(), y.tolist(), strict=True):
            if not math.isfinite(value):
                drawing = False
                continue
            at = f"{self.px(second):.1f} {self.py(value):.1f}"
            pieces.append(f"L{at}" if drawing else f"M{at}h1")
            drawing = True
        return f'<path class="line" d="{"".join(pieces)}"/>'

    def band(self, x: Tensor, low: Tensor, high: Tensor) -> str:
        known = low.isfinite() & high.isfinite()
        there = [
            f"{self.px(s):.1f},{self.py(v):.1f}"
            for s, v in zip(x[known].tolist(), high[known].tolist(), strict=True)
        ]
        back = [
            f"{self.px(s):.1f},{self.py(v):.1f}"
            for s, v in zip(x[known].tolist(), low[known].tolist(), strict=True)
        ]
        return f'<polygon class="band" points="{" ".join(there + back[::-1])}"/>'

    def worst(self, row: Row, seconds: Tensor) -> str:
        i = row.worst_frame
        if i is None or row.per_frame is None:
            return ""
        x, y = self.px(float(seconds[i])), self.py(float(row.per_frame[i]))
        words = f"worst: {number(float(row.per_frame[i]))} at {float(seconds[i]):.2f} s"
        return (
            f'<circle class="worst" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{words}</title></circle>'
        )


def _ys(y: float) -> str:
    return f'y1="{y:.1f}" y2="{y:.1f}"'
