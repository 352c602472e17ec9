"""A body's pixels follow its limbs, as far as each is seen to reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vidsynth import bodies, limbs, scores
from vidsynth.blocks import warp
from vidsynth.clip import Clip
from vidsynth.conditioning import LabelMaps, PoseSequence
from vidsynth.correspondence import AROUND, Warp, centres
from vidsynth.exemplars import Gallery, cover, plan
from vidsynth.objectives import Recalled
from vidsynth.plate import cut_out
from vidsynth.several import several
from vidsynth.testing import sliding_labels, times, waving_person
from vidsynth.worlds import WORLDS

# T frames, L limbs, H, W pixels; U, V places along and across a limb

HEIGHT, WIDTH = 192, 160
PLACES = centres(HEIGHT, WIDTH, HEIGHT, WIDTH, torch.zeros(1)).permute(2, 0, 1)
"""(2, H, W): x and y of the pixels' centres."""


def person(num_frames: int = 1) -> PoseSequence:
    return waving_person(num_frames, HEIGHT, WIDTH)


def body_flow(known: PoseSequence, wanted: PoseSequence) -> Warp:
    return known.warp_to(wanted, HEIGHT, WIDTH)


def with_joints(pose: PoseSequence, joints: dict[int, tuple[float, float]]) -> PoseSequence:
    points = pose.keypoints.clone()
    for joint, place in joints.items():
        points[:, 0, joint, :2] = torch.tensor(place)
    return replace(pose, keypoints=points)


def test_a_body_that_moves_or_grows_takes_its_pixels_along() -> None:
    known = person()
    points = known.keypoints.clone()
    points[..., :2] = points[..., :2] * 1.2 + torch.tensor([-12.0, -20.0])
    wanted = replace(known, keypoints=points)
    found = body_flow(known, wanted)
    expected = (PLACES - torch.tensor([-12.0, -20.0])[:, None, None]) / 1.2 - PLACES
    sure = found.valid_T1HW[0, 0] > 0.999
    sure[[0, 1, -2, -1]] = False  # half a cell of the coarse grid
    assert int(sure.sum()) > 1000
    assert float((found.flow_T2HW[0] - expected).abs()[:, sure].max()) < 0.05


def test_a_raised_arm_is_fetched_from_where_it_hung() -> None:
    known = person()
    wrist, elbow = bodies.LEFT_WRIST, bodies.LEFT_ELBOW
    shoulder = known.keypoints[0, 0, bodies.LEFT_SHOULDER, :2]
    hung = known.keypoints[0, 0, wrist, :2]
    raised_elbow = (shoulder + torch.tensor([14.0, -20.0])).tolist()
    raised_wrist = (shoulder + torch.tensor([18.0, -42.0])).tolist()
    hand = dict.fromkeys((17, 19, 21), (raised_wrist[0] + 1, raised_wrist[1] - 6))
    wanted = with_joints(known, {elbow: raised_elbow, wrist: raised_wrist, **hand})
    found = body_flow(known, wanted)
    x, y = (int(v) for v in (torch.tensor(raised_elbow) + torch.tensor(raised_wrist)) / 2)
    there = PLACES[:, y, x] + found.flow_T2HW[0, :, y, x]
    forearm = (known.keypoints[0, 0, elbow, :2] + hung) / 2
    assert float((there - forearm).norm()) < 2.5
    assert float(found.valid_T1HW[0, 0, y, x]) > 0.6
    # Beyond the body the scene stays; where the arm hung it was hidden.
    assert float(found.flow_T2HW[0, :, 5, 5].abs().max()) == 0.0
    assert float(found.valid_T1HW[0, 0, 5, 5]) == pytest.approx(AROUND)
    assert float(found.valid_T1HW[0, 0, int(forearm[1]), int(forearm[0]) + 3]) < 0.3


def test_of_two_limbs_at_one_place_the_nearer_is_shown_and_the_hidden_one_is_not_sure() -> None:
    plain = person()
    chest = plain.keypoints[0, 0, list((11, 12, 23, 24)), :2].mean(0)
    across = {
        bodies.LEFT_ELBOW: (float(chest[0]) + 10, float(chest[1]) + 6),
        bodies.LEFT_WRIST: (float(chest[0]) - 8, float(chest[1])),
    }
    depth = plain.world.clone()
    for joint in (13, 15, 17, 19, 21):
        depth[:, 0, joint, 2] = -0.3
    before = replace(with_joints(plain, across), world=depth)
    x, y = int(chest[0]), int(chest[1]) + 2
    # The arm is before the chest: its pixels come from the arm that hangs beside it.
    to_front = body_flow(plain, before)
    there = PLACES[:, y, x] + to_front.flow_T2HW[0, :, y, x]
    elbow, wrist = plain.keypoints[0, 0, [13, 15], :2]
    along = ((there - elbow) @ (wrist - elbow)) / (wrist - elbow).square().sum()
    assert 0.0 < float(along) < 1.2
    assert float((there - (elbow + along * (wrist - elbow))).norm()) < 8
    # The other way round the chest is wanted, and the arm hides it.
    to_plain = body_flow(before, plain)
    assert float(to_plain.valid_T1HW[0, 0, y, x]) < 0.4
    assert float(to_plain.valid_T1HW[0, 0, y + 24, x]) > 0.6


