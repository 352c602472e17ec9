"""A target made ready: crops, splits, caches, batches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from vidsynth import dataset, drawing, video
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence, PoseSequence
from vidsynth.dataset import MIN_USABLE_FRAMES, prepare
from vidsynth.errors import BadOption, CannotWrite, NoSubjectFound
from vidsynth.files import cache_folder
from vidsynth.kinds import Conditions, Extractor
from vidsynth.stream import Chunk
from vidsynth.testing.samples import nodding_face, waving_person
from vidsynth.tracking import Tracked, track

CPU = torch.device("cpu")
BODIES = Conditions(kinds=(PoseSequence,), channels=3)
FACES = Conditions(kinds=(FaceSequence,), channels=6)
HEIGHT, WIDTH = 96, 160


def still_room(path: Path, person: PoseSequence) -> Path:
    """A video of `person`, drawn as a skeleton in a room that never changes."""
    torch.manual_seed(0)
    coarse = torch.randint(40, 200, (1, 3, 6, 10), dtype=torch.uint8)
    room = drawing.resize(coarse, HEIGHT, WIDTH)
    skeleton = person.draw(HEIGHT, WIDTH)
    frames = torch.where(skeleton.amax(1, keepdim=True) > 0, skeleton, room)
    pts = torch.arange(len(person), dtype=torch.float64) / 25
    chunk = Chunk(pts, Clip(frames, pts))
    video.write_video(path, iter([chunk]), fps=Fraction(25), crf=8)
    return path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    person = waving_person(60, HEIGHT, WIDTH)
    person.keypoints[..., 0] = 80 + (person.keypoints[..., 0] - 80) * 0.4  # slim
    path = still_room(tmp_path_factory.mktemp("room") / "room.mp4", person)
    return Tracked(path=path, signal=person, pts=torch.arange(60, dtype=torch.float64) / 25)


def test_frames_and_maps_are_those_of_the_video_at_the_size_asked_for(target):
    footage = prepare(target, BODIES, size=48, background=False)
    assert footage.frames.shape == (60, 3, 48, 80)
    direct = Clip.concat([c.clip for c in video.read_chunks(target.path)])
    expected = drawing.resize(direct.frames, 48, 80)
    assert (footage.frames.float() - expected.float()).abs().mean() < 1
    drawn = target.signal.rescale(48, 80).draw(48, 80)
    assert torch.equal(footage.drawings.of(torch.arange(60))[0], drawn)
    assert footage.plate is None and footage.window == (0, 0, 80, 48)


def test_drawings_too_many_for_memory_are_made_when_a_batch_asks_and_are_the_same(
    target, monkeypatch
):
    starts = torch.tensor([3, 0, 20])
    kept = prepare(target, BODIES, size=48, background=False)
    monkeypatch.setattr(dataset, "IN_MEMORY_BYTES", 60 * 4 * 48 * 80 - 1)
    asked = prepare(target, BODIES, size=48, background=False)
    assert kept.drawings.kept is not None and asked.drawings.kept is None
    ours, theirs = (footage.batch(starts, 2, CPU) for footage in (asked, kept))
    assert torch.equal(ours.maps_BTCHW, theirs.maps_BTCHW)
    assert ours.weights_BT1HW is not None and theirs.weights_BT1HW is not None
    assert torch.equal(ours.weights_BT1HW, theirs.weights_BT1HW)


def test_over_a_still_room_only_the_window_round_the_person_is_kept(target):
    footage = prepare(target, BODIES, size=96, background=True)
    assert footage.plate is not None and footage.plate.shape == (3, HEIGHT, WIDTH)
    x0, y0, x1, y1 = footage.window
    assert (x1 - x0) < 0.7 * WIDTH
    boxes = footage.signal.regions()["subject"]
    assert float(boxes[:, 0].min()) >= x0 and float(boxes[:, 2].max()) <= x1
    assert footage.frames.shape == (60, 3, y1 - y0, x1 - x0)
    assert torch.equal(footage.frames, footage.pictures[:, :, y0:y1, x0:x1])
    batch = footage.batch(torch.tensor([0]), 1, CPU)
    assert batch.background_CHW is not None
    assert batch.background_CHW.shape == batch.frames_BTCHW.shape[2:]


def test_held_out_frames_are_never_trained_on_nor_their_neighbours(target):
    footage = prepare(target, BODIES, size=48, background=False)
    held = torch.arange(60)[footage.held_out]
    assert len(held) >= 6 and int(held[-1]) == 59
    for num_frames in (1, 2, 5):
        seen = footage.starts(num_frames)[:, None] + torch.arange(num_frames)
        assert float(footage.pts[held[0]] - footage.pts[seen.max()]) >= 0.5


def test_samples_never_run_across_a_gap(target):
    seen = torch.ones(60, 1, dtype=torch.bool)
    seen[20:25] = False
    gappy = replace(target, signal=replace(target.signal, seen=seen))
    footage = prepare(gappy, BODIES, size=48, background=False)
    covered = footage.starts(4)[:, None] + torch.arange(4)
    assert not torch.isin(covered, torch.arange(20, 25)).any()
    assert 16 in covered[:, 0] and 25 in covered[:, 0]


def test_batches_are_consecutive_frames_in_the_documented_ranges(target):
    footage = prepare(target, BODIES, size=48, background=False)
    batch = footage.batch(torch.tensor([3, 9]), 2, CPU)
    assert batch.frames_BTCHW.shape == (2, 2, 3, 48, 80)
    levels = ((batch.frames_BTCHW + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(levels[1, 1], footage.frames[10])
    assert float(batch.maps_BTCHW.max()) <= 1 and float(batch.maps_BTCHW.min()) >= 0
    assert batch.weights_BT1HW is not None and float(batch.weights_BT1HW.max()) == 1
    assert torch.equal(batch.regions["face"][0, 1], footage.regions["face"][4])


def test_a_small_face_is_cropped_to_and_a_large_one_is_not(target):
    small = nodding_face(60, HEIGHT, WIDTH)
    small = replace(
        small,
        landmarks=(small.landmarks - 60) * 0.3 + 60,
        scale=small.scale * 0.3,
        translation=(small.translation - 60) * 0.3 + 60,
    )
    footage = prepare(replace(target, signal=small), FACES, size=64, background=False)
    x0, y0, x1, y1 = footage.crop
    assert abs((x1 - x0) - (y1 - y0)) <= 1 and (x1 - x0) < 60
    assert footage.spec.height == footage.spec.width == 64
    points = footage.signal.landmarks[..., :2]
    assert points.min() > 0 and points.max() < 64
    large = nodding_face(60, HEIGHT, WIDTH)
    assert prepare(replace(target, signal=large), FACES, size=64, background=False).crop == (
        0,
        0,
        WIDTH,
        HEIGHT,
    )


def test_too_few_usable_frames_say_how_many_are_needed(target):
    seen = torch.zeros(60, 1, dtype=torch.bool)
    seen[:10] = True
    rare = replace(target, signal=replace(target.signal, seen=seen))
    with pytest.raises(NoSubjectFound, match=f"10 of 60 frames and at least {MIN_USABLE_FRAMES}"):
        prepare(rare, BODIES, size=48, background=False)


class Counting(Extractor):
    """Finds the same person in every video, and counts how often it looked."""

    from tiny import TinyOptions as Options

    produces = PoseSequence
    looked = 0

    def extract(self, clips):
        for clip in clips:
            type(self).looked += 1
            yield waving_person(len(clip), clip.height, clip.width)


def test_tracking_is_cached_by_content_and_options(target, tmp_path):
    copy = tmp_path / "renamed.mp4"
    copy.write_bytes(target.path.read_bytes())
    first = track(target.path, Counting(), identity={"name": "counting"})
    looked = Counting.looked
    assert looked > 0
    again = track(copy, Counting(), identity={"name": "counting"})
    assert Counting.looked == looked
    assert torch.equal(first.pts, again.pts)
    assert torch.equal(first.signal.keypoints, again.signal.keypoints)
    track(copy, Counting(), identity={"name": "counting", "smoothing": 1})
    assert Counting.looked == 2 * looked
    part = track(copy, Counting(), identity={"name": "counting"}, start=0.4, end=0.8)
    torch.testing.assert_close(part.pts, target.pts[10:20], atol=1e-6, rtol=0)


@pytest.mark.parametrize("harm", [lambda data: data[:-7], lambda data: b"", lambda data: b"{" * 99])
def test_a_damaged_entry_of_the_cache_is_made_again(target, harm):
    first = track(target.path, Counting(), identity={"name": "harmed"})
    footage = prepare(target, BODIES, size=48, background=False)
    pictures = footage.pictures.clone()
    key = {"tracking": "safetensors", "frames": "rgb"}
    for kind, suffix in key.items():
        for path in cache_folder(kind).glob(f"*.{suffix}"):
            data = path.read_bytes()
            path.unlink()  # not written over: footage of other tests is mapped from it
            path.write_bytes(harm(data))
    looked = Counting.looked
    again = track(target.path, Counting(), identity={"name": "harmed"})
    assert Counting.looked > looked
    assert torch.equal(first.signal.keypoints, again.signal.keypoints)
    assert torch.equal(prepare(target, BODIES, size=48, background=False).pictures, pictures)


def test_a_size_far_beyond_the_target_is_refused(target):
    with pytest.raises(BadOption, match=r"96 px .* choose at most 512"):
        prepare(target, BODIES, size=7680, background=False)


def test_frames_that_do_not_fit_the_disk_are_refused_beforehand(target, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotWrite, match="VIDSYNTH_CACHE"):
        prepare(target, BODIES, size=32, background=False)


def test_a_target_that_only_flickers_is_refused(target):
    footage = prepare(target, BODIES, size=48, background=False)
    flickering = replace(footage, training=torch.arange(60) % 2 == 0)
    assert len(flickering.starts(1)) == 30
    with pytest.raises(NoSubjectFound, match="2 consecutive frames"):
        flickering.starts(2)


@pytest.mark.parametrize(
    "usable, longest", [("0000", 0), ("1111", 4), ("0110", 2), ("1011", 2), ("1101", 2)]
)
def test_the_longest_run_of_training_frames_is_known(target: Tracked, usable: str, longest: int):
    footage = prepare(target, BODIES, size=32, background=False)
    training = torch.tensor([c == "1" for c in usable])
    assert replace(footage, training=training).longest_run() == longest
