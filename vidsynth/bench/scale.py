"""`vidsynth bench scale`: what more pixels, frames, samples and processes cost.

The network is that of the dance recipe, one frame at a time and without its face refiner, so that
nothing but the size of what it works on changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch

from vidsynth import devices, stream, video
from vidsynth.bench import Asked, Row
from vidsynth.bench.material import (
    FPS,
    film,
    moved,
    place,
    published_objective,
    random_batch,
    workshop,
)
from vidsynth.bench.measure import Clock, Timings, cores, interleaved
from vidsynth.bench.pipeline import repeated
from vidsynth.errors import VidsynthError
from vidsynth.objectives import Objective, TrainBatch
from vidsynth.processes import Processes
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter
from vidsynth.training import Run, train_step

# B batch, C channels, H, W pixels

LEFT_OUT = ("previous", "face", "background", "window", "subject_weight")
LARGE = 256
"""Pixels from which on the cost of a pixel is promised to be flat; below, calls cost more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int = 7
    sizes: tuple[int, ...] = (128, 256, 512)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    batch_size_px: int = 128
    film_frames: tuple[int, int] = (250, 1000)
    """A film, and the same film repeated, that are copied frame by frame."""
    film_size: tuple[int, int] = (360, 640)
    processes: tuple[int, ...] = (1, 2)
    steps: int = 10
    """Timed by each number of processes."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the network."""


def bench(asked: Asked) -> Iterator[Row]:
    """Cost of a pixel over sizes, of a frame over lengths, of a sample over batches."""
    settings = Settings(batch_size_px=asked.size or 128)
    if asked.full:
        settings = replace(settings, rounds=15, sizes=(*settings.sizes, 1024), steps=30)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    yield from _size_rows(settings, device)
    yield from _batch_rows(settings, device)
    yield from _length_rows(settings)
    yield from _process_rows(settings, device, reporter)


def objective_of(size: int, changes: Mapping[str, Any]) -> Objective:
    """The network of the dance-plain recipe, with changes."""
    options = dict(load_recipe("dance-plain").generator_options)
    kept = {name: value for name, value in options.items() if name not in LEFT_OUT}
    torch.manual_seed(0)
    return published_objective(size, **{**kept, **changes})


