"""Scenes from label maps: train on frames and maps, render other maps; and what is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from vidsynth import jobs, video
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.errors import BadOption, BadSubject
from vidsynth.evaluation import evaluate
from vidsynth.report import Reporter
from vidsynth.scores import score
from vidsynth.stream import Chunk
from vidsynth.worlds import WORLDS

T, H, W = 48, 32, 48
SMALL = (
    "generator.filters=8",
    "generator.blocks=1",
    "generator.downsamplings=2",
    "generator.d_filters=8",
    "generator.learning_rate=2e-3",
    "training.warmup_steps=0",
    "training.ema=0.0",
)
COLOURS = np.array([[40, 60, 90], [200, 80, 40], [90, 180, 60]], np.uint8)


class Told(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def scene(num_frames: int = T, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """(T, H, W) ids of two squares that walk over a ground, and their instance ids."""
    ids = np.zeros((num_frames, H, W), np.uint8)
    things = np.zeros((num_frames, H, W), np.uint16)
    for n in (1, 2):
        for t in range(num_frames):
            x, y = (t * n + 11 * seed + 9 * n) % (W - 12), 2 + 13 * (n - 1)
            ids[t, y : y + 12, x : x + 12] = n
            things[t, y : y + 12, x : x + 12] = 1000 * n
    return ids, things


def save(folder: Path, pictures: NDArray[Any]) -> Path:
    folder.mkdir(parents=True)
    for n, picture in enumerate(pictures):
        rgb = picture.ndim == 3
        assert cv2.imwrite(str(folder / f"{n}.png"), picture[..., ::-1] if rgb else picture)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Frames, labels and instances of one sequence; labels and truth of another."""
    root = tmp_path_factory.mktemp("street")
    ids, things = scene()
    other, others = scene(20, seed=1)
    return {
        "frames": save(root / "frames", COLOURS[ids]),
        "labels": save(root / "labels", ids),
        "instances": save(root / "instances", things),
        "other": save(root / "other", other),
        "others": save(root / "others", others),
        "truth": save(root / "truth", COLOURS[other]),
        "few": save(root / "few", ids[:-1]),
        "square": save(root / "square", ids[:, :, :H]),
        "one": save(root / "one", ids[:1]),
        "one frame": save(root / "frame", COLOURS[ids][:1]),
        "beyond": save(root / "beyond", ids * 4),
    }


@pytest.fixture(scope="module")
def street(files: dict[str, Path]) -> tuple[Path, Told]:
    """A scene trained on everything."""
    folder, told = files["frames"].parent / "subject", Told()
    jobs.train(
        files["frames"],
        folder,
        labels=files["labels"],
        instances=files["instances"],
        steps=120,
        size=H,
        settings=SMALL,
        reporter=told,
    )
    return folder, told


def read(path: Path) -> Clip:
    return Clip.concat([c.clip for c in video.read_chunks(path) if c.clip is not None])


def test_a_scene_is_learnt_from_its_maps_and_driven_by_others(files, street, tmp_path) -> None:
    folder, told = street
    assert any("48 pictures at 25 frames per second (--fps changes it)" in s for s in told.lines)
    card = json.loads((folder / "subject.json").read_text())
    assert (card["recipe"], card["channels"], card["background"]) == ("street", 4, False)
    made = jobs.render(folder, files["other"], tmp_path / "out.mp4", instances=files["others"])
    assert made.num_frames == 20 and not made.outside.any()
    frames, truth = read(tmp_path / "out.mp4").frames, read(files["truth"]).frames
    found = score(frames, truth)
    blank = truth.float().mean(dim=(0, 2, 3), keepdim=True).expand_as(truth).to(torch.uint8)
    assert found.psnr > score(blank, truth).psnr + 4


