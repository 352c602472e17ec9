from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vidsynth import drawing, faces
from vidsynth.conditioning import Conditioning, FaceSequence, LabelMaps, PoseSequence
from vidsynth.errors import (
    BadOption,
    BadSubject,
    NoSubjectFound,
    UnknownName,
    UnsupportedVideo,
)
from vidsynth.facemesh import load_face_mesh
from vidsynth.retarget import BodyRetarget, FaceRetarget, RangeReport, retarget, summarise
from vidsynth.retarget_body import steady, summarise_body
from vidsynth.retarget_face import canonical, rotation_vectors, rotations_from, soften
from vidsynth.video import read_chunks
from vidsynth_plugins.face import FaceExtractor
from vidsynth_plugins.pose import PoseExtractor

FEET = slice(27, 33)


# A stick figure with known geometry


def skeleton(*, legs: float = 1.0) -> Tensor:
    """Standing, arms hanging: (33, 3) metres, hips at the origin, y down."""
    half = {  # the person's left half; x is mirrored for the right
        0: (0, -0.70, -0.10), 1: (0.02, -0.74, -0.09), 2: (0.03, -0.74, -0.09),
        3: (0.04, -0.74, -0.08), 7: (0.07, -0.72, 0.0), 9: (0.02, -0.65, -0.09),
        11: (0.18, -0.50, 0), 13: (0.20, -0.22, 0), 15: (0.21, 0.03, 0), 17: (0.22, 0.10, 0),
        19: (0.21, 0.11, 0), 21: (0.19, 0.08, 0), 23: (0.10, 0, 0), 25: (0.11, 0.42 * legs, 0),
        27: (0.11, 0.84 * legs, 0), 29: (0.11, 0.90 * legs, 0.05), 31: (0.12, 0.92 * legs, -0.15),
    }  # fmt: skip
    body = torch.zeros(33, 3, dtype=torch.float64)
    for joint, (x, y, z) in half.items():
        right = {0: 0, 1: 4, 2: 5, 3: 6}.get(joint, joint + 1)
        body[right] = torch.tensor([-x, y, z])
        body[joint] = torch.tensor([x, y, z])
    return body


def dancer(
    frames: int = 240,
    *,
    size: tuple[int, int] = (512, 512),
    metre_px: float = 200.0,
    near: float = 1.0,
    x: float = 256.0,
    ground: float = 450.0,
    tempo: float = 1.0,
    legs: float = 1.0,
    jumps: float = 0.0,
    sway_m: float = 0.0,
) -> PoseSequence:
    """Swings arms and head, walks to the camera and back.

    Weak perspective with a horizon 300 px above the ground line: at the nearest the person is
    `near` times as tall as at the farthest, where a metre is `metre_px` pixels.
    """
    t = torch.arange(frames, dtype=torch.float64)
    swing = torch.sin(t * 0.13 * tempo)
    world = skeleton(legs=legs).repeat(frames, 1, 1)
    for side, sign in ((0, 1), (1, -1)):
        shoulder, turn = world[:, 11 + side, None], sign * (0.9 + 0.8 * swing)[:, None]
        arm = world[:, [13 + side, 15 + side, 17 + side, 19 + side, 21 + side]] - shoulder
        rise_x = arm[..., 0] * turn.cos() + arm[..., 1] * turn.sin()
        rise_y = arm[..., 1] * turn.cos() - arm[..., 0] * turn.sin()
        world[:, [13 + side, 15 + side, 17 + side, 19 + side, 21 + side]] = shoulder + torch.stack(
            [rise_x, rise_y, arm[..., 2]], dim=-1
        )
    world[:, :11, 0] += (0.03 * swing)[:, None]
    depth = 1 + (near - 1) * (0.5 - 0.5 * torch.cos(2 * math.pi * t / max(frames - 1, 1)))
    scale = metre_px * depth
    lift = jumps * torch.clamp(torch.sin(2 * math.pi * t / 60) * 4 - 3, min=0) * scale
    floor = ground - 300 + 300 * depth
    points = torch.ones(frames, 1, 33, 3, dtype=torch.float64)
    sway = sway_m * torch.sin(t * 0.05)
    points[:, 0, :, 0] = x + (world[..., 0] + sway[:, None]) * scale[:, None]
    lowest = world[..., 1].amax(dim=1, keepdim=True)
    points[:, 0, :, 1] = (floor - lift)[:, None] + (world[..., 1] - lowest) * scale[:, None]
    return PoseSequence(
        keypoints=points.float(),
        world=world[:, None].float(),
        seen=torch.ones(frames, 1, dtype=torch.bool),
        frame_size=size,
    )


def similar(pose: PoseSequence, scale: float, dx: float, dy: float, size: tuple[int, int]):
    """The same video, zoomed and shifted."""

    def moved(points: Tensor | None) -> Tensor | None:
        if points is None:
            return None
        xy = points[..., :2] * scale + torch.tensor([dx, dy])
        return torch.cat([xy, points[..., 2:]], dim=-1)

    keypoints = moved(pose.keypoints)
    assert keypoints is not None
    return replace(
        pose, keypoints=keypoints, hands=moved(pose.hands), face=moved(pose.face), frame_size=size
    )


def hide(pose: PoseSequence, joints: slice | list[int], frames: slice = slice(None)):
    keypoints = pose.keypoints.clone()
    part = keypoints[frames]
    part[:, :, joints] = torch.tensor([9000.0, -9000.0, 0.02])  # a tracker's wild guess
    return replace(pose, keypoints=keypoints)


def moved(source: PoseSequence, target: PoseSequence, **options: Any) -> PoseSequence:
    result = retarget(source, summarise(target), BodyRetarget(**options)).sequence
    assert isinstance(result, PoseSequence)
    return result


def gap(one: PoseSequence, other: PoseSequence) -> float:
    """Largest distance between corresponding joints, pixels."""
    return float((one.keypoints[..., :2] - other.keypoints[..., :2]).abs().max())


