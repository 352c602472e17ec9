"""`vidsynth bench plugins`: what plugins cost that nobody uses, and the boundary to one in use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from vidsynth import devices, options, registry, stages, stream
from vidsynth.bench import Asked, Row
from vidsynth.bench.generate import true_motion
from vidsynth.bench.material import FPS, PUBLISHED, workshop
from vidsynth.bench.measure import Clock, interleaved
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning, PoseSequence
from vidsynth.kinds import Conditions, Generator
from vidsynth.stream import Chunk

GOAL_MS = 300.0
GOAL_PERCENT = 2.0
DUMMIES, BROKEN = 30, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int = 9
    size: int = 256
    """Pixels of the rendered frames."""
    filters: int = 32
    renders: int = 3
    frames: int = 15 * stages.CHUNK
    """Of a render: what a generator prepares once must not count as if it were done per frame."""


def bench(asked: Asked) -> Iterator[Row]:
    """Start-up with plugins that nobody asked for, then a render with and without the boundary."""
    settings = Settings(size=asked.size or 256)
    if asked.full:
        settings = replace(settings, rounds=25, renders=9)
    yield from start_rows(settings)
    yield from boundary_rows(settings, devices.choose(asked.device))


# Starting


def start_rows(settings: Settings) -> Iterator[Row]:
    """What commands that only look around take beyond Python's own start."""
    with workshop() as folder:
        install_dummies(folder)
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        commands = {
            "Python": ["-c", "pass"],
            "--help": ["-m", "vidsynth.cli", "--help"],
            "plugins list": ["-m", "vidsynth.cli", "plugins", "list"],
        }
        jobs = {name: _job(arguments, environment) for name, arguments in commands.items()}
        timed = interleaved(jobs, rounds=settings.rounds, clock=Clock(cpu=_children_seconds))
        for name in ("--help", "plugins list"):
            label = f"{name} beyond Python's own start, {DUMMIES} dummy plugins"
            yield _beyond(label, timed[name].wall, timed["Python"].wall, GOAL_MS)
            label = f"{label}: processor time"
            yield _beyond(label, timed[name].cpu, timed["Python"].cpu, None)
        imported = len(list(folder.glob("imported-*")))
        yield Row(
            name="dummy plugins that were imported", value=imported, unit="", goal=0, at_most=True
        )


def install_dummies(folder: Path) -> None:
    """Distributions as pip leaves them, each with one plugin that notes when it is imported.

    Three are broken: a module that raises, an entry point that is none, and entry points that
    cannot even be read.
    """
    for number in range(DUMMIES):
        kind = registry.KINDS[number % len(registry.KINDS)]
        info = folder / f"vidsynth_dummy{number}-1.0.dist-info"
        info.mkdir()
        about = f"Metadata-Version: 2.1\nName: vidsynth-dummy{number}\nVersion: 1.0\n"
        (info / "METADATA").write_text(f"{about}Requires-Dist: vidsynth>=0.1\n")
        target = f"vidsynth_dummy{number}:Dummy"
        lines = f"[{registry.group(kind)}]\ndummy{number} = {target}\n".encode()
        note = f"open({str(folder / f'imported-{number}')!r}, 'w').close()\n"
        if number == DUMMIES - 3:
            note += "raise RuntimeError('broken')\n"
        elif number == DUMMIES - 2:
            lines = lines.replace(target.encode(), b"no entry point at all")
        elif number == DUMMIES - 1:
            lines = b"[\xff\xfe"
        (folder / f"vidsynth_dummy{number}.py").write_text(f"{note}class Dummy: ...\n")
        (info / "entry_points.txt").write_bytes(lines)


def _job(arguments: Sequence[str], environment: dict[str, str]) -> Callable[[], object]:
    def start() -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)

    return start


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _beyond(name: str, ours: Sequence[float], bare: Sequence[float], goal: float | None) -> Row:
    each = [1000 * (a - b) for a, b in zip(ours, bare, strict=True)]
    spread = (min(each), max(each))
    return Row(name=name, value=median(each), unit="ms", spread=spread, goal=goal, at_most=True)


