"""Warps between two pictures of one person, against closed forms and the worlds' own films."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidsynth import faces, scores
from vidsynth.blocks import warp
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence, LabelMaps
from vidsynth.correspondence import AROUND, Head, face_warp
from vidsynth.testing import nodding_face, waving_person
from vidsynth.worlds import WORLDS

# T frames, H, W pixels

HEIGHT, WIDTH = 96, 80


def centres(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """(2, H, W): x and y of the pixels' centres."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])


def on_face(face: FaceSequence) -> Tensor:
    """(T, 1, H, W) bool: pixels of the mesh."""
    return face.draw(HEIGHT, WIDTH)[:, 5:] > 0


def moved(face: FaceSequence, linear: Tensor, offset: Tensor) -> FaceSequence:
    """The same face after an affine change of the picture."""
    points = face.landmarks.clone()
    points[..., :2] = points[..., :2] @ linear.mT + offset
    return replace(face, landmarks=points, translation=face.translation @ linear.mT + offset)


@pytest.mark.parametrize("height", [96, 240])
@pytest.mark.parametrize("kind", [nodding_face, waving_person])
def test_to_itself_nothing_moves(kind, height: int) -> None:
    signal = kind(3, height, height)
    found = signal.warp_to(signal, height, height)
    assert found.flow_T2HW.shape == (3, 2, height, height)
    assert found.valid_T1HW.shape == (3, 1, height, height)
    assert float(found.flow_T2HW.abs().max()) < 1e-3


def test_on_a_face_an_affine_change_is_found_exactly() -> None:
    face = nodding_face(2, HEIGHT, WIDTH)
    linear, offset = torch.tensor([[0.9, -0.1], [0.15, 1.1]]), torch.tensor([3.0, -5.0])
    found = face.warp_to(moved(face, linear, offset), HEIGHT, WIDTH)
    inside = on_face(moved(face, linear, offset))
    place = centres()
    there = torch.linalg.solve(linear, (place.flatten(1) - offset[:, None])).view_as(place)
    expected = (there - place).expand(2, -1, -1, -1)
    wrong = (found.flow_T2HW - expected).abs() * inside
    assert float(wrong.max()) < 1e-3
    assert float(found.valid_T1HW[inside].min()) > 0.9


def test_a_warped_picture_is_the_moved_picture() -> None:
    face = nodding_face(1, HEIGHT, WIDTH)
    there = moved(face, torch.eye(2), torch.tensor([4.0, 2.0]))
    picture = centres()[None] / HEIGHT  # a picture of its own coordinates
    found = warp(picture, face.warp_to(there, HEIGHT, WIDTH).flow_T2HW)
    expected = picture - torch.tensor([4.0, 2.0])[None, :, None, None] / HEIGHT
    wrong = (found - expected).abs() * on_face(there)
    assert float(wrong.max()) < 1e-3


def test_hair_moves_with_the_head_and_the_pictures_edge_stays() -> None:
    face = nodding_face(1, HEIGHT, WIDTH)
    shift = torch.tensor([6.0, 0.0])
    flow = face.warp_to(moved(face, torch.eye(2), shift), HEIGHT, WIDTH).flow_T2HW[0]
    top = float(face.landmarks[0, faces.OVAL[0], 1])
    middle = round(float(face.translation[0, 0]) + 6)
    hair = flow[:, round(top) - 3, middle]
    assert float(hair[0]) == pytest.approx(-6.0, abs=0.7)
    corners = flow[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.abs().max()) < 2.0


def test_what_a_closed_mouth_hides_is_not_sure() -> None:
    closed = nodding_face(1, HEIGHT, WIDTH)
    points = closed.landmarks.clone()
    between = points[0, list(faces.LIPS_INNER), 1].mean()
    points[:, points[0, :, 1] > between, 1] += 8.0
    opened = replace(closed, landmarks=points)
    mouth = points[0, list(faces.LIPS_INNER), :2].mean(0).long()
    sure = closed.warp_to(opened, HEIGHT, WIDTH).valid_T1HW[0, 0]
    back = opened.warp_to(closed, HEIGHT, WIDTH).valid_T1HW[0, 0]
    assert float(sure[mouth[1], mouth[0]]) < 0.4
    cheek = points[0, 50, :2].long()
    assert float(sure[cheek[1], cheek[0]]) == pytest.approx(1.0, abs=1e-3)
    assert float(back[cheek[1], cheek[0]]) == pytest.approx(1.0, abs=1e-3)
    assert float(sure[2, 2]) == pytest.approx(AROUND, abs=0.01)


def test_gaze_follows_the_iris() -> None:
    ahead = nodding_face(1, 240, 240)
    points = ahead.landmarks.clone()
    points[:, list(faces.RIGHT_IRIS), 0] += 2.0
    aside = replace(ahead, landmarks=points)
    x, y = points[0, faces.RIGHT_IRIS[0], :2].tolist()
    flow = ahead.warp_to(aside, 240, 240).flow_T2HW[0]
    assert float(flow[0, int(y), int(x)]) == pytest.approx(-2.0, abs=0.7)
    x, y = points[0, faces.LEFT_IRIS[0], :2].tolist()
    assert float(flow[0, int(y), int(x)]) == pytest.approx(0.0, abs=1e-3)


