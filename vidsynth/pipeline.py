"""Pipelines beyond the main job: extractors, subjects, generators and other stages in a row.

Written in TOML (`vidsynth run`), where each `[[stages]]` names one stage and sets its options,

    [[stages]]
    extract = "pose"        # an extractor plugin
    [[stages]]
    subject = "dancer/"     # a trained subject, driven
    [[stages]]
    stage = "colour_match"  # a stage plugin
    strength = 0.8

or in Python, where a function from chunks to chunks is a stage too:

    run("in.mp4", [extract("pose"), subject("dancer/"), custom(mirror)], "out.mp4")

A chain is checked before any video is opened: what a stage needs must have been given before it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from vidsynth import devices, loading, options, retarget, stages, stream, video
from vidsynth.choosing import Kinds, Need, meets, offering
from vidsynth.clip import VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, IncompatibleStages, OutputExists, UnknownName
from vidsynth.filming import Studio
from vidsynth.kinds import Conditions, Generator, words_for
from vidsynth.report import Reporter
from vidsynth.steady import STEADINESS, rest_seconds
from vidsynth.stream import Chunk, Stage, StageReport
from vidsynth.subject import Subject, load_subject
from vidsynth.tracking import wanted_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known when a pipeline begins to run."""

    device: torch.device
    seed: int
    fps: Fraction
    """Of the source, on average."""
    reporter: Reporter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """One stage of a pipeline, and what can be known of it before a video is opened."""

    name: str
    make: Callable[[Setting, Kinds], Stage]
    """Builds it; told the kinds of signal that the chunks will carry."""
    needs: tuple[Need, ...] = ()
    """What chunks must carry."""
    gives: Kinds = ()
    """Signals that they carry afterwards, beside those before."""
    paints: bool = False
    """A generator is at work, which takes every core there is."""


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """What `run` gives back."""

    path: Path
    num_frames: int
    stages: tuple[StageReport, ...]
    """How fast each stage was."""


# Stages


def extract(name: str, **values: Any) -> Link:
    """What the extractor plugin `name` sees, as a signal.

    Raises UnknownName, BadOption, PluginError.
    """
    plugin: Any = loading.load("extractor", name)
    built = plugin(options.build(plugin.Options, values, where=name))
    return Link(
        name=f"extract {name!r}",
        make=lambda *_: stages.extracting(built),
        gives=(built.produces,),
    )


def stage(name: str, **values: Any) -> Link:
    """The stage plugin `name`. Raises UnknownName, BadOption, PluginError."""
    plugin: Any = loading.load("stage", name)
    built = plugin(options.build(plugin.Options, values, where=name))
    return Link(
        name=f"stage {name!r}",
        make=lambda *_: stages.processing(built),
        needs=plugin.needs,
        gives=plugin.gives,
    )


def custom(
    function: Stage,
    *,
    name: str | None = None,
    needs: tuple[Need, ...] = (),
    gives: Kinds = (),
) -> Link:
    """A function from an iterator of chunks to an iterator of chunks, as a stage.

    It keeps to what `kinds.StagePlugin.process` promises.
    """
    called = name or getattr(function, "__name__", "custom")
    return Link(name=called, make=lambda *_: function, needs=needs, gives=gives)


def subject(folder: str | Path | Subject, *, steadiness: float = STEADINESS) -> Link:
    """A trained subject, driven by the signal that it was trained on.

    Its motion is fitted to the target's as in `vidsynth render`, which looks at the whole source
    before the first frame is made: of it the signals are kept, and no pictures.

    Raises BadSubject, PluginError, BadOption.
    """
    trained = folder if isinstance(folder, Subject) else load_subject(folder)
    if not 0 <= steadiness <= 1:
        raise BadOption(f"steadiness must be between 0 and 1; got {steadiness:g}")
    kinds = trained.conditions().kinds
    return Link(
        name=f"subject {trained.folder.name!r}",
        make=lambda setting, _: _driven(trained, kinds[0], setting, steadiness),
        needs=kinds,
        gives=kinds,
        paints=True,
    )


