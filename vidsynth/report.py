"""How long jobs tell what they are doing. The core speaks to a Reporter and never prints.

The base class suits a library: facts go to the `vidsynth` logger (warnings reach stderr unless the
program says otherwise), progress goes nowhere. The command line has one that draws progress bars.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("vidsynth")


class Step:
    """One stretch of work whose progress can be told."""

    def update(self, done: float, **facts: object) -> None:
        """`done` units of the step's total are finished by now (not since the last call).

        Args:
            done: in the unit of the step, never falling.
            facts: short values worth seeing beside the bar, such as `loss=0.31`.
        """


class Reporter:
    """Tells the user what goes on. Methods are called from one thread, the job's own."""

    @contextmanager
    def step(
        self, title: str, total: float | None = None, unit: str = "frames", done: float = 0.0
    ) -> Iterator[Step]:
        """A stretch of work, for as long as the `with` block lasts.

        Args:
            title: two or three words: "track the target".
            total: how many units there will be; None when that is not known.
            unit: what is counted, in the plural; "seconds" when time itself is the budget.
            done: how many units were finished before, by an earlier run.
        """
        yield Step()

    def say(self, text: str) -> None:
        """One sentence of fact."""
        logger.info(text)

    def warn(self, text: str) -> None:
        """One sentence that the user should not miss: a fallback, frames out of range."""
        logger.warning(text)