# Rendering


def boundary_rows(settings: Settings, device: torch.device) -> Iterator[Row]:
    """A pix2pixhd render as `vidsynth render` runs it: what is neither network nor drawing.

    Both are timed within the same run, so that neighbours on the machine slow all of it alike.
    """
    generator, network, motion = _painter(settings, device)
    spec = VideoSpec(height=settings.size, width=settings.size, fps=FPS)
    pts = torch.arange(len(motion), dtype=torch.float64) / float(FPS)

    def through_stages() -> Tensor:
        line = stages.supplying(motion, generator, None, None, device=device)
        line.append(stages.generating(generator, spec, seed=0, device=device))
        made: list[Clip] = []

        def collect(chunks: Iterator[Chunk]) -> None:
            made.extend(stages.clips_of(chunks))

        stream.run(stages.timeline(pts), line, collect, prefetch=0)
        return Clip.concat(made).frames

    def by_hand() -> Tensor:
        made = []
        with torch.inference_mode(), devices.autocast(device):
            for start in range(0, len(motion), stages.CHUNK):
                maps = motion[start : start + stages.CHUNK].draw(settings.size, settings.size)
                painted = network(maps.to(device).float() / 255, None, None, None, None)
                levels = painted.frames.float().add(1).mul(127.5).round().clamp(0, 255)
                made.append(levels.to(torch.uint8).cpu())
        return torch.cat(made)

    same = float((through_stages().int() - by_hand().int()).abs().max())  # and both are warm
    yield Row(name="greatest difference between both renders", value=same, unit="levels")
    now = _stopwatch(device)
    shares = []
    for _ in range(settings.renders):
        began = now()
        for start in range(0, len(motion), stages.CHUNK):
            motion[start : start + stages.CHUNK].draw(settings.size, settings.size)
        drawing = now() - began
        with _networks_timed(now) as inside:
            began = now()
            through_stages()
            total = now() - began
        needed = sum(inside) + drawing
        shares.append(100 * (total - needed) / needed)
    yield Row(
        name=f"plugin boundary of a pix2pixhd render, ngf {settings.filters}, {settings.size} px",
        value=median(shares),
        unit="%",
        spread=(min(shares), max(shares)),
        goal=GOAL_PERCENT,
        at_most=True,
    )


def _stopwatch(device: torch.device) -> Callable[[], float]:
    """Seconds: of the processor, which neighbours disturb less; where a GPU works, of the wall."""
    clock = Clock.of(device)

    def now() -> float:
        clock.synchronise()
        return clock.cpu() if device.type == "cpu" else clock.wall()

    return now


@contextmanager
def _networks_timed(now: Callable[[], float]) -> Iterator[list[float]]:
    """The seconds of each call of a network, whichever it is, while the block runs."""
    calls: list[float] = []
    began: list[float] = []

    def enter(*_: Any) -> None:
        began.append(now())

    def leave(*_: Any) -> None:
        seconds = now() - began.pop()
        if not began:  # the outermost module is the network
            calls.append(seconds)

    hooks = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _painter(settings: Settings, device: torch.device) -> tuple[Generator, nn.Module, Conditioning]:
    """The plugin with untrained weights, the network inside it, and motion to paint."""
    plugin: Any = registry.load("generator", "pix2pixhd")
    motion = true_motion(PoseSequence, settings.frames, settings.size)
    channels = motion[:1].draw(16, 16).shape[1]
    values = options.build(
        plugin.Options, {**PUBLISHED, "filters": settings.filters}, where="generator"
    )
    generator = plugin(values, conditions=Conditions(kinds=(PoseSequence,), channels=channels))
    torch.manual_seed(0)
    spec = VideoSpec(height=settings.size, width=settings.size, fps=FPS)
    network = generator.objective(spec).generator.to(device).eval()
    generator.load_weights(network.state_dict())
    dtype = torch.get_autocast_dtype(device.type)
    with devices.autocast(device):
        if torch.is_autocast_enabled(device.type):  # as the plugin does: cast once
            network = network.to(dtype)
    return generator, network, motion