def heights(pose: PoseSequence) -> Tensor:
    points = pose.keypoints[:, 0]
    return points[:, FEET, 1].mean(dim=1) - points[:, [0, 7, 8], 1].mean(dim=1)


# Bodies: what global normalisation promises


@pytest.mark.parametrize("size", [(512, 512), (1080, 1920), (333, 257)])
@pytest.mark.parametrize("target", [dancer(near=1.5, jumps=0.3, sway_m=0.4), dancer(near=1.0)])
def test_a_zoomed_and_shifted_copy_comes_back_onto_the_original(target, size):
    copy = similar(target, 0.37, 41.0, -17.0, size)
    back = moved(copy, target)
    assert gap(back, target) < 0.01
    assert back.frame_size == target.frame_size


def test_a_copy_framed_without_feet_comes_back_too():
    target = hide(dancer(sway_m=0.3), slice(25, 33))
    back = moved(similar(target, 2.1, -90.0, 66.0, (720, 1280)), target)
    visible = slice(0, 25)
    assert (back.keypoints[:, :, visible] - target.keypoints[:, :, visible]).abs().max() < 0.01


def test_a_copy_of_head_and_shoulders_comes_back_too():
    target = hide(dancer(), slice(23, 33))
    back = moved(similar(target, 0.8, 5.0, 6.0, (400, 400)), target)
    visible = slice(0, 23)
    assert (back.keypoints[:, :, visible] - target.keypoints[:, :, visible]).abs().max() < 0.01


def test_people_of_other_size_get_the_targets_height_and_foot_line():
    source = dancer(metre_px=90, x=100, ground=200, size=(240, 320), tempo=1.7)
    target = dancer(metre_px=210, x=300, ground=470)
    result = moved(source, target)
    assert torch.allclose(heights(result), heights(target), atol=0.5)
    assert torch.allclose(result.keypoints[:, 0, FEET, 1].amax(1), torch.tensor(470.0), atol=0.5)


def test_a_walk_to_the_camera_follows_the_targets_perspective():
    # Same floor, another camera: p = foot line, height is linear in it in both videos.
    source = dancer(metre_px=80, near=2.0, ground=330, tempo=2.3, size=(720, 1280), x=600)
    target = dancer(metre_px=100, near=1.6, ground=400)
    result = moved(source, target, steady=1)
    floor = result.keypoints[:, 0, FEET, 1].amax(dim=1)
    expected = heights(target)[0] * (1 + (floor - 400) / 300)
    inner = (floor > 400 + 15) & (floor < 400 + 165)
    assert inner.sum() > 100
    assert ((heights(result) - expected).abs() / expected)[inner].max() < 0.03
    assert floor.max() - floor.min() > 0.85 * 180


def test_little_depth_is_not_stretched_over_the_targets_whole_walk():
    source = dancer(metre_px=150, near=1.05)
    result = moved(source, dancer(metre_px=150, near=1.8))
    floor = result.keypoints[:, 0, FEET, 1].amax(dim=1)
    assert floor.max() - floor.min() < 30  # 15 in the source, at up to 1.8 times its scale


def test_a_jump_stays_a_jump():
    source = dancer(jumps=0.4, metre_px=100, ground=400)
    result = moved(source, dancer(metre_px=200))
    rise = 450 - result.keypoints[:, 0, FEET, 1].amax(dim=1)
    assert float(rise.max()) == pytest.approx(0.4 * 200, abs=2)
    assert (heights(result).max() - heights(result).min()) < 1


def test_a_crouching_source_keeps_the_scale_of_its_standing_self():
    source = dancer(metre_px=120)
    crouch, world = source.keypoints.clone(), source.world.clone()
    crouch[:180, 0, :25, 1] += 60  # sinks by half a metre three quarters of the time
    world[:180, 0, :25, 1] += 0.5
    result = moved(replace(source, keypoints=crouch, world=world), dancer(metre_px=240))
    assert float(heights(result)[200:].mean()) == pytest.approx(
        float(heights(dancer(metre_px=240)).mean()), rel=0.02
    )


def test_who_mostly_sits_and_is_judged_too_small_then_still_stands_as_tall_as_the_target():
    source = dancer(metre_px=120)
    seated, world = source.keypoints.clone(), source.world.clone()
    seated[:150, 0, :25, 1] += 60
    world[:150, 0, :25, 1] += 0.5
    world[:150] *= 1.25  # trackers guess the depth of folded legs, and with it the scale
    result = moved(replace(source, keypoints=seated, world=world), dancer(metre_px=240), limbs=True)
    assert float(heights(result)[170:].mean()) == pytest.approx(
        float(heights(dancer(metre_px=240)).mean()), rel=0.02
    )


def test_who_only_sits_at_the_back_is_not_taken_for_smaller():
    target = dancer(near=1.4)
    points, world = target.keypoints.clone(), target.world.clone()
    back = target.keypoints[:, 0, FEET, 1].amax(dim=1) < 480
    scale = points[back, 0, 11, 0] - points[back, 0, 12, 0]
    points[back, 0, :25, 1] += 0.4 * scale[:, None] / 0.36  # shoulders are 0.36 m apart
    world[back, 0, :25, 1] += 0.4
    sitting = replace(target, keypoints=points, world=world)
    one, other = (summarise_body(v)["stances"]["feet"] for v in (target, sitting))
    assert other["height_far"] == pytest.approx(one["height_far"], rel=0.01)
    assert other["height_close"] == pytest.approx(one["height_close"], rel=0.01)


def test_scale_does_not_jitter_when_the_feet_do():
    source = dancer(near=1.5, metre_px=120)
    noise = torch.randn(240, generator=torch.Generator().manual_seed(1)) * 4
    shaken = source.keypoints.clone()
    shaken[:, 0, FEET, 1] += noise[:, None]
    result = moved(replace(source, keypoints=shaken), dancer(near=1.5))
    shoulders = (result.keypoints[:, 0, 11] - result.keypoints[:, 0, 12])[:, :2].norm(dim=1)
    assert (shoulders.diff().abs() / shoulders[1:]).max() < 0.01
    assert (shoulders.diff().diff().abs() / shoulders[2:]).max() < 0.002


