"""The runner: order, back-pressure, overlap, errors that name their place, nothing left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from vidsynth.errors import IncompatibleStages, Interrupted, StageFailed, UnsupportedVideo
from vidsynth.stream import Chunk, Stage, run
from vidsynth.testing import moving_squares, sliding_labels, times, waving_person

PREFETCHES = (0, 1, 2)


def chunks(count: int, size: int = 2) -> Iterator[Chunk]:
    """`count` chunks of `size` frames, 0.1 s from one frame to the next."""
    for n in range(count):
        yield Chunk(torch.arange(n * size, (n + 1) * size, dtype=torch.float64) / 10)


def identity(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
    yield from incoming


def sleeping(seconds: float) -> Stage:
    def stage(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in incoming:
            time.sleep(seconds)
            yield chunk

    return stage


def collected(into: list[Chunk]) -> Callable[[Iterator[Chunk]], None]:
    def sink(incoming: Iterator[Chunk]) -> None:
        into.extend(incoming)

    return sink


def starts(taken: list[Chunk]) -> list[float]:
    return [round(float(chunk.pts[0]), 6) for chunk in taken]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("vidsynth")] == []


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_order_is_kept_whatever_the_speeds(prefetch: int) -> None:
    taken: list[Chunk] = []
    uneven = [sleeping(0.002), identity, sleeping(0.004)]
    run(chunks(12), uneven, collected(taken), prefetch=prefetch)
    assert starts(taken) == [round(0.2 * n, 6) for n in range(12)]


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_prefetching_changes_no_result(prefetch: int) -> None:
    def summing(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        """State in locals, look-ahead by holding one, a flush after the loop."""
        total, held = 0.0, None
        for chunk in incoming:
            if held is not None:
                total += float(held.pts.sum() * chunk.pts[0])
                yield Chunk(held.pts + total)
            held = chunk
        if held is not None:
            yield Chunk(held.pts - total)

    serial: list[Chunk] = []
    piped: list[Chunk] = []
    run(chunks(9), [summing, summing], collected(serial), prefetch=0)
    run(chunks(9), [summing, summing], collected(piped), prefetch=prefetch)
    assert len(piped) == 9
    assert all(torch.equal(a.pts, b.pts) for a, b in zip(serial, piped, strict=True))


@pytest.mark.parametrize("length", [30, 90])
def test_a_slow_sink_holds_the_source_back(length: int) -> None:
    made, ahead = 0, []

    def source() -> Iterator[Chunk]:
        nonlocal made
        for chunk in chunks(length):
            made += 1
            yield chunk

    def sink(incoming: Iterator[Chunk]) -> None:
        for taken, _ in enumerate(incoming, 1):
            time.sleep(0.002)
            ahead.append(made - taken)

    prefetch, stages = 2, [identity, identity]
    run(source(), stages, sink, prefetch=prefetch)
    # Each hand-over keeps `prefetch` chunks waiting and one in the hand of the thread before it.
    assert max(ahead) <= (prefetch + 1) * (len(stages) + 1)
    assert max(ahead) >= prefetch, "nothing was prefetched at all"


def test_stages_overlap() -> None:
    def seconds(prefetch: int) -> float:
        began = time.perf_counter()
        run(chunks(10), [sleeping(0.02)] * 3, prefetch=prefetch)
        return time.perf_counter() - began

    # Ideal is 12 of 30 sleeps.
    assert seconds(2) < 0.65 * seconds(0)


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_a_foreign_error_names_stage_frame_and_second(prefetch: int) -> None:
    def breaking(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in incoming:
            if chunk.pts[0] > 0.5:
                raise KeyError("lost")
            yield chunk

    with pytest.raises(StageFailed, match=r"'breaking' at frame 6 \(0\.60 s\).*KeyError") as caught:
        run(chunks(20), [identity, breaking, identity], prefetch=prefetch)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_an_error_of_ours_keeps_its_kind_and_gains_the_place(prefetch: int) -> None:
    def source() -> Iterator[Chunk]:
        yield from chunks(3)
        raise UnsupportedVideo("clip.mp4: damaged at 0.6 s")

    with pytest.raises(UnsupportedVideo, match="damaged") as caught:
        run(source(), [identity], prefetch=prefetch)
    assert caught.value.__notes__ == ["in stage 'read' at frame 6 (0.00 s)"]


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_an_error_in_the_sink_stops_the_run(prefetch: int) -> None:
    def write(incoming: Iterator[Chunk]) -> None:
        next(incoming)
        raise OSError("disk gone")

    with pytest.raises(StageFailed, match=r"'write' at frame .*disk gone"):
        run(chunks(500), [identity], write, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_ctrl_c_in_the_sink_stops_every_thread(prefetch: int) -> None:
    def write(incoming: Iterator[Chunk]) -> None:
        for n, _ in enumerate(incoming):
            if n == 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(chunks(500), [sleeping(0.001)], write, prefetch=prefetch)


def test_ctrl_c_while_a_stage_is_busy_stops_within_its_chunk() -> None:
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run(chunks(1000), [sleeping(0.05)])
    assert time.perf_counter() - began < 2.0
    timer.join()


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_a_stage_that_has_enough_ends_the_run(prefetch: int) -> None:
    def first_three(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        for _ in range(3):
            yield next(incoming)

    taken: list[Chunk] = []
    run(chunks(1000), [first_three, identity], collected(taken), prefetch=prefetch)
    assert starts(taken) == [0.0, 0.2, 0.4]


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_the_source_is_closed_when_the_run_ends_early(prefetch: int) -> None:
    closed = threading.Event()

    def source() -> Iterator[Chunk]:
        try:
            yield from chunks(1000)
        finally:
            closed.set()

    def stop_at_once(incoming: Iterator[Chunk]) -> None:
        next(incoming)

    run(source(), [identity], stop_at_once, prefetch=prefetch)
    assert closed.is_set()


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_an_empty_source_is_no_error(prefetch: int) -> None:
    reports = run(iter(()), [identity], prefetch=prefetch)
    assert [report.frames for report in reports] == [0, 0, 0]


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_reports_count_frames_and_own_time(prefetch: int) -> None:
    slow, quick = sleeping(0.02), sleeping(0.0)
    slow.name, quick.name = "slow", "quick"  # pyright: ignore[reportFunctionMemberAccess]
    told: list[int] = []
    reports = run(chunks(5, size=3), [slow, quick], prefetch=prefetch, progress=told.append)
    assert [report.name for report in reports] == ["read", "slow", "quick", "count"]
    assert [report.frames for report in reports] == [15, 15, 15, 15]
    assert told == [3, 6, 9, 12, 15]
    busy = {report.name: report.busy_seconds for report in reports}
    assert busy["slow"] >= 0.1
    assert max(busy["read"], busy["quick"], busy["count"]) < 0.5 * busy["slow"]


def test_a_chunk_carries_signals_by_kind() -> None:
    person, labels = waving_person(4, 16, 16), sliding_labels(4, 16, 16)
    chunk = Chunk(times(4), moving_squares(4, 16, 16))
    both = chunk.with_signal(person).with_signal(labels)
    assert both.require(type(person)) is person
    assert both.require(type(labels)) is labels
    assert both.with_signal(person[:4]).require(type(person)) is not person
    assert both.with_clip(None).clip is None


def test_a_missing_signal_says_what_the_stream_does_carry() -> None:
    chunk = Chunk(times(2)).with_signal(waving_person(2, 8, 8))
    with pytest.raises(IncompatibleStages, match=r"needs the 'labels' signal.*carries: pose"):
        chunk.require(type(sliding_labels(1, 8, 8)))


def test_a_chunk_refuses_parts_of_other_lengths() -> None:
    with pytest.raises(ValueError, match="clip has 3 frames for 2 timestamps"):
        Chunk(times(2), moving_squares(3, 8, 8))
    with pytest.raises(ValueError, match="pose has 3 frames for 2 timestamps"):
        Chunk(times(2)).with_signal(waving_person(3, 8, 8))


def test_an_interruption_keeps_its_own_words() -> None:
    def stopped(incoming: Iterator[Chunk]) -> Iterator[Chunk]:
        yield next(incoming)
        raise Interrupted("stopped after 2 frames")

    with pytest.raises(Interrupted) as caught:
        run(chunks(3), [stopped])
    assert not getattr(caught.value, "__notes__", [])
