"""Face maps, silhouettes, boxes and features, on the canonical face."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.conditioning import FaceSequence
from vidsynth.facemesh import load_face_mesh
from vidsynth.testing import nodding_face

SIZE = 192


def face(num_frames: int = 1) -> FaceSequence:
    return nodding_face(num_frames, SIZE, SIZE)


def rotated(signal: FaceSequence, turn: Tensor) -> FaceSequence:
    """Turned about the middle of the picture by `turn` (3, 3) in picture axes."""
    middle = torch.tensor([SIZE / 2, SIZE / 2, 0.0])
    landmarks = (signal.landmarks - middle) @ turn.T + middle
    return replace(signal, landmarks=landmarks, rotation=turn @ signal.rotation)


def roll(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def yaw(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def moved(signal: FaceSequence, points: tuple[int, ...], by: tuple[float, float]) -> FaceSequence:
    landmarks = signal.landmarks.clone()
    landmarks[:, list(points), :2] += torch.tensor(by)
    return replace(signal, landmarks=landmarks)


def with_eyes_open(signal: FaceSequence) -> FaceSequence:
    upper = (157, 158, 159, 160, 161, 384, 385, 386, 387, 388)
    lower = (144, 145, 153, 154, 163, 373, 374, 380, 381, 390)
    signal = moved(moved(signal, upper, (0, -4)), lower, (0, 4))
    landmarks = signal.landmarks.clone()
    for iris in (faces.RIGHT_IRIS, faces.LEFT_IRIS):
        ring = torch.tensor([[0, 0], [4, 0], [0, 4], [-4, 0], [0, -4]]).float()
        landmarks[:, list(iris), :2] = landmarks[:, iris[0], None, :2] + ring
    return replace(signal, landmarks=landmarks)


def blue_centre(drawn: Tensor) -> float:
    """Mean column of the pixels that only an iris has: much more blue than red and green."""
    iris = (drawn[0, 2].int() - drawn[0, 1].int() > 120) & (drawn[0, 0] < 80)
    window = iris[SIZE // 3 : SIZE // 2]
    assert window.any(), "no iris was drawn"
    return float(window.nonzero()[:, 1].float().mean())


def test_irises_show_the_gaze() -> None:
    open_eyes = with_eyes_open(face())
    looking_left = moved(open_eyes, faces.RIGHT_IRIS + faces.LEFT_IRIS, (3, 0))
    shift = blue_centre(looking_left.draw(SIZE, SIZE)) - blue_centre(open_eyes.draw(SIZE, SIZE))
    assert shift == pytest.approx(3, abs=1)


def test_lids_cut_the_iris_off() -> None:
    closed = with_eyes_open(face())
    landmarks = closed.landmarks.clone()
    for lids in (faces.RIGHT_EYE, faces.LEFT_EYE):
        landmarks[:, list(lids), 1] = landmarks[:, list(lids), 1].mean(dim=1, keepdim=True)
    closed = replace(closed, landmarks=landmarks)
    with pytest.raises(AssertionError, match="no iris"):
        blue_centre(closed.draw(SIZE, SIZE))


def test_correspondence_holds_the_texture_coordinates_of_the_mesh() -> None:
    signal = face()
    drawn = signal.draw(SIZE, SIZE)[0].float()
    points = signal.landmarks[0, :468]
    # Points well inside and facing the viewer; the nostrils' underside is hidden.
    inner = [p for p in (*faces.LIPS_OUTER, *faces.RIGHT_BROW, *faces.LEFT_BROW, 6, 197, 195, 5)]
    x, y = points[inner, 0].long(), points[inner, 1].long()
    uv = torch.from_numpy(load_face_mesh().uv[inner].copy())
    assert (drawn[3:5, y, x].T / 255 - uv).abs().max() < 0.02
    assert (drawn[5, y, x] == 255).all()
    assert not drawn[3:, 0].any()


def test_correspondence_of_a_turned_head_hides_the_far_cheek() -> None:
    turned = rotated(face(), yaw(math.radians(70))).draw(SIZE, SIZE)[0]
    u = turned[3][turned[5] > 0]
    frontal = face().draw(SIZE, SIZE)[0]
    u_frontal = frontal[3][frontal[5] > 0]
    nearer_half = max((u > 128).float().mean(), (u < 128).float().mean())
    assert nearer_half > 0.8
    assert 0.4 < (u_frontal > 128).float().mean() < 0.6


def test_maps_scale_with_the_picture() -> None:
    signal = face()
    small, large = signal.draw(SIZE, SIZE), signal.draw(2 * SIZE, 2 * SIZE)
    area = (small[:, 5] > 0).float().mean()
    assert (large[:, 5] > 0).float().mean() == pytest.approx(float(area), rel=0.02)


def test_unseen_frames_are_black_everywhere() -> None:
    signal = face(3)
    signal = replace(signal, seen=torch.tensor([True, False, True]))
    for maps in (signal.draw(SIZE, SIZE), signal.silhouette(SIZE, SIZE)):
        assert [bool(m.any()) for m in maps] == [True, False, True]
    for boxes in signal.regions().values():
        assert not boxes[1].any() and boxes[0].any()


def test_silhouette_holds_the_face_and_the_hair_above_it() -> None:
    signal = rotated(face(), roll(math.radians(30)))
    mask = signal.silhouette(SIZE, SIZE)[0, 0]
    assert (mask[signal.draw(SIZE, SIZE)[0, 5] > 0] > 0).all()
    forehead, chin = signal.landmarks[0, 10, :2], signal.landmarks[0, 152, :2]
    x, y = (forehead + 0.3 * (forehead - chin)).long().tolist()
    assert mask[y, x] == 255
    assert mask[0, 0] == 0


def test_boxes_hold_their_parts_and_stay_in_the_frame() -> None:
    signal = moved(face(2), tuple(range(478)), (0.0, 40.0))
    boxes = signal.regions()
    parts = {
        "subject": range(468),
        "face": range(468),
        "mouth": faces.LIPS_OUTER + faces.LIPS_INNER,
        "eyes": faces.LEFT_EYE + faces.RIGHT_EYE,
    }
    assert set(boxes) == set(parts)
    for name, numbers in parts.items():
        box, points = boxes[name], signal.landmarks[:, list(numbers), :2].clamp(max=SIZE)
        assert (box >= 0).all() and (box <= SIZE).all()
        assert (points >= box[:, None, :2]).all() and (points <= box[:, None, 2:]).all(), name
    area = {n: float((b[0, 2] - b[0, 0]) * (b[0, 3] - b[0, 1])) for n, b in boxes.items()}
    assert area["subject"] > area["face"] > area["eyes"] > 0
    assert area["face"] > area["mouth"] > 0


def test_features_ignore_where_and_how_large() -> None:
    signal = face(3)
    landmarks = signal.landmarks * 0.3
    landmarks[..., :2] += torch.tensor([11.0, -70.0])
    away = replace(signal, landmarks=landmarks)
    assert torch.allclose(signal.features(), away.features(), atol=1e-5)


def test_features_put_the_head_upright_and_keep_its_turn_apart() -> None:
    signal = face()
    tilted = rotated(signal, roll(0.5))
    shape, tilted_shape = signal.features()[:, :-9], tilted.features()[:, :-9]
    assert torch.allclose(shape, tilted_shape, atol=1e-5)
    assert (signal.features() - tilted.features()).norm() > 0.1


def test_features_mind_the_mouth_more_than_the_cheek() -> None:
    signal = face()
    cheek = tuple(p for p in (50, 101, 118, 117, 123, 147, 187, 205, 36, 203, 206, 207, 216, 212))
    lips = faces.LIPS_INNER[: len(cheek)]
    distances = [
        float((signal.features() - moved(signal, points, (0.0, 3.0)).features()).norm())
        for points in (lips, cheek)
    ]
    assert distances[0] > 2 * distances[1]


def test_part_features_are_of_eyes_and_mouth_and_hardly_of_the_turn() -> None:
    signal = face()
    parts = signal.part_features()

    def unlike(other: FaceSequence) -> float:
        return float((parts - other.part_features()).norm())

    lips, iris = faces.LIPS_INNER, faces.LEFT_IRIS
    cheeks = (50, 101, 118, 117, 123, 147, 187, 205, 36, 203, 206, 207, 216, 212)
    quiet = unlike(moved(signal, cheeks, (0.0, 3.0)))
    assert unlike(moved(signal, lips, (0.0, 3.0))) > 10 * quiet
    assert unlike(moved(signal, iris, (3.0, 0.0))) > 5 * quiet
    turned = rotated(signal, roll(0.5))
    whole = (signal.features() - turned.features()).norm()
    assert unlike(turned) < 0.4 * float(whole)


def test_an_empty_sequence_is_drawn_as_nothing() -> None:
    signal = face()[:0]
    assert signal.draw(8, 10).shape == (0, 6, 8, 10)
    assert signal.silhouette(8, 10).shape == (0, 1, 8, 10)
    assert signal.regions()["mouth"].shape == (0, 4)
    assert len(signal.features()) == 0
