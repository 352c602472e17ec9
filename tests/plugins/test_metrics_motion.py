"""Distances of tracked bodies and faces whose difference is known; identity with a stand-in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidsynth import bodies
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, FaceSequence, PoseSequence
from vidsynth.errors import MissingWeights, NoSubjectFound, NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth.testing import moving_squares, nodding_face, times, waving_person
from vidsynth.testing.metrics import film_of
from vidsynth_plugins.metrics.identity import IdentityOptions, IdentitySimilarity, five_points
from vidsynth_plugins.metrics.motion import (
    ExpressionDistance,
    GazeError,
    HeadPoseError,
    LandmarkDistance,
    MissingRate,
    PoseDistance,
    PoseDistancePx,
    PoseMotion,
)

# T frames, H, W pixels

SIDE = 96


def showing(signal: Conditioning) -> Film:
    """A film in which the trackers see just this."""
    film = film_of(moving_squares(len(signal), SIDE, SIDE))
    return replace(film, track=lambda _: signal)


def measured(metric: Metric, made: Conditioning, real: Conditioning) -> Measurement:
    metric.update(showing(made), showing(real))
    return metric.compute()


def shifted(signal: Any, x: float, y: float) -> Any:
    name = "keypoints" if isinstance(signal, PoseSequence) else "landmarks"
    points = getattr(signal, name).clone()
    points[..., 0] += x
    points[..., 1] += y
    return replace(signal, **{name: points})


def turned(face: FaceSequence, axis: int, degrees: float) -> FaceSequence:
    """Turned about an axis of the picture through the middle of the face."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.eye(3)
    a, b = [k for k in range(3) if k != axis]
    turn[a, a], turn[b, b], turn[a, b], turn[b, a] = c, c, -s, s
    middle = torch.tensor([SIDE / 2, SIDE / 2, 0.0])
    points = (face.landmarks - middle) @ turn.T + middle
    return replace(face, landmarks=points, rotation=turn @ face.rotation)


def scaled(signal: Any, factor: float) -> Any:
    middle = SIDE / 2
    return shifted(signal.rescale(round(SIDE * factor), round(SIDE * factor)), middle, 2.0)


def test_a_shifted_skeleton_is_as_far_as_it_was_shifted() -> None:
    person = waving_person(6, SIDE, SIDE)
    moved = shifted(person, 3.0, 4.0)
    assert measured(PoseDistancePx(), moved, person).value == pytest.approx(5.0, abs=1e-4)
    points = bodies.subject_points(person, SIDE, SIDE)
    height = 3.3 * float(np.median(bodies.torso_lengths(points)))
    percent = measured(PoseDistance(), moved, person)
    assert percent.value == pytest.approx(500 / height, rel=1e-5)
    assert percent.count == 6


def test_joints_that_were_guessed_do_not_count() -> None:
    person = waving_person(2, SIDE, SIDE)
    keypoints = person.keypoints.clone()
    keypoints[:, 0, 15, 0] += 40
    keypoints[:, 0, 15, 2] = 0.2
    assert measured(PoseDistancePx(), replace(person, keypoints=keypoints), person).value == 0
    keypoints[:, 0, 15, 2] = 0.9
    far = measured(PoseDistancePx(), replace(person, keypoints=keypoints), person).value
    assert far == pytest.approx(40 / 13, rel=1e-5)


def test_motion_of_a_body_is_judged_wherever_and_however_large_it_is() -> None:
    person = waving_person(12, SIDE, SIDE)
    elsewhere = scaled(shifted(person, 5.0, -3.0), 1.5)
    assert measured(PoseMotion(), elsewhere, person).value == pytest.approx(0, abs=1e-3)
    assert measured(PoseDistance(), elsewhere, person).value > 10
    later = person[torch.tensor([*range(6, 12), *range(6)])]
    assert measured(PoseMotion(), later, person).value > 1


