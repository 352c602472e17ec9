"""`vidsynth bench dvdgan`: are clips made from noise and a class of that class, varied, and steady?

Generators learn from the world of shapes, each for the same time: with both discriminators and, in
the full bench, with either alone. A network that learnt the classes from other real clips judges
them. Then a step of the training against the plain schedule.

A model that was trained longer is judged by `--subject`:

    vidsynth train world:shapes --recipe dvdgan --size 32 --budget 1h -o model/ \\
        -s generator.augment=[] \\
        -s 'clips.classes=["red-circle-right", "red-circle-down", "blue-circle-right"]'
    vidsynth bench dvdgan --subject model/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth import devices
from vidsynth.bench import Asked, Row
from vidsynth.bench.clip_judge import REAL_SEEDS, Jury, Subject, Verdict, motion, train_judge
from vidsynth.bench.likeness import sharpness
from vidsynth.bench.material import FPS, parameters, place, workshop
from vidsynth.bench.measure import Clock, interleaved, milliseconds, speed_up
from vidsynth.choosing import resolved_generator
from vidsynth.classes import ClassLabel
from vidsynth.clip import VideoSpec
from vidsynth.clipmodels import fit_clips
from vidsynth.clips import WORLD
from vidsynth.generation import classes_of, make_clip
from vidsynth.kinds import Conditions, Discriminator
from vidsynth.losses import fool, judge_fake, judge_real
from vidsynth.objectives import Objective, TrainBatch
from vidsynth.processes import Processes
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.subject import Subject as Model
from vidsynth.subject import build_generator, load_subject
from vidsynth.training import Run, train_step
from vidsynth.worlds import shapes

# B clips, T frames, N classes, H, W pixels

BOTH = "both discriminators"
ARMS: Mapping[str, Mapping[str, Any]] = {
    BOTH: {},
    "spatial alone": {"temporal": ""},
    "temporal alone": {"spatial": ""},
}
ACCURACY, DIVERSITY = 0.9, 0.5
LONGER = 4
"""Times the trained length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is trained, for how long, and how it is judged."""

    size: int = 32
    num_frames: int = 12
    minutes: float = 15.0
    """Of each arm."""
    steps: int | None = None
    """Instead of a time."""
    arms: tuple[str, ...] = (BOTH,)
    classes: tuple[str, ...] = shapes.class_names(("right", "down"), ("circle",), ("red", "blue"))
    model: Path | None = None
    """A model that is trained already, instead of training any."""
    judge_steps: int = 150
    judge_clips: int = 96
    """Of each class, that the judge learns from."""
    judged_clips: int = 32
    """Of each class, that are made and judged."""
    rounds: int = 7
    generator: Mapping[str, Any] | None = None
    """Changes to the recipe's generator."""


def bench(asked: Asked) -> Iterator[Row]:
    """Class, variety and length of made clips; what each discriminator is good for; a step."""
    size = asked.size or 32
    settings = Settings(model=asked.subject, size=size, num_frames=12 if size < 64 else 16)
    if asked.full:
        settings = replace(settings, arms=tuple(ARMS), minutes=15.0 if size < 64 else 40.0)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    with workshop() as folder:
        if settings.model is not None:
            models = {settings.model.name: load_subject(settings.model)}
        else:
            models = _trained(settings, folder, device, reporter)
        subject = _subject_of(next(iter(models.values())))
        judge = train_judge(
            subject, steps=settings.judge_steps, per_class=settings.judge_clips, device=device
        )
        jury = Jury(judge, subject, per_class=settings.judged_clips)
        floor = jury.of_real()
        yield from _verdict_rows("real clips", floor, has_goals=False)
        for name, model in models.items():
            yield from _model_rows(name, model, jury, floor, settings, device)
    yield from _step_rows(settings, device)


