"""The main job on small synthetic clips, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from vidsynth import jobs, provenance, video
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.conditioning import PoseSequence
from vidsynth.drawing import resize
from vidsynth.errors import (
    BadOption,
    BadSubject,
    NoSubjectFound,
    OutputExists,
    UnknownName,
    UnsupportedVideo,
)
from vidsynth.report import Reporter
from vidsynth.scores import score
from vidsynth.stream import Chunk
from vidsynth.worlds import WORLDS, write_video_with_sound

PUPPET = WORLDS["puppet"]
SMALL = [
    "generator.filters=8",
    "generator.blocks=1",
    "generator.d_filters=8",
    "generator.learning_rate=2e-3",
    "training.warmup_steps=0",
]
RATE = Fraction(25)


class Told(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def film(path: Path, identity: int, motion: int, num_frames: int, size: int = 160) -> Path:
    someone, moves = PUPPET.make_identity(identity), PUPPET.make_motion(motion, num_frames)
    chunks = PUPPET.render(someone, moves, height=size, width=size)
    sound = PUPPET.soundtrack(motion, moves)
    write_video_with_sound(path, chunks, fps=RATE, samples=sound)
    return path


def paint(path: Path, frames: torch.Tensor) -> Path:
    """A silent video of (T, 3, H, W) uint8 frames."""
    pts = torch.arange(len(frames), dtype=torch.float64) / 25
    video.write_video(path, iter([Chunk(pts, Clip(frames, pts))]), fps=RATE)
    return path


def read(path: Path) -> Clip:
    return Clip.concat([c.clip for c in video.read_chunks(path) if c.clip is not None])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "source": film(folder / "source.mp4", 1, 1, 24),
        "target": film(folder / "target.mp4", 2, 2, 60),
        "empty": paint(folder / "empty.mp4", torch.full((30, 3, 96, 96), 90, dtype=torch.uint8)),
    }


@pytest.fixture(scope="module")
def dancer(clips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subject trained for a few steps."""
    folder = tmp_path_factory.mktemp("subjects") / "dancer"
    jobs.train(clips["target"], folder, steps=2, size=96, recipe="dance", settings=SMALL)
    return folder


@pytest.mark.slow
def test_transfer_writes_the_targets_person_in_the_sources_time(clips, tmp_path):
    told = Told()
    made = jobs.transfer(
        clips["source"],
        clips["target"],
        tmp_path / "out.mp4",
        steps=30,
        size=96,
        consent="Agreed to by the puppet.",
        settings=SMALL,
        reporter=told,
    )
    assert any("dance recipe" in line for line in told.lines)
    source, output = read(clips["source"]), read(tmp_path / "out.mp4")
    assert made.num_frames == len(output) == len(source)
    torch.testing.assert_close(output.pts, source.pts, atol=1e-6, rtol=0)
    assert (output.height, output.width) == (96, 96)
    assert video.probe(tmp_path / "out.mp4").has_audio
    # The room is the target's, not the source's.
    truth = _rendered(2, 1, 24, 96)
    corner = (slice(None), slice(None), slice(0, 30), slice(0, 20))
    theirs = _rendered(1, 1, 24, 96)
    ours = output.frames[corner].float()
    assert (ours - truth[corner].float()).abs().mean() < 8
    assert (ours - theirs[corner].float()).abs().mean() > 15
    # What made it is beside it, and in the subject.
    settings = tomllib.loads((tmp_path / "out.mp4.toml").read_text())
    assert settings["generator"]["options"]["filters"] == 8
    assert settings["steps"] == 30
    card = json.loads((made.subject.folder / "subject.json").read_text())
    assert card["steps"] == 30
    facts = provenance.inspect(tmp_path / "out.mp4").facts
    assert facts is not None and facts["consent"] == card["consent"] == "Agreed to by the puppet."
    assert (made.subject.folder / "training" / "preview.png").stat().st_size > 1000

    # A second transfer to the same target trains nothing and gives the same picture.
    again = jobs.transfer(
        clips["source"],
        clips["target"],
        tmp_path / "again.mp4",
        steps=30,
        size=96,
        settings=SMALL,
        start=0.2,
        end=0.6,
        side_by_side=True,
        audio="none",
        reporter=told,
    )
    assert any("trained already" in line for line in told.lines)
    beside = read(tmp_path / "again.mp4")
    assert again.num_frames == len(beside) == 10
    assert (beside.height, beside.width) == (96, 192)
    assert not video.probe(tmp_path / "again.mp4").has_audio
    # Halved: a part's motion is fitted to the target by itself, to a fraction of a pixel, and the
    # texture of the target's own frames shows that; so does each encoding.
    halved = [resize(f, 48, 48) for f in (beside.frames[:, :, :, 96:], output.frames[5:15])]
    assert score(*halved).psnr > 30