def test_missing_rate_counts_frames_where_only_the_real_film_shows_someone() -> None:
    person = waving_person(8, SIDE, SIDE)
    there = torch.tensor([1, 1, 1, 1, 1, 1, 0, 0]).bool()[:, None]
    here = torch.tensor([1, 0, 1, 1, 1, 1, 0, 1]).bool()[:, None]
    found = measured(MissingRate(), replace(person, seen=here), replace(person, seen=there))
    assert found.value == pytest.approx(100 / 6) and found.count == 6

    def nobody(extractor: str) -> Conditioning:
        raise NoSubjectFound("nobody")

    metric = MissingRate()
    metric.update(replace(showing(person), track=nobody), showing(person))
    assert metric.compute().value == 100
    metric = MissingRate()
    metric.update(showing(person), replace(showing(person), track=nobody))
    with pytest.raises(NotMeasurable, match="sees nobody in the real video"):
        metric.compute()


def test_a_shifted_face_is_far_in_distances_between_its_eyes() -> None:
    face = nodding_face(5, SIDE, SIDE)
    corners = face.landmarks[0, [33, 263], :2]  # it nods, so they keep their distance
    between = float((corners[0] - corners[1]).norm())
    found = measured(LandmarkDistance(), shifted(face, 0.6, 0.8), face)
    assert found.value == pytest.approx(100 / between, rel=1e-3)


def test_expressions_are_compared_without_place_size_turn_or_shape() -> None:
    face = nodding_face(8, SIDE, SIDE)
    assert measured(ExpressionDistance(), face, face).value == pytest.approx(0, abs=1e-6)
    other = shifted(turned(face, 2, 20.0), 5.0, 3.0)
    assert measured(ExpressionDistance(), other, face).value == pytest.approx(0, abs=1e-3)
    larger = scaled(face, 2.0)
    assert measured(ExpressionDistance(), larger, face).value == pytest.approx(0, abs=1e-3)
    smiling = face.landmarks.clone()
    smiling[4:, [61, 291], 1] -= 5
    found = measured(ExpressionDistance(), replace(face, landmarks=smiling), face)
    assert found.value > 0.15
    smiling[:4, [61, 291], 1] -= 5  # always: that is the person's mouth
    found = measured(ExpressionDistance(), replace(face, landmarks=smiling), face)
    assert found.value < 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [0.01, 12.0, 100.0])
def test_the_angle_between_heads_is_the_turn(axis: int, degrees: float) -> None:
    face = nodding_face(4, SIDE, SIDE)
    found = measured(HeadPoseError(), turned(face, axis, degrees), face)
    assert found.value == pytest.approx(degrees, abs=5e-3)


def test_gaze_is_the_place_of_the_irises_in_eye_widths() -> None:
    face = nodding_face(4, SIDE, SIDE)
    width = float((face.landmarks[0, 133, :2] - face.landmarks[0, 33, :2]).norm())
    landmarks = face.landmarks.clone()
    landmarks[:, 468:, 0] += 0.1 * width
    looking = replace(face, landmarks=landmarks)
    assert measured(GazeError(), looking, face).value == pytest.approx(10, rel=0.05)
    turned_alike = (turned(f, 2, 30.0) for f in (looking, face))
    assert measured(GazeError(), *turned_alike).value == pytest.approx(10, rel=0.05)
    crossed = face.landmarks.clone()
    crossed[:, 468:473, 0] += 1.0
    crossed[:, 473:, 0] -= 1.0
    squint = measured(GazeError(), replace(face, landmarks=crossed), face)
    assert squint.value == pytest.approx(0, abs=0.5)


def test_blinks_have_no_gaze() -> None:
    face = nodding_face(4, SIDE, SIDE)
    landmarks = face.landmarks.clone()
    landmarks[:, [159, 386]] = landmarks[:, [145, 374]]
    with pytest.raises(NotMeasurable, match="open eyes"):
        measured(GazeError(), replace(face, landmarks=landmarks), face)


def test_a_metric_of_faces_needs_one_frame_with_both() -> None:
    face = nodding_face(4, SIDE, SIDE)
    absent = replace(face, seen=torch.tensor([True, True, False, False]))
    found = measured(HeadPoseError(), turned(face, 1, 5.0), absent)
    assert found.per_frame is not None
    assert found.per_frame.isnan().tolist() == [False, False, True, True]
    with pytest.raises(NotMeasurable, match="no frame shows the subject in both"):
        measured(HeadPoseError(), replace(face, seen=~absent.seen), absent)


