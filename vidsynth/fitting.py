"""Fitting a subject: all that lies between a target video and its trained folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices, drawing, locks, options, retarget, stages, stream, video
from vidsynth.choosing import resolved_plugins
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.dataset import Footage, prepare
from vidsynth.errors import BadOption, BadSubject, InUse
from vidsynth.files import is_temporary, make_folder, tidy
from vidsynth.given import hash_of, target_with_maps
from vidsynth.kinds import Conditions, Generator, Given
from vidsynth.objectives import Objective, Samples
from vidsynth.processes import Processes
from vidsynth.recipes import Recipe
from vidsynth.report import Reporter
from vidsynth.scores import Scores, score
from vidsynth.stages import clips_of
from vidsynth.subject import (
    CARD,
    TRAINING,
    PluginRef,
    Subject,
    SubjectCard,
    build_extractor,
    build_generator,
    load_subject,
    save_card,
    save_plate,
    save_weights,
    write_picture,
)
from vidsynth.tracking import track
from vidsynth.training import Budget, Run, TrainOptions, activation_bytes, train

SCORED_FRAMES = 32


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prepared:
    """A target tracked and prepared as a recipe asks: all that training needs."""

    extractor: PluginRef
    generator: PluginRef
    conditions: Conditions
    footage: Footage


def prepare_target(
    target: Path,
    recipe: Recipe,
    *,
    given: Given | None = None,
    fps: Fraction | None = None,
    processes: Processes | None = None,
    reporter: Reporter | None = None,
) -> Prepared:
    """Track a target and make its training footage, both from the cache where they are there.

    What is `given` is read instead of tracked; `fps` is that of a folder of pictures.

    Of several processes the first fills the cache for the others. Raises what `vidsynth train`
    would raise for such a target.
    """
    processes = processes or Processes()
    extractor_ref, generator_ref = resolved_plugins(recipe)
    extractor = build_extractor(extractor_ref)
    if not processes.is_main:
        processes.wait()
    if given is not None:
        tracked = target_with_maps(
            target, given, extractor, size=recipe.size, fps=fps, reporter=reporter or Reporter()
        )
    else:
        identity = options.to_dict(extractor_ref)
        tracked = track(target, extractor, identity=identity, fps=fps, reporter=reporter)
    tracked.require_subject(person=extractor_ref.options.get("person"))
    conditions = Conditions.for_options(
        generator_ref.options, kinds=(extractor.produces,), channels=_channels(tracked.signal)
    )
    wants_plate = bool(generator_ref.options.get("background", False))
    footage = prepare(
        tracked,
        conditions,
        size=recipe.size,
        background=wants_plate,
        gallery=int(generator_ref.options.get("gallery", 0)),
        reporter=reporter,
    )
    if processes.is_main:
        processes.wait()
    conditions = replace(conditions, background=footage.plate is not None)
    return Prepared(
        extractor=extractor_ref, generator=generator_ref, conditions=conditions, footage=footage
    )


def fit(
    target: Path,
    folder: Path,
    recipe: Recipe,
    budget: float | None,
    steps: int | None,
    *,
    given: Given | None = None,
    fps: Fraction | None = None,
    device: str,
    seed: int,
    reporter: Reporter,
) -> Subject:
    """Train `folder` until it has had the budget; a subject that has had it is returned at once."""
    training = options.build(TrainOptions, recipe.training, where="training")
    limit = limit_of(budget, steps, training)
    where = devices.choose(device)
    processes = Processes(where)
    where = processes.device or where
    content = video.content_hash(target)
    maps = hash_of(given)
    existing = _existing(folder, content, maps, recipe)
    if existing and has_had(existing, limit, reporter):
        return existing

    if limit.seconds is not None:
        reporter.say(
            f"{recipe.name} recipe at {recipe.size} px: {limit.seconds / 60:.3g} min of training, "
            f"after {target.name} is tracked"
        )
    prepared = prepare_target(
        target, recipe, given=given, fps=fps, processes=processes, reporter=reporter
    )
    conditions, footage = prepared.conditions, prepared.footage
    card = _card(recipe, prepared, target, content, maps)
    card = going_on(card, existing)
    with alone_in(folder, processes):
        if processes.is_main:
            save_card(folder, card)  # first: a folder with a card is gone on with
            if footage.plate is not None:
                save_plate(folder, footage.plate)
            if footage.gallery is not None:
                footage.gallery.save(folder)

        # Train.
        torch.manual_seed(seed)
        painter = build_generator(prepared.generator, conditions)
        objective = painter.objective(footage.window_spec)
        training = _within_memory(objective, footage, training, where, reporter)

        return taught(
            folder,
            card,
            objective,
            footage,
            budget=limit,
            options=training,
            score=_scorer(painter, footage, card, folder / TRAINING / "preview.png", where),
            device=where,
            seed=seed,
            processes=processes,
            reporter=reporter,
        )


def taught(
    folder: Path, card: SubjectCard, objective: Objective, samples: Samples, **how: Any
) -> Subject:
    """Train, keeping weights and card in the folder as it goes; `how` is as of `training.train`."""

    def after(run: Run) -> SubjectCard:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        had = {"steps": run.step, "seconds": run.seconds, "scores": tuple(run.scores)}
        return replace(card, trained=now, **had)

    kept: list[SubjectCard] = []

    def keep(weights: Mapping[str, Tensor], run: Run) -> None:
        save_weights(folder, weights)
        kept[:] = [after(run)]
        save_card(folder, kept[0])

    run = train(objective, samples, folder / TRAINING, keep=keep, **how)
    # The very card that was saved: what is kept of a rendering goes by it.
    return Subject(folder, kept[0] if kept else after(run))


@contextmanager
def alone_in(folder: Path, processes: Processes) -> Iterator[None]:
    """The folder made, locked against other trainings, and without what a killed one left."""
    make_folder(folder)
    with locks.alone(folder, "the subject") if processes.is_main else nullcontext():
        if processes.is_main:
            tidy(folder)
        yield


def has_had(subject: Subject, limit: Budget, reporter: Reporter) -> bool:
    """Whether it was trained for so long already, which is told."""
    if limit.allows(Run(step=subject.card.steps, seconds=subject.card.seconds)):
        return False
    reporter.say(f"{subject.folder} is trained already: {subject.card.steps} steps")
    with suppress(InUse), locks.alone(subject.folder, "the subject"):
        tidy(subject.folder)  # the process that trained it may have been killed right after
    return True


def going_on(card: SubjectCard, existing: Subject | None) -> SubjectCard:
    """The card of what is to be trained, as far as it has come before."""
    if existing is None:
        return card
    had = existing.card
    kept = {name: getattr(had, name) for name in ("steps", "seconds", "scores", "trained")}
    return replace(card, consent=had.consent, **kept)


def limit_of(budget: float | None, steps: int | None, training: TrainOptions) -> Budget:
    """The budget asked for, or that of the settings. Raises BadOption for two at once."""
    if budget is not None and steps is not None:
        raise BadOption("--budget and --steps exclude each other; give one")
    if budget is None and steps is None:
        budget = training.minutes * 60
    return Budget(seconds=budget, steps=steps)


def opened(folder: Path) -> Subject | None:
    """The subject already in `folder`, or None where one can be made. Raises BadSubject."""
    if folder.exists() and not folder.is_dir():
        raise BadSubject(f"{folder} is a file; name a folder for the subject")
    if not folder.exists() or all(_is_ours(path) for path in folder.iterdir()):
        return None
    if not (folder / CARD).exists():
        raise BadSubject(
            f"{folder} holds other things and no subject; name a new or an empty folder"
        )
    if (folder / TRAINING).is_symlink():
        raise BadSubject(
            f"{folder / TRAINING} is a link to another place, which training would write to; "
            "remove the link"
        )
    return load_subject(folder)


def _existing(folder: Path, content: str, maps: str, recipe: Recipe) -> Subject | None:
    """The subject already in `folder`, or None for a new one.

    Raises BadSubject when it is another target's or was made with other settings.
    """
    subject = opened(folder)
    if subject is None:
        return None
    if subject.card.target_hash != content:
        raise BadSubject(
            f"{folder} holds a subject trained on another video ({subject.card.target}); choose "
            "another folder"
        )
    if subject.card.settings.get("maps", "") != maps:
        raise BadSubject(
            f"{folder} holds a subject trained with other label maps; choose another folder, or "
            "give those it was trained with"
        )
    extractor, generator = resolved_plugins(recipe)
    for part, wanted in (("extractor", extractor), ("generator", generator)):
        refuse_another(subject, part, wanted)
    refuse_another_size(subject, recipe.size)
    return subject


def refuse_another(subject: Subject, part: str, wanted: PluginRef) -> None:
    """Raise BadSubject when it was made with another "generator" or "extractor" than `wanted`."""
    found = getattr(subject.card, part)
    # As the card stores them: a tuple became a list.
    ours = json.loads(json.dumps(wanted.options))
    if (found.name, dict(found.options)) != (wanted.name, ours):
        differing = sorted(k for k in ours if found.options.get(k) != ours[k])
        raise BadSubject(
            f"{subject.folder} was made with another {part} or other options of it "
            f"({', '.join(differing) or found.name}); choose another folder, or the settings "
            "it was made with"
        )


def refuse_another_size(subject: Subject, size: int) -> None:
    """Raise BadSubject when it was made at another size in pixels."""
    if subject.card.settings.get("size") != size:
        raise BadSubject(
            f"{subject.folder} was made at size {subject.card.settings.get('size')}, not {size}; "
            "choose another folder or that size"
        )


def _is_ours(path: Path) -> bool:
    """What a process that was killed before its first card leaves."""
    return path.name == locks.NAME or is_temporary(path)


def _card(recipe: Recipe, prepared: Prepared, target: Path, content: str, maps: str) -> SubjectCard:
    footage = prepared.footage
    return SubjectCard(
        recipe=recipe.name,
        extractor=prepared.extractor,
        generator=prepared.generator,
        channels=prepared.conditions.channels,
        background=prepared.conditions.background,
        exemplars=prepared.conditions.exemplars,
        height=footage.spec.height,
        width=footage.spec.width,
        fps=str(footage.spec.fps),
        window=footage.window,
        summary=retarget.summarise(footage.signal[footage.training.nonzero()[:, 0]])
        | {"room": _room(footage)},
        settings={
            "size": recipe.size,
            "training": dict(recipe.training),
            "retarget": dict(recipe.retarget),
            "maps": maps,
        },
        target=target.name,
        target_hash=content,
        crop=footage.crop,
    )


def _room(footage: Footage) -> list[float]:
    """From which x to which, in pixels, joints may be: hands and clothes reach beyond them."""
    x0, y0, x1, y1 = footage.window
    margin = 0.05 * (y1 - y0)
    return [
        x0 + margin if x0 > 0 else 0.0,
        x1 - margin if x1 < footage.spec.width else float(footage.spec.width),
    ]


def _scorer(
    painter: Generator, footage: Footage, card: SubjectCard, preview: Path, device: torch.device
) -> Callable[[Mapping[str, Tensor], Run], Scores]:
    """Judges weights by rendering held-out frames the way a user's render does."""
    begin = footage.held_out.start
    index = torch.arange(begin, min(begin + SCORED_FRAMES, footage.held_out.stop))
    motion, real = footage.signal[index], footage.pictures[index]

    def judge(weights: Mapping[str, Tensor], run: Run) -> Scores:
        painter.load_weights(weights)
        line = stages.rendering(
            motion,
            painter,
            card.window_spec,
            card.window,
            footage.plate,
            footage.gallery,
            device=device,
        )
        made: list[Clip] = []
        chunks = stages.timeline(footage.pts[index])
        stream.run(chunks, line, lambda cs: made.extend(clips_of(cs)), prefetch=0)
        frames = Clip.concat(made).frames
        _write_grid(preview, real, motion, frames)
        return score(frames, real)

    return judge