def test_feet_hidden_for_a_while_do_not_move_the_person():
    source = dancer(metre_px=100)
    result = moved(hide(source, FEET, slice(50, 120)), dancer())
    whole = moved(source, dancer())
    assert (result.keypoints[:, :, :25] - whole.keypoints[:, :, :25]).abs().max() < 0.5


def test_who_walks_up_until_the_feet_leave_the_picture_outgrows_no_target():
    source = dancer(near=2.5, metre_px=90, size=(380, 512), ground=330)
    below = source.keypoints[:, 0, FEET, 1].amax(dim=1) > 380
    assert 40 < int(below.sum()) < 200
    points = source.keypoints.clone()
    points[below, :, 25:, 2] = 0.0  # knees and feet are out of the picture
    target = dancer(metre_px=150)
    result = moved(replace(source, keypoints=points), target)
    shoulders = (result.keypoints[:, 0, 11] - result.keypoints[:, 0, 12])[:, :2].norm(dim=1)
    usual = (target.keypoints[:, 0, 11] - target.keypoints[:, 0, 12])[:, :2].norm(dim=1).median()
    assert float(shoulders.max()) < 1.25 * float(usual)


def test_limb_lengths_become_the_targets_on_request_and_feet_stay_down():
    source = dancer(legs=0.7, tempo=1.3)
    target = dancer(legs=1.0)
    result = moved(source, target, limbs=True)

    def share(pose: PoseSequence) -> float:
        points = pose.keypoints[:, 0, :, :2]
        legs = (points[:, 23] - points[:, 27]).norm(dim=1)
        torso = (points[:, [11, 12]].mean(1) - points[:, [23, 24]].mean(1)).norm(dim=1)
        return float((legs / torso).mean())

    assert share(moved(source, target)) == pytest.approx(share(source), rel=1e-3)
    assert share(result) == pytest.approx(share(target), rel=0.03)
    assert torch.allclose(result.keypoints[:, 0, FEET, 1].amax(1), torch.tensor(450.0), atol=1)
    world = result.world[:, 0]
    assert float((world[:, 23] - world[:, 25]).norm(dim=1).mean()) > float(
        (source.world[:, 0, 23] - source.world[:, 0, 25]).norm(dim=1).mean()
    )


def test_limb_adaptation_leaves_an_equal_body_alone():
    target = dancer(near=1.4)
    assert gap(moved(similar(target, 0.5, 3, 4, (256, 256)), target, limbs=True), target) < 0.1


def test_hands_and_face_points_move_with_the_body():
    body = dancer(60)
    detail = body.keypoints[:, :, [15, 16]].repeat_interleave(21, dim=2) + 3.0
    mesh = body.keypoints[:, :, :1].expand(-1, -1, 478, -1) + 2.0
    target = replace(body, hands=detail, face=mesh)
    back = moved(similar(target, 0.5, 10, 20, (300, 300)), target)
    assert back.hands is not None and back.face is not None
    assert torch.allclose(back.hands, detail, atol=0.02)
    assert torch.allclose(back.face, mesh, atol=0.02)


def test_detail_points_stay_on_relengthened_limbs():
    source, target = dancer(legs=0.7), dancer()
    wrists = source.keypoints[:, :, [15, 16]].repeat_interleave(21, dim=2)
    middle = source.keypoints[:, :, [7, 8]].mean(dim=2, keepdim=True).expand(-1, -1, 478, -1)
    result = moved(replace(source, hands=wrists, face=middle), target, limbs=True)
    assert result.hands is not None and result.face is not None
    assert torch.allclose(result.hands[:, :, [0, 21]], result.keypoints[:, :, [15, 16]], atol=0.01)
    ears = result.keypoints[:, :, [7, 8]].mean(dim=2)
    assert torch.allclose(result.face[:, :, 100], ears, atol=0.01)


def test_keep_inside_slides_a_person_back_smoothly():
    source = dancer(sway_m=1.5)
    target = dancer(size=(512, 300), x=150, metre_px=80)
    loose, kept = moved(source, target), moved(source, target, keep_inside=True)
    assert loose.keypoints[..., 0].min() < -20
    assert kept.keypoints[..., 0].min() > -0.01 and kept.keypoints[..., 0].max() < 300.01
    shift = (kept.keypoints - loose.keypoints)[:, 0, 0, 0]
    assert shift.diff().abs().max() < 15


def test_keep_inside_keeps_to_the_part_that_the_generator_works_in():
    summary = summarise(dancer(metre_px=100)) | {"room": [150.0, 400.0]}
    options = BodyRetarget(keep_inside=True)
    kept = retarget(dancer(sway_m=1.5), summary, options).sequence
    assert isinstance(kept, PoseSequence)
    x = kept.keypoints[..., 0]
    assert float(x.min()) > 149.99 and float(x.max()) < 400.01


def test_absolute_only_fits_the_picture():
    source = dancer(size=(200, 400))
    result = moved(source, dancer(size=(512, 512)), absolute=True)
    scale, top = 512 / 400, (512 - 200 * 512 / 400) / 2
    expected = source.keypoints[..., :2] * scale + torch.tensor([0.0, top])
    assert torch.allclose(result.keypoints[..., :2], expected, atol=1e-3)


# Bodies: the faults of the published code, ALGORITHMS 4.3 (a) to (j)


def test_a_feet_that_never_lift_are_no_empty_set():
    result = moved(dancer(metre_px=100, near=1.0), dancer(near=1.0))
    assert result.keypoints.isfinite().all()


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_b_no_depth_range_divides_by_nothing(frames):
    still = dancer(frames, tempo=0.0)
    for source, target in ((still, dancer(near=1.5)), (dancer(near=1.5), still), (still, still)):
        assert moved(source, target).keypoints.isfinite().all()