def _trained(
    settings: Settings, folder: Path, device: torch.device, reporter: Reporter
) -> dict[str, Model]:
    """A model for each arm, trained as `vidsynth train world:shapes` does."""
    return {
        arm: fit_clips(
            Path(WORLD),
            folder / arm.replace(" ", "-"),
            _recipe(settings, ARMS[arm]),
            None if settings.steps else 60 * settings.minutes,
            settings.steps,
            device=str(device),
            seed=0,
            reporter=reporter,
        )
        for arm in settings.arms
    }


def _recipe(settings: Settings, changes: Mapping[str, Any]) -> Recipe:
    return load_recipe("dvdgan").with_overrides(
        {
            "size": settings.size,
            "clips": {"classes": list(settings.classes)},
            # Clips of the world are plenty: nothing is learnt by heart.
            "generator": {
                "num_frames": settings.num_frames,
                "augment": [],
                **(settings.generator or {}),
                **changes,
            },
        }
    )


def _subject_of(model: Model) -> Subject:
    spec = model.card.spec
    return Subject(
        names=classes_of(model),
        size=spec.height,
        num_frames=int(model.card.generator.options["num_frames"]),
        fps=float(spec.fps),
    )


def _verdict_rows(name: str, verdict: Verdict, *, has_goals: bool) -> Iterator[Row]:
    yield Row(
        name=f"{name}: recognised as their class",
        value=verdict.mean_accuracy,
        unit="share",
        spread=(min(verdict.accuracy), max(verdict.accuracy)),
        goal=ACCURACY if has_goals else None,
    )
    yield Row(
        name=f"{name}: variety within a class over that of real clips",
        value=verdict.diversity,
        unit="x",
        goal=DIVERSITY if has_goals else None,
    )
    yield Row(name=f"{name}: Frechet distance to real clips", value=verdict.frechet, unit="")


def _model_rows(
    name: str,
    model: Model,
    jury: Jury,
    floor: Verdict,
    settings: Settings,
    device: torch.device,
) -> Iterator[Row]:
    """One model at its length and at LONGER times that."""
    yield Row(name=f"{name}: steps of training", value=model.card.steps, unit="")
    yield Row(name=f"{name}: minutes of training", value=model.card.seconds / 60, unit="min")
    num_frames = jury.subject.num_frames
    long = _made(model, jury.subject.names, LONGER * num_frames, settings.judged_clips, device)
    first = {n: clips[:, :num_frames] for n, clips in long.items()}
    verdict = jury.of(first)
    yield from _verdict_rows(name, verdict, has_goals=True)
    every = [torch.cat(list(of.values())).flatten(0, 1) for of in (first, jury.real)]
    yield Row(name=f"{name}: sharpness over that of real clips", value=sharpness(*every), unit="x")
    yield Row(
        name=f"{name}: Frechet distance over that of real clips to real clips",
        value=verdict.frechet / max(floor.frechet, 1e-9),
        unit="x",
    )
    later = {n: clips[:, -num_frames:] for n, clips in long.items()}
    yield from _verdict_rows(
        f"{name}, {LONGER} times as long, end", jury.of(later), has_goals=False
    )
    real = motion(torch.cat(list(jury.real.values())))
    for when, clips in (("beginning", slice(num_frames)), ("end", slice(-num_frames, None))):
        moved = motion(torch.cat([c[:, clips] for c in long.values()]))
        yield Row(
            name=f"{name}, {LONGER} times as long, {when}: motion over that of real clips",
            value=moved / real,
            unit="x",
        )


def _made(
    model: Model, names: tuple[str, ...], num_frames: int, count: int, device: torch.device
) -> dict[str, Tensor]:
    """(count, T, 3, H, W) uint8 clips of each class."""
    generator = model.generator(device)

    def clip(name: str, seed: int) -> Tensor:
        label = ClassLabel.of(name, names, num_frames)
        return make_clip(generator, [label], model.card.spec, seed=seed, device=device)

    seeds = range(REAL_SEEDS, REAL_SEEDS + count)
    return {name: torch.stack([clip(name, seed) for seed in seeds]) for name in names}


# A step


