"""The jobs a user asks for: transfer, train, render, extract. Each is one scroll of plain steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from torch import Tensor

from vidsynth import (
    devices,
    drawing,
    options,
    pictures,
    retarget,
    stages,
    stream,
    video,
)
from vidsynth.choosing import Settings, choose_recipe, nested, resolved, resolved_plugins
from vidsynth.clipmodels import fit_clips, learns_from_clips, recipe_for
from vidsynth.conditioning import Conditioning
from vidsynth.editing import own_motion
from vidsynth.errors import BadOption
from vidsynth.files import cache_folder, cache_key, check_free, writing
from vidsynth.filming import Sound, Studio, Wanted, film
from vidsynth.fitting import fit
from vidsynth.given import as_given, in_colours, maps_as_source
from vidsynth.kinds import Given
from vidsynth.outputs import check_outputs, refuse_inputs, write_settings
from vidsynth.provenance import about, consent_in
from vidsynth.report import Reporter
from vidsynth.steady import STEADINESS
from vidsynth.stream import Chunk, StageReport
from vidsynth.subject import PluginRef, Subject, load_subject, with_consent
from vidsynth.tracking import Tracked, track_as

Audio = Literal["source", "target", "none"]


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
    preset: str | None = None,
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
    steadiness: float = STEADINESS,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    consent: str | Path | None = None,
    fps: float | None = None,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Rendered:
    """Make the person in `target` move like the one in `source`, and write the video.

    Args:
        source: the video that drives.
        target: the video of the person that is driven.
        output: the file to write, with the source's timing.
        recipe: a recipe's name or file; by default dance or face, as the target asks.
        preset: "draft", "standard" (the default) or "studio": size and time of training.
        generator: a generator plugin instead of the recipe's.
        size: shorter side of the output in pixels.
        budget: seconds to train, earlier training of the same subject included.
        steps: training steps, instead of a time.
        subject: folder to keep the trained target in; by default in vidsynth's cache.
        audio: whose sound the result carries.
        start, end: seconds; the part of the source to use.
        person: which person to follow in both videos, 1 being the largest. Where the numbers
            differ, call `train` and `render`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: of everything random.
        side_by_side: show the source at the left.
        steadiness: 0 for the generator's own frames, up to 1 for less flicker and calmer motion.
        codec: "h264" or another that the container takes.
        overwrite: replace an output that exists.
        provenance: write into the output that it is synthetic, and from what (vidsynth.provenance).
        certificate: PEM file to sign that with, instead of one made for this machine.
        consent: what the person in `target` agreed to, as words or a text file of them; it is
            kept in the subject, and told by every film of it.
        fps: frames per second of videos that are folders of pictures, by default 25.
        settings: changes to the recipe, nested or as "generator.filters=48" strings.
        reporter: told of progress.

    Raises:
        VidsynthError: see vidsynth.errors; nothing the user made is lost.
    """
    source, target, output = Path(source), Path(target), Path(output)
    reporter = reporter or Reporter()
    check_outputs(output, codec, overwrite, inputs=(source, target))
    agreed = consent_in(consent)
    for path in (source, target):
        video.probe(path)
    rate = pictures.rate_of(fps, (source, target), reporter)
    if source.resolve() == target.resolve():
        raise BadOption(
            f"source and target are both {source}: there is nothing to transfer; give two videos "
            "(to see how well a subject is reproduced, use vidsynth train and vidsynth render)"
        )
    chosen = choose_recipe(
        recipe, preset, generator, size, person, settings, target, device, reporter
    )
    extractor, _ = resolved_plugins(chosen)
    devices.choose(device)
    # What is wrong with the source is said now, not after the training; the tracking is kept.
    track_as(source, extractor, start=start, end=end, fps=rate, reporter=reporter)
    if subject is None:
        name = cache_key(video.content_hash(target), chosen.to_dict(), seed)
        subject = cache_folder("subjects") / name
    trained = fit(
        target,
        Path(subject),
        chosen,
        budget,
        steps,
        fps=rate,
        device=device,
        seed=seed,
        reporter=reporter,
    )
    return render(
        with_consent(trained, agreed),
        source,
        output,
        audio=audio,
        target=target,
        start=start,
        end=end,
        person=extractor.options.get("person"),
        device=device,
        seed=seed,
        side_by_side=side_by_side,
        steadiness=steadiness,
        codec=codec,
        overwrite=overwrite,
        provenance=provenance,
        certificate=certificate,
        fps=float(rate) if rate and source.is_dir() else None,
        settings={"retarget": chosen.retarget},
        reporter=reporter,
    )


def train(
    target: str | Path,
    output: str | Path,
    *,
    labels: str | Path | None = None,
    instances: str | Path | None = None,
    recipe: str | None = None,
    preset: str | None = None,
    generator: str | None = None,
    size: int | None = None,
    budget: float | None = None,
    steps: int | None = None,
    person: int | None = None,
    device: str = "auto",
    seed: int = 0,
    consent: str | Path | None = None,
    fps: float | None = None,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Subject:
    """Learn the person in `target` into the subject folder `output`; arguments as `transfer`.

    Or learn to make clips: from a folder that has one folder of clips for each class, a .csv of
    paths and classes, or "world:shapes"; with the recipe dvdgan, which is then the default.

    A folder that holds the same target with the same settings is gone on with.

    Args:
        target: the video, a folder of pictures, or many clips by class.
        output: the folder.
        labels: a label map of each frame, as a folder of pictures or a video; with the recipe
            street, which is then the default, the scene is learnt from them.
        instances: instance maps that go with them.
    """
    reporter = reporter or Reporter()
    target = Path(target)
    given, agreed = as_given(labels, instances), consent_in(consent)
    by_class = learns_from_clips(recipe, target)
    if by_class and (given or fps or person):
        raise BadOption(
            "--labels, --instances, --fps and --person are for a target's video; clips by class "
            "take -s clips.fps=12"
        )
    if recipe is None and (by_class or given is not None):
        recipe = recipe_for(target) if by_class else "street"
    if not by_class:
        video.probe(target)
    rate = pictures.rate_of(fps, () if by_class else (target,), reporter)
    chosen = choose_recipe(
        recipe, preset, generator, size, person, settings, target, device, reporter
    )
    if by_class:
        trained = fit_clips(
            target, Path(output), chosen, budget, steps, device=device, seed=seed, reporter=reporter
        )
        return with_consent(trained, agreed)
    trained = fit(
        target,
        Path(output),
        chosen,
        budget,
        steps,
        given=given,
        fps=rate,
        device=device,
        seed=seed,
        reporter=reporter,
    )
    return with_consent(trained, agreed)


def render(
    subject: Subject | str | Path,
    source: str | Path,
    output: str | Path,
    *,
    instances: str | Path | None = None,
    audio: Audio = "source",
    target: str | Path | None = None,
    start: float | None = None,
    end: float | None = None,
    person: int | None = None,
    device: str = "auto",
    seed: int = 0,
    side_by_side: bool = False,
    steadiness: float = STEADINESS,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    fps: float | None = None,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> Rendered:
    """Drive a trained subject with `source` and write the video; arguments as `transfer`.

    A subject that was trained on label maps is driven by label maps: `source` is a folder of them
    or a label video, and `instances` the instance maps that go with them. A folder has the
    subject's own frame rate unless `fps` says otherwise. `target` is only needed for
    `audio="target"`: the video whose sound is wanted.
    """
    reporter = reporter or Reporter()
    source, output = Path(source), Path(output)
    inputs = (source,) if target is None else (source, Path(target))
    check_outputs(output, codec, overwrite, inputs=inputs)
    video.probe(source)
    if not 0 <= steadiness <= 1:
        raise BadOption(f"steadiness must be between 0 and 1; got {steadiness:g}")
    if audio == "target" and target is None:
        raise BadOption("--audio target needs the target's video; name it with --target")
    if target is not None:
        video.probe(target)
    if not isinstance(subject, Subject):
        subject = load_subject(subject)
    card = subject.card
    # Opened first: what is wrong with the subject is said before any work.
    studio = Studio.of(subject, devices.choose(device))

    # Track the source, and fit its motion to the target.
    rate = pictures.rate_of(fps, (source,), reporter, default=Fraction(card.fps))
    extractor = subject.extractor()
    if extractor.reads_files:
        given = Given(source, None if instances is None else Path(instances))
        tracked = maps_as_source(
            given,
            extractor,
            size=min(card.height, card.width),
            fps=rate,
            start=start,
            end=end,
            reporter=reporter,
        )
    elif instances is not None:
        raise BadOption(
            "--instances go with label maps, and this subject is driven by videos; leave them out"
        )
    else:
        follow = _following(card.extractor, person)
        tracked = track_as(source, follow, start=start, end=end, fps=rate, reporter=reporter)
    wanted = options.merge({"retarget": card.settings.get("retarget", {})}, nested(settings))
    rest = None
    if target is not None and wanted["retarget"].get("mode", "full") != "full":
        rest = own_motion(subject, Path(target), reporter).signal
    retargeted = retarget.retarget(tracked.signal, card.summary, wanted["retarget"], rest=rest)
    sentence = retargeted.report.sentence(tracked.pts)
    if sentence:
        reporter.warn(sentence)

    # Render, streaming.
    sound = {
        "source": None if source.is_dir() else Sound(path=source, start=start or 0.0, end=end),
        "target": target and Sound(path=Path(target)),
        "none": None,
    }[audio]
    beside = None
    if side_by_side and extractor.reads_files:
        beside = in_colours(tracked, (card.height, card.width), chunk=stages.CHUNK)
    elif side_by_side:
        shown = video.read_chunks(source, chunk=stages.CHUNK, start=start, end=end, fps=rate)
        beside = stages.clips_of(shown)
    inputs = [video.content_hash(path) for path in (source, instances) if path is not None]
    reports = film(
        studio,
        retargeted.sequence,
        tracked.pts,
        Wanted(
            output=output,
            seed=seed,
            steadiness=steadiness,
            codec=codec,
            overwrite=overwrite,
            told=about(card, source) if provenance else None,
            certificate=certificate,
            sound=sound or None,
            start=start or 0.0,
        ),
        follows_from=[inputs, start, end, rate, person, wanted],
        beside=beside,
        reporter=reporter,
    )
    write_settings(output, card, source, wanted, steadiness)
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
    fps: float | None = None,
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
        start, end, person, overwrite, fps, reporter: as in `transfer`.
    """
    path, output = Path(path), Path(output)
    reporter = reporter or Reporter()
    rate = pictures.rate_of(fps, (path,), reporter)
    refuse_inputs(output, [path])
    check_free(output, overwrite)
    if preview:
        refuse_inputs(Path(preview), [path, output])
        video.check_output(preview, overwrite)
    values = dict(nested(settings).get("extractor", {}))
    if person is not None:
        values["person"] = person
    ref = resolved("extractor", extractor, values)
    tracked = track_as(path, ref, start=start, end=end, fps=rate, reporter=reporter)
    with writing(output) as temporary:
        tracked.signal.save(temporary, pts=str(tracked.pts.tolist()))
    reporter.say(f"wrote {output}: {len(tracked.pts)} frames")
    if preview:
        _write_preview(tracked, Path(preview), start, end, rate, overwrite, reporter)
    return tracked.signal


def _following(ref: PluginRef, person: int | None) -> PluginRef:
    """The extractor for a source: whom it followed in the target does not matter there."""
    if person is None and "person" not in ref.options:
        return ref
    return replace(ref, options={**ref.options, "person": person})


def _write_preview(
    tracked: Tracked,
    output: Path,
    start: float | None,
    end: float | None,
    fps: Fraction | None,
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
            video.read_chunks(tracked.path, size=size, start=start, end=end, fps=fps),
            [stages.conditioning_on(tracked.signal), stages.named("overlay", overlaid)],
            lambda chunks: video.write_video(
                output, chunks, fps=stages.average_rate(tracked.pts), overwrite=overwrite
            ),
            progress=step.update,
        )
    reporter.say(f"wrote {output}")
