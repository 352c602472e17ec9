"""Models of clips by class: trained from many clips, driven by no video, asked for a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vidsynth import devices, options
from vidsynth.choosing import resolved_generator
from vidsynth.classes import ClassLabel
from vidsynth.clips import ClipOptions, Clips, is_collection, prepare_clips
from vidsynth.errors import BadSubject
from vidsynth.fitting import (
    alone_in,
    going_on,
    has_had,
    limit_of,
    opened,
    refuse_another,
    refuse_another_size,
    taught,
)
from vidsynth.generation import contact_sheet, make_clip
from vidsynth.kinds import Conditions, Generator
from vidsynth.processes import Processes
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.subject import (
    TRAINING,
    PluginRef,
    Subject,
    SubjectCard,
    build_generator,
    save_card,
    write_picture,
)
from vidsynth.training import Run, TrainOptions

# B batch, T frames, N classes, C channels, H, W pixels

SCORED_CLASSES, SCORED_CLIPS = 8, 6
COLLAPSED = 0.3
"""Clips of a class that differ less than so many times as much as real ones have collapsed, if they
differed more before, or ..."""
PATIENCE = 4
"""... if they have not come so far by this many judgements, which is after 16 minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variety:
    """How much clips of a class differ from each other."""

    of: ClassVar[str] = "made clips"

    diversity: float
    """Times what real clips of the same class do."""

    def row(self) -> dict[str, float]:
        return {"diversity": round(self.diversity, 4)}

    def __str__(self) -> str:
        return f"{self.diversity:.2f} times as different within a class as real ones"


# Training


def learns_from_clips(recipe: str | None, source: Path) -> bool:
    """Whether that recipe does; without one, whether that is what the source asks for."""
    if recipe is None:
        return is_collection(source)
    return load_recipe(recipe).clips is not None


def fit_clips(
    source: Path,
    folder: Path,
    recipe: Recipe,
    budget: float | None,
    steps: int | None,
    *,
    device: str,
    seed: int,
    reporter: Reporter,
) -> Subject:
    """Train the model in `folder` on clips by class until it has had the budget.

    Arguments as of `fitting.fit`; `source` as of `clips.prepare_clips`. Raises what these raise.
    """
    training = options.build(TrainOptions, recipe.training, where="training")
    limit = limit_of(budget, steps, training)
    processes = Processes(devices.choose(device))
    where = processes.device or devices.choose(device)
    existing = opened(folder)
    reference = resolved_generator(recipe)
    clips = _prepared(source, recipe, reference, processes, reporter)
    card = _card(source, recipe, reference, clips)
    if existing is not None:
        _refuse_another_model(existing, card, recipe)
        if has_had(existing, limit, reporter):
            return existing
    card = going_on(card, existing)
    reporter.say(
        f"{recipe.name} recipe at {recipe.size} px: {len(clips.clips)} clips of "
        f"{len(clips.names)} classes"
    )
    with alone_in(folder, processes):
        if processes.is_main:
            save_card(folder, card)

        torch.manual_seed(seed)
        painter = build_generator(reference, _conditions(clips.names))
        objective = painter.objective(clips.spec)
        return taught(
            folder,
            card,
            objective,
            clips,
            budget=limit,
            options=training,
            score=_scorer(painter, clips, objective.num_frames, folder / TRAINING, where, reporter),
            device=where,
            seed=seed,
            processes=processes,
            reporter=reporter,
        )


def _prepared(
    source: Path, recipe: Recipe, reference: PluginRef, processes: Processes, reporter: Reporter
) -> Clips:
    """Of several processes the first fills the cache for the others."""
    if not processes.is_main:
        processes.wait()
    clips = prepare_clips(
        source,
        options.build(ClipOptions, recipe.clips or {}, where="clips"),
        size=recipe.size,
        num_frames=int(reference.options.get("num_frames", 1)),
        reporter=reporter,
    )
    if processes.is_main:
        processes.wait()
    return clips


def _card(source: Path, recipe: Recipe, reference: PluginRef, clips: Clips) -> SubjectCard:
    spec = clips.spec
    return SubjectCard(
        recipe=recipe.name,
        extractor=PluginRef(name=""),
        generator=reference,
        channels=len(clips.names),
        background=False,
        height=spec.height,
        width=spec.width,
        fps=str(spec.fps),
        window=(0, 0, spec.width, spec.height),
        summary={},
        classes=clips.names,
        settings={
            "size": recipe.size,
            "training": dict(recipe.training),
            "clips": dict(recipe.clips or {}),
        },
        target=source.name,
        target_hash=clips.content,
    )


def _refuse_another_model(existing: Subject, card: SubjectCard, recipe: Recipe) -> None:
    if existing.card.target_hash != card.target_hash:
        raise BadSubject(
            f"{existing.folder} holds a model of other clips or classes ({existing.card.target}); "
            "choose another folder"
        )
    refuse_another(existing, "generator", card.generator)
    refuse_another_size(existing, recipe.size)


def _conditions(names: Sequence[str]) -> Conditions:
    return Conditions(kinds=(ClassLabel,), channels=len(names))


def _scorer(
    painter: Generator,
    clips: Clips,
    num_frames: int,
    folder: Path,
    device: torch.device,
    reporter: Reporter,
) -> Callable[[Mapping[str, Tensor], Run], Variety]:
    """Judges weights by clips of some classes, which are shown in preview.png."""
    chosen = range(min(SCORED_CLASSES, len(clips.names)))
    real = [clips.of_class(n, num_frames, SCORED_CLIPS) for n in chosen]

    def clip_of(index: int, seed: int) -> Tensor:
        label = ClassLabel.of(clips.names[index], clips.names, num_frames)
        return make_clip(painter, [label], clips.spec, seed=seed, device=device)

    def judge(weights: Mapping[str, Tensor], run: Run) -> Variety:
        painter.load_weights(weights)
        made = [torch.stack([clip_of(n, seed) for seed in range(SCORED_CLIPS)]) for n in chosen]
        write_picture(folder / "preview.png", contact_sheet([c for of in made for c in of[:2]]))
        found = Variety(diversity=diversity(made, real))
        if has_collapsed(found.diversity, [row["diversity"] for row in run.scores]):
            reporter.warn(
                f"at step {run.step} the clips of a class look alike ({found}): if that stays so, "
                "start anew with a lower generator.learning_rate, or with more clips"
            )
        return found

    return judge


def has_collapsed(now: float, before: Sequence[float]) -> bool:
    """Whether the variety within a class is lost, or too long in coming."""
    return now < COLLAPSED and (max(before, default=0.0) >= COLLAPSED or len(before) >= PATIENCE)


def diversity(made: Sequence[Tensor], real: Sequence[Tensor]) -> float:
    """How many times as different made clips (B, T, 3, H, W) of a class are as real ones, over all
    classes; 1 where no class has two real ones."""
    pairs = [
        (differences(ours), differences(theirs))
        for ours, theirs in zip(made, real, strict=True)
        if len(theirs) > 1
    ]
    apart = sum(float(theirs.mean()) for _, theirs in pairs)
    return sum(float(ours.mean()) for ours, _ in pairs) / apart if apart else 1.0


def differences(clips_BTCHW: Tensor) -> Tensor:
    """Mean absolute difference, levels of 255, of each pair of (B, T, C, H, W) uint8 clips."""
    flat = clips_BTCHW.flatten(1).float()
    return torch.pdist(flat, p=1) / flat.shape[1]
