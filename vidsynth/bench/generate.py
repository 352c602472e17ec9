"""`vidsynth bench generate`: frames per second of every generator, by size and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth import devices, registry
from vidsynth.bench import Asked, Row
from vidsynth.bench.material import (
    FPS,
    RECIPE_OF,
    Study,
    film,
    learn,
    paint,
    place,
    plainly,
    published_objective,
    random_batch,
    reference_recipe,
    study,
    workshop,
)
from vidsynth.bench.measure import Clock, interleaved, per_second, speed_up
from vidsynth.choosing import resolved_plugins
from vidsynth.clip import VideoSpec
from vidsynth.compiling import frozen
from vidsynth.conditioning import Conditioning
from vidsynth.errors import DeviceUnavailable, VidsynthError
from vidsynth.exemplars import Gallery
from vidsynth.kinds import Conditions
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.scores import psnr
from vidsynth.stages import CHUNK
from vidsynth.subject import build_generator
from vidsynth.training import Budget
from vidsynth.worlds import WORLDS

# T frames, C channels, H, W pixels

GOALS = {"bf16 weights": 1.9, "bf16 weights, compiled and frozen": 2.3}
H100_FPS = 1816
"""What the arithmetic of the published network at 512x512 allows on an H100."""
FIDELITY_DB = 40.0

Network = Callable[[Tensor], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int = 21
    generator_rounds: int = 3
    filters: int = 32
    blocks: int = 9
    size: int = 256
    """Pixels at which the goals hold."""
    other_sizes: tuple[int, ...] = ()
    batch: int = 1
    forms: tuple[str, ...] | None = None
    """Of `forms`, by name; None for all."""
    frames: int = CHUNK
    """That a generator makes per round."""
    compile: bool = True
    fidelity_size: int = 128
    fidelity_seconds: float = 60.0
    """How long the network is trained on which the precisions are compared."""
    film_frames: int = 150


def bench(asked: Asked) -> Iterator[Row]:
    """The published network by precision, every generator as it is used, and what bf16 costs."""
    device = devices.choose(asked.device)
    settings = Settings(size=asked.size or 256)
    if asked.full:
        settings = replace(settings, rounds=41, generator_rounds=7, other_sizes=(128, 512))
    if device.type == "cuda":
        settings = replace(settings, rounds=41, other_sizes=settings.other_sizes or (512,))
    yield from measured(settings, device, asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    yield from _network_rows(settings, settings.filters, settings.size, 1, device, reporter)
    for size in settings.other_sizes:
        yield from _network_rows(settings, settings.filters, size, 1, device, reporter)
    if device.type == "cuda":
        yield from _network_rows(settings, 64, 512, 4, device, reporter)
    for name, recipe in forms(settings.size).items():
        if settings.forms is None or name in settings.forms:
            yield from _generator_rows(name, recipe, settings, device, reporter)
    if device.type == "cpu":
        yield Row(name="fp16 on the CPU: refused", value=_refuses_half(), unit="", goal=1.0)
    if devices.has_fast_bf16(device):
        yield from _fidelity_rows(settings, device, reporter)


# The published network


def _network_rows(
    settings: Settings,
    filters: int,
    size: int,
    batch: int,
    device: torch.device,
    reporter: Reporter,
) -> Iterator[Row]:
    torch.manual_seed(0)
    objective = published_objective(size, filters=filters, blocks=settings.blocks)
    network = place(objective, device).generator.eval()
    maps = random_batch(batch, size).maps_BTCHW[:, 0].to(device)
    label = f"pix2pixHD ngf {filters}, {size} px" + (f", batch {batch}" if batch > 1 else "")
    with torch.no_grad():
        arms = variants(network, device)
        compiling = {}
        for name in [n for n in arms if "compiled" in n]:
            seconds = _compile_seconds(arms[name], maps, reporter) if settings.compile else None
            if seconds is None:
                del arms[name]
            else:
                compiling[name] = seconds
        jobs = {name: (lambda arm=arm: arm(maps)) for name, arm in arms.items()}
        timed = interleaved(jobs, rounds=settings.rounds, warmup=2, clock=Clock.of(device))
    for name in arms:
        yield per_second(f"{label}: {name}", timed[name], count=batch)
    eager = timed["eager fp32"]
    for name in [n for n in arms if n != "eager fp32"]:
        has_goal = device.type == "cpu" and (filters, size) == (32, 256)
        goal = GOALS.get(name) if has_goal else None
        yield speed_up(f"{label}: {name} over eager fp32", eager, timed[name], goal=goal)
    for name, seconds in compiling.items():
        yield Row(name=f"{label}: {name}, time to compile", value=seconds, unit="s")
        saved = (timed[name.partition(",")[0]].seconds - timed[name].seconds) / batch
        frames = seconds / saved if saved > 0 else float("inf")
        yield Row(name=f"{label}: {name}, pays for itself after", value=frames, unit="frames")
    if device.type == "cuda" and (filters, size) == (64, 512):
        best = max(batch / t.seconds for t in timed.values())
        share = best / H100_FPS
        yield Row(name=f"{label}: best over the limit of an H100", value=share, unit="x", goal=0.3)


def variants(network: nn.Module, device: torch.device) -> dict[str, Network]:
    """The ways to run a network, by name; "eager fp32", in PyTorch's own layers, is the one that
    others are held against."""
    found: dict[str, Network] = {"eager fp32": plainly(network), "fp32, our layers": network}
    if not devices.has_fast_bf16(device):
        return found
    light = deepcopy(network).bfloat16()

    def autocast(maps: Tensor) -> object:
        with devices.autocast(device, "bf16"):
            return network(maps)

    found |= {"bf16 autocast": autocast, "bf16 weights": light}
    if device.type == "cuda":
        last = deepcopy(light).to(memory_format=torch.channels_last)  # pyright: ignore
        found["bf16 weights, channels last"] = lambda maps: last(
            maps.contiguous(memory_format=torch.channels_last)
        )
        found["bf16 weights, compiled and frozen"] = frozen(last, **{"triton.cudagraphs": True})
    else:
        found["bf16 weights, compiled and frozen"] = frozen(light)
    return found


def _compile_seconds(network: Network, maps: Tensor, reporter: Reporter) -> float | None:
    """How long the first call takes; None, and said so, where nothing can be compiled."""
    began = perf_counter()
    try:
        network(maps)
    except RuntimeError as error:  # what torch._dynamo and a missing C++ compiler raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reporter.warn(f"torch.compile does not work here ({reason}): its rows are left out")
        return None
    return perf_counter() - began


# Generators as they are used


def forms(size: int) -> dict[str, Recipe]:
    """What to run of each installed generator: the recipes that use it, else its defaults."""
    found = {
        f"{name} recipe": load_recipe(name).with_overrides({"size": size})
        for recipe in RECIPE_OF.values()
        for name in (recipe, f"{recipe}-plain")
    }
    found["pix2pixHD as published, ngf 32"] = reference_recipe("pose", size, 32)
    used = {recipe.generator for recipe in found.values()}
    for name in registry.names("generator"):
        if name not in used:
            found[name] = Recipe(name=name, summary="", extractor="pose", generator=name, size=size)
    return found


def _generator_rows(
    name: str, recipe: Recipe, settings: Settings, device: torch.device, reporter: Reporter
) -> Iterator[Row]:
    try:
        jobs = _generator_jobs(recipe, settings, device)
    except VidsynthError as error:
        reporter.warn(f"{name} is not measured: {error}")
        return
    timed = interleaved(jobs, rounds=settings.generator_rounds, clock=Clock.of(device))
    for arm, timings in timed.items():
        label = f"{name}, {recipe.size} px: {arm}"
        yield per_second(label, timings, count=settings.frames)


def _generator_jobs(
    recipe: Recipe, settings: Settings, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Making the same frames with untrained weights in each precision."""
    extractor_ref, generator_ref = resolved_plugins(recipe)
    extractor: Any = registry.load("extractor", extractor_ref.name)
    signal = true_motion(extractor.produces, settings.frames, recipe.size)
    channels = signal[:1].draw(16, 16).shape[1]
    plate = torch.zeros(3, recipe.size, recipe.size, dtype=torch.uint8)
    background = bool(generator_ref.options.get("background", False))
    conditions = Conditions.for_options(
        generator_ref.options,
        kinds=(extractor.produces,),
        channels=channels,
        background=background,
    )
    gallery = grey_gallery(signal, background) if conditions.exemplars else None
    spec = VideoSpec(height=recipe.size, width=recipe.size, fps=FPS)
    trained = build_generator(generator_ref, conditions).objective(spec).generator.state_dict()

    def job(dtype: torch.dtype, precision: devices.Precision) -> Callable[[], object]:
        generator = build_generator(generator_ref, conditions)
        generator.load_weights(as_dtype(trained, dtype, device))
        return lambda: paint(generator, signal, plate, spec, device, precision, gallery=gallery)

    jobs: dict[str, Callable[[], object]] = {"eager fp32": job(torch.float32, "fp32")}
    if devices.has_fast_bf16(device):
        jobs["bf16 autocast"] = job(torch.float32, "bf16")
        jobs["bf16 weights"] = job(torch.bfloat16, "fp32")
    return jobs


