"""The data room of clips by class: what is found, left out, resampled, cached and served."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidsynth import video
from vidsynth.clip import Clip
from vidsynth.clips import (
    WORLD,
    ClipOptions,
    Clips,
    find_clips,
    is_collection,
    nearest_frames,
    prepare_clips,
    read_clip,
)
from vidsynth.errors import BadOption, NoSubjectFound, UnknownName, UnsupportedVideo
from vidsynth.options import build
from vidsynth.report import Reporter
from vidsynth.stream import Chunk
from vidsynth.worlds import shapes

# T frames

CPU = torch.device("cpu")


class Heard(Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def write(path: Path, frames: Tensor, fps: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pts = torch.arange(len(frames), dtype=torch.float64) / fps
    video.write_video(path, [Chunk(pts, Clip(frames, pts))], fps=Fraction(fps))
    return path


def plain(level: int, num_frames: int = 14, height: int = 32, width: int = 32) -> Tensor:
    return torch.full((num_frames, 3, height, width), level, dtype=torch.uint8)


def collection(folder: Path) -> Path:
    """Two of class one, one of class two; another size and rate."""
    write(folder / "one" / "a.mp4", plain(60))
    write(folder / "one" / "b.mp4", plain(100, 40, 48, 64), fps=24)
    write(folder / "two" / "c.mp4", plain(200, 12))
    return folder


def prepared(source: Path, heard: Heard | None = None, **changes) -> Clips:
    wanted = ClipOptions(**changes)
    return prepare_clips(source, wanted, size=16, num_frames=12, reporter=heard)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))


def test_clips_of_all_sizes_and_rates_become_one_size_and_rate(tmp_path):
    clips = prepared(collection(tmp_path / "clips"))
    assert clips.names == ("one", "two") and clips.labels.tolist() == [0, 0, 1]
    assert [tuple(c.shape) for c in clips.clips] == [(n, 3, 16, 16) for n in (14, 20, 12)]
    levels = [float(c.float().mean()) for c in clips.clips]
    assert levels == pytest.approx([60, 100, 200], abs=3)
    assert (clips.spec.fps, clips.spec.height) == (12, 16)


def test_a_wide_clip_is_cut_to_its_middle(tmp_path):
    frames = plain(0, 12, 32, 64)
    frames[:, :, :, 16:48] = 200
    clip = read_clip(write(tmp_path / "wide.mp4", frames), size=16, fps=Fraction(12))
    assert float(clip.frames[:, :, :, 2:-2].float().mean()) == pytest.approx(200, abs=4)


def test_a_clip_is_decoded_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", plain(80))
    first = read_clip(path, size=16, fps=Fraction(12))
    monkeypatch.setattr(video, "read_chunks", lambda *a, **k: pytest.fail("decoded again"))
    assert torch.equal(read_clip(path, size=16, fps=Fraction(12)).frames, first.frames)


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [
        ([0, 0.1, 0.2, 0.3], 10, [0, 1, 2, 3]),
        ([5, 5.1, 5.2, 5.3], 5, [0, 2]),
        ([0, 0.2, 0.4], 10, [0, 0, 1, 1, 2, 2]),
        ([0, 0.05, 0.5, 0.6], 10, [0, 1, 1, 1, 1, 2, 3, 3]),
        ([0.3], 10, [0]),
    ],
)
def test_what_is_on_show_at_each_moment_is_taken(times: Sequence[float], fps: int, expected):
    pts = torch.tensor(times, dtype=torch.float64)
    assert nearest_frames(pts, Fraction(fps)).tolist() == expected


def test_every_class_comes_as_often_as_any_other(tmp_path):
    clips = prepared(collection(tmp_path / "clips"))
    starts = clips.starts(12)
    assert torch.bincount(clips.labels[starts]).tolist() == [2, 2]
    assert sorted(starts.tolist()) == [0, 1, 2, 2]


def test_a_sample_is_a_piece_of_its_clip_and_its_class(tmp_path):
    moving = torch.arange(30, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16) * 8
    clips = Clips(
        clips=(moving.contiguous(), moving.contiguous()),
        labels=torch.tensor([1, 0]),
        names=("a", "b"),
        spec=prepared(collection(tmp_path / "clips")).spec,
        content="",
    )
    torch.manual_seed(0)
    begun = set()
    for _ in range(40):
        batch = clips.batch(torch.tensor([0, 1]), 4, CPU)
        levels = ((batch.frames_BTCHW[:, :, 0, 0, 0] + 1) * 127.5 / 8).round()
        assert bool((levels.diff(dim=1) == 1).all())
        begun |= set(levels[:, 0].int().tolist())
        assert batch.maps_BTCHW[:, 0, :, 0, 0].tolist() == [[0, 1], [1, 0]]
    assert min(begun) == 0 and max(begun) == 26


def test_a_table_is_read_with_or_without_a_heading(tmp_path):
    folder = collection(tmp_path / "clips")
    for heading in ("", "path,label\n"):
        table = folder / "list.csv"
        table.write_text(heading + "one/a.mp4,slow\n two/c.mp4 , fast \n\n")
        clips = prepared(table)
        assert clips.names == ("fast", "slow") and clips.labels.tolist() == [1, 0]


def test_a_row_without_a_class_is_named(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("a.mp4,one\nb.mp4\n")
    with pytest.raises(UnsupportedVideo, match="row 2 has 1 column"):
        find_clips(table)


def test_unreadable_clips_are_counted_and_the_rest_is_used(tmp_path):
    folder, heard = collection(tmp_path / "clips"), Heard()
    for n in range(5):
        (folder / "one" / f"bad{n}.mp4").write_bytes(b"no video at all")
    (folder / "two" / "empty.mp4").write_bytes(b"")
    (folder / "two" / "notes.txt").write_text("not a clip")
    assert len(prepared(folder, heard).clips) == 3
    (told,) = heard.warnings
    assert told.startswith("6 clips cannot be read and are left out:") and "bad0.mp4" in told


def test_short_clips_are_counted_and_an_emptied_class_is_told(tmp_path):
    folder, heard = collection(tmp_path / "clips"), Heard()
    write(folder / "three" / "short.mp4", plain(10, 6))
    clips = prepared(folder, heard)
    assert clips.names == ("one", "two")
    assert "1 clips are shorter than 12 frames at 12 fps" in heard.warnings[0]
    assert heard.warnings[1].startswith("nothing is left of the classes three")


def test_where_nothing_can_be_used_the_counts_are_told(tmp_path):
    write(tmp_path / "clips" / "one" / "short.mp4", plain(10, 6))
    (tmp_path / "clips" / "one" / "bad.mp4").write_bytes(b"no")
    with pytest.raises(UnsupportedVideo, match=r"none of 2 clips.*1 unreadable, 1 shorter"):
        prepared(tmp_path / "clips")


def test_one_clip_of_one_class_is_enough_and_warned_of(tmp_path):
    heard = Heard()
    write(tmp_path / "clips" / "one" / "a.mp4", plain(10))
    clips = prepared(tmp_path / "clips", heard)
    assert len(clips.clips) == 1 and clips.starts(12).tolist() == [0]
    assert "by heart" in heard.warnings[0]


def test_a_length_that_no_clip_has_is_refused(tmp_path):
    clips = prepared(collection(tmp_path / "clips"))
    assert clips.starts(20).tolist() == [1]  # a class without such a clip takes no part
    with pytest.raises(NoSubjectFound, match="no clip has 30 frames at 12 fps"):
        clips.starts(30)


def test_classes_can_be_chosen_and_unknown_ones_propose_the_nearest(tmp_path):
    folder = collection(tmp_path / "clips")
    assert prepared(folder, Heard(), classes=("two",)).names == ("two",)
    with pytest.raises(UnknownName, match="did you mean 'two'"):
        prepared(folder, classes=("tow",))


def test_the_content_tells_other_clips_and_classes_apart(tmp_path):
    folder = collection(tmp_path / "clips")
    whole = prepared(folder).content
    assert whole == prepared(folder).content
    assert whole != prepared(folder, Heard(), classes=("one",)).content
    write(folder / "two" / "c.mp4".replace("c", "d"), plain(3))
    assert whole != prepared(folder).content


def test_a_folder_without_clips_says_how_they_should_lie(tmp_path):
    with pytest.raises(UnsupportedVideo, match="one folder for each class"):
        find_clips(tmp_path)
    with pytest.raises(UnsupportedVideo, match="no such folder"):
        find_clips(tmp_path / "gone")


def test_a_collection_is_known_from_a_folder_of_pictures(tmp_path):
    collection(tmp_path / "clips")
    (tmp_path / "pictures" / "inner").mkdir(parents=True)
    assert is_collection(tmp_path / "clips") and is_collection(Path("list.csv"))
    assert is_collection(Path(WORLD))
    assert not is_collection(tmp_path / "pictures") and not is_collection(tmp_path / "film.mp4")


def test_the_world_stands_in_for_a_folder():
    names = ("red-circle-right", "blue-square-up")
    clips = prepare_clips(Path(WORLD), ClipOptions(classes=names), size=16, num_frames=4)
    assert clips.names == names and clips.labels.bincount().tolist() == [128, 128]
    expected = shapes.film("blue-square-up", 3, 8, 12.0, 16)
    assert torch.equal(clips.clips[128 + 3], expected)
    with pytest.raises(UnknownName, match="red-circle-right"):
        prepare_clips(Path(WORLD), ClipOptions(classes=("red",)), size=16, num_frames=4)


def test_impossible_rates_are_refused():
    with pytest.raises(BadOption, match="fps"):
        build(ClipOptions, {"fps": 0}, where="clips")
