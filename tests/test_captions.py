"""Captioned clips: found with their texts, refused where a text or a clip is missing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vidsynth import video
from vidsynth.captions import Films, find_captioned, has_captions, prepare_captioned
from vidsynth.clip import Clip
from vidsynth.clipmodels import learns_from_clips, recipe_for
from vidsynth.clips import WORLD, ClipOptions, Clips
from vidsynth.errors import UnknownName, UnsupportedVideo
from vidsynth.stream import Chunk
from vidsynth.worlds import shapes

CPU = torch.device("cpu")
TEXTS = {"a.mp4": "a red circle, moving", "b.mp4": "a blue square"}


def write(path: Path, level: int) -> None:
    frames = torch.full((8, 3, 16, 16), level, dtype=torch.uint8)
    pts = torch.arange(8, dtype=torch.float64) / 12
    video.write_video(path, [Chunk(pts, Clip(frames, pts))], fps=Fraction(12))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips without captions."""
    for name, level in zip(TEXTS, (60, 200), strict=True):
        write(tmp_path / name, level)
    return tmp_path


def with_table(folder: Path, text: str) -> Path:
    (folder / "captions.csv").write_text(text, encoding="utf-8")
    return folder


GOOD = 'path,caption\na.mp4,"a red circle, moving"\n\nb.mp4,a blue square\n'


def test_captions_are_read_from_a_table_or_from_texts_beside_the_clips(folder):
    for name, text in TEXTS.items():
        (folder / name).with_suffix(".txt").write_text(f"  {text}\n", encoding="utf-8")
    assert has_captions(folder)
    assert {f.path.name: f.label for f in find_captioned(folder)} == TEXTS
    with_table(folder, "a.mp4,from the table\n")
    assert [(f.path.name, f.label) for f in find_captioned(folder)] == [("a.mp4", "from the table")]
    with_table(folder, GOOD)
    for source in (folder, folder / "captions.csv"):
        assert {f.path.name: f.label for f in find_captioned(source)} == TEXTS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a.mp4\n", r"row 1 has 1 columns; each needs a path and a caption"),
        ("a.mp4,red, moving\n", r"row 1 has 3 columns.*needs quotes"),
        ("a.mp4,one\nc.mp4,two\n", r"row 2 names c\.mp4, which is not there"),
        ("a.mp4,one\nb.mp4,  \n", r"b\.mp4 is with an empty caption"),
        ("", r"holds no captioned clips; put captions\.csv beside them"),
    ],
)
def test_a_bad_table_is_refused_by_row(folder, table, message):
    with pytest.raises(UnsupportedVideo, match=message):
        find_captioned(with_table(folder, table))


def test_a_clip_without_a_text_is_named(folder):
    (folder / "a.txt").write_text("a red circle")
    with pytest.raises(UnsupportedVideo, match=r"b\.mp4 is without a caption; write one"):
        find_captioned(folder)


def test_a_text_in_another_coding_is_refused(folder):
    (folder / "captions.csv").write_bytes(b"a.mp4,caf\xe9\n")
    with pytest.raises(UnsupportedVideo, match="save it as UTF-8"):
        find_captioned(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert not has_captions(tmp_path / "none")
    with pytest.raises(UnsupportedVideo, match="no such folder"):
        find_captioned(tmp_path / "none")


def test_clips_come_with_their_captions(folder, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_CACHE", str(folder / "cache"))
    clips = prepare_captioned(with_table(folder, GOOD), ClipOptions(), size=16, num_frames=6)
    assert isinstance(clips, Clips) and set(clips.names) == set(TEXTS.values())
    batch = clips.batch(torch.tensor([0, 1, 0]), 6, CPU)
    assert batch.frames_BTCHW.shape == (3, 6, 3, 16, 16)
    for text, clip in zip(batch.captions, batch.frames_BTCHW, strict=True):
        assert text == TEXTS["a.mp4" if clip.mean() < 0 else "b.mp4"]


def test_such_a_folder_asks_for_the_recipe_that_learns_from_captions(folder):
    assert not has_captions(folder)
    with_table(folder, GOOD)
    assert learns_from_clips(None, folder) and recipe_for(folder) == "text2video-small"


# The world


def world(**wanted) -> Films:
    films = prepare_captioned(Path(WORLD), ClipOptions(**wanted), size=16, num_frames=4)
    assert isinstance(films, Films)
    return films


def test_films_of_the_world_are_drawn_anew_and_as_the_seed_says():
    films = world(classes=("red-circle-left", "blue-square-up"))
    assert films.names == ("a red circle moves left", "a blue square moves up")

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return films.batch(films.starts(4), 4, CPU).frames_BTCHW

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))


def test_captions_say_what_films_show():
    films = world()
    torch.manual_seed(0)
    batch = films.batch(torch.arange(0, 72, 7), 1, CPU)
    for index, text in zip(range(0, 72, 7), batch.captions, strict=True):
        assert text in shapes.captions(films.classes[index])
    assert len(set(batch.captions)) == len(batch.captions)


def test_held_out_combinations_are_never_shown_and_each_pair_of_words_still_is():
    everything = shapes.class_names()
    out = shapes.held_out(everything, 6)
    films = world(held_out=6)
    assert len(out) == 12 and set(films.classes) == set(everything) - set(out)
    assert not {text for name in out for text in shapes.captions(name)} & set(films.every_text())
    pairs = [
        {(name.split("-")[a], name.split("-")[b]) for name in films.classes}
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert [len(p) for p in pairs] == [12, 24, 18]  # all there are
    assert len({tuple(n.split("-")[:2]) for n in out}) == 12  # each colour and shape lacks one
    assert shapes.held_out(everything, 0) == ()


def test_an_unknown_class_of_the_world_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'red-circle-left'"):
        world(classes=("red-circle-lefd",))