def test_a_forearm_seen_end_on_does_not_surely_show_a_long_one() -> None:
    wanted = person()
    elbow, wrist = wanted.keypoints[0, 0, [bodies.LEFT_ELBOW, bodies.LEFT_WRIST], :2]
    x, y = (int(v) for v in (elbow + wrist) / 2)
    sure = []
    for share in (1.0, 0.25):
        pointing = (elbow + share * (wrist - elbow)).tolist()
        hand = dict.fromkeys((bodies.LEFT_WRIST, 17, 19, 21), pointing)
        found = body_flow(with_joints(wanted, hand), wanted)
        sure.append(float(found.valid_T1HW[0, 0, y, x]))
    assert sure[0] > 0.8
    assert sure[1] < 0.7 * sure[0]


# Outlines

FOREARM = 5
"""The left one, among the limbs."""


def near_forearm(pose: PoseSequence, reach: float) -> Tensor:
    """(T, 1, H, W) uint8: 255 within so many pixels of the left forearm."""
    covers = []
    for elbow, wrist in pose.keypoints[:, 0, [bodies.LEFT_ELBOW, bodies.LEFT_WRIST], :2]:
        along = wrist - elbow
        part = ((PLACES.permute(1, 2, 0) - elbow) @ along / along.square().sum()).clamp(0, 1)
        nearest = elbow + part[..., None] * along
        covers.append((PLACES.permute(1, 2, 0) - nearest).norm(dim=2) < reach)
    return torch.stack(covers)[:, None].to(torch.uint8) * 255