def test_a_folder_of_maps_drives_at_the_subjects_rate_unless_told_otherwise(
    files, street, tmp_path
) -> None:
    told = Told()
    for fps, expected in ((None, 25), (10.0, 10)):
        jobs.render(
            street[0],
            files["other"],
            tmp_path / "out.mp4",
            instances=files["others"],
            fps=fps,
            overwrite=True,
            side_by_side=True,
            end=0.5,
            reporter=told,
        )
        clip = read(tmp_path / "out.mp4")
        assert len(clip) == -(-expected // 2) and clip.frames.shape[2:] == (H, 2 * W)
        torch.testing.assert_close(
            clip.pts, torch.arange(len(clip), dtype=torch.float64) / expected
        )
    assert any(s.endswith("20 pictures at 10 frames per second") for s in told.lines)


def test_a_label_video_drives_as_its_pictures_do(files, street, tmp_path) -> None:
    ids, _ = scene(20, seed=1)
    palette = tmp_path / "colours.txt"
    palette.write_text("0 0 0\n255 0 0\n0 255 0\n")
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    big = colours[ids].repeat(8, axis=1).repeat(8, axis=2)
    pts = torch.arange(20, dtype=torch.float64) / 25
    clip = Clip(torch.from_numpy(big).permute(0, 3, 1, 2).contiguous(), pts)
    video.write_video(tmp_path / "maps.mp4", iter([Chunk(pts, clip)]), fps=Fraction(25), crf=4)
    settings = (*SMALL, f"extractor.palette={palette}")
    folder = tmp_path / "subject"
    frames, labels = files["frames"], save(tmp_path / "coloured", colours[scene()[0]])
    jobs.train(frames, folder, labels=labels, steps=2, size=H, settings=settings)
    for source in (tmp_path / "maps.mp4", save(tmp_path / "pictures", colours[ids])):
        jobs.render(folder, source, tmp_path / f"{source.name}.out.mp4")
    ours, theirs = (read(tmp_path / f"{n}.out.mp4") for n in ("maps.mp4", "pictures"))
    assert (ours.frames.float() - theirs.frames.float()).abs().mean() < 2


def test_a_scene_is_measured_on_frames_it_was_never_trained_on(files, street) -> None:
    found = evaluate(
        street[0],
        files["frames"],
        labels=files["labels"],
        instances=files["instances"],
        metrics=("psnr",),
    )
    (row,) = found.tables[0].rows
    assert row.count == 6 and 10 < row.value < 60


def test_training_goes_on_with_the_same_maps_only(files, street) -> None:
    folder, _ = street
    same = {"labels": files["labels"], "instances": files["instances"]}
    again = jobs.train(files["frames"], folder, **same, steps=120, size=H, settings=SMALL)
    assert again.card.steps == 120
    with pytest.raises(BadSubject, match="trained with other label maps"):
        jobs.train(files["frames"], folder, labels=files["labels"], steps=120, settings=SMALL)


def test_without_maps_a_model_makes_them_from_both_videos(tmp_path) -> None:
    """Here the one that tells people from their background."""
    puppet = WORLDS["puppet"]
    films = []
    for n in (1, 2):
        someone, dance = puppet.make_identity(n), puppet.make_motion(n, 30)
        chunks = puppet.render(someone, dance, height=96, width=96)
        films.append(
            save(
                tmp_path / f"{n}",
                torch.cat([c.clip.frames for c in chunks if c.clip]).permute(0, 2, 3, 1).numpy(),
            )
        )
    settings = (*SMALL, "extractor.model=person")
    subject = jobs.train(
        films[0], tmp_path / "subject", recipe="street", steps=2, size=32, settings=settings
    )
    assert (subject.card.channels, subject.card.summary["num_classes"]) == (2, 2)
    made = jobs.render(subject, films[1], tmp_path / "out.mp4")
    assert made.num_frames == 30
    with pytest.raises(BadOption, match="--instances go with label maps, and this subject"):
        jobs.render(subject, films[1], tmp_path / "b.mp4", instances=films[1])


def run(line: str, files: dict[str, Path], folder: Path) -> Result:
    words = [str(files.get(w, folder if w == "SUBJECT" else w)) for w in line.split()]
    return CliRunner().invoke(main, words)


TRAIN = "train frames --labels labels -o nowhere --steps 1 --size 32"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (TRAIN.replace("labels labels", "labels few"), "has 48 frames and"),
        (TRAIN.replace("labels labels", "labels square"), "another shape than"),
        (f"{TRAIN} --instances few", "47 instance maps"),
        (f"{TRAIN} --recipe dance", "reads no files; leave --labels out"),
        (f"{TRAIN} -s extractor.model=person", "leave one of the two out"),
        (f"{TRAIN} -s extractor.classes=2", "has the label id 2 at"),
        (f"{TRAIN} -s extractor.classes=256", "classes must be in 0 to 255"),
        (f"{TRAIN} -s extractor.palette=vok", "neither cityscapes nor voc"),
        (f"{TRAIN} --fps 0", "--fps 0 is no frame rate"),
        ("train frames --instances labels -o nowhere", "name those with --labels"),
        ("train frames --recipe street -o nowhere --steps 1", "name them with --labels"),
        ("train frames --labels frames -o nowhere --steps 1", "the palette does not know"),
        ("train frames --labels gone -o nowhere --steps 1", "gone: no such file"),
        ("render SUBJECT other -o out.mp4", "trained with instance maps and the source has none"),
        ("render SUBJECT beyond --instances instances -o out.mp4", "knows the ids 0 to 2"),
        ("render SUBJECT truth --instances others -o out.mp4", "the palette does not know"),
        ("render SUBJECT square --instances square -o out.mp4", "another shape than the subject"),
        ("render SUBJECT other --instances others -o out.mp4 --start 9", "ends at 0.76 s"),
        ("transfer other frames -o out.mp4 --recipe street", "are to come from files"),
        ("eval SUBJECT frames", "was trained on label maps: name the same ones"),
        ("eval SUBJECT frames --labels labels", "trained with instance maps and the source"),
        ("eval truth frames --labels labels", "--labels go with a subject folder"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    line: str, words: str, files, street, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(line, files, street[0])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.count("error:") == 1


def test_one_frame_is_too_few_to_learn_from(files, tmp_path) -> None:
    line = f"train FRAME --labels one -o {tmp_path / 'subject'} --steps 1"
    result = run(line, files | {"FRAME": files["one frame"]}, tmp_path)
    assert result.exit_code == 2
    assert "1 of its 1 frames show more than background, and at least 24" in result.stderr


def test_a_rate_is_refused_for_a_video(tmp_path) -> None:
    pts = torch.arange(3, dtype=torch.float64) / 25
    clip = Clip(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), pts)
    video.write_video(tmp_path / "a.mp4", iter([Chunk(pts, clip)]), fps=Fraction(25))
    line = f"extract {tmp_path / 'a.mp4'} -o {tmp_path / 'a.safetensors'} --fps 10"
    result = CliRunner().invoke(main, line.split())
    assert result.exit_code == 2 and "--fps is for folders of pictures" in result.stderr
