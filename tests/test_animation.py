"""What animators take, drawn and cut as Wan-Animate's own preparation does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidsynth import animation
from vidsynth.animation import (
    Animation,
    crop_faces,
    draw_skeletons,
    face_boxes,
    fitting_size,
    padded,
    person_masks,
)
from vidsynth.conditioning import PoseSequence
from vidsynth.testing.samples import waving_person


def person(**changes) -> PoseSequence:
    return replace(waving_person(2, 400, 400), **changes)


def centre(pose: PoseSequence, *joints: int) -> tuple[int, int]:
    """Pixel between joints, as (row, column)."""
    x, y = pose.keypoints[0, 0, list(joints), :2].mean(dim=0).tolist()
    return int(y), int(x)


@pytest.mark.parametrize(
    ("joints", "colour"),
    [
        # Figures of OpenPose's colours in 0.6 of their brightness, limb by limb, on the person's
        # right and left; toes have colours of their own.
        ((12, 14), (255, 170, 0)),
        ((14, 16), (255, 255, 0)),
        ((11, 13), (170, 255, 0)),
        ((13, 15), (85, 255, 0)),
        ((24, 26), (0, 255, 85)),
        ((26, 28), (0, 255, 170)),
        ((23, 25), (0, 170, 255)),
        ((25, 27), (0, 85, 255)),
        ((27, 31), (255, 0, 85)),
        ((28, 32), (200, 200, 0)),
    ],
)
def test_limbs_have_the_published_colours(joints, colour):
    pose = person()
    drawn = draw_skeletons(pose, 400, 400)
    row, column = centre(pose, *joints)
    found = drawn[0, :, row - 1 : row + 2, column - 1 : column + 2].flatten(1).T.tolist()
    assert [int(c * 0.6) for c in colour] in found


def test_joints_are_discs_of_full_colour_and_everything_else_is_black():
    pose = person()
    drawn = draw_skeletons(pose, 400, 400)
    for joint, colour in ((14, (255, 255, 0)), (26, (0, 255, 0)), (25, (0, 255, 255))):
        row, column = centre(pose, joint)
        assert drawn[0, :, row, column].tolist() in ([*colour], _fixed(joint))
    assert float((drawn[0].amax(dim=0) == 0).float().mean()) > 0.9  # thin lines on black


def _fixed(joint: int) -> list[int]:
    """The colour of a joint by its place in OpenPose's order."""
    order = [0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7, 31, 32]
    return list(animation._COLOURS[order.index(joint)])


def test_what_is_not_seen_is_not_drawn():
    nobody = person(seen=torch.zeros(2, 1, dtype=torch.bool))
    assert not draw_skeletons(nobody, 100, 100).any()
    points = person().keypoints.clone()
    points[..., 2] = 0.2
    assert not draw_skeletons(person(keypoints=points), 100, 100).any()


def test_hands_are_drawn_in_all_colours():
    hands = torch.zeros(2, 1, 42, 3)
    around = torch.linspace(0, 6.28, 21)  # on a circle no two lines lie on each other
    hands[..., :21, 0] = 200 + 150 * around.cos()
    hands[..., :21, 1] = 200 + 150 * around.sin()
    hands[..., :21, 2] = 1
    drawn = draw_skeletons(person(hands=hands), 400, 400)
    plain = draw_skeletons(person(), 400, 400)
    added = drawn[0].permute(1, 2, 0)[(drawn != plain)[0].any(dim=0)]
    assert len({tuple(c) for c in added.tolist()}) > 15
    assert (0, 0, 255) in {tuple(c) for c in added.tolist()}  # the joints


def test_a_face_box_grows_by_area_and_mostly_upwards():
    """100 x 100 pixels become 1.3 times as many: 114.0 on a side; 3/4 of half of that above."""
    face = torch.zeros(2, 1, 478, 3)
    face[..., 2] = 1
    face[..., :2] = 150.0
    face[..., 0, :2] = 250.0
    x0, y0, x1, y1 = face_boxes(person(face=face))[0].tolist()
    grow = 100 * (1.3**0.5 - 1)
    assert (x0, x1) == (int(150 - grow / 2), int(250 + grow / 2))
    assert (y0, y1) == (int(150 - 3 * grow / 4), int(250 + grow / 4))


def test_faces_are_cut_to_squares_and_black_where_none_is():
    frames = torch.zeros(2, 3, 60, 80, dtype=torch.uint8)
    frames[:, 0, 10:30, 20:60] = 200
    faces = crop_faces(frames, torch.tensor([[20, 10, 60, 30], [0, 0, 0, 0]]))
    assert faces.shape == (2, 3, 512, 512)
    assert faces[0, 0].min() == 200 and not faces[0, 1:].any() and not faces[1].any()
    nobody = person(seen=torch.zeros(2, 1, dtype=torch.bool))
    assert not face_boxes(nobody).any()
    assert (face_boxes(person())[:, 2] > face_boxes(person())[:, 0]).all()  # by the head's joints


def test_masks_cover_the_person_and_leave_the_rest():
    pose = person()
    masks = person_masks(pose, 400, 400)
    assert masks.shape == (2, 1, 400, 400) and set(masks.unique().tolist()) == {0, 255}
    x, y = pose.keypoints[0, 0, :, :2].round().long().clamp(0, 399).unbind(-1)
    assert (masks[0, 0, y, x] == 255).all()
    assert 0.05 < float((masks == 255).float().mean()) < 0.6


def test_masks_take_in_what_hangs_together_with_the_person_and_nobody_else():
    pose = person()
    limbs = person_masks(pose, 400, 400) > 0
    rows, columns = limbs[0, 0].nonzero().unbind(dim=1)
    middle, low = int(columns.median()), int(rows.max())
    people = torch.zeros(2, 100, 100, dtype=torch.uint8)
    x, y = middle // 4, low // 4
    people[0, y - 12 : y, x - 2 : x + 20] = 1  # a skirt
    people[0, :6, :6] = 1  # somebody else, far off
    masks = person_masks(pose, 400, 400, people) > 0
    assert masks[0, 0, 4 * (y - 12) : 4 * y, 4 * (x - 2) : 4 * (x + 20)].all()
    assert masks[0][limbs[0]].all() and not masks[0, 0, :20, :20].any()
    assert torch.equal(masks[1], limbs[1])


@pytest.mark.parametrize(
    ("height", "width", "area"), [(720, 1280, 1280 * 720), (1080, 1920, 1280 * 720), (33, 21, 4096)]
)
def test_sizes_fit_the_model(height, width, area):
    high, wide = fitting_size(height, width, area=area)
    assert high % 16 == wide % 16 == 0 and high * wide <= area
    assert abs(wide / high - width / height) < 0.35 * width / height


def test_a_picture_is_shown_whole_on_black():
    made = padded(torch.full((3, 10, 20), 90, dtype=torch.uint8), 40, 40)
    assert made[:, 10:30].min() == 90 and not made[:, :10].any() and not made[:, 30:].any()


def test_an_animation_is_sliced_frame_by_frame():
    told = Animation(
        pose=torch.zeros(3, 3, 16, 16, dtype=torch.uint8),
        face=torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
        reference=torch.zeros(3, 16, 16, dtype=torch.uint8),
    )
    parts = Animation.concat([told[:1], told[1:]])
    assert len(parts) == 3 and parts.background is None and parts.size == (16, 16)
    assert np.array_equal(parts.pose, told.pose)