def true_motion(kind: type[Conditioning], num_frames: int, size: int) -> Conditioning:
    """What a perfect tracker sees in a world. Raises VidsynthError when no world has this kind."""
    for world in WORLDS.values():
        someone, motion = world.make_identity(1), world.make_motion(2, num_frames)
        truth = world.truth(someone, motion, height=size, width=size)
        if isinstance(truth, kind):
            return truth
    raise VidsynthError(f"no synthetic world shows {kind.kind!r}; give a generator that takes pose")


def grey_gallery(signal: Conditioning, background: bool) -> Gallery:
    """Exemplars without a picture, of every other moment of a motion: for timing."""
    some = signal[::2]
    images = torch.full((len(some), 3 + background, *signal.size), 128, dtype=torch.uint8)
    pts = torch.arange(len(some), dtype=torch.float64)
    return Gallery(images=images, signal=some, pts=pts)


def as_dtype(
    weights: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The weights on a device, those that are floats in another type."""
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in weights.items()
    }


# Precision


def _refuses_half() -> float:
    """1 when the default generator refuses float16 weights on the CPU."""
    recipe = load_recipe("dance-plain").with_overrides({"generator": {"filters": 4, "blocks": 1}})
    _, reference = resolved_plugins(recipe)
    extractor: Any = registry.load("extractor", recipe.extractor)
    conditions = Conditions(kinds=(extractor.produces,), channels=3)
    generator = build_generator(reference, conditions)
    objective = generator.objective(VideoSpec(height=32, width=32, fps=FPS))
    halved = as_dtype(objective.generator.state_dict(), torch.float16, torch.device("cpu"))
    try:
        generator.load_weights(halved)
    except DeviceUnavailable:
        return 1.0
    return 0.0


def _fidelity_rows(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """How far bf16 frames are from fp32 frames on a network that has learnt something."""
    recipe = load_recipe("dance").with_overrides({"size": settings.fidelity_size})
    with workshop() as folder:
        pixels = max(128, settings.fidelity_size)
        path = film(
            folder / "target.mp4", "puppet", settings.film_frames, height=pixels, width=pixels
        )
        seen = study(path, recipe, reporter)
        budget = Budget(seconds=settings.fidelity_seconds)
        weights = learn(seen, folder / "training", budget, device=device, reporter=reporter)
    ways: dict[str, tuple[torch.dtype, devices.Precision]] = {
        "fp32": (torch.float32, "fp32"),
        "bf16 autocast": (torch.float32, "bf16"),
        "bf16 weights": (torch.bfloat16, "fp32"),
    }
    frames = {arm: _held_out(seen, weights, *way, device) for arm, way in ways.items()}
    label = f"dance recipe after {settings.fidelity_seconds:g} s at {settings.fidelity_size} px"
    for arm in ("bf16 autocast", "bf16 weights"):
        each = psnr(frames[arm], frames["fp32"])
        yield Row(
            name=f"{label}: PSNR of {arm} against fp32",
            value=float(each.mean()),
            unit="dB",
            spread=(float(each.min()), float(each.max())),
            goal=FIDELITY_DB,
        )


def _held_out(
    seen: Study,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    precision: devices.Precision,
    device: torch.device,
) -> Tensor:
    """(T, 3, H, W) uint8: the generator's window of the held-out frames."""
    generator = seen.generator()
    generator.load_weights(as_dtype(weights, dtype, device))
    index = torch.arange(seen.footage.held_out.start, seen.footage.held_out.stop)
    return seen.paint(generator, index, device, precision)