def _write_grid(path: Path, real: Tensor, motion: Conditioning, made: Tensor) -> None:
    """A PNG of six held-out moments: real above, what drives in the middle, made below."""
    index = torch.linspace(0, len(real) - 1, min(6, len(real))).long()
    maps = drawing.coloured(motion[index], real.shape[2], real.shape[3])
    rows = [torch.cat(list(part), dim=2) for part in (real[index], maps, made[index])]
    write_picture(path, torch.cat(rows, dim=1))


def _channels(signal: Conditioning) -> int:
    return signal[:1].draw(16, 16).shape[1]


def _within_memory(
    objective: Objective,
    footage: Footage,
    training: TrainOptions,
    device: torch.device,
    reporter: Reporter,
) -> TrainOptions:
    """Say what training will take at its most, before it starts; a batch that the memory has no
    room for becomes a smaller one.

    Raises BadOption where there is not room for half of what a single sample takes: an estimate
    may be too high, though not by so much.
    """
    parameters = sum(p.numel() for phase in objective.phases for p in phase.module.parameters())
    footage.starts(objective.num_frames)  # raises where there is not even one
    objective.at_progress(1.0)
    num_frames = min(objective.num_frames, footage.longest_run())
    first = footage.starts(num_frames)[:1]
    sample = footage.batch(
        first, num_frames, torch.device("cpu"), num_recalled=objective.num_recalled
    )
    # Of each weight: value, gradient, two moments, EMA; 4 bytes each.
    fixed, each = 20 * parameters, activation_bytes(objective, sample)
    objective.at_progress(0.0)
    needed = fixed + each * training.batch
    spec = footage.window_spec
    reporter.say(
        f"training at {spec.width}x{spec.height} px on {int(footage.training.sum())} frames: "
        f"{parameters / 1e6:.1f} million weights, about {needed / 1e9:.1f} GB of memory"
    )
    free = devices.free_memory(device)
    if free is None or needed <= free:
        return training
    remedy = "lower --size or generator.filters, or free some memory"
    if fixed + each > 2 * free:
        raise BadOption(
            f"training takes about {(fixed + each) / 1e9:.1f} GB even one sample at a time, and "
            f"{free / 1e9:.1f} GB are free on {device}; {remedy}"
        )
    batch = max(1, min(training.batch, (free - fixed) // max(1, each)))
    smaller = (
        f": {batch} instead of {training.batch} samples a step" if batch < training.batch else ""
    )
    reporter.warn(
        f"only {free / 1e9:.1f} GB are free on {device}{smaller}; if training fails, {remedy}"
    )
    return replace(training, batch=batch)
