"""Following, smoothing and gap filling, with a tracker that sees coloured squares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from vidsynth import notes
from vidsynth.clip import Clip
from vidsynth.kinds import Extractor
from vidsynth.notes import Notes
from vidsynth.smoothing import Points
from vidsynth.worlds import WORLDS
from vidsynth_plugins import mediapipe_models
from vidsynth_plugins.face import FaceExtractor
from vidsynth_plugins.face3d.extractor import Face3DExtractor, Face3DOptions
from vidsynth_plugins.mediapipe_models import Picture, Tracker
from vidsynth_plugins.pose import PoseExtractor
from vidsynth_plugins.sighting import Clouds, Sighting
from vidsynth_plugins.tracking import (
    FIRST_WAIT,
    Follower,
    TrackingOptions,
    fill_gaps,
    follow,
)

FPS = 25.0
SIZE = 160


def as_sighting(mask: np.ndarray) -> Sighting:
    rows, columns = np.nonzero(mask)
    low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
    corners = np.array([[*low, 0, 1], [*high, 0, 1]], np.float32)
    return Sighting.of(Clouds(points=corners))


class SquareTracker(Tracker):
    """Sees squares of one grey level each, the palest one first, if at least `smallest` of the
    picture wide; like MediaPipe's, it holds on to what it had the picture before."""

    def __init__(self, smallest: float = 0.0) -> None:
        super().__init__(Notes())
        self.smallest = smallest
        self.held: int | None = None
        self.scans = self.resets = 0
        self.closed = False

    def _levels(self, picture: Picture) -> list[int]:
        levels = [level for level in np.unique(picture[..., 0]) if level > 0]
        wide = [lv for lv in levels if (picture[..., 0] == lv).any(0).sum() >= self._least(picture)]
        return sorted(wide, reverse=True)

    def _least(self, picture: Picture) -> float:
        return self.smallest * picture.shape[1]

    def track(self, picture: Picture, seconds: float) -> Sighting | None:
        levels = self._levels(picture)
        if self.held not in levels:
            self.held = levels[0] if levels else None
        return None if self.held is None else as_sighting(picture[..., 0] == self.held)

    def scan(self, picture: Picture) -> Sequence[Sighting]:
        self.scans += 1
        return [as_sighting(picture[..., 0] == level) for level in self._levels(picture)]

    def reset(self) -> None:
        self.resets += 1
        self.held = None

    def close(self) -> None:
        self.closed = True

    def _open(self, *, static: bool) -> None:
        raise AssertionError("squares need no model")

    _run = _sightings = _open  # pyright: ignore


def picture(*squares: tuple[int, int, int, int]) -> Picture:
    """Squares as (level, x, y, side) on black; later ones on top."""
    made = np.zeros((SIZE, SIZE, 3), np.uint8)
    for level, x, y, side in squares:
        made[y : y + side, x : x + side] = level
    return made


def centres(follower: Follower, pictures: Sequence[Picture]) -> list[float | None]:
    found = (follower(p, t / FPS) for t, p in enumerate(pictures))
    return [None if s is None else float(s.clouds.points[:, 0].mean()) for s in found]


@pytest.mark.parametrize(("person", "expected"), [(0, 120.0), (1, 25.0)])
def test_person_is_chosen_by_size_and_kept(person: int, expected: float) -> None:
    # The small one is the paler, so the tracker alone would always start with it.
    scene = [picture((200, 10, 20, 30), (100, 90, 20, 60))] * 12
    follower = Follower(SquareTracker(), person=person, margin=0.2)
    assert centres(follower, scene) == [expected] * 12


def test_a_subject_is_followed_out_of_its_window() -> None:
    scene = [picture((200, 10, 110, 20), (100, 10 + 2 * t, 20, 40)) for t in range(50)]
    tracker = SquareTracker()
    found = centres(Follower(tracker, person=0, margin=0.3), scene)
    assert found == [30.0 + 2 * t for t in range(50)]
    assert tracker.scans == 1


