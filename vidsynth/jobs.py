"""The jobs a user asks for: transfer, train, render, extract. Each is one scroll of plain steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import (
    __version__,
    devices,
    drawing,
    options,
    registry,
    retarget,
    stages,
    stream,
    video,
)
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.dataset import Footage, Tracked, prepare, track
from vidsynth.errors import BadOption, BadSubject, NoSubjectFound
from vidsynth.evaluate import Scores, score
from vidsynth.files import cache_folder, cache_key, writing
from vidsynth.kinds import Conditions, Generator
from vidsynth.processes import Processes
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.stream import Chunk, StageReport
from vidsynth.subject import (
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
)
from vidsynth.training import Budget, Run, TrainOptions, activation_bytes
from vidsynth.training import train as train_loop

Settings = Mapping[str, Any] | Sequence[str]
Audio = Literal["source", "target", "none"]

CHUNK = 8
"""Frames per chunk: enough to batch a generator, few enough to keep every stage busy."""
SCORED_FRAMES = 32
FACE_SHARE = 0.2
"""A face at least this share of the picture's height makes it a face video."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """What `transfer` and `render` give back."""

    path: Path
    subject: Subject
    num_frames: int
    outside: Tensor
    """(T,) bool: frames that ask for something the target never showed."""
    stages: tuple[StageReport, ...]
    """How fast each stage was."""


