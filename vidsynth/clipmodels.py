"""Models of many clips, by class or with captions: driven by no video, asked for a class or by a
prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidsynth import devices, loading, options
from vidsynth.captions import Films, every_text, has_captions, prepare_captioned
from vidsynth.choosing import resolved_generator
from vidsynth.classes import ClassLabel, Prompt
from vidsynth.clips import ClipOptions, Clips, is_collection, prepare_clips
from vidsynth.conditioning import Conditioning
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
from vidsynth.kinds import Conditions, Generator
from vidsynth.making import contact_sheet, make_clip
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
SCORED_OF_PROMPTS = 2
"""Clips of each caption: diffusion takes its time."""
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
        return is_collection(source) or has_captions(source)
    return load_recipe(recipe).clips is not None


def recipe_for(source: Path) -> str:
    """The recipe for clips, where none is named."""
    return "text2video-small" if has_captions(source) else "dvdgan"


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
    """Train the model in `folder` on many clips until it has had the budget.

    Where the recipe's generator takes prompts, on clips with captions, else on clips by class.

    Arguments as of `fitting.fit`; `source` as of `captions.prepare_captioned` or
    `clips.prepare_clips`. Raises what these raise.
    """
    training = options.build(TrainOptions, recipe.training, where="training")
    limit = limit_of(budget, steps, training)
    processes = Processes(devices.choose(device))
    where = processes.device or devices.choose(device)
    existing = opened(folder)
    reference = resolved_generator(recipe)
    clips = _prepared(source, recipe, reference, processes, reporter)
    conditions = _conditions(reference, clips)
    card = _card(source, recipe, reference, clips, conditions)
    if existing is not None:
        _refuse_another_model(existing, card, recipe)
        if has_had(existing, limit, reporter):
            return existing
    card = going_on(card, existing)
    reporter.say(
        f"{recipe.name} recipe at {recipe.size} px: {_count(clips)} of {len(clips.names)} "
        f"{'captions' if Prompt in conditions.kinds else 'classes'}"
    )
    with alone_in(folder, processes):
        if processes.is_main:
            save_card(folder, card)

        torch.manual_seed(seed)
        painter = build_generator(reference, conditions)
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
) -> Clips | Films:
    """Of several processes the first fills the cache for the others."""
    prepared = prepare_captioned if _takes_prompts(reference) else prepare_clips
    if not processes.is_main:
        processes.wait()
    clips = prepared(
        source,
        options.build(ClipOptions, recipe.clips or {}, where="clips"),
        size=recipe.size,
        num_frames=int(reference.options.get("num_frames", 1)),
        reporter=reporter,
    )
    if processes.is_main:
        processes.wait()
    return clips


def _card(
    source: Path,
    recipe: Recipe,
    reference: PluginRef,
    clips: Clips | Films,
    conditions: Conditions,
) -> SubjectCard:
    spec = clips.spec
    return SubjectCard(
        recipe=recipe.name,
        extractor=PluginRef(name=""),
        generator=reference,
        channels=conditions.channels,
        background=False,
        height=spec.height,
        width=spec.width,
        fps=str(spec.fps),
        window=(0, 0, spec.width, spec.height),
        summary={},
        classes=() if Prompt in conditions.kinds else clips.names,
        words=conditions.words,
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


def _takes_prompts(reference: PluginRef) -> bool:
    plugin: Any = loading.load("generator", reference.name)
    return plugin.takes(Prompt)


def _conditions(reference: PluginRef, clips: Clips | Films) -> Conditions:
    plugin: Any = loading.load("generator", reference.name)
    if not plugin.takes(Prompt):
        return Conditions(kinds=(ClassLabel,), channels=len(clips.names))
    values = options.build(plugin.Options, reference.options, where="generator")
    words = plugin.words_of(values, every_text(clips))
    return Conditions(kinds=(Prompt,), channels=1, words=words)


def _count(clips: Clips | Films) -> str:
    return "films drawn anew" if isinstance(clips, Films) else f"{len(clips.clips)} clips"


def _told(painter: Generator, clips: Clips | Films, index: int, num_frames: int) -> Conditioning:
    """What asks for a clip of the class, or with the caption, of this index."""
    if Prompt in painter.conditions.kinds:
        return Prompt.of(clips.names[index], num_frames)
    return ClassLabel.of(clips.names[index], clips.names, num_frames)


def _scorer(
    painter: Generator,
    clips: Clips | Films,
    num_frames: int,
    folder: Path,
    device: torch.device,
    reporter: Reporter,
) -> Callable[[Mapping[str, Tensor], Run], Variety]:
    """Judges weights by clips of some classes, which are shown in preview.png."""
    chosen = range(min(SCORED_CLASSES, len(clips.names)))
    count = SCORED_OF_PROMPTS if Prompt in painter.conditions.kinds else SCORED_CLIPS
    real = [clips.of_class(n, num_frames, count) for n in chosen]

    def clip_of(index: int, seed: int) -> Tensor:
        told = _told(painter, clips, index, num_frames)
        return make_clip(painter, [told], clips.spec, seed=seed, device=device)

    def judge(weights: Mapping[str, Tensor], run: Run) -> Variety:
        painter.load_weights(weights)
        made = [torch.stack([clip_of(n, seed) for seed in range(count)]) for n in chosen]
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