def test_a_tracker_that_slips_to_another_is_brought_back() -> None:
    alone = [picture((100, 20, 20, 40))] * 5
    # Another one, paler, steps in and the tracker is made to slip to it.
    both = [picture((100, 20, 20, 40), (200, 110, 20, 30))] * 5
    tracker = SquareTracker()
    follower = Follower(tracker, person=0, margin=0.3)
    before = centres(follower, alone)
    tracker.held = 200
    after = [follower(p, 0.2 + t / FPS) for t, p in enumerate(both)]
    assert before == [40.0] * 5
    assert [s.clouds.points[:, 0].mean() for s in after if s] == [40.0] * 5


def test_a_cut_costs_no_frame() -> None:
    scene = [picture((100, 0, 20, 60))] * 5 + [picture((100, 95, 90, 60))] * 5
    found = centres(Follower(SquareTracker(), person=0, margin=0.3), scene)
    assert found == [30.0] * 5 + [125.0] * 5


@pytest.mark.parametrize("side", [20, 50])
def test_one_who_was_always_alone_may_come_back_anywhere(side: int) -> None:
    scene = [picture((100, 0, 20, side))] * 3 + [picture()] * 4
    scene += [picture((100, 100, 100, side))] * 20
    found = centres(Follower(SquareTracker(), person=0, margin=0.3), scene)
    assert found[:7] == [side / 2] * 3 + [None] * 4
    assert found[-5:] == [100 + side / 2] * 5


def test_nobody_else_stands_in_for_a_chosen_person() -> None:
    scene = [picture((200, 10, 20, 30), (100, 90, 20, 60))] * 3
    scene += [picture((200, 10, 20, 30))] * 5
    found = centres(Follower(SquareTracker(), person=0, margin=0.1), scene)
    assert found[:3] == [120.0] * 3
    assert found[3:] == [None] * 5


def test_small_subjects_are_found_in_parts_of_the_picture() -> None:
    scene = [picture((100, 101, 55, 14))] * 10
    blind = Follower(SquareTracker(smallest=0.15), person=0, margin=1.0, parts=())
    assert centres(blind, scene) == [None] * 10
    keen = Follower(SquareTracker(smallest=0.15), person=0, margin=1.0, parts=(2,))
    assert centres(keen, scene) == [108.0] * 10


def test_an_empty_video_is_searched_less_and_less() -> None:
    tracker = SquareTracker()
    centres(Follower(tracker, person=0, margin=0.3, parts=()), [picture()] * 500)
    assert 3 <= tracker.scans <= 10  # 20 seconds; every FIRST_WAIT would be 40


def spans(
    pattern: str, points: Sequence[float]
) -> Iterator[tuple[float, Mapping[str, Points] | None]]:
    """`x` seen, `.` not; ten frames a second."""
    for t, (mark, value) in enumerate(zip(pattern, points, strict=True)):
        cloud = {"keypoints": np.array([[value, 2 * value, 1]], np.float32)}
        yield t / 10, cloud if mark == "x" else None


