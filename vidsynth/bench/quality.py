"""`vidsynth bench quality`: how good held-out frames look after so many minutes of training.

Our default recipe against the same network painting from nothing ("plain"), and against pix2pixHD
as published (45.6 million weights, float32, batch 1, no L1, no average of weights, the schedule of
`reference_schedule`). All train on the same film in turns of some seconds, each on its own clock;
judging is on nobody's. The learning rates of each fall over the second half of its own budget, as
its recipe says. Beside them stand the answers that cost nothing: the last training frame, the
background, and for each moment the training frame that is nearest by conditioning, as it is and
warped to what is wanted. And our network when it is given the frames beside the true one to paint
from, which is as well as it could paint from any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, log2
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import devices, exemplars
from vidsynth.bench import Asked, Row
from vidsynth.bench.likeness import LOWER_IS_BETTER, judged, tremble, unit_of
from vidsynth.bench.material import (
    Films,
    Study,
    learn,
    reference_of,
    reference_recipe,
    study,
    subjects,
    workshop,
)
from vidsynth.bench.turns import InTurns, Pause
from vidsynth.blocks import warp
from vidsynth.dataset import Footage
from vidsynth.files import writing
from vidsynth.objectives import Recalled
from vidsynth.processes import Processes
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.regions import regions
from vidsynth.report import Reporter, Step
from vidsynth.scores import Scores
from vidsynth.training import Budget, Run, sample_starts, seed_everything

# T frames, H, W pixels

Weights = dict[str, Tensor]
Keep = Callable[[Mapping[str, Tensor], float, int], None]
"""Told weights, the seconds of training behind them, and the steps."""

OURS, PLAIN, REFERENCE = "ours", "plain", "reference"
WHOLE = ("PSNR", "SSIM", "L1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Films):
    """What is trained, and for how long."""

    minutes: Mapping[str, float] = field(
        default_factory=lambda: {OURS: 4.0, PLAIN: 4.0, REFERENCE: 8.0}
    )
    slice_seconds: float = 15.0
    filters: int = 32
    """Of the reference's generator."""
    sheet: Path | None = None


def bench(asked: Asked) -> Iterator[Row]:
    """Held-out quality over minutes of training, whole frames and the parts that people look at."""
    settings = Settings(sheet=asked.sheet).asked(asked)
    if asked.full:
        minutes = dict.fromkeys((OURS, PLAIN, REFERENCE), 8.0)
        settings = replace(settings, minutes=minutes)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    with workshop() as folder:
        for filmed in subjects(settings, folder, device, reporter):
            yield from _contest(filmed.path, filmed.recipe, settings, folder, device, reporter)


