"""The face extractor: head poses against known ones, real clips where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.drawing import resize
from vidsynth.errors import MissingWeights
from vidsynth.facemesh import load_face_mesh
from vidsynth.testing import conformance, nodding_face
from vidsynth.worlds import WORLDS
from vidsynth_plugins import mediapipe_models
from vidsynth_plugins.face import FaceExtractor, FaceOptions, fit_head_pose

MODELS = Path(__file__).parents[3] / "shared" / "models"
FACE_BUNDLE = MODELS / "face_landmarker.task"
FRONTAL = np.diag([1.0, -1.0, -1.0])


def rotations(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3, 3) proper rotations near the frontal one: within about 60 degrees."""
    rng = np.random.default_rng(seed)
    x, y, z = rng.uniform(-1, 1, (3, count))

    def about(axis: int, angle: np.ndarray) -> np.ndarray:
        made = np.tile(np.eye(3), (count, 1, 1))
        one, two = (axis + 1) % 3, (axis + 2) % 3
        made[:, one, one] = made[:, two, two] = np.cos(angle)
        made[:, two, one], made[:, one, two] = np.sin(angle), -np.sin(angle)
        return made

    return about(2, z) @ about(1, y) @ about(0, x) @ FRONTAL


def seen_from(rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Canonical faces (T, 478, 3) in pixels; the irises are left at the origin."""
    points = scale[:, None, None] * load_face_mesh().vertices @ rotation.transpose(0, 2, 1)
    points[..., :2] += translation[:, None]
    return np.concatenate([points, np.zeros((len(points), 10, 3))], axis=1)


def degrees_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    trace = np.einsum("tij,tij->t", one, other)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def test_head_pose_is_found_again() -> None:
    rng = np.random.default_rng(1)
    rotation, scale = rotations(20), rng.uniform(2, 40, 20)
    translation = rng.uniform(-100, 900, (20, 2))
    pose = fit_head_pose(seen_from(rotation, scale, translation))
    assert np.allclose(pose.rotation, rotation, atol=1e-5)
    assert np.allclose(pose.scale, scale, rtol=1e-5)
    assert np.allclose(pose.translation, translation, atol=1e-2)


def test_rotations_are_proper_even_for_nonsense() -> None:
    points = np.random.default_rng(0).normal(size=(50, 478, 3)) * 100
    mirrored = seen_from(rotations(50), np.full(50, 9.0), np.zeros((50, 2))) * [-1, 1, 1]
    for landmarks in (points, mirrored):
        rotation = fit_head_pose(landmarks).rotation.astype(np.float64)
        assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-5)
        assert np.allclose(np.linalg.det(rotation), 1, atol=1e-5)


def test_an_open_mouth_hardly_turns_the_head() -> None:
    scale, translation = np.full(5, 10.0), np.zeros((5, 2))
    shut = seen_from(rotations(5), scale, translation)
    wide = shut.copy()
    jaw = [152, 148, 176, 377, 400, *faces.LIPS_INNER[1:10], *faces.LIPS_OUTER[1:10]]
    wide[:, jaw, 1] += 30.0
    turned = degrees_between(fit_head_pose(shut).rotation, fit_head_pose(wide).rotation)
    assert turned.max() < 1e-3


def test_nodding_of_the_sample_face_is_measured() -> None:
    face = nodding_face(25, 128, 128)
    pose = fit_head_pose(face.landmarks.numpy())
    assert degrees_between(pose.rotation, face.rotation.numpy()).max() < 0.1
    assert np.allclose(pose.translation, face.translation, atol=0.1)
    assert np.allclose(pose.scale, face.scale, rtol=1e-3)


def test_no_landmarks_no_pose() -> None:
    pose = fit_head_pose(np.zeros((2, 478, 3)))
    assert np.allclose(pose.rotation, FRONTAL)
    assert not pose.scale.any() and not pose.translation.any()
    assert fit_head_pose(np.zeros((0, 478, 3))).rotation.shape == (0, 3, 3)


def test_point_numbers_are_mediapipes_own() -> None:
    from mediapipe.python.solutions import face_mesh_connections as known

    def numbers(connections: Any) -> set[int]:
        return {number for pair in connections for number in pair}

    def edges(loop: Sequence[int]) -> set[frozenset[int]]:
        return {frozenset(pair) for pair in zip(loop, (*loop[1:], loop[0]), strict=True)}

    for loop, connections in (
        (faces.OVAL, known.FACEMESH_FACE_OVAL),
        (faces.LEFT_EYE, known.FACEMESH_LEFT_EYE),
        (faces.RIGHT_EYE, known.FACEMESH_RIGHT_EYE),
    ):
        assert edges(loop) == {frozenset(pair) for pair in connections}
    lips = edges(faces.LIPS_OUTER) | edges(faces.LIPS_INNER)
    assert lips == {frozenset(pair) for pair in known.FACEMESH_LIPS}
    assert set(faces.LEFT_BROW) == numbers(known.FACEMESH_LEFT_EYEBROW)
    assert set(faces.RIGHT_BROW) == numbers(known.FACEMESH_RIGHT_EYEBROW)
    assert set(faces.LEFT_IRIS[1:]) == numbers(known.FACEMESH_LEFT_IRIS)
    assert set(faces.RIGHT_IRIS[1:]) == numbers(known.FACEMESH_RIGHT_IRIS)
    assert set(faces.NOSE_BRIDGE + faces.NOSTRILS) <= numbers(known.FACEMESH_NOSE) | {168}


def extracted(*clips: Clip, **options: Any) -> FaceSequence:
    return FaceSequence.concat(list(FaceExtractor(FaceOptions(**options)).extract(iter(clips))))


def test_nobody_there_is_no_error() -> None:
    clip = Clip(torch.full((3, 3, 64, 64), 90, dtype=torch.uint8), torch.arange(3).double())
    face = extracted(clip)
    assert not face.seen.any()
    assert face.landmarks.shape == (3, 478, 3)


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.task"
    damaged.write_bytes(b"no bundle")
    clip = Clip(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1).double())
    with pytest.raises(MissingWeights, match=r"damaged\.task"):
        extracted(clip, model_bundle=damaged)


@cache
def film(num_frames: int, height: int, width: int, seed: int) -> tuple[Clip, FaceSequence]:
    world = WORLDS["head"]
    identity, motion = world.make_identity(seed), world.make_motion(seed, num_frames)
    chunks = world.render(identity, motion, height=height, width=width)
    clip = Clip.concat([chunk.clip for chunk in chunks if chunk.clip is not None])
    truth = world.truth(identity, motion, height=height, width=width)
    assert isinstance(truth, FaceSequence)
    return clip, truth


def head_clip(
    num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
) -> Clip:
    clip = film(16, height, width, seed)[0][:num_frames]
    return clip if pts is None else Clip(clip.frames, pts)


@conformance(FaceExtractor, clip=head_clip, height=128, width=128)
def test_conforms_while_somebody_is_there(check: Any) -> None:
    check()


def test_made_faces_are_found_where_they_are() -> None:
    clip, truth = film(8, 192, 192, 2)
    face = extracted(clip)
    assert face.seen.all()
    assert (face.landmarks - truth.landmarks)[..., :2].norm(dim=-1).mean() < 0.02 * 192
    assert degrees_between(face.rotation.numpy(), truth.rotation.numpy()).mean() < 6
    assert (face.scale / truth.scale).mean() == pytest.approx(1, abs=0.1)
    assert (face.translation - truth.translation).norm(dim=-1).mean() < 0.03 * 192


# Real faces.


def first_frames(path: Path, count: int) -> Iterator[Clip]:
    import av

    with av.open(str(path)) as container:
        for _, frame in zip(range(count), container.decode(video=0), strict=False):
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield Clip(picture[None], torch.tensor([frame.time], dtype=torch.float64))


@pytest.mark.needs_media
def test_real_faces_are_seen_in_every_frame(shared_media: Path) -> None:
    for path in sorted((shared_media / "face").glob("*.mp4")):
        face = extracted(*first_frames(path, 12))
        assert face.seen.all(), path.name
        box = face.regions()["face"]
        irises = face.landmarks[:, (468, 473), :2]
        assert ((irises > box[:, None, :2]) & (irises < box[:, None, 2:])).all(), path.name
        # The right eye is on the left of an upright picture; the head is some 16 cm high.
        assert (face.landmarks[:, 33, 0] < face.landmarks[:, 263, 0]).all()
        height = face.landmarks[:, 152, 1] - face.landmarks[:, 10, 1]
        assert (height / face.scale).mean() == pytest.approx(16, abs=4)


@pytest.mark.needs_media
def test_bundle_and_wheel_agree_also_on_the_head_pose(shared_media: Path) -> None:
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    clip = Clip.concat(list(first_frames(shared_media / "face" / "liveportrait_d9.mp4", 4)))
    wheel = extracted(clip, smoothing=0.0)
    bundle = extracted(clip, smoothing=0.0, model_bundle=FACE_BUNDLE)
    apart = (wheel.landmarks - bundle.landmarks)[..., :2].norm(dim=-1).mean()
    assert apart < 0.01 * clip.width

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(FACE_BUNDLE)),
        output_facial_transformation_matrixes=True,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        picture = clip.frames[0].permute(1, 2, 0).contiguous().numpy()
        found = landmarker.detect(Image(image_format=ImageFormat.SRGB, data=picture))
    theirs = found.facial_transformation_matrixes[0][:3, :3]
    theirs = FRONTAL @ theirs / np.cbrt(np.linalg.det(theirs))
    assert degrees_between(wheel.rotation[:1].numpy(), theirs[None]).max() < 4


@pytest.mark.needs_media
def test_models_are_found_in_the_folder_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, shared_media: Path
) -> None:
    monkeypatch.setattr(mediapipe_models, "_solutions", lambda: None)
    monkeypatch.setenv("VIDSYNTH_MODELS", str(MODELS))
    path = shared_media / "face" / "liveportrait_d9.mp4"
    assert extracted(*first_frames(path, 2)).seen.all()


@pytest.mark.needs_media
@pytest.mark.parametrize(("person", "on_the_left"), [(None, False), (2, True)])
def test_one_of_two_faces_is_tracked(
    shared_media: Path, person: int | None, on_the_left: bool
) -> None:
    left, right = (
        torch.cat([c.frames for c in first_frames(shared_media / "face" / name, 8)])
        for name in ("liveportrait_d10.mp4", "liveportrait_d6.mp4")
    )
    frames = torch.full((8, 3, 480, 800), 127, dtype=torch.uint8)
    frames[:, :, :320, :320] = resize(left, 320, 320)
    frames[:, :, :, 320:] = right
    clip = Clip(frames, torch.arange(8, dtype=torch.float64) / 30)
    face = extracted(clip, person=person)
    assert face.seen.all()
    assert bool((face.landmarks[:, 4, 0] < 320).all()) is on_the_left


@pytest.mark.needs_media
def test_a_small_face_in_a_large_picture_is_found(shared_media: Path) -> None:
    real = Clip.concat(list(first_frames(shared_media / "face" / "liveportrait_d9.mp4", 4)))
    frames = torch.full((4, 3, 720, 1280), 127, dtype=torch.uint8)
    frames[:, :, 100:196, 900:996] = resize(real.frames, 96, 96)
    face = extracted(Clip(frames, real.pts))
    assert face.seen.all()
    centre = face.landmarks[..., :2].mean(dim=(0, 1))
    assert (centre > torch.tensor([900.0, 100.0])).all()
    assert (centre < torch.tensor([996.0, 196.0])).all()
