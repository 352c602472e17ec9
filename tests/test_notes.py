"""What was found out with effort is found out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidsynth import notes, tracking, video
from vidsynth.clip import Clip
from vidsynth.conditioning import LabelMaps
from vidsynth.kinds import Extractor
from vidsynth.notes import Notes
from vidsynth.stream import Chunk

NUM_FRAMES, REST = 60, 8


@pytest.fixture(autouse=True)
def every_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notes, "EVERY", 0.0)
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))


class Finder:
    """Finds numbers, one after the other, and counts how many it looked for."""

    def __init__(self, log: Notes) -> None:
        self.log = log
        self.looked = 0

    def __call__(self, number: int) -> list[float]:
        def find() -> dict[str, Tensor]:
            self.looked += 1
            value = torch.tensor([number, number**2], dtype=torch.float64)
            return {"value": value, "beside": torch.tensor(number)}  # names in any order

        return self.log.once(find)["value"].tolist()


def wanted(number: int) -> list[float]:
    return [float(number), float(number**2)]


def found_up_to(end: int, folder: Path | None) -> int:
    """How many it looked for to tell `end` numbers, at rest behind each eighth."""
    finder = Finder(Notes(folder))
    for number in range(end):
        assert finder(number) == wanted(number)
        if number % REST == REST - 1:
            finder.log.rest()
    return finder.looked


def test_what_was_noted_is_not_found_again_and_what_follows_is(tmp_path: Path) -> None:
    assert found_up_to(19, tmp_path / "n") == 19
    assert found_up_to(40, tmp_path / "n") == 40 - 16  # at rest behind 16
    assert found_up_to(40, tmp_path / "n") == 0


def test_without_a_folder_nothing_is_noted() -> None:
    assert found_up_to(20, None) == found_up_to(20, None) == 20


def test_a_finding_of_nothing_is_one(tmp_path: Path) -> None:
    for _ in range(2):
        log = Notes(tmp_path / "n")
        assert [dict(log.once(dict)) for _ in range(3)] == [{}, {}, {}]
        log.rest()
    assert len(list((tmp_path / "n").iterdir())) == 1


def cut_short(page: Path) -> None:
    page.write_bytes(page.read_bytes()[:-9])


def flipped(page: Path) -> None:
    data = bytearray(page.read_bytes())
    data[-3] ^= 16
    page.write_bytes(data)


def emptied(page: Path) -> None:
    page.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flipped, emptied])
def test_damaged_pages_and_those_behind_them_are_found_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    found_up_to(40, tmp_path / "n")
    damage(sorted((tmp_path / "n").iterdir())[2])
    assert found_up_to(40, tmp_path / "n") == 40 - 2 * REST
    assert found_up_to(40, tmp_path / "n") == 0  # and noted again


def test_parts_do_not_mix(tmp_path: Path) -> None:
    for looked in (6, 0):
        log = Notes(tmp_path / "n")
        finders = [Finder(log.part(name)) for name in ("one", "other")]
        for number in (0, 1, 2):
            for finder in finders if looked else reversed(finders):
                assert finder(number) == wanted(number)
        for finder in finders:
            finder.log.rest()
        assert sum(finder.looked for finder in finders) == looked


def test_a_full_disk_ends_the_notes_and_not_the_work(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("no folder can be made here")
    assert found_up_to(20, tmp_path / "n") == 20


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path, pts = tmp_path / "film.mp4", torch.arange(NUM_FRAMES) / 25.0
    clip = Clip(torch.zeros(NUM_FRAMES, 3, 32, 32, dtype=torch.uint8), pts.double())
    video.write_video(path, iter([Chunk(clip.pts, clip)]), fps=Fraction(25))
    return path


class Slow(Extractor):
    """One class, whose number is how many frames came before; stops where it is told to."""

    produces = LabelMaps
    looked = 0
    stop_at: int | None = None

    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        before = 0
        for clip in clips:

            def look(first: int = before, clip: Clip = clip) -> dict[str, Tensor]:
                if self.stop_at is not None and first >= self.stop_at:
                    raise KeyboardInterrupt
                type(self).looked += len(clip)
                index = torch.arange(first, first + len(clip), dtype=torch.uint8)
                return {"maps": index[:, None, None].expand(-1, 2, 2)}

            yield LabelMaps(labels=self.notes.once(look)["maps"], num_classes=255)
            self.notes.rest()
            before += len(clip)


def test_a_tracking_that_broke_off_goes_on_behind_its_notes(
    monkeypatch: pytest.MonkeyPatch, film: Path
) -> None:
    monkeypatch.setattr(Slow, "looked", 0)
    monkeypatch.setattr(Slow, "stop_at", 30)
    with pytest.raises(KeyboardInterrupt):
        tracking.track(film, Slow(), identity={"slow": 1})
    already = Slow.looked
    assert already >= 24
    monkeypatch.setattr(Slow, "stop_at", None)
    tracked = tracking.track(film, Slow(), identity={"slow": 1})
    assert isinstance(tracked.signal, LabelMaps)
    frames = len(tracked.pts)
    assert tracked.signal.labels[:, 0, 0].tolist() == list(range(frames))
    assert Slow.looked == frames > already
    left = tracking.cache_folder(tracking.NOTES)
    assert not list(left.iterdir())


def test_notes_of_a_tracking_that_was_killed_when_it_was_done_go(
    monkeypatch: pytest.MonkeyPatch, film: Path
) -> None:
    monkeypatch.setattr(Slow, "looked", 0)
    left = tracking.cache_folder(tracking.NOTES)
    with monkeypatch.context() as patch:
        patch.setattr("vidsynth.kept.shutil.rmtree", lambda *_, **__: None)  # killed before this
        tracking.track(film, Slow(), identity={"slow": 2})
    assert list(left.rglob("*.safetensors"))
    tracking.track(film, Slow(), identity={"slow": 2})
    assert Slow.looked == NUM_FRAMES and not list(left.iterdir())