def _contest(
    path: Path,
    recipe: Recipe,
    settings: Settings,
    folder: Path,
    device: torch.device,
    reporter: Reporter,
) -> Iterator[Row]:
    """All recipes on one film."""
    plain = load_recipe(f"{recipe.name}-plain").with_overrides({"size": recipe.size})
    published = reference_recipe(recipe.extractor, settings.size, settings.filters)
    recipes = {OURS: recipe, PLAIN: plain, REFERENCE: published}
    studies = {arm: study(path, recipes[arm], reporter) for arm in settings.minutes}
    ours = studies[OURS]
    exam = Exam.of(path.stem, ours)
    answers = exam.free_answers(ours)
    for name, frames in answers.items():
        yield from exam.rows(name, frames)

    for score, value in tremble(exam.truth, exam.truth).items():
        yield Row(name=f"{exam.name}: truth, {score}", value=value, unit=unit_of(score))

    kept: list[_Snapshot] = []

    def keeping(arm: str) -> Keep:
        def keep(weights: Mapping[str, Tensor], seconds: float, steps: int) -> None:
            copied = {name: value.detach().clone() for name, value in weights.items()}
            kept.append(_Snapshot(arm, _mark(seconds, settings.minutes[arm]), copied, steps))

        return keep

    def training(arm: str) -> Callable[[Pause], None]:
        seen, minutes, keep = studies[arm], settings.minutes[arm], keeping(arm)
        if arm == REFERENCE:
            return lambda pause: _train_reference(seen, minutes, keep, pause, device)
        own = folder / f"{path.stem}-{arm}"
        return lambda pause: train_pausing(seen, own, minutes, keep, pause, device)

    arms = {arm: InTurns(training(arm)) for arm in studies}
    last: dict[str, Tensor] = {}
    try:
        while not all(arm.done for arm in arms.values()):
            _until_scored(arms.values(), kept, settings, reporter)
            for snapshot in kept:
                seen = studies[snapshot.arm]
                last[snapshot.arm] = exam.sit(seen, snapshot.weights, device)
                yield from exam.rows(snapshot.arm, last[snapshot.arm], snapshot.minutes)
                yield exam.steps(snapshot)
                if snapshot.arm == OURS:
                    bound = exam.beside(seen, snapshot.weights, device)
                    yield from exam.rows(BESIDE, bound, snapshot.minutes)
            kept.clear()
    finally:
        for arm in arms.values():
            arm.stop()
    yield from exam.goals(list(answers))
    if settings.sheet is not None:
        sheet = settings.sheet
        if len(settings.worlds) > 1 and settings.clip is None:
            sheet = sheet.with_stem(f"{sheet.stem}-{path.stem}")
        made = {arm: last[arm] for arm in arms if arm in last}
        pictures = {"truth": exam.truth, **made, "nearest": answers[NEAREST]}
        write_sheet(sheet, pictures)
        reporter.say(f"wrote {sheet}")


def _until_scored(
    arms: Iterable[InTurns], kept: Sequence[_Snapshot], settings: Settings, reporter: Reporter
) -> None:
    """Let the arms train in turns until one has weights to judge, or all are done."""
    with reporter.step("training in turns", unit="seconds") as step:
        began = perf_counter()
        while not kept and not all(arm.done for arm in arms):
            for arm in arms:
                arm.turn(settings.slice_seconds)
                step.update(perf_counter() - began)


def _mark(seconds: float, budget_minutes: float) -> float:
    """The minutes that a score at these seconds is of: 1, 2, 4..., or the whole budget."""
    if seconds >= 60 * budget_minutes:
        return budget_minutes
    return 2.0 ** floor(log2(max(seconds, 1.0) / 60))


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    arm: str
    minutes: float
    weights: Weights
    steps: int


# The arms


def train_pausing(
    seen: Study, folder: Path, minutes: float, keep: Keep, pause: Pause, device: torch.device
) -> None:
    """The training loop of `vidsynth train` itself, which pauses where it tells its progress."""

    def judge(weights: Mapping[str, Tensor], run: Run) -> Scores:
        keep(weights, run.seconds, run.step)
        return Scores(psnr=0.0, ssim=0.0, l1=0.0)  # judged later, on nobody's clock

    budget = Budget(seconds=60 * minutes)
    learn(seen, folder, budget, device=device, judge=judge, reporter=_Pausing(pause))


class _Pausing(Reporter):
    """Pauses the training after each step that it tells of."""

    def __init__(self, pause: Pause) -> None:
        self._pause = pause

    def step(  # pyright: ignore[reportIncompatibleMethodOverride] - a step is its own context
        self, title: str, total: float | None = None, unit: str = "frames", done: float = 0.0
    ) -> _PausingStep:
        return _PausingStep(self._pause)


class _PausingStep(Step):
    def __init__(self, pause: Pause) -> None:
        self._pause = pause

    def __enter__(self) -> _PausingStep:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, done: float, **facts: object) -> None:
        self._pause()