def generate(name: str, **values: Any) -> Link:
    """A generator plugin that brings its own weights, conditioned on every signal that it takes.

    Raises:
        IncompatibleStages: it has to be trained first.
        UnknownName, BadOption, PluginError: as of plugins.
    """
    plugin: Any = loading.load("generator", name)
    if not plugin.pretrained:
        raise IncompatibleStages(
            f"the generator {name!r} paints with the weights of a subject; train one with "
            "vidsynth train and name its folder: subject = FOLDER"
        )
    built = options.build(plugin.Options, values, where=name)
    return Link(
        name=f"generate {name!r}",
        make=lambda setting, carried: _generating(plugin, built, carried, setting),
        needs=(plugin.accepts,),
        paints=True,
    )


def _driven(
    trained: Subject, kind: type[Conditioning], setting: Setting, steadiness: float
) -> Stage:
    card = trained.card
    studio = Studio.of(trained, setting.device)

    def driven(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        held = [chunk.with_clip(None) for chunk in chunks]
        if not held:
            return
        source = kind.concat([chunk.require(kind) for chunk in held])
        if (channels := source[:1].draw(16, 16).shape[1]) != card.channels:
            raise IncompatibleStages(
                f"{trained.folder} was trained on {kind.kind!r} of {card.channels} channels, and "
                f"the extractor gives {channels}; set its options as for the subject: "
                f"{dict(card.extractor.options)}"
            )
        pts = torch.cat([chunk.pts for chunk in held])
        fitted = retarget.retarget(source, card.summary, card.settings.get("retarget", {}))
        if sentence := fitted.report.sentence(pts):
            setting.reporter.warn(sentence)
        motion = fitted.sequence.steadied(pts, rest_seconds(steadiness))
        line = studio.painting(motion, seed=setting.seed, steadiness=steadiness)
        # The generator saw its window; what follows sees the whole frame.
        made = iter(held)
        for part in [*line, stages.conditioning_on(motion)]:
            made = part(made)
        yield from made

    return driven


def _generating(plugin: type[Generator], values: object, carried: Kinds, setting: Setting) -> Stage:
    kinds = tuple(kind for kind in carried if plugin.takes(kind))

    def generating(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        first = next(chunks, None)
        if first is None:
            return
        assert first.clip is not None, "a pipeline begins with pictures"
        spec = VideoSpec(height=first.clip.height, width=first.clip.width, fps=setting.fps)
        channels = sum(first.require(kind)[:1].draw(16, 16).shape[1] for kind in kinds)
        generator = plugin(values, conditions=Conditions(kinds=kinds, channels=channels))
        line = stages.generating(generator, spec, seed=setting.seed, device=setting.device)
        yield from line(_after(first, chunks))

    return generating


def _after(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


# Chains


def check(links: Sequence[Link]) -> list[Kinds]:
    """The kinds of signal that reach each stage.

    Raises:
        IncompatibleStages: a stage needs one that no stage before it gives; the message says
            which plugins do.
        BadOption: there is no stage.
    """
    if not links:
        raise BadOption("a pipeline needs at least one stage; write one under [[stages]]")
    carried: Kinds = ()
    reaching = []
    for number, link in enumerate(links, 1):
        for need in link.needs:
            if not meets(carried, need):
                raise IncompatibleStages(_lack(number, link, need, carried))
        reaching.append(carried)
        carried = tuple(dict.fromkeys((*carried, *link.gives)))
    return reaching


def _lack(number: int, link: Link, need: Need, carried: Kinds) -> str:
    """What is missing, and which plugins offer it."""
    offers = [f"{key} = {name!r} (of {package})" for key, name, package in offering(need)]
    remedy = f"put before it {' or '.join(offers)}" if offers else "no installed plugin gives it"
    return (
        f"stage {number} ({link.name}) needs the signal "
        f"{_words(need)}, and what comes before it gives: {words_for(carried)}; {remedy}"
    )


def _words(need: Need) -> str:
    if isinstance(need, tuple):
        return " or ".join(map(_words, need))
    return "whatever can be drawn" if need is Conditioning else repr(need.kind)


_STAGES: Mapping[str, Callable[..., Link]] = {
    "extract": extract,
    "subject": subject,
    "generate": generate,
    "stage": stage,
}


def load(path: str | Path) -> list[Link]:
    """The stages that a pipeline file names, checked.

    Raises:
        BadOption: the file cannot be read, or is written wrongly.
        IncompatibleStages: as of `check`.
        UnknownName, PluginError, BadSubject: as of its parts.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOption(f"{path} is no pipeline file: {error}; correct it there") from error
    for key in values:
        if key not in ("stages", "summary"):
            raise UnknownName.among(f"section of {path}", key, ("stages", "summary"))
    written = values.get("stages", [])
    if not isinstance(written, list) or not all(isinstance(s, dict) for s in written):
        raise BadOption(f"{path}: stages are written [[stages]], one for each; correct it there")
    links = [_link(path, number, section) for number, section in enumerate(written, 1)]
    check(links)
    return links


def _link(path: Path, number: int, section: Mapping[str, Any]) -> Link:
    named = [key for key in section if key in _STAGES]
    if len(named) != 1 or not isinstance(section[named[0]], str):
        raise BadOption(
            f"{path}: stage {number} must say what it is by one of {', '.join(_STAGES)}, like "
            f'extract = "pose"; it has: {", ".join(section) or "nothing"}'
        )
    values = {key: value for key, value in section.items() if key != named[0]}
    if named[0] == "subject":
        for key in values:
            if key != "steadiness":
                raise UnknownName.among(f"option of stage {number} (subject)", key, ["steadiness"])
    return _STAGES[named[0]](section[named[0]], **values)


def run(
    source: str | Path,
    links: Sequence[Link] | str | Path,
    output: str | Path,
    *,
    audio: Literal["source", "none"] = "source",
    start: float | None = None,
    end: float | None = None,
    device: str = "auto",
    seed: int = 0,
    codec: str = "h264",
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Ran:
    """Put a video through a pipeline and write what comes out, at the source's times.

    Args:
        source: the video, or a folder of pictures.
        links: the stages, or the pipeline file that names them.
        output: the file to write.
        audio: "source" takes the source's sound along.
        start, end: seconds; the part of the source to use.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: of everything random.
        codec: "h264" or another that the container takes.
        overwrite: replace an output that exists.
        reporter: told of progress.

    Raises:
        IncompatibleStages: the stages do not fit together, found out before the video is opened.
        VidsynthError: see vidsynth.errors; nothing the user made is lost.
    """
    source, output = Path(source), Path(output)
    reporter = reporter or Reporter()
    links = load(links) if isinstance(links, str | Path) else links
    reaching = check(links)
    video.check_codec(codec)
    if source.resolve() == output.resolve():
        raise OutputExists(f"{output} is the video to read; name another output")
    video.check_output(output, overwrite)
    where = devices.choose(device)
    info = video.probe(source)
    setting = Setting(device=where, seed=seed, fps=info.spec.fps, reporter=reporter)
    line = [
        stages.named(link.name, partial(link.make(setting, carried)))  # methods take no names
        for link, carried in zip(links, reaching, strict=True)
    ]
    sound = source if audio == "source" and not source.is_dir() else None

    def write(chunks: Iterator[Chunk]) -> None:
        video.write_video(
            output,
            chunks,
            fps=info.spec.fps,
            start=start or 0.0,
            audio=sound,
            audio_start=start or 0.0,
            audio_end=end,
            codec=codec,
            overwrite=overwrite,
            device=where,
        )

    total = wanted_frames(info, start, end)
    with reporter.step(f"running {len(links)} stages", total=total) as step:
        chunks = video.read_chunks(
            source, chunk=stages.CHUNK, start=start, end=end, note=reporter.warn
        )
        paints = any(link.paints for link in links)
        ahead = devices.prefetch_beside(where) if paints else stream.AHEAD
        reports = stream.run(chunks, line, write, prefetch=ahead, progress=step.update)
    reporter.say(f"wrote {output}: {reports[-1].frames} frames")
    return Ran(output, reports[-1].frames, tuple(reports))
