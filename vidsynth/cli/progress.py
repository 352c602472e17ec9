"""Progress on the terminal: bars with rate and time left, or plain lines where stderr is a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from vidsynth.report import Reporter, Step

SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 20


def reporter() -> Reporter:
    """The reporter that suits stderr. Of several processes of one training, the first speaks."""
    if os.environ.get("RANK", "0") != "0":
        return Reporter()
    console = Console(stderr=True)
    return BarReporter(console) if console.is_terminal else LineReporter(console)


class _CountedStep(Step):
    """Keeps what it is told, and can put it into words."""

    def __init__(self, title: str, total: float | None, unit: str, done: float = 0.0) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = self.before = done
        self.facts: dict[str, object] = {}
        self.began = perf_counter()

    def update(self, done: float, **facts: object) -> None:
        self.done = done
        self.facts = facts

    @property
    def seconds(self) -> float:
        return perf_counter() - self.began

    @property
    def rate(self) -> float:
        """Units per second, those of an earlier run left out."""
        return (self.done - self.before) / max(self.seconds, 1e-9)

    def words(self) -> str:
        """ "120 of 300 frames, 41.2 per second, 4s left, loss 0.31"."""
        parts = [self._amount()]
        rate = self.rate
        if rate > 0:
            if self.unit != "seconds":
                parts.append(f"{_rate(rate)} per second")
            if self.total is not None and self.done < self.total:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts + [f"{name} {_short(value)}" for name, value in self.facts.items()])

    def _amount(self) -> str:
        if self.unit == "seconds":
            total = "" if self.total is None else f" of {duration(self.total)}"
            return duration(self.done) + total
        total = "" if self.total is None else f" of {self.total:.0f}"
        return f"{self.done:.0f}{total} {self.unit}"


class LineReporter(Reporter):
    """A line at the beginning of a step, at most one each ten seconds, and one at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(
        self, title: str, total: float | None = None, unit: str = "frames", done: float = 0.0
    ) -> Iterator[Step]:
        step = _LineStep(self, title, total, unit, done)
        self.say(f"{title} ...")
        yield step
        self.say(_summary(step))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")


class _LineStep(_CountedStep):
    def __init__(
        self, lines: LineReporter, title: str, total: float | None, unit: str, done: float
    ) -> None:
        super().__init__(title, total, unit, done)
        self._lines = lines
        self._said = self.began

    def update(self, done: float, **facts: object) -> None:
        super().update(done, **facts)
        if perf_counter() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = perf_counter()
            self._lines.say(f"{self.title}: {self.words()}")


class BarReporter(Reporter):
    """One bar per open step; a finished step leaves one line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            _Words(console),
            console=console,
            transient=True,
        )
        self._open = 0

    @contextmanager
    def step(
        self, title: str, total: float | None = None, unit: str = "frames", done: float = 0.0
    ) -> Iterator[Step]:
        task = self._progress.add_task(escape(title), total=total, completed=done)  # pyright: ignore[reportArgumentType]
        step = _BarStep(self._progress, task, title, total, unit, done)
        self._progress.update(task, step=step)
        self._open += 1
        self._progress.start()
        try:
            yield step
        finally:
            self._open -= 1
            self._progress.remove_task(task)
            if not self._open:
                self._progress.stop()
        self.say(_summary(step))

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", markup=False, highlight=False, style="yellow")


class _BarStep(_CountedStep):
    def __init__(
        self,
        progress: Progress,
        task: int,
        title: str,
        total: float | None,
        unit: str,
        done: float,
    ) -> None:
        super().__init__(title, total, unit, done)
        self._progress = progress
        self._task = task

    def update(self, done: float, **facts: object) -> None:
        super().update(done, **facts)
        self._progress.update(self._task, completed=done)  # pyright: ignore[reportArgumentType]


class _Words(ProgressColumn):
    """As much as fits into the line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        step = task.fields.get("step")
        words = Text(step.words() if isinstance(step, _CountedStep) else "", no_wrap=True)
        room = self._console.width - len(task.description) - BAR_WIDTH - 2
        words.truncate(max(room, BAR_WIDTH), overflow="ellipsis")
        return words


def _summary(step: _CountedStep) -> str:
    made = step.done - step.before
    if step.unit == "seconds" or not made:
        return f"{step.title}: {duration(step.seconds)}"
    unit = step.unit.removesuffix("s") if made == 1 else step.unit
    rate = f"{_rate(step.rate)} per second"
    return f"{step.title}: {made:.0f} {unit} in {duration(step.seconds)} ({rate})"


def _rate(value: float) -> str:
    """Three digits where they matter: "0.52", "41.2", "1720"."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """ "0.4s", "12s", "3m05s", "1h02m"."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