def transfer(
    source: str | Path,
    target: str | Path,
    output: str | Path,
    *,
    recipe: str | None = None,
    generator: str | None = None,
    size: int | None = None,
    budget: float | None = None,
    steps: int | None = None,
    subject: str | Path | None = None,
    audio: Audio = "source",
    start: float | None = None,
    end: float | None = None,
    person: int | None = None,
    device: str = "auto",
    seed: int = 0,
    side_by_side: bool = False,
    codec: str = "h264",
    overwrite: bool = False,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Rendered:
    """Make the person in `target` move like the one in `source`, and write the video.

    Args:
        source: the video that drives.
        target: the video of the person that is driven.
        output: the file to write, with the source's timing.
        recipe: a recipe's name or file; by default dance or face, as the target asks.
        generator: a generator plugin instead of the recipe's.
        size: shorter side of the output in pixels.
        budget: seconds to train, earlier training of the same subject included.
        steps: training steps, instead of a time.
        subject: folder to keep the trained target in; by default in vidsynth's cache.
        audio: whose sound the result carries.
        start, end: seconds; the part of the source to use.
        person: which person to follow in both videos, 1 being the largest.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: of everything random.
        side_by_side: show the source at the left.
        codec: "h264" or another that the container takes.
        overwrite: replace an output that exists.
        settings: changes to the recipe, nested or as "generator.filters=48" strings.
        reporter: told of progress.

    Raises:
        VidsynthError: see vidsynth.errors; nothing the user made is lost.
    """
    source, target, output = Path(source), Path(target), Path(output)
    reporter = reporter or Reporter()
    _check_outputs(output, overwrite)
    for path in (source, target):
        video.probe(path)
    if source.resolve() == target.resolve():
        raise BadOption(
            f"source and target are both {source}: there is nothing to transfer; give two videos "
            "(to see how well a subject is reproduced, use vidsynth train and vidsynth render)"
        )
    chosen = _recipe(recipe, generator, size, person, settings, target, device, reporter)
    if subject is None:
        name = cache_key(video.content_hash(target), chosen.to_dict(), seed)
        subject = cache_folder("subjects") / name
    trained = _train(
        target, Path(subject), chosen, budget, steps, device=device, seed=seed, reporter=reporter
    )
    return render(
        trained,
        source,
        output,
        audio=audio,
        target=target,
        start=start,
        end=end,
        device=device,
        seed=seed,
        side_by_side=side_by_side,
        codec=codec,
        overwrite=overwrite,
        settings={"retarget": chosen.retarget},
        reporter=reporter,
    )


def train(
    target: str | Path,
    output: str | Path,
    *,
    recipe: str | None = None,
    generator: str | None = None,
    size: int | None = None,
    budget: float | None = None,
    steps: int | None = None,
    person: int | None = None,
    device: str = "auto",
    seed: int = 0,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Subject:
    """Learn the person in `target` into the subject folder `output`; arguments as `transfer`.

    A folder that holds the same target with the same settings is gone on with.
    """
    reporter = reporter or Reporter()
    target = Path(target)
    video.probe(target)
    chosen = _recipe(recipe, generator, size, person, settings, target, device, reporter)
    return _train(
        target, Path(output), chosen, budget, steps, device=device, seed=seed, reporter=reporter
    )


def render(
    subject: Subject | str | Path,
    source: str | Path,
    output: str | Path,
    *,
    audio: Audio = "source",
    target: str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    person: int | None = None,
    device: str = "auto",
    seed: int = 0,
    side_by_side: bool = False,
    codec: str = "h264",
    overwrite: bool = False,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Rendered:
    """Drive a trained subject with `source` and write the video; arguments as `transfer`.

    `target` is only needed for `audio="target"`: the video whose sound is wanted.
    """
    reporter = reporter or Reporter()
    source, output = Path(source), Path(output)
    _check_outputs(output, overwrite)
    video.probe(source)
    if not isinstance(subject, Subject):
        subject = load_subject(subject)
    card = subject.card
    where = devices.choose(device)
    if person is not None:
        card = replace(card, extractor=_following(card.extractor, person))

    # Track the source, and fit its motion to the target.
    extractor = build_extractor(card.extractor)
    identity = options.to_dict(card.extractor)
    tracked = track(source, extractor, identity=identity, start=start, end=end, reporter=reporter)
    tracked.require_subject()
    wanted = options.merge({"retarget": card.settings.get("retarget", {})}, _nested(settings))
    retargeted = retarget.retarget(tracked.signal, card.summary, wanted["retarget"])
    sentence = retargeted.report.sentence(tracked.pts)
    if sentence:
        reporter.warn(sentence)

    # Render, streaming.
    plate = subject.plate()
    line = rendering(
        retargeted.sequence, subject.generator(where), card, plate, device=where, seed=seed
    )
    if side_by_side:
        clips = _clips(video.read_chunks(source, chunk=CHUNK, start=start, end=end))
        line.append(stages.beside(clips, height=card.height))
    written: list[video.WrittenVideo] = []

    def write(chunks: Iterator[Chunk]) -> None:
        written.append(
            video.write_video(
                output,
                chunks,
                fps=stages.average_rate(tracked.pts),
                audio={"source": source, "target": target and Path(target), "none": None}[audio],
                audio_start=start or 0.0 if audio == "source" else 0.0,
                audio_end=end if audio == "source" else None,
                codec=codec,
                overwrite=overwrite,
            )
        )

    with reporter.step("rendering", total=len(tracked.pts), unit="frames") as step:
        chunks = stages.timeline(tracked.pts, chunk=CHUNK)
        reports = stream.run(chunks, line, write, progress=step.update)
    with writing(_settings_file(output)) as temporary:
        temporary.write_text(_resolved(subject.card, source, wanted))
    for note in written[0].notes:
        reporter.say(note)
    reporter.say(f"wrote {output}: {len(tracked.pts)} frames")
    return Rendered(output, subject, len(tracked.pts), retargeted.report.outside, tuple(reports))


def extract(
    path: str | Path,
    output: str | Path,
    *,
    extractor: str = "pose",
    preview: str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    person: int | None = None,
    overwrite: bool = False,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Conditioning:
    """Track a video with an extractor plugin and write what it found to a .safetensors file.

    Args:
        path: the video.
        output: the file to write.
        extractor: name of the plugin.
        preview: also write this video, with the tracking drawn over it.
        settings: extractor options, as {"extractor": {...}} or "extractor.name=value" strings.
        start, end, person, overwrite, reporter: as in `transfer`.
    """
    path, output = Path(path), Path(output)
    reporter = reporter or Reporter()
    for wanted in filter(None, (output, preview and Path(preview))):
        video.check_output(wanted, overwrite)
    plugin = registry.load("extractor", extractor)
    values = dict(_nested(settings).get("extractor", {}))
    if person is not None:
        values["person"] = person
    built: Any = plugin(options.build(plugin.Options, values, where="extractor"))
    ref = PluginRef.of("extractor", extractor, built.options)
    identity = options.to_dict(ref)
    tracked = track(path, built, identity=identity, start=start, end=end, reporter=reporter)
    tracked.require_subject()
    with writing(output) as temporary:
        tracked.signal.save(temporary, pts=str(tracked.pts.tolist()))
    reporter.say(f"wrote {output}: {len(tracked.pts)} frames")
    if preview:
        _write_preview(tracked, Path(preview), start, end, overwrite, reporter)
    return tracked.signal


def rendering(
    motion: Conditioning,
    generator: Generator,
    card: SubjectCard,
    plate: Tensor | None,
    *,
    device: torch.device,
    seed: int = 0,
) -> list[stream.Stage]:
    """The stages that turn motion, in pixels of the output frame, into output frames."""
    x0, y0, x1, y1 = card.window
    line = [stages.conditioning_on(motion.crop(card.window))]
    if plate is not None:
        line.append(stages.over_plate(plate[:, y0:y1, x0:x1]))
    line.append(stages.generating(generator, card.window_spec, seed=seed, device=device))
    if plate is not None:
        line.append(stages.compositing(plate, card.window))
    return line


def _train(
    target: Path,
    folder: Path,
    recipe: Recipe,
    budget: float | None,
    steps: int | None,
    *,
    device: str,
    seed: int,
    reporter: Reporter,
) -> Subject:
    """Train `folder` until it has had the budget; a subject that has had it is returned at once."""
    training = options.build(TrainOptions, recipe.training, where="training")
    if budget is not None and steps is not None:
        raise BadOption("--budget and --steps exclude each other; give one")
    if budget is None and steps is None:
        budget = training.minutes * 60
    limit = Budget(seconds=budget, steps=steps)
    where = devices.choose(device)
    processes = Processes(where)
    where = processes.device or where
    content = video.content_hash(target)
    existing = _existing(folder, content, recipe)
    if existing and not limit.allows(Run(step=existing.card.steps, seconds=existing.card.seconds)):
        reporter.say(f"{folder} is trained already: {existing.card.steps} steps")
        return existing

    # Track and prepare; the first process fills the cache for the others.
    extractor_ref, generator_ref = _plugins(recipe)
    extractor = build_extractor(extractor_ref)
    if not processes.is_main:
        processes.wait()
    identity = options.to_dict(extractor_ref)
    tracked = track(target, extractor, identity=identity, reporter=reporter)
    conditions = Conditions(
        kinds=(extractor.produces,), channels=_channels(tracked.signal), background=False
    )
    wants_plate = bool(generator_ref.options.get("background", False))
    footage = prepare(
        tracked, conditions, size=recipe.size, background=wants_plate, reporter=reporter
    )
    if processes.is_main:
        processes.wait()
    conditions = replace(conditions, background=footage.plate is not None)
    card = _card(recipe, extractor_ref, generator_ref, conditions, footage, target, content)
    if processes.is_main:
        if footage.plate is not None:
            save_plate(folder, footage.plate)
        save_card(folder, card)

    # Train.
    torch.manual_seed(seed)
    painter = build_generator(generator_ref, conditions)
    objective = painter.objective(footage.window_spec)
    reporter.say(_estimate(objective, footage, training))

    def keep(weights: Mapping[str, Tensor], run: Run) -> None:
        save_weights(folder, weights)
        save_card(
            folder, replace(card, steps=run.step, seconds=run.seconds, scores=tuple(run.scores))
        )

    run = train_loop(
        objective,
        footage,
        folder / TRAINING,
        budget=limit,
        options=training,
        score=_scorer(painter, footage, card, folder / TRAINING / "preview.png", where),
        keep=keep,
        device=where,
        seed=seed,
        processes=processes,
        reporter=reporter,
    )
    return Subject(
        folder, replace(card, steps=run.step, seconds=run.seconds, scores=tuple(run.scores))
    )


def _existing(folder: Path, content: str, recipe: Recipe) -> Subject | None:
    """The subject already in `folder`, or None for a new one.

    Raises BadSubject when it is another target's or was made with other settings.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return None
    subject = load_subject(folder)
    if subject.card.target_hash != content:
        raise BadSubject(
            f"{folder} holds a subject trained on another video ({subject.card.target}); choose "
            "another folder"
        )
    extractor, generator = _plugins(recipe)
    for part, wanted in (("extractor", extractor), ("generator", generator)):
        found = getattr(subject.card, part)
        if (found.name, dict(found.options)) != (wanted.name, dict(wanted.options)):
            differing = sorted(
                k for k in wanted.options if found.options.get(k) != wanted.options[k]
            )
            raise BadSubject(
                f"{folder} was made with another {part} or other options of it "
                f"({', '.join(differing) or found.name}); choose another folder, or the settings "
                "it was made with"
            )
    if subject.card.settings.get("size") != recipe.size:
        raise BadSubject(
            f"{folder} was made at size {subject.card.settings.get('size')}, not {recipe.size}; "
            "choose another folder or that size"
        )
    return subject


def _card(
    recipe: Recipe,
    extractor: PluginRef,
    generator: PluginRef,
    conditions: Conditions,
    footage: Footage,
    target: Path,
    content: str,
) -> SubjectCard:
    return SubjectCard(
        recipe=recipe.name,
        extractor=extractor,
        generator=generator,
        channels=conditions.channels,
        background=conditions.background,
        height=footage.spec.height,
        width=footage.spec.width,
        fps=str(footage.spec.fps),
        window=footage.window,
        summary=retarget.summarise(footage.signal[footage.training.nonzero()[:, 0]]),
        settings={
            "size": recipe.size,
            "training": dict(recipe.training),
            "retarget": dict(recipe.retarget),
        },
        target=target.name,
        target_hash=content,
        crop=footage.crop,
    )


def _scorer(
    painter: Generator, footage: Footage, card: SubjectCard, preview: Path, device: torch.device
) -> Callable[[Mapping[str, Tensor], Run], Scores]:
    """Judges weights by rendering held-out frames the way a user's render does."""
    begin = footage.held_out.start
    index = torch.arange(begin, min(begin + SCORED_FRAMES, footage.held_out.stop))
    motion, real = footage.signal[index], footage.pictures[index]

    def judge(weights: Mapping[str, Tensor], run: Run) -> Scores:
        painter.load_weights(weights)
        line = rendering(motion, painter, card, footage.plate, device=device)
        made: list[Clip] = []
        chunks = stages.timeline(footage.pts[index], chunk=CHUNK)
        stream.run(chunks, line, lambda cs: made.extend(_clips(cs)), prefetch=0)
        frames = Clip.concat(made).frames
        _write_grid(preview, real, motion, frames)
        return score(frames, real)

    return judge


def _write_grid(path: Path, real: Tensor, motion: Conditioning, made: Tensor) -> None:
    """A PNG of six held-out moments: real above, what drives in the middle, made below."""
    index = torch.linspace(0, len(real) - 1, min(6, len(real))).long()
    maps = motion[index].draw(*real.shape[2:])[:, :3]
    rows = [torch.cat(list(part), dim=2) for part in (real[index], maps, made[index])]
    picture = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()[:, :, ::-1]
    with writing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture))[1].tobytes())


def _recipe(
    name: str | None,
    generator: str | None,
    size: int | None,
    person: int | None,
    settings: Settings,
    target: Path,
    device: str,
    reporter: Reporter,
) -> Recipe:
    """The recipe asked for, or the one that the target asks for, with the user's changes."""
    if name is None:
        name = _suitable_recipe(target)
        reporter.say(f"{target.name}: using the {name} recipe (--recipe chooses another)")
    recipe = load_recipe(name)
    changes = _nested(settings)
    if generator is not None:
        changes = options.merge(changes, {"generator": {"plugin": generator}})
    if person is not None:
        changes = options.merge(changes, {"extractor": {"person": person}})
    if size is not None:
        changes = options.merge(changes, {"size": size})
    return recipe.with_overrides(changes)


def _suitable_recipe(target: Path) -> str:
    """ "face" for a close-up, "dance" for a body, from a dozen frames spread over the video."""
    seconds = video.probe(target).seconds or 0.0
    clip = video.read_frames_at(target, [seconds * (i + 0.5) / 12 for i in range(12)] + [0.0])

    def seen_by(name: str) -> Conditioning:
        plugin: Any = registry.load("extractor", name)
        return plugin().extract(iter([clip])).__next__()

    face = seen_by("face")
    if (share := face.present().float().mean()) >= 0.5:
        boxes = face.regions()["face"][face.present()]
        if float((boxes[:, 3] - boxes[:, 1]).median()) >= FACE_SHARE * clip.height:
            return "face"
    if seen_by("pose").present().float().mean() >= 0.25:
        return "dance"
    if share > 0:
        return "face"
    raise NoSubjectFound(
        f"{target}: neither a face nor a body was found in {len(clip)} frames spread over it; "
        "choose with --recipe dance or --recipe face if there is one all the same"
    )


def _plugins(recipe: Recipe) -> tuple[PluginRef, PluginRef]:
    """The recipe's extractor and generator with every option resolved and checked."""
    refs = []
    parts: tuple[tuple[registry.Kind, str, Mapping[str, Any]], ...] = (
        ("extractor", recipe.extractor, recipe.extractor_options),
        ("generator", recipe.generator, recipe.generator_options),
    )
    for kind, name, values in parts:
        plugin: Any = registry.load(kind, name)
        refs.append(PluginRef.of(kind, name, options.build(plugin.Options, values, where=kind)))
    return refs[0], refs[1]


def _following(ref: PluginRef, person: int) -> PluginRef:
    return replace(ref, options={**ref.options, "person": person})


def _channels(signal: Conditioning) -> int:
    return signal[:1].draw(16, 16).shape[1]


def _nested(settings: Settings) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    return options.parse_assignments(settings)


def _clips(chunks: Iterator[Chunk]) -> Iterator[Clip]:
    for chunk in chunks:
        assert chunk.clip is not None
        yield chunk.clip


def _estimate(objective: Any, footage: Footage, training: TrainOptions) -> str:
    """What training will take, before it starts."""
    parameters = sum(p.numel() for phase in objective.phases for p in phase.module.parameters())
    weights = 16 * parameters  # value, gradient and two moments, 4 bytes each
    sample = footage.batch(
        footage.starts(objective.num_frames)[:1], objective.num_frames, torch.device("cpu")
    )
    kept = activation_bytes(objective, sample) * training.batch
    spec = footage.window_spec
    return (
        f"training at {spec.width}x{spec.height} px on {int(footage.training.sum())} frames: "
        f"{parameters / 1e6:.1f} million weights, about {(weights + kept) / 1e9:.1f} GB of memory"
    )


def _check_outputs(output: Path, overwrite: bool) -> None:
    video.check_output(output, overwrite)
    video.check_output(_settings_file(output), overwrite)


def _settings_file(output: Path) -> Path:
    return output.with_name(output.name + ".toml")


def _resolved(card: SubjectCard, source: Path, settings: Mapping[str, Any]) -> str:
    """The settings that made an output, as TOML."""
    facts = {
        "vidsynth": __version__,
        "source": source.name,
        "target": card.target,
        "recipe": card.recipe,
        "steps": card.steps,
        "size": [card.width, card.height],
        "extractor": options.to_dict(card.extractor),
        "generator": options.to_dict(card.generator),
        "training": dict(card.settings.get("training", {})),
        "retarget": dict(settings.get("retarget", {})),
    }
    return options.to_toml(facts)


def _write_preview(
    tracked: Tracked,
    output: Path,
    start: float | None,
    end: float | None,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    height, width = tracked.signal.size
    size = (height // 2 * 2, width // 2 * 2)

    def overlaid(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        kind = type(tracked.signal)
        for chunk in chunks:
            assert chunk.clip is not None
            yield chunk.with_clip(drawing.overlay(chunk.clip, chunk.require(kind)))

    with reporter.step("writing the preview", total=len(tracked.pts)) as step:
        stream.run(
            video.read_chunks(tracked.path, size=size, start=start, end=end),
            [stages.conditioning_on(tracked.signal), stages.named("overlay", overlaid)],
            lambda chunks: video.write_video(
                output, chunks, fps=stages.average_rate(tracked.pts), overwrite=overwrite
            ),
            progress=step.update,
        )
    reporter.say(f"wrote {output}")