def test_a_mean_over_few_frames_says_so() -> None:
    face = nodding_face(10, SIDE, SIDE)
    seen = torch.arange(10) == 3
    assert measured(HeadPoseError(), replace(face, seen=seen), face).caveat == (
        "rests on 1 of 10 frames only"
    )
    assert not measured(HeadPoseError(), face, face).caveat


def test_a_body_without_hips_has_no_motion_to_compare() -> None:
    person = waving_person(2, SIDE, SIDE)
    keypoints = person.keypoints.clone()
    keypoints[:, 0, 23:25, 2] = 0.1
    with pytest.raises(NotMeasurable, match="both hips"):
        measured(PoseMotion(), replace(person, keypoints=keypoints), person)


# A network in ONNX, written by hand: the mean of each channel of a 112x112 picture.
def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return bytes([number << 3, content])
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def tensor_info(name: bytes, *shape: int) -> bytes:
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def node(kind: bytes, source: bytes, made: bytes) -> bytes:
    return field(1, field(1, source) + field(2, made) + field(3, made) + field(4, kind))


def mean_colour_network() -> bytes:
    nodes = node(b"GlobalAveragePool", b"data", b"pooled") + node(b"Flatten", b"pooled", b"fc1")
    ends = field(11, tensor_info(b"data", 1, 3, 112, 112)) + field(12, tensor_info(b"fc1", 1, 3))
    return field(1, 7) + field(7, nodes + field(2, b"mean") + ends) + field(8, field(2, 11))


def painted(face: FaceSequence, colour: tuple[int, int, int]) -> Film:
    """A film of one colour, grey but around the face."""
    frames = torch.full((len(face), 3, SIDE, SIDE), 128, dtype=torch.uint8)
    points = face.landmarks[..., :2]
    for t in range(len(face)):
        (x0, y0), (x1, y1) = points[t].amin(0).long().tolist(), points[t].amax(0).long().tolist()
        frames[t, :, y0:y1, x0:x1] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    film = film_of(Clip(frames, times(len(face))))
    return replace(film, track=lambda _: face)


def test_identity_is_the_cosine_of_embeddings_of_aligned_faces(tmp_path: Path) -> None:
    network = tmp_path / "stand_in.onnx"
    network.write_bytes(mean_colour_network())
    face = nodding_face(5, SIDE, SIDE)
    face = replace(face, seen=torch.tensor([True, True, False, True, True]))
    metric = IdentitySimilarity(IdentityOptions(weights=str(network)))
    metric.update(painted(face, (250, 10, 10)), painted(nodding_face(4, SIDE, SIDE), (250, 10, 10)))
    same = metric.compute()
    assert same.value == pytest.approx(1.0, abs=1e-3) and same.count == 4
    assert same.per_frame is not None and same.per_frame[2].isnan()

    metric = IdentitySimilarity(IdentityOptions(weights=str(network), stride=2))
    metric.update(painted(face, (250, 10, 10)), painted(nodding_face(4, SIDE, SIDE), (10, 10, 250)))
    other = metric.compute()
    assert other.value < 0.5 and other.count == 2
    assert "stride 2" in other.protocol


def test_five_points_are_in_the_order_that_the_recogniser_aligns_by() -> None:
    """The person's right eye is left in the picture; mouth corners below; nose between."""
    right_eye, left_eye, nose, right_mouth, left_mouth = five_points(nodding_face(1, SIDE, SIDE))[0]
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < nose[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]
    assert right_eye[1] == pytest.approx(float(left_eye[1]), abs=0.5)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(b"not a network")
    metric = IdentitySimilarity(IdentityOptions(weights=str(path)))
    face = nodding_face(1, SIDE, SIDE)
    with pytest.raises(MissingWeights, match="cannot be read as an ONNX network"):
        metric.update(showing(face), showing(face))


def test_a_film_without_the_face_has_no_identity(tmp_path: Path) -> None:
    network = tmp_path / "stand_in.onnx"
    network.write_bytes(mean_colour_network())
    face = nodding_face(2, SIDE, SIDE)
    hidden = replace(face, seen=torch.zeros(2, dtype=torch.bool))
    for made, real in ((face, hidden), (hidden, face)):
        metric = IdentitySimilarity(IdentityOptions(weights=str(network)))
        metric.update(painted(made, (1, 2, 3)), painted(real, (1, 2, 3)))
        with pytest.raises(NotMeasurable, match="no face is seen"):
            metric.compute()
