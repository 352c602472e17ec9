"""Several extractors at once: their maps side by side, trained on, resumed, driven, told apart."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from vidsynth import drawing, jobs, registry, retarget, video
from vidsynth.classes import TextEmbedding
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps, PoseSequence
from vidsynth.errors import BadOption, IncompatibleStages, PluginError, UnknownName, VidsynthError
from vidsynth.kinds import Conditions, Extractor
from vidsynth.several import Several, several
from vidsynth.stream import Chunk
from vidsynth.subject import load_subject
from vidsynth.testing import sliding_labels, waving_person

RECIPE = """
size = 32
[extractor]
plugin = "several"
extractors = ["person", "bright"]
[generator]
plugin = "pix2pixhd"
filters = 4
downsamplings = 1
blocks = 1
d_filters = 4
d_scales = 1
d_layers = 1
background = false
perceptual = 0.0
[training]
batch = 1
precision = "fp32"
"""


class Person(Extractor):
    """A waving person, wherever one looks; it looks a clip ahead, as trackers may."""

    produces = PoseSequence

    def extract(self, clips: Iterator[Clip]) -> Iterator[PoseSequence]:
        held = None
        for clip in clips:
            if held is not None:
                yield waving_person(len(held), held.height, held.width)
            held = clip
        if held is not None:
            yield waving_person(len(held), held.height, held.width)


class Bright(Extractor):
    """Where the picture is bright: label 1."""

    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        for clip in clips:
            yield LabelMaps(labels=(clip.frames[:, 0] > 160).to(torch.uint8), num_classes=2)


def both(num_frames: int, size: int = 32) -> Several:
    kind = several(PoseSequence, LabelMaps)
    members = (waving_person(num_frames, size, size), sliding_labels(num_frames, size, size))
    return kind(members=members)


def equal(one: Conditioning, other: Conditioning) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in pairs)


def test_maps_are_those_of_each_one_after_the_other() -> None:
    signal = both(6)
    alone = [member.draw(24, 24) for member in signal.members]
    assert torch.equal(signal.draw(24, 24), torch.cat(alone, dim=1))
    cut = signal[2:5].crop((4, 4, 28, 28)).rescale(48, 48)
    for ours, theirs in zip(cut.members, signal.members, strict=True):
        assert equal(ours, theirs[2:5].crop((4, 4, 28, 28)).rescale(48, 48))
    assert torch.equal(signal.present(), signal.lead.present()) and len(signal) == 6
    assert equal(type(signal).concat([signal[:2], signal[2:]]), signal)


def test_it_survives_a_file_and_is_no_other_kind(tmp_path: Path) -> None:
    signal = both(5)
    signal.save(tmp_path / "a.safetensors")
    assert equal(type(signal).load(tmp_path / "a.safetensors"), signal)
    with pytest.raises(VidsynthError, match=r"holds 'pose\+labels' conditioning"):
        several(LabelMaps, PoseSequence).load(tmp_path / "a.safetensors")


def test_each_is_retargeted_as_it_would_be_alone() -> None:
    source, target = both(30, 48), both(40, 32)
    made = retarget.retarget(source, retarget.summarise(target), {"limbs": True})
    assert isinstance(made.sequence, Several)
    for moved, theirs, own, options in zip(
        made.sequence.members, source.members, target.members, ({"limbs": True}, None), strict=True
    ):
        alone = retarget.retarget(theirs, retarget.summarise(own), options)
        assert equal(moved, alone.sequence)
        assert all(made.report.reasons[name].equal(r) for name, r in alone.report.reasons.items())


def test_a_generator_takes_several_where_it_takes_each() -> None:
    plugin = registry.load("generator", "pix2pixhd")
    kind = several(PoseSequence, LabelMaps)
    channels = both(1).draw(16, 16).shape[1]
    plugin(conditions=Conditions(kinds=(kind,), channels=channels))
    with pytest.raises(IncompatibleStages, match=r"'pose\+text'"):
        plugin(conditions=Conditions(kinds=(several(PoseSequence, TextEmbedding),), channels=9))


@pytest.fixture
def installed() -> Iterator[None]:
    ours = [e for kind in registry.KINDS for e in entry_points(group=registry.group(kind))]
    group = registry.group("extractor")
    theirs = [
        EntryPoint("person", "test_several:Person", group),
        EntryPoint("bright", "test_several:Bright", group),
    ]
    with registry.only([*ours, *theirs]):
        yield


def film(path: Path, num_frames: int, pace: int) -> Path:
    frames = torch.full((num_frames, 3, 32, 32), 90, dtype=torch.uint8)
    for t in range(num_frames):
        x = pace * t % 22
        frames[t, 0, 10:20, x : x + 10] = 230
    pts = torch.arange(num_frames, dtype=torch.float64) / 25
    video.write_video(path, iter([Chunk(pts, Clip(frames, pts))]), fps=Fraction(25))
    return path


def weights(folder: Path) -> bytes:
    return (folder / "generator.safetensors").read_bytes()


def test_a_transfer_trained_on_several_resumes_and_renders(installed: None, tmp_path: Path) -> None:
    source, target = film(tmp_path / "s.mp4", 20, 1), film(tmp_path / "t.mp4", 40, 2)
    (tmp_path / "both.toml").write_text(RECIPE)
    how = {"recipe": str(tmp_path / "both.toml"), "device": "cpu"}
    made = jobs.transfer(
        source, target, tmp_path / "o.mp4", steps=4, subject=tmp_path / "one", audio="none", **how
    )
    assert (
        made.num_frames == 20
        and made.subject.card.channels == waving_person(1, 8, 8).draw(8, 8).shape[1] + 2
    )
    assert load_subject(tmp_path / "one").card.trained == made.subject.card.trained
    kind = made.subject.conditions().kinds[0]
    assert issubclass(kind, Several) and kind.kinds == (PoseSequence, LabelMaps)
    jobs.render(tmp_path / "one", source, tmp_path / "again.mp4", audio="none", device="cpu")
    frames = [
        Clip.concat([c.clip for c in video.read_chunks(tmp_path / name) if c.clip]).frames
        for name in ("o.mp4", "again.mp4")
    ]
    assert torch.equal(*frames)
    # Stopped and gone on with, it learns the same.
    for steps in (2, 4):
        jobs.train(target, tmp_path / "two", steps=steps, **how)
    assert weights(tmp_path / "two") == weights(tmp_path / "one")


@pytest.mark.parametrize(
    ("settings", "fault", "words"),
    [
        (["extractor.extractors=['person']"], BadOption, "two or more"),
        (["extractor.extractors=['person', 'nobody']"], UnknownName, "no extractor 'nobody'"),
        (
            [
                "extractor.extractors=['person', 'labels']",
                "extractor.settings={ labels = { model = 'given' } }",
            ],
            BadOption,
            "reads maps from files",
        ),
        (["extractor.settings={ pose = {} }"], UnknownName, "extractor to set 'pose'"),
        (["generator.plugin=dvdgan"], IncompatibleStages, r"'person\+|'pose\+labels'"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    installed: None, tmp_path: Path, settings: list[str], fault: type[PluginError], words: str
) -> None:
    target = film(tmp_path / "t.mp4", 40, 2)
    (tmp_path / "both.toml").write_text(RECIPE)
    with pytest.raises(fault, match=words):
        jobs.train(
            target, tmp_path / "x", recipe=str(tmp_path / "both.toml"), steps=1, settings=settings
        )
    assert not (tmp_path / "x").exists()


def test_people_see_the_first() -> None:
    assert drawing.coloured(both(2), 16, 16).shape == (2, 3, 16, 16)
