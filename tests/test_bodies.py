"""Body maps, silhouettes, boxes and features, on a hand-made skeleton."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidsynth import bodies
from vidsynth.conditioning import PoseSequence
from vidsynth.drawing import resize
from vidsynth.testing import waving_person

SIZE = 128


def person(num_frames: int = 1, size: int = SIZE) -> PoseSequence:
    return waving_person(num_frames, size, size)


def with_joint(pose: PoseSequence, joint: int, *, xy: Tensor, z: float) -> PoseSequence:
    keypoints, world = pose.keypoints.clone(), pose.world.clone()
    keypoints[:, 0, joint, :2] = xy
    world[:, 0, joint, 2] = z
    return replace(pose, keypoints=keypoints, world=world)


def colour_at(drawn: Tensor, xy: Tensor) -> Tensor:
    x, y = xy.long().tolist()
    return drawn[0, :, y, x].float()


def similarity(pose: PoseSequence, zoom: float, shift: tuple[float, float]) -> PoseSequence:
    keypoints = pose.keypoints.clone()
    keypoints[..., :2] = keypoints[..., :2] * zoom + torch.tensor(shift)
    return replace(pose, keypoints=keypoints)


def test_left_and_right_limbs_have_different_colours() -> None:
    pose = person()
    drawn, points = pose.draw(SIZE, SIZE), pose.keypoints[0, 0, :, :2]
    right = colour_at(drawn, (points[bodies.RIGHT_HIP] + points[bodies.RIGHT_KNEE]) / 2)
    left = colour_at(drawn, (points[bodies.LEFT_HIP] + points[bodies.LEFT_KNEE]) / 2)
    assert right[0] > right[2] + 100
    assert left[2] > left[0] + 100


@pytest.mark.parametrize(("depth", "covers"), [(-0.3, True), (0.5, False)])
def test_a_crossing_forearm_covers_the_chest_only_from_the_front(
    depth: float, covers: bool
) -> None:
    pose = person()
    points = pose.keypoints[0, 0, :, :2]
    chest = points[[11, 12, 23, 24]].mean(dim=0)
    elbow, wrist = chest + torch.tensor([-30.0, 0.0]), chest + torch.tensor([30.0, 0.0])
    pose = with_joint(pose, bodies.RIGHT_ELBOW, xy=elbow, z=depth)
    pose = with_joint(pose, bodies.RIGHT_WRIST, xy=wrist, z=depth)
    colour = colour_at(pose.draw(SIZE, SIZE), chest)
    grey = colour.max() - colour.min() < 10
    assert bool(grey) is not covers


def test_a_map_of_half_the_size_is_the_map_halved() -> None:
    pose = person()
    halved = resize(pose.draw(SIZE, SIZE), SIZE // 2, SIZE // 2).float()
    small = pose.draw(SIZE // 2, SIZE // 2).float()
    off_by_one = (small - small.roll(1, dims=3)).abs().mean()
    assert (small - halved).abs().mean() < 0.5 * off_by_one


def test_small_motions_move_the_map_smoothly() -> None:
    pose = person()
    columns = torch.arange(SIZE) + 0.5
    centres = []
    for step in range(5):
        drawn = (
            similarity(pose, 1.0, (0.25 * step, 0.0)).draw(SIZE, SIZE).float().sum(dim=(0, 1, 2))
        )
        centres.append(float((drawn * columns).sum() / drawn.sum()))
    moved = torch.tensor(centres).diff()
    assert torch.allclose(moved, torch.full((4,), 0.25), atol=0.05)


def test_limbs_are_as_thick_as_the_person_is_large() -> None:
    pose = person()
    smaller = similarity(pose, 0.5, (SIZE / 4, SIZE / 4))
    area, small = ((p.draw(512, 512) > 0).float().mean() for p in (pose, smaller))
    assert small / area == pytest.approx(0.25, rel=0.1)


def test_thickness_survives_a_bow() -> None:
    pose = person()
    keypoints = pose.keypoints.clone()
    keypoints[:, 0, :23, 1] += keypoints[:, 0, 23, 1] - keypoints[:, 0, 11, 1]
    bowed = bodies.torso_lengths(
        bodies.subject_points(replace(pose, keypoints=keypoints), SIZE, SIZE)
    )
    upright = bodies.torso_lengths(bodies.subject_points(pose, SIZE, SIZE))
    assert bowed[0] > 0.6 * upright[0]


def test_unseen_frames_are_black_everywhere() -> None:
    pose = person(3)
    seen = pose.seen.clone()
    seen[1] = False
    pose = replace(pose, seen=seen)
    for maps in (pose.draw(SIZE, SIZE), pose.silhouette(SIZE, SIZE)):
        assert [bool(m.any()) for m in maps] == [True, False, True]
    for boxes in pose.regions().values():
        assert not boxes[1].any()


def test_joints_that_were_hardly_seen_fade() -> None:
    pose = person()
    points = pose.keypoints[0, 0, :, :2]
    shin = (points[bodies.LEFT_KNEE] + points[bodies.LEFT_ANKLE]) / 2
    brightness = []
    for visibility in (1.0, 0.3, 0.05):
        keypoints = pose.keypoints.clone()
        keypoints[0, 0, bodies.LEFT_ANKLE, 2] = visibility
        drawn = replace(pose, keypoints=keypoints).draw(SIZE, SIZE)
        brightness.append(float(colour_at(drawn, shin).max()))
    assert brightness[0] > brightness[1] > brightness[2] == 0


def test_finger_bones_are_drawn_where_there_are_hands() -> None:
    pose = person()
    hands = torch.ones(1, 1, 42, 3)
    hands[0, 0, :, 0] = torch.linspace(5, 25, 42)
    hands[0, 0, :, 1] = 5
    corner = replace(pose, hands=hands).draw(SIZE, SIZE)[..., :10, :30]
    assert not pose.draw(SIZE, SIZE)[..., :10, :30].any()
    assert corner.any()


def test_silhouette_holds_the_drawing_and_leaves_the_rest() -> None:
    pose = person(4)
    mask = pose.silhouette(SIZE, SIZE)
    drawn = pose.draw(SIZE, SIZE).amax(dim=1, keepdim=True) > 32
    assert set(mask.unique().tolist()) >= {0, 255}
    assert (mask[drawn] > 0).all()
    assert (mask > 0).float().mean() < 0.6
    crown = pose.keypoints[0, 0, bodies.NOSE, :2] - torch.tensor([0.0, 8.0])
    assert colour_at(mask, crown) == 255


def test_boxes_hold_their_parts_and_stay_in_the_frame() -> None:
    pose = similarity(person(3), 1.0, (30.0, 0.0))
    points, boxes = pose.keypoints[:, 0, :, :2], pose.regions()
    assert set(boxes) == {"subject", "face", "left_hand", "right_hand"}
    parts = {"subject": range(33), "face": bodies.HEAD, **bodies.HANDS}
    for name, joints in parts.items():
        box = boxes[name]
        assert box.shape == (3, 4) and box.dtype == torch.float32
        assert (box >= 0).all() and (box <= SIZE).all()
        inside = points[:, list(joints)].clamp(max=SIZE)
        assert (inside >= box[:, None, :2]).all() and (inside <= box[:, None, 2:]).all(), name


def test_parts_outside_the_frame_have_no_box() -> None:
    boxes = similarity(person(), 1.0, (5.0 * SIZE, 0.0)).regions()
    assert all(not box.any() for box in boxes.values())


def test_features_ignore_where_and_how_large() -> None:
    pose = person(4)
    moved = similarity(pose, 0.4, (17.0, -9.0))
    assert torch.allclose(pose.features(), moved.features(), atol=1e-4)


def test_features_tell_poses_apart() -> None:
    pose = person(25)
    distance = torch.cdist(pose.features(), pose.features())
    assert distance[0, 6] > 3 * distance[0, 1]  # arms up, against a frame later
    turned = replace(pose, world=pose.world * torch.tensor([-1.0, 1.0, -1.0]))
    assert (pose.features() - turned.features()).norm(dim=1).min() > 0.1


def test_an_empty_sequence_is_drawn_as_nothing() -> None:
    pose = person()[:0]
    assert pose.draw(8, 10).shape == (0, 3, 8, 10)
    assert pose.silhouette(8, 10).shape == (0, 1, 8, 10)
    assert pose.regions()["face"].shape == (0, 4)
    assert len(pose.features()) == 0