def test_an_iris_that_moves_stays_a_disc() -> None:
    """It is not sheared with the white around it: all of it is shifted alike."""
    ahead, radius = looking(0.0), 5.0
    aside = looking(4.0)
    x, y = aside.landmarks[0, faces.RIGHT_IRIS[0], :2].tolist()
    flow = ahead.warp_to(aside, 180, 180).flow_T2HW[0]
    away = (centres(180, 180) - torch.tensor([x, y])[:, None, None]).norm(dim=0)
    inside = flow[:, away < radius - 1.5]
    assert float((inside[0] + 4.0).abs().max()) < 0.1
    assert float(inside[1].abs().max()) < 0.1


def test_a_white_that_the_known_picture_does_not_show_is_not_sure() -> None:
    cornered, ahead = looking(11.0), looking(0.0)
    x, y = ahead.landmarks[0, faces.RIGHT_IRIS[0], :2].tolist()
    back = cornered.warp_to(ahead, 180, 180).valid_T1HW[0, 0, int(y)]
    assert float(back[int(x) + 10]) < 0.2  # between the iris and the corner it came from
    assert float(back[int(x)]) > 0.9 and float(back[int(x) - 10]) > 0.9


def looking(aside: float) -> FaceSequence:
    """A face whose right eye is 32 pixels wide and 20 high, its iris of radius 5 so far aside."""
    face = nodding_face(1, 180, 180)
    points = face.landmarks.clone()
    ring, iris = list(faces.RIGHT_EYE), list(faces.RIGHT_IRIS)
    middle = points[0, ring, :2].mean(dim=0)
    angle = torch.atan2(*(points[0, ring, :2] - middle).flip(1).unbind(1))
    points[0, ring, :2] = middle + torch.stack([16 * angle.cos(), 10 * angle.sin()], dim=1)
    offsets = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    points[0, iris, :2] = middle + torch.tensor([aside, 0.0]) + offsets
    return replace(face, landmarks=points)


def test_a_face_warp_is_differentiable_in_both_pictures() -> None:
    face = nodding_face(1, 64, 64)
    weights = on_face(face)[..., :64, :64].double()
    pose = (face.rotation.double(), face.translation.double(), face.scale.double())

    def total(known: Tensor, wanted: Tensor) -> Tensor:
        found = face_warp(Head(known, *pose), Head(wanted, *pose), 64, 64)
        return (found.flow_T2HW * torch.sin(centres(64, 64)) * weights[..., :64, :64]).sum()

    weights = face.draw(64, 64)[:, 5:].double() / 255
    known = face.landmarks.double().requires_grad_()
    wanted = (face.landmarks.double() + 0.01).requires_grad_()
    total(known, wanted).backward()
    assert known.grad is not None and wanted.grad is not None
    step = 1e-4
    for points, grad, other in ((known, known.grad, 0), (wanted, wanted.grad, 1)):
        shifted = points.detach().clone()
        shifted[0, 50, 0] += step
        pair = (shifted, wanted.detach()) if other == 0 else (known.detach(), shifted)
        slope = (total(*pair) - total(known.detach(), wanted.detach())) / step
        assert float(slope) == pytest.approx(float(grad[0, 50, 0]), rel=0.02, abs=1e-3)


def test_kinds_without_a_correspondence_say_so() -> None:
    labels = LabelMaps(labels=torch.zeros(1, 8, 8, dtype=torch.uint8), num_classes=2)
    with pytest.raises(ValueError, match="labels offers no correspondence"):
        labels.warp_to(labels, 8, 8)


# The worlds


@pytest.mark.parametrize(("world", "gain"), [("head", 4.0), ("puppet", 3.0)])
def test_a_filmed_frame_warped_by_the_truth_is_like_the_frame_it_is_warped_to(
    world: str, gain: float
) -> None:
    """Inside the subject, much more than unwarped."""
    made = WORLDS[world]
    someone, moves = made.make_identity(1), made.make_motion(2, 60)
    size = {"height": 128, "width": 128}
    clips = [chunk.clip for chunk in made.render(someone, moves, **size) if chunk.clip]
    frames, truth = Clip.concat(clips).frames, made.truth(someone, moves, **size)
    known, wanted = torch.arange(0, 40, 8), torch.arange(10, 50, 8)
    found = truth[known].warp_to(truth[wanted], 128, 128)
    warped = warp(frames[known].float(), found.flow_T2HW).round().clamp(0, 255).byte()
    sure = (found.valid_T1HW > 0.8).expand(-1, 3, -1, -1)

    def likeness(pictures: Tensor) -> float:
        error = (pictures.double() - frames[wanted].double()).square()[sure]
        return float(-10 * torch.log10(error.mean() / 255**2))

    assert likeness(warped) > likeness(frames[known]) + gain
    assert scores.psnr(warped, frames[wanted]).isfinite().all()
