"""The body extractor, on the puppet world (known joints) and, where they are, on real clips."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vidsynth import bodies, weights
from vidsynth.clip import Clip
from vidsynth.conditioning import PoseSequence
from vidsynth.errors import BadOption, MissingWeights
from vidsynth.testing import conformance
from vidsynth.worlds import WORLDS
from vidsynth_plugins import mediapipe_models
from vidsynth_plugins.pose import PoseExtractor, PoseOptions

MODELS = Path(__file__).parents[3] / "shared" / "models"
POSE_BUNDLE = MODELS / "pose_landmarker_full.from_wheel_0.10.21.task"
NUM_FRAMES = 12


@cache
def film(num_frames: int, height: int, width: int, seed: int) -> tuple[Clip, PoseSequence]:
    world = WORLDS["puppet"]
    identity, motion = world.make_identity(seed), world.make_motion(seed, num_frames)
    chunks = world.render(identity, motion, height=height, width=width)
    clip = Clip.concat([chunk.clip for chunk in chunks if chunk.clip is not None])
    truth = world.truth(identity, motion, height=height, width=width)
    assert isinstance(truth, PoseSequence)
    return clip, truth


def puppet_clip(
    num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
) -> Clip:
    clip = film(16, height, width, seed)[0][:num_frames]
    return clip if pts is None else Clip(clip.frames, pts)


def extracted(*clips: Clip, **options: Any) -> PoseSequence:
    parts = list(PoseExtractor(PoseOptions(**options)).extract(iter(clips)))
    return PoseSequence.concat(parts)


def distance(one: PoseSequence, other: PoseSequence) -> Tensor:
    return (one.keypoints - other.keypoints)[..., :2].norm(dim=-1)


@conformance(PoseExtractor, clip=puppet_clip, height=144, width=144)
def test_conforms_while_somebody_is_there(check: Any) -> None:
    check()


def test_joints_are_found_where_they_are() -> None:
    clip, truth = film(NUM_FRAMES, 256, 256, 1)
    pose = extracted(clip)
    assert pose.seen.all()
    assert distance(pose, truth).mean() < 0.02 * 256
    assert pose.keypoints.shape == (NUM_FRAMES, 1, 33, 3)
    shoulders = pose.world[:, 0, bodies.LEFT_SHOULDER] - pose.world[:, 0, bodies.RIGHT_SHOULDER]
    assert 0.2 < shoulders.norm(dim=-1).mean() < 0.5  # metres
    assert (pose.world[:, 0, bodies.NOSE, 1] < pose.world[:, 0, bodies.LEFT_KNEE, 1]).all()


def test_world_depth_grows_away_from_the_viewer() -> None:
    clip, truth = film(NUM_FRAMES, 256, 256, 1)
    found, true = (p.world[:, 0, :, 2] for p in (extracted(clip), truth))
    for nearer, farther in ((bodies.NOSE, bodies.LEFT_EAR), (31, 29), (32, 30)):
        gap = (true[:, farther] - true[:, nearer]).mean()
        assert abs(gap) > 0.05  # or the puppet shows nothing
        assert (found[:, farther] - found[:, nearer]).mean().sign() == gap.sign()


@pytest.fixture(scope="module")
def two_people() -> tuple[Clip, int]:
    """A large puppet on the left, a smaller one on the right, and the column between them."""
    large, small = film(NUM_FRAMES, 256, 192, 1)[0], film(NUM_FRAMES, 192, 160, 2)[0]
    floor = small.frames[:, :, -1:].expand(-1, -1, 64, -1)
    right = torch.cat([small.frames, floor], dim=2)
    return Clip(torch.cat([large.frames, right], dim=3), large.pts), 192


@pytest.mark.parametrize(("person", "on_the_left"), [(None, True), (1, True), (2, False)])
def test_one_of_two_people_is_tracked(
    two_people: tuple[Clip, int], person: int | None, on_the_left: bool
) -> None:
    clip, border = two_people
    pose = extracted(clip, person=person)
    assert pose.seen.all()
    hips = pose.keypoints[:, 0, (23, 24), 0]
    assert bool((hips < border).all()) is on_the_left
    assert bool((hips > border).all()) is not on_the_left


def test_a_third_of_two_people_is_never_seen(two_people: tuple[Clip, int]) -> None:
    assert not extracted(two_people[0][:4], person=3).seen.any()


def blanked(clip: Clip, start: int, stop: int) -> Clip:
    frames = clip.frames.clone()
    frames[start:stop] = 128
    return Clip(frames, clip.pts)


def test_a_short_absence_is_bridged_and_a_long_one_marked() -> None:
    clip, _ = film(NUM_FRAMES, 256, 256, 1)
    frame = float(clip.pts[1] - clip.pts[0])
    hole = blanked(clip, 6, 9)
    bridged = extracted(hole[:7], hole[7:], max_gap_seconds=4.5 * frame)
    assert bridged.seen.all()
    assert distance(bridged, extracted(clip))[6:9].mean() < 0.04 * 256
    marked = extracted(hole, max_gap_seconds=2.5 * frame)
    assert marked.seen[:, 0].tolist() == [t not in (6, 7, 8) for t in range(NUM_FRAMES)]
    assert not marked.keypoints[6:9, ..., 2].any()


def test_nobody_there_is_no_error() -> None:
    clip = Clip(torch.full((3, 3, 64, 64), 90, dtype=torch.uint8), torch.arange(3).double())
    pose = extracted(clip)
    assert not pose.seen.any()
    assert not pose.keypoints.any()


def test_smoothing_calms_the_joints_and_keeps_their_place() -> None:
    clip, truth = film(NUM_FRAMES, 256, 256, 1)
    raw, smooth = extracted(clip, smoothing=0.0), extracted(clip)

    def jerk(pose: PoseSequence) -> float:
        return float(pose.keypoints[:, 0, :, :2].diff(n=2, dim=0).norm(dim=-1).mean())

    assert jerk(smooth) < 0.8 * jerk(raw)
    assert distance(smooth, truth).mean() < distance(raw, truth).mean() + 0.5


def test_hands_and_face_come_with_the_body_when_asked_for() -> None:
    clip, _ = film(NUM_FRAMES, 256, 256, 1)
    plain, detailed = extracted(clip[:4]), extracted(clip[:4], hands=True, face=True)
    assert plain.hands is None and plain.face is None
    assert detailed.hands is not None and detailed.hands.shape == (4, 1, 42, 3)
    assert detailed.face is not None and detailed.face.shape == (4, 1, 478, 3)
    # What is not found lies on wrist and nose, so every point is near the body.
    wrists = detailed.keypoints[:, :, (15, 16), :2].repeat_interleave(21, dim=2)
    assert (detailed.hands[..., :2] - wrists).norm(dim=-1).max() < 0.2 * 256


def test_the_terminal_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    extracted(puppet_clip(2, 144, 144))
    assert capfd.readouterr().err == ""


def test_joint_numbers_are_mediapipes_own() -> None:
    from mediapipe.python.solutions.pose import PoseLandmark

    for name in (
        "NOSE", "LEFT_EYE", "RIGHT_EYE", "LEFT_EAR", "RIGHT_EAR", "MOUTH_LEFT", "MOUTH_RIGHT",
        "LEFT_SHOULDER", "RIGHT_SHOULDER", "LEFT_ELBOW", "RIGHT_ELBOW", "LEFT_WRIST",
        "RIGHT_WRIST", "LEFT_HIP", "RIGHT_HIP", "LEFT_KNEE", "RIGHT_KNEE", "LEFT_ANKLE",
        "RIGHT_ANKLE",
    ):  # fmt: skip
        assert getattr(bodies, name) == PoseLandmark[name].value
    assert {PoseLandmark(k).name.split("_")[0] for k in bodies.HANDS["left_hand"]} == {"LEFT"}


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    absent, damaged = tmp_path / "absent.task", tmp_path / "damaged.task"
    damaged.write_bytes(b"no bundle")
    for bundle in (absent, damaged):
        with pytest.raises(MissingWeights, match=bundle.name):
            extracted(puppet_clip(1, 144, 144), model_bundle=bundle)


def test_mediapipe_without_models_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mediapipe_models, "_solutions", lambda: None)
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match=weights.WEIGHTS["pose_landmarker_full"].file):
        extracted(puppet_clip(1, 144, 144))
    monkeypatch.setenv("VIDSYNTH_MODELS", str(tmp_path))
    with pytest.raises(MissingWeights, match="VIDSYNTH_MODELS"):
        extracted(puppet_clip(1, 144, 144))
    with pytest.raises(BadOption, match="hands"):
        extracted(puppet_clip(1, 144, 144), hands=True)


@pytest.mark.needs_media
def test_bundle_and_wheel_agree() -> None:
    clip, _ = film(NUM_FRAMES, 256, 256, 1)
    wheel = extracted(clip, smoothing=0.0)
    bundle = extracted(clip, smoothing=0.0, model_bundle=POSE_BUNDLE)
    assert bundle.seen.all()
    assert distance(wheel, bundle).mean() < 0.02 * 256
    assert (wheel.world - bundle.world).norm(dim=-1).mean() < 0.05


@pytest.mark.needs_media
def test_models_are_found_in_the_folder_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediapipe_models, "_solutions", lambda: None)
    monkeypatch.setenv("VIDSYNTH_MODELS", str(MODELS))
    assert extracted(puppet_clip(2, 144, 144)).seen.all()


def first_frames(path: Path, count: int) -> Iterator[Clip]:
    import av

    with av.open(str(path)) as container:
        for _, frame in zip(range(count), container.decode(video=0), strict=False):
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield Clip(picture[None], torch.tensor([frame.time], dtype=torch.float64))


@pytest.mark.needs_media
def test_real_dancers_are_seen_in_every_frame(shared_media: Path) -> None:
    for path in sorted((shared_media / "dance").glob("*.mp4")):
        pose = extracted(*first_frames(path, 12))
        assert pose.seen.all(), path.name
        height, width = pose.frame_size
        body = pose.keypoints[:, 0, 11:29]
        inside = (body[..., :2] > 0).all(-1) & (body[..., 0] < width) & (body[..., 1] < height)
        assert inside.float().mean() > 0.95, path.name
        assert (body[..., 2] > 0.5).float().mean() > 0.75, path.name