def _train_reference(
    seen: Study, minutes: float, keep: Keep, pause: Pause, device: torch.device
) -> None:
    """The reference schedule, one frame a step, every training frame once an epoch."""
    torch.manual_seed(0)
    objective = seen.generator().objective(seen.footage.window_spec)
    reference = reference_of(objective)
    reference.generator.to(device).train()
    reference.discriminator.to(device).train()
    starts, budget, run = seen.footage.starts(1), Budget(seconds=60 * minutes), Run()
    while budget.allows(run):
        began = perf_counter()
        seed_everything(0, run.step)
        chosen = sample_starts(starts, run, 1, 0, Processes())
        reference.at_progress(budget.progress(run))
        reference.step(seen.footage.batch(chosen, 1, device))
        before, spent = run, run.seconds + perf_counter() - began
        run = replace(run, step=run.step + 1, seconds=spent)
        passed = any(before.seconds < 60 * 2**n <= run.seconds for n in range(10))
        if passed or not budget.allows(run):
            keep(reference.generator.state_dict(), run.seconds, run.step)
        pause()


# Judging

NEAREST, WARPED = "nearest training frame", "warped training frame"
BESIDE = "ours painting from the frames beside the true one"


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """The held-out frames of one film, and all scores so far."""

    name: str
    index: Tensor
    """(T,) held-out frames."""
    truth: Tensor
    """(T, 3, height, width) uint8"""
    masks: Mapping[str, Tensor]
    """(T, height, width) bool, by part."""
    scores: dict[tuple[str, float], dict[str, float]] = field(default_factory=dict)
    """By answer and minutes (0 for what was not trained)."""

    @staticmethod
    def of(name: str, seen: Study) -> Exam:
        footage = seen.footage
        index = torch.arange(footage.held_out.start, footage.held_out.stop)
        truth = footage.pictures[index]
        masks = regions(footage.signal[index], *truth.shape[2:])
        return Exam(name, index, truth, masks)

    def sit(self, seen: Study, weights: Weights, device: torch.device) -> Tensor:
        """(T, 3, height, width) uint8: the held-out frames by these weights.

        Ours as a user's render makes them; the reference, which paints whole frames, in float32.
        """
        generator = seen.generator()
        generator.load_weights(weights)
        if seen.recipe.name == "reference":
            return seen.paint(generator, self.index, device, "fp32")
        return seen.render(generator, self.index, device)

    def beside(self, seen: Study, weights: Weights, device: torch.device) -> Tensor:
        """As `sit`, but every other held-out frame is painted from those between them."""
        made = torch.empty_like(self.truth)
        for first in (0, 1):
            gallery = seen.footage.as_gallery(self.index[1 - first :: 2])
            footage = replace(seen.footage, gallery=gallery)
            painted = self.sit(replace(seen, footage=footage), weights, device)
            made[first::2] = painted[first::2]
        return made

    def free_answers(self, seen: Study) -> dict[str, Tensor]:
        """What costs no training, by name."""
        footage = seen.footage
        training = footage.training.nonzero()[:, 0]
        plate = footage.plate
        if plate is None:
            some = training[torch.linspace(0, len(training) - 1, min(64, len(training))).long()]
            plate = footage.pictures[some].median(dim=0).values
        wanted, known = footage.signal[self.index], footage.signal[training]
        nearest = training[torch.cdist(wanted.features(), known.features()).argmin(dim=1)]
        return {
            "last training frame": footage.pictures[training[-1:]].expand_as(self.truth),
            "background plate": plate.expand_as(self.truth),
            NEAREST: footage.pictures[nearest],
            WARPED: self._warped(footage),
        }

    def _warped(self, footage: Footage) -> Tensor:
        """The exemplar that is most alike, brought to each held-out frame, over the plate."""
        gallery, made = footage.gallery, footage.pictures[self.index]
        if gallery is None:
            raise ValueError("only what paints from exemplars has any to warp")
        motion = footage.signal[self.index].crop(footage.window)
        planned = exemplars.plan(gallery, motion, 1)
        signal = gallery.recall(motion, planned, "cpu")
        found = Recalled.of(signal, torch.device("cpu")).each(lambda x: x[:, 0])
        copied = warp(found.images, found.flow, mode="bicubic")
        x0, y0, x1, y1 = footage.window
        if footage.plate is not None:
            made[:] = footage.plate
            plate = made[:, :, y0:y1, x0:x1].float() / 127.5 - 1
            copied = plate.lerp(copied[:, :3], found.cover(copied[:, 3:]))
        made[:, :, y0:y1, x0:x1] = copied.add(1).mul(127.5).round().clamp(0, 255)
        return made

    def rows(self, answer: str, frames: Tensor, minutes: float = 0.0) -> Iterator[Row]:
        """Judge an answer and tell its scores."""
        found = judged(frames, self.truth, self.masks) | tremble(frames, self.truth)
        self.scores[answer, minutes] = found
        when = f" {minutes:g} min" if minutes else ""
        for score, value in found.items():
            name = f"{self.name}: {answer}{when}, {score}"
            yield Row(name=name, value=value, unit=unit_of(score))

    def steps(self, snapshot: _Snapshot) -> Row:
        """How many steps an arm had made."""
        name = f"{self.name}: {snapshot.arm} {snapshot.minutes:g} min, steps"
        return Row(name=name, value=snapshot.steps, unit="")

    def goals(self, free: list[str]) -> Iterator[Row]:
        """The comparisons that were promised, of those moments that were reached."""
        parts = [s for s in self.scores.get((OURS, 1.0), {}) if s.endswith(" PSNR")]
        wanted = [*WHOLE, *parts]
        yield from self._better((OURS, 1.0), (REFERENCE, 8.0), dict.fromkeys(wanted, 0.0))
        four = dict.fromkeys(parts, 0.0) | {"PSNR": 4.5, "SSIM": 0.15}
        yield from self._better((OURS, 4.0), (REFERENCE, 4.0), four)
        for minutes in (1.0, 2.0, 4.0, 8.0):
            everything = dict.fromkeys(self.scores.get((OURS, minutes), {}), 0.0)
            yield from self._better((OURS, minutes), (PLAIN, minutes), everything)
        for copied in (NEAREST, WARPED):
            yield from self._better((OURS, 4.0), (copied, 0.0), {"PSNR": 1.5})
        yield from self._better((OURS, 4.0), (BESIDE, 4.0), {"PSNR": -1.5})
        for answer in free:
            yield from self._better((OURS, 2.0), (answer, 0.0), dict.fromkeys(wanted, 0.0))

    def _better(
        self, ours: tuple[str, float], theirs: tuple[str, float], margins: Mapping[str, float]
    ) -> Iterator[Row]:
        """By how much `ours` is better, score by score; above 0 is better."""
        if ours not in self.scores or theirs not in self.scores:
            return
        for score, margin in margins.items():
            value = self.scores[ours][score] - self.scores[theirs][score]
            value = -value if score.split()[-1] in LOWER_IS_BETTER else value
            if score.endswith("sharpness"):  # how much nearer to that of the truth
                value = abs(self.scores[theirs][score] - 1) - abs(self.scores[ours][score] - 1)
            when = f"{theirs[0]} {theirs[1]:g} min" if theirs[1] else theirs[0]
            yield Row(
                name=f"{self.name}: ours {ours[1]:g} min better than {when}, {score}",
                value=value,
                unit=unit_of(score),
                goal=margin,
            )


# Looking


def write_sheet(path: Path, rows: Mapping[str, Tensor], *, moments: int = 6) -> None:
    """A PNG to look at: a row per answer, its name at the left, the same moments below another."""
    lines = []
    wide = 8 + 8 * max(map(len, rows))
    for name, frames in rows.items():
        index = torch.linspace(0, len(frames) - 1, min(moments, len(frames))).long()
        strip = torch.cat(list(frames[index]), dim=2).permute(1, 2, 0).numpy()
        label = np.full((strip.shape[0], wide, 3), 255, np.uint8)
        cv2.putText(label, name, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        lines.append(np.concatenate([label, strip], axis=1))
    picture = np.ascontiguousarray(np.concatenate(lines)[:, :, ::-1])
    with writing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