class PlainSchedule:
    """How public implementations train such networks, written out plainly.

    Each discriminator step makes clips of its own, with a graph that nobody needs, and judges real
    and made ones in two passes; the generator's step makes others, and back-propagates into the
    discriminators' weights too. The networks are given, so that only the schedule is compared.
    """

    def __init__(self, objective: Any) -> None:
        """Take copies of the networks of a DVD-GAN objective."""
        self.network: nn.Module = deepcopy(objective.network)
        self.judges: nn.Module = deepcopy(objective.judges)
        self.d_steps: int = objective.options.d_steps
        self.noise: int = objective.options.noise
        rates = (objective.options.learning_rate, objective.options.d_learning_rate)
        self.optimizers = [
            torch.optim.Adam(module.parameters(), rate, betas=(0.0, 0.999))
            for module, rate in zip((self.network, self.judges), rates, strict=True)
        ]

    def step(self, batch: TrainBatch, index: int) -> None:
        """One step of the discriminators and, where it has its turn, of the generator."""
        real, condition = batch.frames_BTCHW, batch.maps_BTCHW
        made = self._made(batch).detach()
        losses = [
            judge_real(judge(real, condition), "hinge")
            + judge_fake(judge(made, condition), "hinge")
            for judge in self._each()
        ]
        self._learn(1, losses)
        if index % self.d_steps == 0:
            made = self._made(batch)
            self._learn(0, [fool(judge(made, condition), "hinge") for judge in self._each()])

    def _each(self) -> list[Discriminator]:
        return [judge for judge in self.judges.children() if isinstance(judge, Discriminator)]

    def _made(self, batch: TrainBatch) -> Tensor:
        count, num_frames = batch.frames_BTCHW.shape[:2]
        noise = torch.randn(count, 1, self.noise, device=batch.frames_BTCHW.device)
        return self.network(noise, batch.maps_BTCHW[:, :1, :, 0, 0], num_frames)[0]

    def _learn(self, which: int, losses: list[Tensor]) -> None:
        self.optimizers[which].zero_grad()
        torch.stack(losses).sum().backward()
        self.optimizers[which].step()


def _step_rows(settings: Settings, device: torch.device) -> Iterator[Row]:
    """The time of as many steps as bring one of the generator, by the published ratio of 2:1."""
    recipe = _recipe(settings, {"d_steps": 2, "augment": [], "run_up": 0})
    reference = resolved_generator(recipe)
    names = settings.classes
    conditions = Conditions(kinds=(ClassLabel,), channels=len(names))
    spec = VideoSpec(height=settings.size, width=settings.size, fps=FPS)
    torch.manual_seed(0)
    objective: Objective = build_generator(reference, conditions).objective(spec)
    place(objective, device)
    plain = PlainSchedule(objective)
    count = int(recipe.training["batch"])
    frames = torch.rand(count, objective.num_frames, 3, settings.size, settings.size) * 2 - 1
    shares = torch.eye(len(names))[torch.arange(count) % len(names)]
    maps = shares[:, None, :, None, None].expand(-1, objective.num_frames, -1, 1, 1)
    batch = TrainBatch(frames.to(device), maps.to(device))

    def ours() -> None:
        for index in range(2):
            train_step(objective, batch, Run(step=index), Processes())

    def theirs() -> None:
        for index in range(2):
            plain.step(batch, index)

    jobs: dict[str, Callable[[], object]] = {"plain": theirs, "ours": ours}
    timed = interleaved(jobs, rounds=settings.rounds, clock=Clock.of(device))
    name = f"{settings.size} px, {objective.num_frames} frames, batch {count}"
    yield Row(
        name=f"{name}: weights",
        value=parameters(*(phase.module for phase in objective.phases)) / 1e6,
        unit="M",
    )
    for arm, timings in timed.items():
        yield milliseconds(f"{name}: a step, {arm}", timings, per=2)
    yield speed_up(f"{name}: ours over plain", timed["plain"], timed["ours"], goal=1.15)
