"""`vidsynth bench train-step`: our schedule against the reference's, on the same networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from vidsynth import devices
from vidsynth.bench import Asked, Row
from vidsynth.bench.material import (
    RECIPE_OF,
    film,
    moved,
    parameters,
    place,
    published_objective,
    random_batch,
    reference_of,
    study,
    workshop,
)
from vidsynth.bench.measure import (
    Clock,
    interleaved,
    milliseconds,
    peak_in_child,
    per_second,
    speed_up,
)
from vidsynth.options import build
from vidsynth.processes import Processes
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter
from vidsynth.training import Run, TrainOptions, train_step

Arm = Literal["reference", "ours fp32", "ours bf16"]
ARMS: tuple[Arm, ...] = ("reference", "ours fp32", "ours bf16")
GOALS: dict[Arm, float] = {"ours fp32": 1.15, "ours bf16": 1.9}
ROUNDING_NOISE = 1e-12
H100_FLOOR_SECONDS = 1.96e-3
"""What the arithmetic of one step of the published network at 512x512 takes an H100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size of network, picture and batch."""

    filters: int
    size: int
    batch: int
    has_goal: bool = True
    method: Literal["pix2pixhd", "vid2vid"] = "pix2pixhd"

    def __str__(self) -> str:
        named = "" if self.method == "pix2pixhd" else f"{self.method} "
        return f"{named}ngf {self.filters}, {self.size} px, batch {self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int = 7
    warmup: int = 1
    cases: tuple[Case, ...] = (
        Case(filters=32, size=256, batch=1),
        Case(filters=32, size=128, batch=4),
        Case(filters=32, size=128, batch=1, method="vid2vid"),
    )
    blocks: int = 9
    d_filters: int = 64
    maths_filters: int = 4
    maths_size: int = 64
    worlds: tuple[str, ...] = ("puppet", "head")
    """Whose default recipes are timed."""
    recipe_size: int | None = None
    """Pixels; None for each recipe's own."""
    film_frames: int = 48
    memory: bool = True

    @property
    def network(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "d_filters": self.d_filters}


