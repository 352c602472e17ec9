"""A folder of pictures is a video, frame for frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidsynth import video
from vidsynth.clip import Clip
from vidsynth.errors import UnsupportedVideo
from vidsynth.pictures import list_pictures

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), np.uint8)


def save(path: Path, rgb: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures whose names sort wrongly as text, and what else lies about in folders."""
    for n, rgb in enumerate(PICTURES):
        save(tmp_path / f"frame{n + 1}.png", rgb)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".frame0.png").write_bytes(b"a hidden leftover")
    return tmp_path


def read(folder: Path, **options: object) -> Clip:
    chunks = video.read_chunks(folder, **options)  # pyright: ignore[reportArgumentType]
    return Clip.concat([c.clip for c in chunks if c.clip is not None])


def test_pictures_come_in_natural_order_exactly_as_saved(folder: Path) -> None:
    clip = read(folder, chunk=5)
    expected = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    assert torch.equal(clip.frames, expected)
    torch.testing.assert_close(clip.pts, torch.arange(12, dtype=torch.float64) / 25)


def test_a_folder_is_probed_like_a_video(folder: Path) -> None:
    info = video.probe(folder, fps=Fraction(10))
    assert (info.spec.height, info.spec.width, info.spec.fps) == (20, 30, 10)
    assert (info.num_frames, info.seconds, info.has_audio) == (12, 1.2, False)


def test_the_frame_rate_is_what_one_says(folder: Path) -> None:
    clip = read(folder, fps=Fraction(10), start=0.3, end=0.6)
    torch.testing.assert_close(clip.pts, torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64))
    assert torch.equal(clip.frames[0].permute(1, 2, 0), torch.from_numpy(PICTURES[3]))


def test_pictures_are_scaled_as_frames_of_videos_are(folder: Path) -> None:
    assert read(folder, size=(10, 15)).frames.shape == (12, 3, 10, 15)


def test_the_hash_sees_names_and_bytes(folder: Path) -> None:
    before = video.content_hash(folder)
    (folder / "notes.txt").write_text("changed")
    assert video.content_hash(folder) == before
    (folder / "frame12.png").rename(folder / "frame0.png")
    assert video.content_hash(folder) != before


def test_one_kind_of_picture_among_several_is_chosen_by_its_ending(tmp_path: Path) -> None:
    for name in ("a_1_color", "a_1_labelIds", "a_2_color", "a_2_labelIds"):
        save(tmp_path / f"{name}.png", PICTURES[0])
    names = [p.stem for p in list_pictures(tmp_path, endings=("_gone", "_labelIds", "_color"))]
    assert names == ["a_1_labelIds", "a_2_labelIds"]
    assert len(list_pictures(tmp_path, endings=("_none",))) == 4


def test_a_folder_without_pictures_says_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UnsupportedVideo, match=r"holds no pictures \(\.png.*name a video"):
        video.probe(tmp_path)


def test_a_picture_of_another_size_is_named(folder: Path) -> None:
    save(folder / "frame7.png", PICTURES[0, :10])
    with pytest.raises(UnsupportedVideo, match=r"frame7\.png: is 30x10, and frame1\.png is 30x20"):
        read(folder)


def test_a_damaged_picture_is_named(folder: Path) -> None:
    (folder / "frame3.png").write_bytes(b"no picture")
    with pytest.raises(UnsupportedVideo, match=r"frame3\.png: not a picture"):
        read(folder)


def test_a_span_without_pictures_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedVideo, match=r"no pictures between 9 s and its end at 25 frames"):
        read(folder, start=9.0)
