"""Masks of the parts that a viewer looks at, on a face and a body of known shape."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.conditioning import Conditioning, FaceSequence, PoseSequence
from vidsynth.regions import regions
from vidsynth.testing import nodding_face, sliding_labels, waving_person

SIZE = 200
SIGNALS = [nodding_face(3, SIZE, SIZE), waving_person(3, SIZE, SIZE)]


def inside(part: Tensor, whole: Tensor) -> float:
    """Share of `part` that lies in `whole`."""
    return float((part & whole).sum() / part.sum())


def polygon_area(points: Tensor) -> float:
    x, y = points.double().T
    return float((x * y.roll(-1) - y * x.roll(-1)).sum().abs() / 2)


def without(signal: Conditioning, frame: int) -> Conditioning:
    assert isinstance(signal, FaceSequence | PoseSequence)
    seen = signal.seen.clone()
    seen[frame] = False
    return replace(signal, seen=seen)


def test_each_kind_has_its_parts() -> None:
    face, body = (regions(signal, SIZE, SIZE) for signal in SIGNALS)
    assert set(face) == {"subject", "face", "mouth", "eyes"}
    assert set(body) == {"subject", "face", "limbs", "hands"}
    assert regions(sliding_labels(2, 8, 8), 8, 8) == {}
    for mask in (*face.values(), *body.values()):
        assert mask.shape == (3, SIZE, SIZE) and mask.dtype == torch.bool
        assert mask.flatten(1).any(dim=1).all()


def test_a_face_is_the_inside_of_its_oval() -> None:
    signal = nodding_face(1, SIZE, SIZE)
    oval = signal.landmarks[0, list(faces.OVAL), :2]
    assert regions(signal, SIZE, SIZE)["face"].sum().item() == pytest.approx(
        polygon_area(oval), rel=0.05
    )


def test_mouth_and_eyes_are_small_apart_and_inside_the_face() -> None:
    masks = regions(nodding_face(3, SIZE, SIZE), SIZE, SIZE)
    for name in ("mouth", "eyes"):
        assert inside(masks[name], masks["face"]) > 0.95
        assert 0.02 < float(masks[name].sum() / masks["face"].sum()) < 0.35
    assert not (masks["mouth"] & masks["eyes"]).any()
    assert inside(masks["face"], masks["subject"]) == 1.0


def test_landmarks_lie_in_their_own_part() -> None:
    signal = nodding_face(1, SIZE, SIZE)
    masks = regions(signal, SIZE, SIZE)
    for name, points in {
        "mouth": faces.LIPS_OUTER,
        "eyes": faces.LEFT_EYE + faces.RIGHT_BROW,
    }.items():
        columns, rows = signal.landmarks[0, list(points), :2].long().T
        assert masks[name][0, rows, columns].all()


def test_a_straight_limb_is_a_capsule() -> None:
    """One upper arm and nothing else: its area is length times width, and a disc for the ends."""
    person = waving_person(1, SIZE, SIZE)
    keypoints = person.keypoints.clone()
    keypoints[..., 2] = 0.0
    keypoints[0, 0, [11, 13], 2] = 1.0
    keypoints[0, 0, [11, 12, 13, 23, 24], :2] = torch.tensor(
        [[50.0, 50.0], [50, 50], [110, 50], [50, 150], [50, 150]]
    )
    masks = regions(replace(person, keypoints=keypoints), SIZE, SIZE)
    length, width = 60, 0.26 * 100  # the torso is 100 px long
    area = length * width + math.pi * width**2 / 4
    assert masks["limbs"].sum().item() == pytest.approx(area, rel=0.1)
    assert not masks["hands"].any() and not masks["face"].any()


def test_body_parts_lie_on_the_body() -> None:
    masks = regions(waving_person(3, SIZE, SIZE), SIZE, SIZE)
    for name in ("face", "limbs", "hands"):
        assert inside(masks[name], masks["subject"]) > 0.9
    assert not (masks["face"] & masks["limbs"]).any()


def test_parts_scale_with_the_picture() -> None:
    for signal in SIGNALS:
        small, large = regions(signal, SIZE, SIZE), regions(signal, 2 * SIZE, 2 * SIZE)
        for name, mask in small.items():
            assert large[name].sum().item() == pytest.approx(4 * mask.sum().item(), rel=0.1), name


@pytest.mark.parametrize("signal", SIGNALS, ids=["face", "body"])
def test_frames_without_the_subject_are_empty(signal: Conditioning) -> None:
    for name, mask in regions(without(signal, 1), SIZE, SIZE).items():
        assert mask.flatten(1).any(dim=1).tolist() == [True, False, True], name
