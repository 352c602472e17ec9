"""The pipeline runner: pull-based stages, joined by bounded prefetching, in order.

A stage is a function from an iterator of chunks to an iterator of chunks. Past frames are its
locals, look-ahead is "hold one", flushing is the code after its loop; state cannot leak between
videos, because each run makes a new iterator.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, TypeVar

from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import IncompatibleStages, Interrupted, StageFailed, VidsynthError

C = TypeVar("C", bound=Conditioning)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Chunk:
    """A few consecutive frames and what is known about them."""

    pts: Tensor
    """(T,) float64 seconds, CPU."""
    clip: Clip | None = None
    """The frames, when the stream carries pictures at this point."""
    signals: Mapping[type[Conditioning], Conditioning] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """One Conditioning of T frames per kind."""

    def __post_init__(self) -> None:
        if self.clip is not None and len(self.clip) != len(self.pts):
            raise ValueError(f"clip has {len(self.clip)} frames for {len(self.pts)} timestamps")
        for kind, signal in self.signals.items():
            if len(signal) != len(self.pts):
                raise ValueError(
                    f"{kind.kind} has {len(signal)} frames for {len(self.pts)} timestamps"
                )

    def __len__(self) -> int:
        return len(self.pts)

    def __repr__(self) -> str:
        carried = ", ".join(k.kind for k in self.signals) or "no signals"
        span = f"from {float(self.pts[0]):.3f} s" if len(self) else "empty"
        return f"Chunk({len(self)} frames {span}; {'clip, ' if self.clip else ''}{carried})"

    def require(self, kind: type[C]) -> C:
        """The signal of this kind; raises IncompatibleStages saying what the stream carries."""
        signal = self.signals.get(kind)
        if signal is None:
            carried = ", ".join(sorted(k.kind for k in self.signals)) or "none"
            raise IncompatibleStages(
                f"a stage needs the {kind.kind!r} signal, but the stream carries: {carried}; "
                f"put an extractor that produces {kind.kind!r} before it"
            )
        assert isinstance(signal, kind)
        return signal

    def part(self, start: int, stop: int) -> Chunk:
        """Its frames from `start` up to `stop`, with what is known about them."""
        span = slice(start, stop)
        signals = {kind: signal[span] for kind, signal in self.signals.items()}
        clip = None if self.clip is None else self.clip[span]
        return Chunk(self.pts[span], clip, MappingProxyType(signals))

    def with_clip(self, clip: Clip | None) -> Chunk:
        return replace(self, clip=clip)

    def with_signal(self, signal: Conditioning) -> Chunk:
        """The same chunk carrying `signal` too (or instead of the one of its kind)."""
        return replace(self, signals=MappingProxyType({**self.signals, type(signal): signal}))


Stage = Callable[[Iterator[Chunk]], Iterator[Chunk]]
AHEAD = 2
"""Chunks that may wait between two stages."""
GRACE = 10.0
"""Seconds that stages have to end after Ctrl-C."""


@dataclass(slots=True)
class StageReport:
    """How one stage of a run fared."""

    name: str
    frames: int = 0
    busy_seconds: float = 0.0
    """Time in the stage itself, waiting for neighbours excluded."""
    second: float = 0.0
    """Presentation time of the last chunk it took."""
    busy_since: float | None = None
    """While it is at work itself, on the clock of `perf_counter`."""

    @property
    def place(self) -> str:
        return f"{self.name!r} at frame {self.frames} ({self.second:.2f} s)"

    @property
    def fps(self) -> float:
        return self.frames / self.busy_seconds if self.busy_seconds else 0.0


def run(
    source: Iterable[Chunk],
    stages: Sequence[Stage],
    sink: Callable[[Iterator[Chunk]], Any] | None = None,
    *,
    prefetch: int = AHEAD,
    progress: Callable[[int], None] | None = None,
) -> list[StageReport]:
    """Pull every chunk of `source` through `stages` into `sink`.

    The source and each stage run in a thread of their own, at most `prefetch` chunks ahead of the
    next; the sink runs in the calling thread. Decoding, tracking, generation and encoding release
    the interpreter lock in their libraries, so they overlap. Order is kept.

    Args:
        source: chunks in order of time.
        stages: applied left to right. A stage is named by its `name` attribute or `__name__`.
        sink: consumes the last stage's chunks; by default they are counted and dropped.
        prefetch: chunks that may wait between two stages; 0 runs everything serially in the
            calling thread, with the same result.
        progress: told, as the sink takes each chunk, how many frames it has taken so far.

    Returns:
        One StageReport for the source, each stage and the sink, in order.

    Raises:
        StageFailed: a stage raised something foreign; the message names stage, frame and second.
        VidsynthError: a stage's own error, with a note naming the same three.
        KeyboardInterrupt: re-raised after every thread has stopped; a stage that has not within
            GRACE seconds is left behind, and named in a note.
    """
    line = _Line(prefetch)
    chunks = line.timed("read", lambda _: iter(source), iter(()))
    for stage in stages:
        chunks = line.timed(_name(stage), stage, line.handed_over(chunks))
    chunks = line.handed_over(chunks)

    def consume(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        def counted() -> Iterator[Chunk]:
            for chunk in incoming:
                yield chunk
                report.frames += len(chunk)
                if progress:
                    progress(report.frames)

        if sink:
            sink(counted())
        else:
            for _ in counted():
                pass
        yield from ()  # a stage that lets nothing through

    end = line.timed(_name(sink) if sink else "count", consume, chunks)
    report = line.reports[-1]
    try:
        next(end, None)
    except KeyboardInterrupt as stopped:
        for note in line.stop(within=GRACE):
            stopped.add_note(note)
        raise
    except BaseException:
        line.stop()
        raise
    line.stop()
    return line.reports


def _name(stage: object) -> str:
    return getattr(stage, "name", None) or getattr(stage, "__name__", type(stage).__name__)


@dataclass(slots=True)
class _Failure:
    """An exception on its way from a stage's thread to the next one's."""

    error: BaseException


class _Line:
    """The threads, queues and clocks of one run."""

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.reports: list[StageReport] = []
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def timed(self, name: str, stage: Stage, incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        """`stage` over `incoming`, its own time measured and its errors given a place."""
        report = StageReport(name)
        self.reports.append(report)
        waited = 0.0

        def pulled() -> Iterator[Chunk]:
            nonlocal waited
            while True:
                began, report.busy_since = perf_counter(), None
                chunk = next(incoming, None)
                report.busy_since = perf_counter()
                waited += report.busy_since - began
                if chunk is None:
                    return
                report.second = float(chunk.pts[0]) if len(chunk) else report.second
                yield chunk

        def measured() -> Iterator[Chunk]:
            outgoing = stage(pulled())
            while True:
                began, waited_before = perf_counter(), waited
                report.busy_since = began
                try:
                    chunk = next(outgoing, None)
                except Interrupted:  # says by itself how far it came
                    raise
                except VidsynthError as error:
                    if not getattr(error, "__notes__", None):
                        error.add_note(f"in stage {report.place}")
                    raise
                except Exception as error:
                    raise StageFailed(
                        f"stage {report.place} failed: {type(error).__name__}: {error}; "
                        "run again with --debug to see where"
                    ) from error
                finally:
                    report.busy_seconds += perf_counter() - began - (waited - waited_before)
                    report.busy_since = None
                if chunk is None:
                    return
                report.frames += len(chunk)
                yield chunk

        return measured()

    def handed_over(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same chunks, made by a thread that runs at most `prefetch` of them ahead."""
        if not self.prefetch:
            return chunks
        waiting: queue.Queue[Chunk | _Failure | None] = queue.Queue(self.prefetch)

        def put(item: Chunk | _Failure | None) -> None:
            while not self._stopping.is_set():
                try:
                    return waiting.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work() -> None:
            try:
                while not self._stopping.is_set():
                    chunk = next(chunks, None)
                    put(chunk)
                    if chunk is None:
                        break
            except BaseException as error:  # handed to the next thread, which raises it
                put(_Failure(error))
            chunks.close()  # pyright: ignore[reportAttributeAccessIssue]

        # A stage that hangs must not keep the process from ending.
        name = f"vidsynth-{self.reports[-1].name}"
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)

        def received() -> Iterator[Chunk]:
            thread.start()
            while not self._stopping.is_set():
                try:
                    item = waiting.get(timeout=0.1)
                except queue.Empty:
                    continue
                if item is None:
                    return
                if isinstance(item, _Failure):
                    raise item.error
                yield item

        return received()

    def stop(self, *, within: float | None = None) -> list[str]:
        """End the threads; a sentence of each stage that does not end within so many seconds."""
        self._stopping.set()
        until = None if within is None else perf_counter() + within
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if until is None else max(0.0, until - perf_counter()))
        if not any(thread.is_alive() for thread in self._threads):
            return []
        return [
            f"stage {report.place} has given nothing for {perf_counter() - report.busy_since:.0f} s"
            for report in self.reports
            if report.busy_since is not None
        ]