def bench(asked: Asked) -> Iterator[Row]:
    """Our G+D step: speed, memory, and that its maths is the reference's."""
    device = devices.choose(asked.device)
    settings = Settings(recipe_size=asked.size)
    if asked.full:
        large = Case(filters=64, size=256, batch=1, has_goal=False)
        settings = replace(settings, rounds=15, cases=(*settings.cases, large))
    if device.type == "cuda":
        h100 = Case(filters=64, size=512, batch=4, has_goal=False)
        settings = replace(settings, rounds=30, warmup=5, cases=(*settings.cases, h100))
    yield from measured(settings, device, asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    for method in dict.fromkeys(case.method for case in settings.cases):
        difference = maths_difference(
            settings.maths_filters, settings.maths_size, settings.network, method=method
        )
        yield Row(
            name=f"maths: max parameter difference after 3 steps of {method} in float64",
            value=difference,
            unit="",
            goal=1e-10,
            at_most=True,
        )
    arms: list[Arm] = [arm for arm in ARMS if arm != "ours bf16" or devices.has_fast_bf16(device)]
    if len(arms) < len(ARMS):
        reporter.warn(f"{device} gains nothing from bfloat16: its rows are left out")
    for case in settings.cases:
        yield from _case_rows(case, arms, settings, device)
    if settings.memory:
        case = settings.cases[0]
        for arm in arms:
            peak = peak_in_child(_a_few_steps, arm, case, settings.network, str(device))
            yield Row(name=f"{case}: {arm}, peak memory", value=peak / 1e6, unit="MB")
    for world in settings.worlds:
        yield from _recipe_rows(world, settings, device, reporter)


def maths_difference(
    filters: int, size: int, network: dict[str, Any], *, method: str = "pix2pixhd"
) -> float:
    """The largest difference between parameters that both schedules train for 3 float64 steps.

    Of those that have a gradient: that of a bias before an instance normalisation is rounding
    noise, which Adam scales up to steps that change nothing.
    """
    torch.manual_seed(0)
    small = {**network, "filters": filters, "d_filters": 2 * filters}
    ours = published_objective(size, method=method, **small)
    for phase in ours.phases:
        phase.module.double()
    reference = reference_of(ours)
    for step in range(3):
        batch = random_batch(2, size, num_frames=ours.num_frames, seed=step, dtype=torch.float64)
        reference.step(batch)
        train_step(ours, batch, Run(step=step), Processes())
    theirs = [*reference.generator.parameters(), *reference.discriminator.parameters()]
    trained = [p for phase in ours.phases for p in phase.module.parameters()]
    return max(
        float((a - b).detach().abs().max())
        for a, b in zip(theirs, trained, strict=True)
        if b.grad is not None and float(b.grad.abs().max()) > ROUNDING_NOISE
    )


def _case_rows(
    case: Case, arms: list[Arm], settings: Settings, device: torch.device
) -> Iterator[Row]:
    jobs = step_jobs(case, arms, settings.network, device)
    timed = interleaved(
        jobs, rounds=settings.rounds, warmup=settings.warmup, clock=Clock.of(device)
    )
    for arm in arms:
        yield milliseconds(f"{case}: {arm}", timed[arm])
    for arm, goal in GOALS.items():
        if arm in timed:
            goal = goal if case.has_goal and device.type == "cpu" else None
            yield speed_up(
                f"{case}: {arm} over reference", timed["reference"], timed[arm], goal=goal
            )
    if (case.filters, case.size) == (64, 512) and "ours bf16" in timed:
        yield Row(
            name=f"{case}: ours bf16, a frame over the floor of an H100",
            value=timed["ours bf16"].seconds / case.batch / H100_FLOOR_SECONDS,
            unit="x",
            goal=3.0,
            at_most=True,
        )


def step_jobs(
    case: Case, arms: list[Arm], network: dict[str, Any], device: torch.device
) -> dict[str, Callable[[], object]]:
    """One step of each arm on the same batch; ours share their networks."""
    torch.manual_seed(0)
    ours = published_objective(case.size, method=case.method, filters=case.filters, **network)
    reference = reference_of(ours)
    place(ours, device)
    reference.generator.to(device)
    reference.discriminator.to(device)
    batch = moved(random_batch(case.batch, case.size, num_frames=ours.num_frames), device)
    jobs: dict[str, Callable[[], object]] = {
        "reference": lambda: reference.step(batch),
        "ours fp32": lambda: train_step(ours, batch, Run(), Processes(), precision="fp32"),
        "ours bf16": lambda: train_step(ours, batch, Run(), Processes(), precision="bf16"),
    }
    return {arm: jobs[arm] for arm in arms}


def _a_few_steps(arm: Arm, case: Case, network: dict[str, Any], device: str) -> None:
    """What the process runs whose memory is measured."""
    (job,) = step_jobs(case, [arm], network, torch.device(device)).values()
    for _ in range(3):
        job()


def _recipe_rows(
    world: str, settings: Settings, device: torch.device, reporter: Reporter
) -> Iterator[Row]:
    """A step of a default recipe, as it is shipped."""
    recipe = load_recipe(RECIPE_OF[world])
    if settings.recipe_size:
        recipe = recipe.with_overrides({"size": settings.recipe_size})
    training = build(TrainOptions, recipe.training, where="training")
    with workshop() as folder:
        pixels = max(recipe.size, 128)  # trackers see nothing in less
        path = film(folder / "target.mp4", world, settings.film_frames, height=pixels, width=pixels)
        seen = study(path, recipe, reporter)
        objective = place(seen.generator().objective(seen.footage.window_spec), device)
        starts = seen.footage.starts(objective.num_frames)[: training.batch]
        batch = seen.footage.batch(
            starts, objective.num_frames, device, num_recalled=objective.num_recalled
        )
    timed = interleaved(
        {"step": lambda: train_step(objective, batch, Run(), Processes(), precision="auto")},
        rounds=settings.rounds,
        warmup=settings.warmup,
        clock=Clock.of(device),
    )["step"]
    name = f"{recipe.name} recipe, {recipe.size} px, batch {training.batch}"
    yield milliseconds(f"{name}: a step", timed)
    yield per_second(f"{name}: steps", timed, count=1, unit="steps/s")
    weights = parameters(*(phase.module for phase in objective.phases))
    yield Row(name=f"{name}: weights", value=weights / 1e6, unit="million")