def test_c_extremes_are_found_wherever_in_the_clip_they_are():
    target = dancer(near=1.7, jumps=0.2)
    backwards = target[torch.arange(len(target) - 1, -1, -1)]
    one, other = (summarise_body(v)["stances"]["feet"] for v in (target, backwards))
    assert one.pop("limbs") == pytest.approx(other.pop("limbs"))
    assert one == pytest.approx(other)
    assert one["height_close"] == pytest.approx(1.7 * one["height_far"], rel=0.05)


def test_c_one_wild_frame_moves_no_extreme():
    target = dancer(near=1.4)
    wild = target.keypoints.clone()
    wild[100, 0, FEET, 1] += 300
    source = dancer(metre_px=90)
    assert gap(moved(source, replace(target, keypoints=wild)), moved(source, target)) < 1


def test_d_the_confidence_asked_is_that_of_the_joint_used():
    target, source = dancer(), dancer(metre_px=100)
    no_ear = moved(hide(source, [7]), target)
    assert (no_ear.keypoints[:, 0, FEET, 1].amax(1) - 450).abs().max() < 0.5
    one_foot = moved(hide(source, [27, 29, 31]), target)  # its wild y must not count
    right = [28, 30, 32]
    assert torch.allclose(one_foot.keypoints[:, 0, right, 1].amax(1), torch.tensor(450.0), atol=0.5)


def test_e_the_lowest_of_ankles_heels_and_toes_is_the_foot_line():
    for joint in range(33):
        lowered = dancer(40).keypoints.clone()
        lowered[:, 0, joint, 1] = 480.0
        line = summarise_body(replace(dancer(40), keypoints=lowered))["stances"]["feet"]["line"]
        assert line == pytest.approx(480.0 if joint >= 27 else 450.0, abs=1e-3)