def _jobs(
    size: int, batch: int, settings: Settings, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Generating a batch, and a training step on it."""
    objective = place(objective_of(size, settings.network), device)
    sample = moved(random_batch(batch, size), device)
    maps = sample.maps_BTCHW[:, 0]

    def generate() -> None:
        with torch.inference_mode(), devices.autocast(device):
            objective.generator(maps)

    return {"generation": generate, "training": lambda: step(objective, sample)}


def step(objective: Objective, sample: TrainBatch, processes: Processes | None = None) -> None:
    """One training step, as training makes it."""
    train_step(objective, sample, Run(), processes or Processes(), precision="auto")


def _size_rows(settings: Settings, device: torch.device) -> Iterator[Row]:
    jobs = {
        f"{what} {size}": job
        for size in settings.sizes
        for what, job in _jobs(size, 1, settings, device).items()
    }
    timed = interleaved(jobs, rounds=settings.rounds, clock=Clock.of(device))
    for what in ("generation", "training"):
        for size in settings.sizes:
            yield _cost(f"{what}: a pixel at {size} px", timed[f"{what} {size}"], size * size)
        for small, large in zip(settings.sizes, settings.sizes[1:], strict=False):
            yield _growth(
                f"{what}: a pixel at {large} px over one at {small} px",
                timed[f"{what} {small}"],
                timed[f"{what} {large}"],
                (large / small) ** 2,
                goal=1.25 if small >= LARGE else None,
            )


def _batch_rows(settings: Settings, device: torch.device) -> Iterator[Row]:
    jobs = {
        f"{what} {batch}": job
        for batch in settings.batches
        for what, job in _jobs(settings.batch_size_px, batch, settings, device).items()
    }
    timed = interleaved(jobs, rounds=settings.rounds, clock=Clock.of(device))
    first = settings.batches[0]
    for what in ("generation", "training"):
        for batch in settings.batches[1:]:
            yield _growth(
                f"{what}: a sample of a batch of {batch} over one of {first}",
                timed[f"{what} {first}"],
                timed[f"{what} {batch}"],
                batch / first,
                goal=None,
            )


def _length_rows(settings: Settings) -> Iterator[Row]:
    short, long = settings.film_frames
    height, width = settings.film_size
    with workshop() as folder:
        first = film(folder / "short.mp4", "puppet", short, height=height, width=width)
        second = repeated(first, folder / "long.mp4", long)

        def copy(path: Any) -> None:
            def write(chunks: Iterator[stream.Chunk]) -> None:
                output = folder / "copy.mp4"
                video.write_video(output, chunks, fps=FPS, preset="ultrafast", overwrite=True)

            stream.run(video.read_chunks(path), [], write)

        timed = interleaved(
            {"short": lambda: copy(first), "long": lambda: copy(second)}, rounds=settings.rounds
        )
    yield _growth(
        f"decode and encode: a frame of {long} over one of {short}",
        timed["short"],
        timed["long"],
        long / short,
        goal=1.1,
    )


def _cost(name: str, timings: Timings, count: int) -> Row:
    """Nanoseconds of each of so many things."""
    each = [1e9 * seconds / count for seconds in timings.wall]
    value = 1e9 * timings.seconds / count
    return Row(name=name, value=value, unit="ns", spread=(min(each), max(each)))


def _growth(name: str, small: Timings, large: Timings, factor: float, *, goal: float | None) -> Row:
    """What one thing costs in a job that does `factor` times as many: 1 where cost is linear."""
    each = [b / a / factor for a, b in zip(small.wall, large.wall, strict=True)]
    value = large.seconds / small.seconds / factor
    spread = (min(each), max(each))
    return Row(name=name, value=value, unit="x", spread=spread, goal=goal, at_most=True)


# Processes


def _process_rows(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    if device.type != "cpu":
        return
    rates: dict[int, float] = {}
    for count in settings.processes:
        try:
            rates[count] = _samples_per_second(count, settings)
        except VidsynthError as error:
            reporter.warn(str(error))
            return
        name = f"training: {count} processes" if count > 1 else "training: 1 process"
        yield Row(name=f"{name} on {cores()} cores", value=rates[count], unit="samples/s")
    first = settings.processes[0]
    for count in settings.processes[1:]:
        ratio = rates[count] / rates[first]
        yield Row(name=f"training: {count} processes over {first}", value=ratio, unit="x")


def _samples_per_second(count: int, settings: Settings) -> float:
    """Of `accelerate launch` with so many processes, the cores shared out among them."""
    asked = {
        "size": settings.batch_size_px,
        "batch": max(settings.processes),
        "steps": settings.steps,
        "network": dict(settings.network),
    }
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    launch += ["--num_processes", str(count), "--num_machines", "1", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "vidsynth.bench.scale"]
    threads = str(max(1, cores() // count))
    done = subprocess.run(
        [*launch, json.dumps(asked)],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(RATE)]
    if done.returncode or not told:
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise VidsynthError(f"accelerate launch of {count} processes failed: {reason}; rows go")
    return float(told[-1].removeprefix(RATE))


RATE = "samples/s "


def one_process(text: str) -> None:
    """What each process runs: its share of the batch, step by step; the first tells the rate."""
    asked = json.loads(text)
    cpu = torch.device("cpu")
    processes = Processes(cpu)
    objective = place(objective_of(asked["size"], asked["network"]), cpu)
    for phase in objective.phases:
        processes.share(phase.module)
    share = asked["batch"] // processes.count
    sample = random_batch(share, asked["size"], seed=processes.rank)
    step(objective, sample, processes)
    began = perf_counter()
    for _ in range(asked["steps"]):
        step(objective, sample, processes)
    processes.wait()
    if processes.is_main:
        rate = asked["steps"] * asked["batch"] / (perf_counter() - began)
        print(f"{RATE}{rate}", flush=True)


if __name__ == "__main__":
    one_process(sys.argv[1])