def _rendered(identity: int, motion: int, num_frames: int, size: int) -> torch.Tensor:
    chunks = PUPPET.render(
        PUPPET.make_identity(identity),
        PUPPET.make_motion(motion, num_frames),
        height=size,
        width=size,
    )
    return Clip.concat([c.clip for c in chunks if c.clip is not None]).frames


def test_training_goes_on_in_the_same_folder_only_with_the_same_target(clips, dancer, tmp_path):
    with pytest.raises(BadSubject, match="another video"):
        jobs.train(clips["source"], dancer, steps=4, size=96, recipe="dance", settings=SMALL)
    with pytest.raises(BadSubject, match="filters"):
        jobs.train(clips["target"], dancer, steps=4, size=96, recipe="dance")
    with pytest.raises(BadSubject, match="size 96"):
        jobs.train(clips["target"], dancer, steps=4, size=64, recipe="dance", settings=SMALL)
    copy = tmp_path / "copy"
    shutil.copytree(dancer, copy)
    subject = jobs.train(clips["target"], copy, steps=3, size=96, recipe="dance", settings=SMALL)
    assert subject.card.steps == 3


def test_extract_writes_the_tracking_and_a_preview(clips, tmp_path):
    found = jobs.extract(clips["source"], tmp_path / "a.safetensors", preview=tmp_path / "a.mp4")
    stored = PoseSequence.load(tmp_path / "a.safetensors")
    assert isinstance(found, PoseSequence)
    assert torch.equal(stored.keypoints, found.keypoints)
    assert len(read(tmp_path / "a.mp4")) == len(found) == 24


def test_nothing_is_overwritten_without_being_asked(clips, dancer, tmp_path):
    output = tmp_path / "mine.mp4"
    output.write_bytes(b"precious")
    with pytest.raises(OutputExists, match="--overwrite"):
        jobs.render(dancer, clips["source"], output)
    (tmp_path / "other.mp4.toml").write_text("precious")
    with pytest.raises(OutputExists, match="toml"):
        jobs.render(dancer, clips["source"], tmp_path / "other.mp4")
    assert output.read_bytes() == b"precious"
    jobs.render(dancer, clips["source"], output, overwrite=True)
    assert len(read(output)) == 24


def test_a_video_that_is_read_is_never_overwritten(clips, dancer, tmp_path):
    source = tmp_path / "source.mp4"
    shutil.copyfile(clips["source"], source)
    (tmp_path / "link.mp4").symlink_to(source)
    before = source.read_bytes()
    for output in (source, tmp_path / "link.mp4"):
        with pytest.raises(OutputExists, match="never overwritten"):
            jobs.render(dancer, source, output, overwrite=True)
        with pytest.raises(OutputExists, match="never overwritten"):
            jobs.transfer(clips["target"], source, output, overwrite=True)
    with pytest.raises(OutputExists, match="never overwritten"):
        jobs.extract(source, tmp_path / "a.safetensors", preview=source, overwrite=True)
    assert source.read_bytes() == before


def test_what_is_wrong_with_the_source_is_said_before_training(clips, tmp_path, monkeypatch):
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(jobs, "fit", trained)
    output = tmp_path / "out.mp4"

    def transfer(source="source", **asked):
        jobs.transfer(clips[source], clips["target"], output, recipe="dance", **asked)

    with pytest.raises(NoSubjectFound, match="no person was found"):
        transfer("empty")
    with pytest.raises(NoSubjectFound, match="no person number 7"):
        transfer(person=7)
    with pytest.raises(UnsupportedVideo, match="no frames between 5 s"):
        transfer(start=5.0)
    with pytest.raises(BadOption, match="codec"):
        transfer(codec="vp9")
    with pytest.raises(UnknownName, match="retarget"):
        transfer(settings=["retarget.foo=1"])
    with pytest.raises(BadOption, match="batch"):
        transfer(settings=["training.batch=0"])