def test_f_two_runs_agree_and_no_random_number_is_drawn():
    source, target = dancer(near=1.3, tempo=1.4), dancer(sway_m=0.4)
    torch.manual_seed(1)
    first, state = summarise(target), torch.get_rng_state()
    one = retarget(source, first)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = summarise(target)
    other = retarget(source, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert torch.equal(one.sequence.keypoints, other.sequence.keypoints)  # pyright: ignore
    assert torch.equal(one.report.distance, other.report.distance)


def test_g_the_person_is_moved_sideways_to_where_the_target_is():
    result = moved(dancer(metre_px=80, x=900, size=(720, 1280), sway_m=0.5), dancer(x=130))
    hips = result.keypoints[:, 0, [23, 24], 0].mean(dim=1)
    assert float(hips.median()) == pytest.approx(130, abs=6)
    # Half a metre to either side, in the target's pixels.
    assert float(hips.max() - hips.min()) == pytest.approx(2 * 0.5 * 200, rel=0.02)


def test_h_no_frame_is_lost_or_renumbered():
    source = dancer(101, metre_px=100)
    seen = source.seen.clone()
    seen[:4] = seen[50:60] = seen[-3:] = False
    gappy = replace(hide(source, slice(0, 33), slice(50, 60)), seen=seen)
    result = moved(gappy, dancer())
    assert len(result) == 101
    assert torch.equal(result.seen, seen)
    whole = moved(source, dancer())
    assert (result.keypoints - whole.keypoints)[seen[:, 0]].abs().max() < 1.5


@pytest.mark.parametrize("size", [(1920, 1080), (64, 48), (17, 301)])
def test_i_any_size_ends_in_pixels_of_the_target(size):
    height, width = size
    target = dancer(size=size, metre_px=height / 2.5, x=width / 2, ground=height * 0.9)
    result = moved(dancer(metre_px=400, ground=1000, x=700, size=(1080, 1920)), target)
    assert result.frame_size == size
    assert (result.keypoints[:, 0, FEET, 1].amax(1) - height * 0.9).abs().max() < height / 500


def test_j_bystanders_change_nothing():
    def crowd(pose: PoseSequence) -> PoseSequence:
        others = torch.rand(len(pose), 2, 33, 3, generator=torch.Generator().manual_seed(3)) * 500
        both = torch.cat([pose.keypoints, others], dim=1)
        world, seen = pose.world.expand(-1, 3, -1, -1), pose.seen.expand(-1, 3)
        return replace(pose, keypoints=both, world=world, seen=seen)

    source, target = dancer(metre_px=100), dancer(sway_m=0.3)
    alone, among = moved(source, target), moved(crowd(source), crowd(target))
    assert among.keypoints.shape == (240, 1, 33, 3)
    assert torch.equal(among.keypoints, alone.keypoints)


# What leaves the target's range


def test_motions_the_target_has_shown_are_inside():
    target = dancer(600)
    report = retarget(similar(dancer(200, tempo=0.8), 0.5, 9, 9, (256, 256)), summarise(target))
    assert not report.report.outside.any()
    assert report.report.sentence(torch.arange(200) / 25.0) == ""


def test_new_poses_are_counted_and_dated():
    source = dancer(300)
    new = source.keypoints.clone()
    new[105:123, 0, :11, 1] += 250  # the head between the knees
    report = retarget(replace(source, keypoints=new), summarise(dancer(600))).report
    assert report.outside.nonzero()[:, 0].tolist() == list(range(105, 123))
    assert (
        report.sentence(torch.arange(300) / 25.0)
        == "18 of 300 frames ask for poses the target never showed: 4.2-4.9 s"
    )


def test_places_beyond_the_targets_own_are_told():
    wide = {"size": (512, 1200), "x": 600.0}
    target, source = dancer(sway_m=0.2, **wide), dancer(sway_m=0.8, **wide)
    report = retarget(source, summarise(target)).report
    feet = [v.keypoints[:, 0, FEET, 0].mean(dim=1) for v in (source, target)]
    feet[0] = feet[0] - feet[0].median() + feet[1].median()
    low, high = feet[1].quantile(torch.tensor([0.01, 0.99]))
    margin = 0.1 * float(heights(target).max())
    expected = (feet[0] < low - margin) | (feet[0] > high + margin)
    assert 0.2 < expected.float().mean() < 0.8
    assert torch.equal(report.reasons["places"], expected)
    assert not report.reasons["poses"].any()


def test_unseen_frames_are_never_outside():
    source = dancer(metre_px=100)
    seen = source.seen.clone()
    seen[20:30] = False
    hidden = replace(hide(source, slice(0, 33), slice(20, 30)), seen=seen)
    report = retarget(hidden, summarise(dancer())).report
    assert not report.outside[20:30].any()
    assert not report.distance[20:30].any()


def test_spans_join_what_is_near_and_keep_apart_what_is_not():
    outside = torch.zeros(100, dtype=torch.bool)
    outside[[10, 11, 14, 60]] = True
    report = RangeReport(distance=torch.zeros(100), reasons={"poses": outside, "places": outside})
    pts = torch.arange(100) / 10.0
    assert report.sentence(pts) == (
        "4 of 100 frames ask for poses and places the target never showed: 1.0-1.4, 6.0 s"
    )


def test_of_a_source_that_is_new_throughout_the_farthest_moments_are_told():
    distance = torch.full((100,), 1.6)
    distance[40:65] = 5.0
    everywhere = torch.ones(100, dtype=torch.bool)
    report = RangeReport(distance=distance, reasons={"poses": everywhere})
    assert report.sentence(torch.arange(100) / 10.0) == (
        "100 of 100 frames ask for poses the target never showed, the farthest from them "
        "4.0-6.4 s; a target filmed in more of them would look better"
    )


def test_many_spans_are_cut_short():
    outside = torch.zeros(100, dtype=torch.bool)
    outside[::10] = outside[55] = True
    report = RangeReport(distance=torch.zeros(100), reasons={"poses": outside})
    sentence = report.sentence(torch.arange(100) / 1.0)
    assert sentence.endswith("s and 7 more") and sentence.count(",") == 3


# A face with known identity, expression and pose

MESH = torch.from_numpy(load_face_mesh().vertices.copy()).double()
FRONTAL = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
"""The canonical face has y up and z to the viewer; the picture y down and z away."""


def neutral_face(*, wide: float = 1.0, long: float = 1.0) -> Tensor:
    """(478, 3) centimetres: the canonical face, eyes opened, irises added."""
    shape = MESH.clone()
    for lids, top, bottom in ((faces.RIGHT_EYE, 159, 145), (faces.LEFT_EYE, 386, 374)):
        middle = (shape[top, 1] + shape[bottom, 1]) / 2
        shape[list(lids), 1] += 0.3 * (shape[list(lids), 1] - middle)
    irises = []
    for corners in ((33, 133), (362, 263)):
        centre = shape[list(corners)].mean(dim=0)
        around = torch.tensor([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [-0.5, 0, 0], [0, -0.5, 0]])
        irises.append(centre + around)
    return torch.cat([shape, *irises]) * torch.tensor([wide, long, 1.0]).double()


def perform(
    shape: Tensor,
    *,
    frames: int = 160,
    seed: int = 0,
    strength: float = 1.0,
    size: tuple[int, int] = (512, 512),
    scale: float = 12.0,
    place: tuple[float, float] = (250.0, 260.0),
    turn: float = 0.25,
) -> FaceSequence:
    """A linear face model: five random smooth expressions on `shape`, with a moving head.

    Most of the time it rests: neutral, frontal, in place. What happens in the middle is the same
    backwards with opposite turns, so that its mean is the rest.
    """
    generator = torch.Generator().manual_seed(7)
    basis = torch.randn(5, 478, 3, generator=generator, dtype=torch.float64) * 0.05
    basis[:, 14, 1] -= 0.4  # most of them open the mouth
    motion = torch.Generator().manual_seed(seed)
    speeds = torch.rand(11, generator=motion, dtype=torch.float64) * 0.2 + 0.1
    t = torch.arange(frames, dtype=torch.float64) - (frames - 1) / 2
    waves = torch.sin(t[:, None] * speeds) * (t.abs() < frames / 5)[:, None]
    amount = strength * waves[:, :5].abs()
    shapes = shape + torch.einsum("te,enc->tnc", amount, basis)
    rotation = rotations_from(turn * waves[:, 5:8]) @ FRONTAL
    zoom = scale * (1 + 0.1 * waves[:, 8])
    where = torch.tensor(place) + 1.5 * scale * waves[:, 9:11]
    return assemble(shapes, rotation, where, zoom, size)


def assemble(
    shapes: Tensor, rotation: Tensor, where: Tensor, zoom: Tensor, size: tuple[int, int]
) -> FaceSequence:
    landmarks = zoom[:, None, None] * torch.einsum("tij,tnj->tni", rotation, shapes)
    landmarks[..., :2] += where[:, None]
    return FaceSequence(
        landmarks=landmarks.float(),
        rotation=rotation.float(),
        translation=where.float(),
        scale=zoom.float(),
        seen=torch.ones(len(shapes), dtype=torch.bool),
        frame_size=size,
    )


def acted(source: FaceSequence, target: FaceSequence, **options: Any) -> FaceSequence:
    result = retarget(source, summarise(target), FaceRetarget(**options)).sequence
    assert isinstance(result, FaceSequence)
    return result


def distance(one: FaceSequence, other: FaceSequence) -> float:
    """Largest distance between corresponding landmarks in the picture, pixels."""
    return float((one.landmarks - other.landmarks)[..., :2].norm(dim=-1).max())


def test_a_face_comes_back_onto_itself():
    face = perform(neutral_face())
    back = acted(face, face, clip=False)
    assert distance(back, face) < 0.02
    assert torch.allclose(back.rotation, face.rotation, atol=1e-5)
    assert torch.allclose(back.translation, face.translation, atol=1e-2)
    assert torch.allclose(back.scale, face.scale, atol=1e-4)


def test_a_zoomed_and_shifted_face_comes_back_onto_the_original():
    face = perform(neutral_face())
    copy = replace(
        face,
        landmarks=face.landmarks * 2.5 + torch.tensor([30.0, -70.0, 0.0]),
        translation=face.translation * 2.5 + torch.tensor([30.0, -70.0]),
        scale=face.scale * 2.5,
        frame_size=(1080, 1920),
    )
    back = acted(copy, face, clip=False)
    assert distance(back, face) < 0.02
    assert back.frame_size == (512, 512)


def test_another_identity_does_exactly_what_it_would_do_itself():
    """Same expression weights and head motion, another shape, size and place: the true answer."""
    other = neutral_face(wide=1.15, long=0.9)
    truth = perform(other, seed=4, scale=17.0, place=(300.0, 200.0), size=(480, 640))
    source = perform(neutral_face(), seed=4)
    target = perform(other, seed=9, scale=17.0, place=(300.0, 200.0), size=(480, 640))
    result = acted(source, target, clip=False, adapt=False)
    assert distance(result, truth) < 0.05
    assert torch.allclose(result.rotation, truth.rotation, atol=1e-4)


def test_it_does_not_matter_where_a_tracker_has_its_depth_origin():
    target, source = perform(neutral_face(), seed=2, turn=0.1), perform(neutral_face(), turn=0.5)
    plain = acted(source, target)
    shift = 4.1 * source.scale + torch.sin(torch.arange(160) * 0.1)
    behind = source.landmarks + shift[:, None, None] * torch.tensor([0.0, 0.0, 1.0])
    assert distance(acted(replace(source, landmarks=behind), target), plain) < 0.01


def test_poses_are_relative_to_a_target_that_looks_aside():
    aside = rotations_from(torch.tensor([0.0, 0.35, 0.0], dtype=torch.float64))
    target = perform(neutral_face(), seed=2)
    turned = assemble(
        canonical(target),
        aside @ target.rotation.double(),
        target.translation.double(),
        target.scale.double(),
        (512, 512),
    )
    source = perform(neutral_face(), seed=3)
    result = acted(source, turned, clip=False)
    expected = source.rotation.double() @ FRONTAL.T @ aside @ FRONTAL
    assert torch.allclose(result.rotation.double(), expected, atol=0.02)


def test_a_blink_closes_eyes_of_any_size():
    def blinking(shape: Tensor) -> FaceSequence:
        shapes = shape.repeat(60, 1, 1)
        for upper, lower in ((159, 145), (386, 374)):
            shapes[40:50, upper] = shapes[40:50, lower]
        still = torch.zeros(60, 3, dtype=torch.float64)
        where, zoom = torch.full((60, 2), 256.0).double(), torch.full((60,), 12.0).double()
        return assemble(shapes, rotations_from(still) @ FRONTAL, where, zoom, (512, 512))

    narrow = neutral_face()
    for lids, top, bottom in ((faces.RIGHT_EYE, 159, 145), (faces.LEFT_EYE, 386, 374)):
        middle = (narrow[top, 1:] + narrow[bottom, 1:]) / 2
        narrow[list(lids), 1:] = middle + 0.5 * (narrow[list(lids), 1:] - middle)

    def gaps(face: FaceSequence) -> Tensor:
        return (canonical(face)[:, [159, 386]] - canonical(face)[:, [145, 374]]).norm(dim=-1)

    for source, target in ((neutral_face(), narrow), (narrow, neutral_face())):
        result = gaps(acted(blinking(source), blinking(target)))
        assert result[40:50].max() < 0.01
        assert torch.allclose(result[:40], gaps(blinking(target))[:40], atol=1e-3)


def test_gaze_moves_the_irises_within_their_own_corners():
    def looking(shape: Tensor) -> FaceSequence:
        shapes = shape.repeat(60, 1, 1)
        shapes[40:50, 468:, 0] += 0.3
        still = torch.zeros(60, 3, dtype=torch.float64)
        where, zoom = torch.full((60, 2), 256.0).double(), torch.full((60,), 12.0).double()
        return assemble(shapes, rotations_from(still) @ FRONTAL, where, zoom, (512, 512))

    wide = neutral_face(wide=1.5)
    source, target = looking(neutral_face()), looking(wide)
    result = canonical(acted(source, target)) - wide
    assert torch.allclose(result[40:50, 468:, 0], torch.tensor(0.45).double(), atol=0.01)
    still = canonical(acted(source, target, gaze_strength=0.0)) - wide
    assert still[:, 468:].abs().max() < 1e-3


def test_a_target_who_was_filmed_cross_eyed_does_not_squint_for_a_source_who_does_not():
    squinting = neutral_face()
    for iris, side in ((faces.RIGHT_IRIS, 1), (faces.LEFT_IRIS, -1)):
        squinting[list(iris), 0] += side * 0.4  # centimetres, towards the nose
    result = acted(perform(neutral_face()), perform(squinting, seed=1))
    shapes = canonical(result)
    for iris, corners in ((faces.RIGHT_IRIS, (33, 133)), (faces.LEFT_IRIS, (362, 263))):
        offset = shapes[:, list(iris), 0].mean(dim=1) - shapes[:, list(corners), 0].mean(dim=1)
        assert float(offset[:20].abs().max()) < 0.1


def test_a_glance_in_the_most_neutral_frames_does_not_bend_the_gaze():
    """The mouth shuts only during the glance: the face at rest still looks where it mostly does."""
    shapes = neutral_face().repeat(100, 1, 1)
    shapes[:, 14, 1] -= 1.0
    shapes[30:36, 14, 1] += 1.0
    shapes[30:36, 468:, 0] += 0.4
    where, zoom = torch.full((100, 2), 256.0).double(), torch.full((100,), 12.0).double()
    glancing = assemble(shapes, FRONTAL.expand(100, 3, 3), where, zoom, (512, 512))
    result = canonical(acted(glancing, perform(neutral_face(), turn=0.0), clip=False))
    assert torch.allclose(result[0, 468:, 0], neutral_face()[468:, 0], atol=0.02)
    assert torch.allclose(result[32, 468:, 0], neutral_face()[468:, 0] + 0.4, atol=0.02)


def test_strengths_scale_what_they_name():
    face = perform(neutral_face())
    held = acted(face, face, clip=False, expression_strength=0.0, gaze_strength=0.0)
    assert (canonical(held) - canonical(held)[0]).abs().max() < 1e-3
    assert torch.allclose(held.rotation, face.rotation, atol=1e-4)
    calm = acted(face, face, clip=False, pose_strength=0.0)
    assert torch.allclose(calm.rotation, calm.rotation[:1].expand(160, -1, -1), atol=1e-5)
    assert torch.allclose(calm.translation, calm.translation[:1].expand(160, -1), atol=1e-3)
    half = acted(face, face, clip=False, pose_strength=0.5)
    angle = [rotation_vectors(v.rotation.double() @ FRONTAL.T).norm(dim=1) for v in (half, face)]
    assert torch.allclose(angle[0], angle[1] / 2, atol=0.01)


def test_absolute_keeps_the_heads_own_place_and_turn():
    source = perform(neutral_face(), size=(256, 512), place=(200.0, 100.0))
    target = perform(neutral_face(), seed=3, scale=20.0, size=(512, 512))
    result = acted(source, target, absolute=True, clip=False)
    expected = source.translation + torch.tensor([0.0, 128.0])  # 256 px high, centred in 512
    assert torch.allclose(result.translation, expected, atol=1e-3)
    assert torch.allclose(result.rotation, source.rotation, atol=1e-5)
    assert torch.allclose(result.scale, source.scale, atol=1e-4)


def test_poses_never_leave_what_the_target_has_shown_when_clipped():
    target = perform(neutral_face(), turn=0.1, scale=10.0)
    source = perform(neutral_face(), turn=0.6, seed=5)
    result = retarget(source, summarise(target))
    face = result.sequence
    assert isinstance(face, FaceSequence)
    for made, shown in (
        (face.translation, target.translation),
        (face.scale[:, None], target.scale[:, None]),
        (
            rotation_vectors(face.rotation.double() @ FRONTAL.T),
            rotation_vectors(target.rotation.double() @ FRONTAL.T),
        ),
    ):
        assert (made >= shown.amin(dim=0) - 0.01).all() and (made <= shown.amax(dim=0) + 0.01).all()
    assert result.report.reasons["head turns"].any()
    assert "head turns" in result.report.sentence(torch.arange(160) / 25.0)


def test_soft_limits_leave_the_middle_alone_and_never_pass_the_extremes():
    bounds = {"min": [-2.0], "low": [-1.0], "high": [1.0], "max": [3.0]}
    values = torch.linspace(-50, 50, 2001, dtype=torch.float64)[:, None]
    soft = soften(values, bounds)
    middle = (values >= -1) & (values <= 1)
    assert torch.equal(soft[middle], values[middle])
    assert soft.min() >= -2 and soft.max() <= 3
    assert (soft.diff(dim=0) >= 0).all() and soft.diff(dim=0).max() < 0.0501  # no jump at a knee


def test_a_wider_mouth_than_ever_is_reported():
    target = perform(neutral_face(), strength=0.3, seed=1)
    report = retarget(perform(neutral_face(), seed=1), summarise(target)).report
    assert report.reasons["expressions"].any()
    again = retarget(target, summarise(target)).report
    assert not again.outside.any()


def test_faces_unseen_for_a_while_stay_so_and_shift_no_neutral():
    face = perform(neutral_face())
    away = torch.zeros(160, dtype=torch.bool)
    away[60:70] = away[90:100] = True  # what is left still has the rest as its mean
    blank = {
        name: torch.where(away.reshape(-1, *[1] * (value.ndim - 1)), 0.0, value)
        for name in ("landmarks", "rotation", "translation", "scale")
        for value in [getattr(face, name)]
    }
    result = acted(replace(face, seen=~away, **blank), face, clip=False)
    assert torch.equal(result.seen, ~away)
    assert (result.landmarks - face.landmarks)[~away][..., :2].abs().max() < 0.05
    assert result.landmarks.isfinite().all()


def test_rotation_vectors_invert():
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors *= 0.7
    vectors[0], vectors[1] = 0.0, torch.tensor([1e-8, 0, 0])
    vectors[2] = torch.tensor([0, 3.1, 0])
    assert torch.allclose(rotation_vectors(rotations_from(vectors)), vectors, atol=1e-6)


# Both


@pytest.mark.parametrize("sequence", [dancer(), perform(neutral_face())], ids=["body", "face"])
def test_a_summary_survives_json_unchanged_and_stays_small(sequence):
    summary = summarise(sequence)
    text = json.dumps(summary)
    assert json.loads(text) == summary
    assert len(text) < 400_000
    one, other = retarget(sequence, summary), retarget(sequence, json.loads(text))
    assert torch.equal(one.report.distance, other.report.distance)


@pytest.mark.parametrize("sequence", [dancer(), perform(neutral_face())], ids=["body", "face"])
def test_training_frames_themselves_are_inside(sequence):
    report = retarget(sequence, summarise(sequence)).report
    assert not report.outside.any()
    assert report.distance.max() < 1


def scene(height: int = 4, width: int = 8, *, classes: int = 3, instances: bool = False):
    labels = torch.zeros(3, height, width, dtype=torch.uint8)
    labels[:, :, width // 2 :] = classes - 1
    return LabelMaps(
        labels=labels, num_classes=classes, instances=labels.int() * 1000 if instances else None
    )


def test_labels_keep_their_ids_and_take_the_targets_size():
    result = retarget(scene(8, 16, instances=True), summarise(scene(instances=True)))
    assert isinstance(result.sequence, LabelMaps)
    assert torch.equal(result.sequence.labels, scene().labels)
    assert result.sequence.instances is not None and result.sequence.size == (4, 8)
    assert not result.report.outside.any() and len(result.report.distance) == 3
    with pytest.raises(BadOption, match="labels"):
        retarget(scene(), summarise(scene()), {"steady": 3})


def test_classes_that_the_target_never_showed_are_told():
    source = scene()
    source.labels[1, 0, 0] = 1
    report = retarget(source, summarise(scene())).report
    assert report.outside.tolist() == [False, True, False]
    assert "1 of 3 frames ask for classes" in report.sentence(torch.arange(3.0))


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (scene(classes=5), scene(), r"frame 0 .*label id 4.*knows the ids 0 to 2"),
        (scene(), scene(instances=True), "trained with instance maps.*--instances"),
        (scene(instances=True), scene(), "trained without instance maps; leave"),
        (scene(8, 8), scene(), "another shape.*1 times as wide as high, not 2 times"),
    ],
)
def test_labels_that_do_not_fit_the_subject_get_one_sentence(source, target, words):
    with pytest.raises(UnsupportedVideo, match=words):
        retarget(source, summarise(target))


