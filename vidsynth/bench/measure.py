"""How everything is measured: in turns within one process, medians, spread, peak memory.

Neighbours on a shared machine slow whole stretches of time, so variants that are compared run in
turns (A B A B) and hit the same stretches; ratios can be trusted where seconds cannot.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from vidsynth.bench import Row
from vidsynth.errors import VidsynthError


@dataclass(frozen=True, slots=True)
class Clock:
    """Where times come from, in seconds."""

    wall: Callable[[], float] = perf_counter
    cpu: Callable[[], float] = process_time
    """Of all threads of this process together."""
    synchronise: Callable[[], None] = lambda: None
    """Wait until the device has done what it was told."""

    @staticmethod
    def of(device: torch.device) -> Clock:
        if device.type == "cuda":
            return Clock(synchronise=lambda: torch.cuda.synchronize(device))
        if device.type == "mps":
            return Clock(synchronise=torch.mps.synchronize)
        return Clock()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each round, in order."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median wall-clock time."""
        return median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """Median processor time, all cores together."""
        return median(self.cpu)


def interleaved(
    jobs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Clock | None = None,
) -> dict[str, Timings]:
    """Run the jobs in turns, A B A B, and time each.

    Args:
        jobs: by name; each call is one round.
        rounds: how often each is timed.
        warmup: how often each runs before that, untimed.
        clock: the device's.
    """
    clock = clock or Clock()
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-warmup, rounds):
        for name, job in jobs.items():
            clock.synchronise()
            began = clock.wall(), clock.cpu()
            job()
            clock.synchronise()
            if turn >= 0:
                wall[name].append(clock.wall() - began[0])
                cpu[name].append(clock.cpu() - began[1])
    return {name: Timings(tuple(wall[name]), tuple(cpu[name])) for name in jobs}


def speed_up(name: str, reference: Timings, variant: Timings, *, goal: float | None = None) -> Row:
    """How many times faster `variant` is: the ratio of medians, the range of per-round ratios."""
    each = [a / b for a, b in zip(reference.wall, variant.wall, strict=True)]
    value = reference.seconds / variant.seconds
    return Row(name=name, value=value, unit="x", spread=(min(each), max(each)), goal=goal)


def milliseconds(name: str, timings: Timings, *, per: float = 1) -> Row:
    """The median time of a round, or of each of the `per` things that a round does."""
    values = [1000 * seconds / per for seconds in timings.wall]
    return Row(name=name, value=median(values), unit="ms", spread=(min(values), max(values)))


def per_second(
    name: str, timings: Timings, *, count: float, unit: str = "fps", goal: float | None = None
) -> Row:
    """How many of `count` things a round are done in a second, at the median."""
    rates = [count / seconds for seconds in timings.wall]
    spread = (min(rates), max(rates))
    return Row(name=name, value=count / timings.seconds, unit=unit, spread=spread, goal=goal)


# Memory


def peak_in_child(function: Callable[..., object], *arguments: Any) -> int:
    """The most bytes that a fresh process holds while it runs `function(*arguments)`.

    On the GPU where it used one, else of main memory, everything that is imported included. Both
    must be picklable, the function one of a module. Raises VidsynthError when it fails.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        peak = ours.recv()
    except EOFError:
        process.join()
        raise VidsynthError(
            f"{function.__name__} failed in a process of its own (exit {process.exitcode}); free "
            "some memory and run this again"
        ) from None
    finally:
        process.join(timeout=60)
        if process.is_alive():
            process.terminate()
    return peak


def _report_peak(
    connection: Connection, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    function(*arguments)
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    connection.send(on_gpu or peak_memory())


def peak_memory() -> int:
    """The most bytes of main memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: there a new process starts with the peak of the one that started it.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
