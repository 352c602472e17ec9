"""How far a mean over frames can be trusted: the moving-block bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 2000
COVERAGE = 0.95
MANY_FILMS = 8
"""From so many films on, whole films are drawn instead of blocks of frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where the mean would lie in 95 of 100 repetitions."""

    low: float
    high: float
    rule: str
    """How it was found, in words."""


def interval(
    per_frame: Tensor, lengths: Sequence[int], *, block: int, seed: int = 0
) -> Interval | None:
    """A 95 % interval for the mean of values that depend on their neighbours in time.

    Blocks of consecutive values are drawn with replacement, so that what neighbours have in common
    stays in each sample. A block is at most a quarter of the values. With at least MANY_FILMS
    films, whole films are drawn: frames of one film are more alike than a block can tell.

    Args:
        per_frame: (T,), the films end to end, NaN where nothing was measured.
        lengths: frames of each film; they sum to T.
        block: frames in a block.
        seed: of the draws.

    Returns:
        None when fewer than two values were measured.
    """
    measured = per_frame.isfinite()
    if int(measured.sum()) < 2:
        return None
    values = torch.where(measured, per_frame, 0.0).double()
    if len(lengths) >= MANY_FILMS:
        sums, counts = (_per_film(x, lengths) for x in (values, measured.double()))
        drawn, what = len(lengths), f"{len(lengths)} films"
    else:
        block = max(1, min(block, len(values) // 4))
        sums, counts = (x.unfold(0, block, 1).sum(1) for x in (values, measured.double()))
        drawn, what = -(-len(values) // block), f"blocks of {block} frames"
    rng = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(sums), (RESAMPLES, drawn), generator=rng)
    totals = counts[picks].sum(1)
    means = sums[picks].sum(1)[totals > 0] / totals[totals > 0]
    tail = (1 - COVERAGE) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    rule = f"95 % of {RESAMPLES} bootstrap resamples of {what}, seed {seed}"
    return Interval(low=low, high=high, rule=rule)


def _per_film(values: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.stack([part.sum() for part in values.split(list(lengths))])