def test_options_may_be_a_checked_mapping():
    target = dancer()
    summary = summarise(target)
    one = retarget(target, summary, {"limbs": True, "steady": 5}).sequence
    other = retarget(target, summary, BodyRetarget(limbs=True, steady=5)).sequence
    assert torch.equal(one.keypoints, other.keypoints)  # pyright: ignore
    with pytest.raises(UnknownName, match="steady"):
        retarget(target, summary, {"stedy": 5})
    with pytest.raises(BadOption, match="steady"):
        retarget(target, summary, {"steady": 0})
    with pytest.raises(TypeError, match="BodyRetarget"):
        retarget(target, summary, FaceRetarget())


def test_a_subject_of_another_kind_is_refused():
    with pytest.raises(BadSubject, match=r"'face'.*'pose'"):
        retarget(dancer(), summarise(perform(neutral_face())))


def test_an_incomplete_summary_is_refused():
    summary = summarise(dancer())
    del summary["stances"]
    with pytest.raises(BadSubject, match="stances"):
        retarget(dancer(), summary)


@pytest.mark.parametrize("sequence", [dancer(20), perform(neutral_face(), frames=20)])
def test_a_video_of_nobody_is_refused(sequence):
    nobody = replace(sequence, seen=torch.zeros_like(sequence.seen))
    with pytest.raises(NoSubjectFound, match="none of its 20 frames"):
        summarise(nobody)
    with pytest.raises(NoSubjectFound, match="none of its 20 frames"):
        retarget(nobody, summarise(sequence))