def forearm_width(outline_VU: Tensor, pose: PoseSequence) -> float:
    """Half of it in pixels, halfway between elbow and wrist."""
    torso = bodies.torso_lengths(
        bodies.points_in_space(pose, HEIGHT, WIDTH)[:, :, [0, 1, 3]].numpy()
    )
    pixels = limbs.ACROSS * 0.12 * float(torso.mean())
    return float(outline_VU[:, outline_VU.shape[1] // 2].mean()) * pixels


def test_a_limb_is_found_to_reach_as_far_as_it_is_seen_to() -> None:
    """A sleeve twice as wide as another is, in pixels; capsules know nothing of it."""
    pose = person(60)
    assert limbs._FROM[FOREARM] == bodies.LEFT_ELBOW
    for reach in (4.0, 8.0):
        found = pose.outlines(near_forearm(pose, reach))
        assert forearm_width(found[FOREARM], pose) == pytest.approx(reach, abs=0.8)


def test_what_another_limb_covers_does_not_make_a_limb_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thigh beside which the arm hangs in half of the frames is not the arm's."""
    hip, shoulder = person().keypoints[0, 0, [bodies.LEFT_HIP, bodies.LEFT_SHOULDER], :2]
    hangs, raised = torch.tensor([8.0, 6.0]), torch.tensor([46.0, -8.0])
    parts = []
    for elbow, wrist in (
        (hip + hangs - torch.tensor([0.0, 22.0]), hip + hangs),
        (shoulder + 0.5 * raised, shoulder + raised),
    ):
        hand = dict.fromkeys((bodies.LEFT_WRIST, 17, 19, 21), tuple(wrist.tolist()))
        parts.append(with_joints(person(30), {bodies.LEFT_ELBOW: tuple(elbow.tolist()), **hand}))
    pose = PoseSequence.concat(parts)
    alone = near_forearm(pose, 4.0)
    body = limbs._Body.of(bodies.points_in_space(pose, HEIGHT, WIDTH))
    beyond = body.beyond(PLACES.flatten(1).mT.expand(60, -1, -1))
    beyond[:, FOREARM] = torch.inf
    others = (beyond.amin(dim=1) < 1).unflatten(1, (HEIGHT, WIDTH))[:, None]
    covers = alone | others * torch.tensor(255, dtype=torch.uint8)

    def width(covers: Tensor) -> float:
        return forearm_width(pose.outlines(covers)[FOREARM], pose)

    true, found = width(alone), width(covers)
    monkeypatch.setattr(limbs, "_looked_up", lambda _, at: torch.zeros_like(at[:, :, 0]))
    mistaken = width(covers) - width(alone)
    assert mistaken > 0.8
    assert found - true < 0.4 * mistaken


def test_what_was_never_told_from_other_limbs_is_a_capsule() -> None:
    pose = person(60)
    unseen = replace(pose, keypoints=pose.keypoints * torch.tensor([1.0, 1.0, 0.0]))
    everything = torch.full((60, 1, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    found = unseen.outlines(everything)[FOREARM]
    assert float(found[:, found.shape[1] // 2].max()) == pytest.approx(1.0)
    assert float(found[[0, -1], found.shape[1] // 2].max()) < 0.1


def test_beyond_the_outlines_nothing_is_shown() -> None:
    pose = person(60)
    reach = pose.outlines(near_forearm(pose, 4.0))
    known, wanted = pose[:1], pose[12:13]
    found = known.warp_to(wanted, HEIGHT, WIDTH, outlines=reach)
    arm = near_forearm(wanted, 3.0) > 0
    assert float(found.valid_T1HW[arm].mean()) > 0.8
    near = (near_forearm(wanted, 16.0) > 0) & ~(near_forearm(wanted, 8.0) > 0)
    body = limbs._Body.of(bodies.points_in_space(wanted, HEIGHT, WIDTH))
    others = body.beyond(PLACES.flatten(1).mT[None])
    others[:, FOREARM] = torch.inf
    near &= (others.amin(dim=1) > 4).unflatten(1, (HEIGHT, WIDTH))[:, None]
    assert int(near.sum()) > 50
    assert float(found.valid_T1HW[near].max()) < 0.05
    assert float(found.valid_T1HW[0, 0, 5, 5]) == 0.0


def test_only_where_the_body_is_anything_is_worked_out_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pose = person(30)
    reach = pose.outlines(near_forearm(pose, 4.0))
    found = pose[:4].warp_to(pose[20:24], HEIGHT, WIDTH, outlines=reach)
    monkeypatch.setattr(
        limbs._Body, "cells", lambda self, h, w, height, width: (slice(0, h), slice(0, w))
    )
    whole = pose[:4].warp_to(pose[20:24], HEIGHT, WIDTH, outlines=reach)
    assert torch.equal(found.flow_T2HW, whole.flow_T2HW)
    assert torch.equal(found.valid_T1HW, whole.valid_T1HW)


def test_a_body_among_several_reaches_as_far_as_it_would_alone() -> None:
    pose = person(30)
    kind = several(PoseSequence, LabelMaps)
    both = kind(members=(pose, sliding_labels(30, HEIGHT, WIDTH)))
    covers = near_forearm(pose, 4.0)
    reach = both.outlines(covers)
    assert reach is not None and torch.equal(reach, pose.outlines(covers))
    found = both[:1].warp_to(both[12:13], HEIGHT, WIDTH, outlines=reach)
    alone = pose[:1].warp_to(pose[12:13], HEIGHT, WIDTH, outlines=reach)
    assert torch.equal(found.valid_T1HW, alone.valid_T1HW)


def test_a_copied_body_is_nearer_to_the_truth_with_outlines() -> None:
    """Frames of the world `puppet` that are in no gallery, by their second exemplars, whose limbs
    are elsewhere."""
    world, count, size = WORLDS["puppet"], 300, {"height": 128, "width": 128}
    someone, moves = world.make_identity(1), world.make_motion(2, count)
    clips = [chunk.clip for chunk in world.render(someone, moves, **size) if chunk.clip]
    frames, pose = Clip.concat(clips).frames, world.truth(someone, moves, **size)
    assert isinstance(pose, PoseSequence)
    behind = frames[:250].median(dim=0).values
    index = cover(pose[:250].features(), 64)
    covers = cut_out(frames[index], behind, pose[index].silhouette(128, 128))
    images = torch.cat([frames[index], covers], dim=1)
    gallery = Gallery(images=images, signal=pose[index], pts=times(count)[index])
    unseen = torch.arange(260, count, 4)

    def likeness(gallery: Gallery) -> float:
        found = gallery.recall(pose[unseen], plan(gallery, pose[unseen], 2), "cpu")
        recalled = Recalled.of(found, torch.device("cpu")).each(lambda x: x[:, 1])
        copied = warp(recalled.images, recalled.flow)
        scene = behind.float() / 127.5 - 1
        made = scene.lerp(copied[:, :3], recalled.cover(copied[:, 3:]))
        made = made.add(1).mul(127.5).round().clamp(0, 255).byte()
        return float(scores.psnr(made, frames[unseen]).mean())

    reach = gallery.signal.outlines(covers)
    assert likeness(replace(gallery, outlines=reach)) > likeness(gallery) + 0.2