def test_short_gaps_are_interpolated_in_time() -> None:
    frames = list(fill_gaps(spans("xx..x", [0, 1, 0, 0, 4]), 0.5))
    assert [f.seen for f in frames] == [True] * 5
    assert [float(f.parts["keypoints"][0, 0]) for f in frames] == pytest.approx([0, 1, 2, 3, 4])
    assert [f.seconds for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("pattern", ["x......x", "..xxxxxx", "xxxxxx..", "........"])
def test_long_gaps_and_open_ends_are_marked(pattern: str) -> None:
    frames = list(fill_gaps(spans(pattern, range(8)), 0.5))
    assert [f.seen for f in frames] == [mark == "x" for mark in pattern]


def test_a_gap_holds_back_no_more_than_its_limit() -> None:
    read = 0

    def counted() -> Iterator[tuple[float, Mapping[str, Points] | None]]:
        nonlocal read
        for item in spans("x" + "." * 99, [1.0] * 100):
            read += 1
            yield item

    for given, _ in enumerate(fill_gaps(counted(), 0.5), start=1):
        assert read - given <= 5


def squares_clip(num_frames: int) -> Clip:
    scene = [picture((100, 10 + t, 20, 40)) if t % 7 else picture() for t in range(num_frames)]
    frames = torch.from_numpy(np.stack(scene)).permute(0, 3, 1, 2)
    return Clip(frames, torch.arange(num_frames, dtype=torch.float64) / FPS)


def followed(clips: Sequence[Clip], tracker: Tracker) -> list[tuple[int, list[float]]]:
    tracks = follow(
        iter(clips),
        lambda: tracker,
        lambda sighting: {"keypoints": sighting.clouds.points[:, [0, 1, 3]]},
        TrackingOptions(),
        margin=0.3,
        agility=8.0,
    )
    return [
        (len(frames), [float(f.parts["keypoints"][0, 0]) if f.parts else -1 for f in frames])
        for frames, _ in tracks
    ]


def test_clips_come_back_one_by_one_however_they_are_cut() -> None:
    clip = squares_clip(20)
    cuts = [clip[:0], clip[:1], clip[1:8], clip[8:8], clip[8:9], clip[9:], clip[20:]]
    pieces = followed(cuts, SquareTracker())
    assert [count for count, _ in pieces] == [len(c) for c in cuts]
    whole = followed([clip], SquareTracker())
    assert [x for _, xs in pieces for x in xs] == whole[0][1]


def test_the_tracker_is_closed_when_the_stream_ends_or_is_left() -> None:
    finished, left = SquareTracker(), SquareTracker()
    followed([squares_clip(4)], finished)
    stream = follow(
        iter([squares_clip(2), squares_clip(2)]),
        lambda: left,
        lambda sighting: {"keypoints": sighting.clouds.points},
        TrackingOptions(),
        margin=0.3,
        agility=8.0,
    )
    next(stream)
    assert not left.closed
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert finished.closed and left.closed


@pytest.mark.parametrize(
    "wrong",
    [{"person": 0}, {"min_confidence": 1.5}, {"smoothing": -1.0}, {"max_gap_seconds": -1.0}],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackingOptions(**wrong)  # pyright: ignore[reportArgumentType]


def test_first_search_is_soon_repeated() -> None:
    tracker = SquareTracker()
    follower = Follower(tracker, person=1, margin=0.3)
    one = picture((100, 20, 20, 40))
    two = picture((100, 20, 20, 40), (200, 110, 20, 20))
    assert follower(one, 0.0) is None
    assert follower(two, 0.1) is None  # the second person is not noticed before the next search
    found = follower(two, 0.1 + 2 * FIRST_WAIT)
    assert found is not None and found.clouds.points[:, 0].mean() == 120


@pytest.mark.parametrize(
    ("extractor", "world"),
    [
        (PoseExtractor(), "puppet"),
        (FaceExtractor(), "head"),
        (Face3DExtractor(Face3DOptions(learn_frames=16, refine=True)), "head"),
    ],
    ids=["pose", "face", "face3d"],
)
def test_what_goes_on_behind_its_notes_sees_the_same_and_looks_at_no_picture_twice(
    extractor: Extractor, world: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mediapipe_models, "STRETCH", 10)
    monkeypatch.setattr(notes, "EVERY", 0.0)
    looked: list[float] = []
    process = Tracker._process

    def counted(self: Tracker, picture: Picture, seconds: float | None) -> object:
        if seconds is not None:
            looked.append(seconds)
        return process(self, picture, seconds)

    monkeypatch.setattr(Tracker, "_process", counted)
    footage = sample_clips(world, 48)
    extractor.notes = Notes()
    whole = extractor.produces.concat(list(extractor.extract(iter(footage))))
    assert len(looked) == 48

    def broken_off() -> Iterator[Clip]:
        yield from footage[:4]
        raise KeyboardInterrupt

    looked.clear()
    extractor.notes = Notes(tmp_path / "notes")
    with pytest.raises(KeyboardInterrupt):
        list(extractor.extract(broken_off()))
    assert len(looked) >= 31
    looked.clear()
    extractor.notes = Notes(tmp_path / "notes")
    again = extractor.produces.concat(list(extractor.extract(iter(footage))))
    assert len(looked) == 48 - 30
    assert all(torch.equal(a, b) for a, b in zip(again.tensors(), whole.tensors(), strict=True))


def sample_clips(world: str, num_frames: int) -> list[Clip]:
    """Of eight frames each."""
    made = WORLDS[world]
    film = made.render(
        made.make_identity(3), made.make_motion(3, num_frames), height=160, width=160
    )
    clip = Clip.concat([chunk.clip for chunk in film if chunk.clip is not None])
    return [clip[n : n + 8] for n in range(0, num_frames, 8)]