def test_bodies_with_no_part_in_common_are_refused():
    legs, head = hide(dancer(), slice(0, 13)), hide(dancer(), slice(23, 33))
    with pytest.raises(NoSubjectFound, match="same part"):
        retarget(legs, summarise(head))


@pytest.mark.needs_media
@pytest.mark.parametrize(
    ("extractor", "source", "target"),
    [
        (FaceExtractor, "face/liveportrait_d10.mp4", "face/liveportrait_d6.mp4"),
        (
            PoseExtractor,
            "dance/liveportrait_s13_blue_dress.mp4",
            "dance/sports2d_lateral_raise.mp4",
        ),
    ],
)
def test_real_clips_end_in_the_targets_place_at_its_size(shared_media, extractor, source, target):
    plugin = extractor()
    signals: list[Any] = []
    for name in (source, target):
        clips = (chunk.clip for chunk in read_chunks(shared_media / name, chunk=8, end=1.0))
        signals.append(plugin.produces.concat(list(plugin.extract(clips))))
    result = retarget(signals[0], summarise(signals[1])).sequence
    assert len(result) == len(signals[0]) and result.size == signals[1].size
    boxes = [signal.regions()["subject"] for signal in (result, signals[1])]
    middles = [((box[:, :2] + box[:, 2:]) / 2).median(dim=0).values for box in boxes]
    heights = [(box[:, 3] - box[:, 1]).median() for box in boxes]
    assert (middles[0] - middles[1]).norm() < 0.15 * heights[1]
    assert float(heights[0] / heights[1]) == pytest.approx(1, abs=0.15)
    assert result.features().isfinite().all()