def test_damage_of_a_video_is_told(clips, tmp_path):
    whole = clips["source"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    told = Told()
    jobs.extract(tmp_path / "cut.mp4", tmp_path / "a.safetensors", reporter=told)
    assert any("cut.mp4: is cut off" in line for line in told.lines)


def test_a_folder_with_other_things_is_left_alone(clips, tmp_path):
    mine = tmp_path / "mine" / "training" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(BadSubject, match="other things"):
        jobs.train(clips["target"], tmp_path / "mine", recipe="dance", steps=1)
    with pytest.raises(BadSubject, match="is a file"):
        jobs.train(clips["target"], mine, recipe="dance", steps=1)
    assert [p.name for p in (tmp_path / "mine").rglob("*.*")] == ["notes.txt"]
    assert mine.read_text() == "precious"


def test_a_damaged_subject_is_told_before_the_source_is_tracked(
    clips, dancer, tmp_path, monkeypatch
):
    monkeypatch.setattr(jobs, "track_as", None)
    copy = tmp_path / "copy"
    shutil.copytree(dancer, copy)
    (copy / "background.png").write_bytes(b"no picture")
    with pytest.raises(BadSubject, match="background"):
        jobs.render(copy, clips["source"], tmp_path / "out.mp4")
    (copy / "generator.safetensors").unlink()
    with pytest.raises(BadSubject, match="first checkpoint"):
        jobs.render(copy, clips["source"], tmp_path / "out.mp4")


def test_a_source_is_followed_by_its_own_number(clips, dancer, tmp_path):
    """Whom the extractor followed in the target says nothing about the source."""
    copy = tmp_path / "second"
    shutil.copytree(dancer, copy)
    card = json.loads((copy / "subject.json").read_text())
    card["extractor"]["options"]["person"] = 2
    (copy / "subject.json").write_text(json.dumps(card))
    assert jobs.render(copy, clips["source"], tmp_path / "out.mp4").num_frames == 24


def test_the_targets_sound_needs_the_target(clips, dancer, tmp_path):
    with pytest.raises(BadOption, match="--target"):
        jobs.render(dancer, clips["source"], tmp_path / "out.mp4", audio="target")


def test_no_person_is_said_before_training(clips, tmp_path):
    with pytest.raises(NoSubjectFound, match="neither a face nor a body"):
        jobs.transfer(clips["source"], clips["empty"], tmp_path / "out.mp4")
    with pytest.raises(NoSubjectFound, match="no person was found in any of its 30 frames"):
        jobs.train(clips["empty"], tmp_path / "s", recipe="dance", steps=1)


def test_too_short_a_target_says_how_many_frames_are_needed(clips, tmp_path):
    short = paint(tmp_path / "short.mp4", read(clips["target"]).frames[:10])
    with pytest.raises(NoSubjectFound, match="in 10 of 10 frames and at least 24"):
        jobs.train(short, tmp_path / "s", recipe="dance", steps=1)


def test_source_and_target_must_differ(clips, tmp_path):
    with pytest.raises(BadOption, match="nothing to transfer"):
        jobs.transfer(clips["source"], clips["source"], tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mp4", "TARGET"], "missing.mp4"),
        (["TEXT", "TARGET"], "text.mp4"),
        (["EMPTY", "TARGET"], "empty"),
        (["SOURCE", "TARGET", "--recipe", "danse"], "dance"),
        (["SOURCE", "TARGET", "--generator", "pix2pixdh", "--recipe", "dance"], "pix2pixhd"),
        (["SOURCE", "TARGET", "--recipe", "dance", "-s", "generator.filter=8"], "filters"),
        (["SOURCE", "TARGET", "--recipe", "dance", "-s", "training.batch=0"], "batch"),
        (["SOURCE", "TARGET", "--recipe", "dance", "--device", "cuda:99"], "--device cpu"),
        (["SOURCE", "TARGET", "--budget", "1m", "--steps", "3"], "exclude"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(clips, tmp_path, arguments, said):
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    named = {
        "SOURCE": str(clips["source"]),
        "TARGET": str(clips["target"]),
        "TEXT": str(tmp_path / "text.mp4"),
        "EMPTY": str(tmp_path / "empty.mp4"),
    }
    output = tmp_path / "out.mp4"
    line = ["transfer", *(named.get(a, a) for a in arguments), "-o", str(output)]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not output.exists()


def test_an_output_folder_that_is_missing_is_said_before_any_work(clips, tmp_path):
    result = CliRunner().invoke(
        main,
        [
            "transfer",
            str(clips["source"]),
            str(clips["target"]),
            "-o",
            str(tmp_path / "no" / "out.mp4"),
        ],
    )
    assert result.exit_code == 2
    assert "does not exist" in result.output
