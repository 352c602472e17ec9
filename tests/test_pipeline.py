"""Pipelines: chains are checked first, run in order, and do what their parts do alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vidsynth
from vidsynth import pipeline, registry, video
from vidsynth.classes import ClassLabel, TextEmbedding
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning, LabelMaps, PoseSequence
from vidsynth.errors import BadOption, BadSubject, IncompatibleStages, OutputExists, UnknownName
from vidsynth.kinds import Conditions, Extractor, PretrainedGenerator, StagePlugin
from vidsynth.stages import clips_of
from vidsynth.stream import Chunk
from vidsynth.testing import conformance, moving_squares, waving_person


@dataclass(frozen=True, kw_only=True)
class Options:
    """Attributes:
    threshold: brightness that counts as foreground, 0 to 255.
    """

    threshold: int = 100


class Bright(Extractor):
    """Labels bright pixels."""

    Options = Options
    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            bright = clip.frames.amax(dim=1) > self.options.threshold
            yield LabelMaps(labels=bright.to(torch.uint8), num_classes=2)


class Waving(Extractor):
    """Sees somebody wave, whatever there is."""

    Options = Options
    produces = PoseSequence

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            yield waving_person(len(clip), clip.height, clip.width)


class Stamp(PretrainedGenerator):
    """Paints the first channel of its maps in grey."""

    Options = Options
    accepts = (LabelMaps, PoseSequence)

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        for chunk in chunks:
            maps = self.conditions.draw(chunk, spec.height, spec.width)
            yield Clip(maps[:, :1].expand(-1, 3, -1, -1), chunk.pts)


class NeedsText(StagePlugin):
    """Nothing that is installed gives it what it needs."""

    Options = Options
    needs = (TextEmbedding,)

    def process(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        return chunks


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    """Those above beside our own generators and stages; no tracker that takes its time."""
    ours = [e for kind in ("generator", "stage") for e in entry_points(group=registry.group(kind))]
    here = [
        EntryPoint(name, f"{__name__}:{cls}", registry.group(kind))
        for kind, name, cls in (
            ("extractor", "bright", "Bright"),
            ("extractor", "waving", "Waving"),
            ("generator", "stamp", "Stamp"),
            ("stage", "needs_text", "NeedsText"),
        )
    ]
    judges = entry_points(group=registry.group("discriminator"))
    with registry.only([*ours, *judges, *here]):
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    clip = moving_squares(40, 48, 64)
    video.write_video(path, iter([Chunk(clip.pts, clip)]), fps=Fraction(25))
    return path


def frames_of(path: Path) -> Tensor:
    return torch.cat([clip.frames for clip in clips_of(vidsynth.read_chunks(path))])


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(text)
    return path


# Chains


def test_what_is_missing_is_named_with_the_plugin_that_gives_it_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "probe", lambda *_, **__: pytest.fail("a video was opened"))
    chain = written(tmp_path, '[[stages]]\nextract = "waving"\n[[stages]]\nstage = "cut_out"\n')
    expected = (
        r"stage 2 \(stage 'cut_out'\) needs the signal 'labels', and what comes before it gives: "
        r"pose; put before it extract = 'bright'"
    )
    with pytest.raises(IncompatibleStages, match=expected):
        pipeline.run("there_is_no_such.mp4", chain, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([("stage", "draw_over")], "needs the signal whatever can be drawn, and .* gives: nothing"),
        ([("generate", "stamp")], "needs the signal 'labels' or 'pose'"),
        ([("extract", "bright"), ("stage", "needs_text")], "'text'.*no installed plugin gives it"),
    ],
)
def test_chains_that_do_not_fit_are_refused(links: list[tuple[str, str]], message: str) -> None:
    built = [getattr(pipeline, key)(name) for key, name in links]
    with pytest.raises(IncompatibleStages, match=message):
        pipeline.check(built)


def test_signals_reach_the_stages_behind_them() -> None:
    links = [pipeline.extract("waving"), pipeline.extract("bright"), pipeline.stage("draw_over")]
    assert pipeline.check(links) == [(), (PoseSequence,), (PoseSequence, LabelMaps)]


def test_a_custom_stage_says_what_it_needs_and_gives() -> None:
    def name_it(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        return chunks

    link = pipeline.custom(name_it, needs=(LabelMaps,), gives=(ClassLabel,))
    with pytest.raises(IncompatibleStages, match=r"stage 1 \(name_it\) needs the signal 'labels'"):
        pipeline.check([link])
    assert pipeline.check([pipeline.extract("bright"), link, link])[-1] == (LabelMaps, ClassLabel)


def test_a_generator_that_must_be_trained_is_refused() -> None:
    with pytest.raises(IncompatibleStages, match=r"'pix2pixhd'.*vidsynth train.*subject = FOLDER"):
        pipeline.generate("pix2pixhd")


def test_a_generator_with_weights_of_its_own_takes_none_and_is_not_trained() -> None:
    stamp = Stamp(conditions=Conditions(kinds=(LabelMaps,), channels=2))
    with pytest.raises(BadSubject, match="weights of its own"):
        stamp.load_weights({})
    with pytest.raises(BadOption, match="vidsynth run"):
        stamp.objective(VideoSpec(height=8, width=8, fps=Fraction(25)))


@conformance(Stamp)
def test_it_conforms_without_training(check: Any) -> None:
    check()


# Files


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", BadOption, "at least one stage"),
        ("[[stage]]\nextract = 'bright'", UnknownName, "did you mean 'stages'"),
        ("stages = 3", BadOption, r"written \[\[stages\]\]"),
        ("[[stages]]\nplugin = 'bright'", BadOption, "one of extract, subject, generate, stage"),
        ("[[stages]]\nextract = 'brihgt'", UnknownName, "did you mean 'bright'"),
        ("[[stages]]\nextract = 'bright'\ntreshold = 1", UnknownName, "'threshold'"),
        ("[[stages]]\nextract = 'bright'\nthreshold = 'much'", BadOption, "bright.threshold"),
        ("[[stages]]\nsubject = 'nowhere/'", BadSubject, "no subject folder"),
        ("[[stages]\n", BadOption, "no pipeline file"),
    ],
)
def test_a_file_that_is_written_wrongly_is_refused(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline.load(written(tmp_path, text))


# Running


def test_stages_run_in_order_at_the_times_of_the_source(film: Path, tmp_path: Path) -> None:
    def inverted(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            assert chunk.clip is not None
            yield chunk.with_clip(Clip(255 - chunk.clip.frames, chunk.pts))

    links = [
        pipeline.extract("bright"),
        pipeline.extract("waving"),
        pipeline.stage("cut_out", colour=(255, 255, 255)),
        pipeline.custom(inverted),
        pipeline.stage("upscale", factor=0.5, sharpen=0.0),
    ]
    ran = pipeline.run(film, links, tmp_path / "out.mp4")
    assert [r.name for r in ran.stages][1:-1] == [link.name for link in links]
    clips = list(clips_of(vidsynth.read_chunks(ran.path)))
    assert torch.equal(
        torch.cat([c.pts for c in clips]),
        torch.cat([c.pts for c in vidsynth.read_chunks(film)]),
    )
    source, made = frames_of(film), torch.cat([c.frames for c in clips])
    assert made.shape[2:] == (24, 32) and ran.num_frames == len(source)
    # White where nothing is bright, then inverted: black. Far inside either, the codec is honest.
    dark = torch.nn.functional.max_pool2d(source.amax(1).float(), 9, 1, 4)[:, ::2, ::2] < 90
    assert float(made.amax(1)[dark].float().mean()) < 8


def test_a_file_gives_what_python_gives(film: Path, tmp_path: Path) -> None:
    text = '[[stages]]\nextract = "bright"\nthreshold = 150\n[[stages]]\ngenerate = "stamp"\n'
    pipeline.run(film, written(tmp_path, text), tmp_path / "a.mp4", end=0.5)
    links = [pipeline.extract("bright", threshold=150), pipeline.generate("stamp")]
    pipeline.run(film, links, tmp_path / "b.mp4", end=0.5)
    first, second = frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4")
    assert torch.equal(first, second)
    bright = frames_of(film)[: len(first)].amax(1) > 170
    assert float(first[:, 0][~bright].float().mean()) > 200  # class 0 is the first channel


@pytest.mark.parametrize(("cores", "paints"), [(2, True), (2, False), (8, True)])
def test_only_beside_a_generator_on_few_cores_do_stages_take_turns(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, paints: bool
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    threads = set()

    def watched(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            threads.add(threading.current_thread())
            yield chunk

    painter = [pipeline.generate("stamp")] if paints else []
    links = [pipeline.extract("bright"), pipeline.custom(watched), *painter]
    pipeline.run(film, links, tmp_path / "out.mp4", end=0.5, device="cpu")
    assert (threading.main_thread() in threads) == (paints and cores == 2)


def test_nothing_the_user_has_is_overwritten(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    for output in (out, film):
        with pytest.raises(OutputExists):
            pipeline.run(film, [pipeline.extract("bright")], output)
    assert out.read_text() == "mine"


def test_a_subject_is_driven_as_render_drives_it_and_another_stage_follows(
    film: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "squares.toml"
    recipe.write_text(
        '[extractor]\nplugin = "bright"\n'
        '[generator]\nplugin = "pix2pixhd"\nfilters = 4\ndownsamplings = 1\nblocks = 1\n'
        "d_filters = 4\nd_layers = 1\nperceptual = 0.0\nbackground = false\n"
    )
    subject = vidsynth.train(
        film, tmp_path / "subject", recipe=str(recipe), size=32, steps=2, device="cpu"
    )
    rendered = vidsynth.render(subject, film, tmp_path / "rendered.mp4", end=0.6, device="cpu")
    links = [pipeline.extract("bright"), pipeline.subject(subject)]
    pipeline.run(film, links, tmp_path / "run.mp4", end=0.6, device="cpu")
    expected = frames_of(rendered.path)
    assert torch.equal(frames_of(tmp_path / "run.mp4"), expected)

    chain = written(
        tmp_path,
        f'[[stages]]\nextract = "bright"\n[[stages]]\nsubject = "{subject.folder}"\n'
        '[[stages]]\nstage = "draw_over"\nstrength = 0.0\n[[stages]]\nstage = "upscale"\n',
    )
    pipeline.run(film, chain, tmp_path / "larger.mp4", end=0.6, device="cpu")
    height, width = expected.shape[2:]
    assert frames_of(tmp_path / "larger.mp4").shape[2:] == (2 * height, 2 * width)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (
            "exemplar",
            r"'exemplar' cannot be conditioned on 'labels'.*choose the extractor 'waving'",
        ),
        ("stamp", r"'stamp' has weights of its own.*vidsynth run"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_is_refused_before_any_work(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: str, message: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[extractor]\nplugin = "bright"\n[generator]\nplugin = "{generator}"\n')
    monkeypatch.setattr(video, "read_chunks", lambda *_, **__: pytest.fail("frames were read"))
    with pytest.raises(IncompatibleStages, match=message):
        vidsynth.train(film, tmp_path / "subject", recipe=str(recipe), device="cpu")