def test_steady_is_a_median_then_a_mean_with_reflected_ends():
    values = torch.tensor([0.0, 0.0, 9.0, 0.0, 3.0, 3.0, 3.0])
    medians = torch.tensor([0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0])
    means = torch.stack([medians[[1, 0, 1]], *[medians[i : i + 3] for i in range(5)]])
    assert torch.allclose(steady(values, 3)[:6], means.mean(dim=1))
    assert torch.equal(steady(values, 1), values)
    assert len(steady(values, 99)) == 7


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ink(Conditioning):
    """A kind that vidsynth has never heard of."""

    kind: ClassVar[str] = "ink"
    per_frame: ClassVar[tuple[str, ...]] = ("ink",)
    ink: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return (self.ink.shape[1], self.ink.shape[2])

    def draw(self, height: int, width: int) -> Tensor:
        return drawing.resize(self.ink[:, None], height, width)

    def rescale(self, height: int, width: int) -> Ink:
        return replace(self, ink=self.draw(height, width)[:, 0])


def test_a_kind_of_another_package_takes_the_targets_size():
    target = Ink(ink=torch.zeros(2, 4, 8, dtype=torch.uint8))
    source = Ink(ink=torch.full((3, 8, 16), 7, dtype=torch.uint8))
    result = retarget(source, json.loads(json.dumps(summarise(target))))
    assert isinstance(result.sequence, Ink) and result.sequence.size == (4, 8)
    assert len(result.sequence) == 3 and bool((result.sequence.ink == 7).all())
    assert not result.report.outside.any()
    with pytest.raises(UnsupportedVideo, match="the source's ink maps have another shape"):
        retarget(Ink(ink=torch.zeros(1, 8, 8, dtype=torch.uint8)), summarise(target))
    with pytest.raises(BadOption, match="ink conditioning is not retargeted"):
        retarget(source, summarise(target), {"steady": 3})
