"""The street's labels, flow and occlusion are what its pictures show."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth.blocks import warp
from vidsynth.conditioning import LabelMaps
from vidsynth.drawing import instance_edges
from vidsynth.worlds import WORLDS
from vidsynth.worlds.rays import HORIZON
from vidsynth.worlds.traffic import CAR, EYE, PERSON, ROAD, SKY, Drive, make_drive

WORLD = WORLDS["street"]
H, W, T = 96, 160, 6


def labels_of(drive: Drive, height: int = H, width: int = W) -> LabelMaps:
    maps = WORLD.truth(WORLD.make_identity(1), drive, height=height, width=width)
    assert isinstance(maps, LabelMaps)
    return maps


def flow_of(drive: Drive, height: int = H, width: int = W) -> tuple[Tensor, Tensor]:
    """(T - 1, 2, H, W) and (T - 1, 1, H, W)"""
    assert WORLD.flow is not None
    flows, hidden = zip(*WORLD.flow(drive, height=height, width=width), strict=True)
    return torch.stack(flows), torch.stack(hidden)


def film_of(drive: Drive, height: int = H, width: int = W) -> Tensor:
    chunks = WORLD.render(WORLD.make_identity(1), drive, height=height, width=width)
    return torch.cat([c.clip.frames for c in chunks if c.clip is not None]).float()


@pytest.fixture(scope="module")
def drive() -> Drive:
    return make_drive(4, T)


def test_the_next_frame_brought_back_by_the_flow_is_this_one(drive: Drive) -> None:
    """Within what reading between pixels costs on the edges of windows and lines."""
    frames, (flow, hidden) = film_of(drive), flow_of(drive)
    apart = (warp(frames[1:], flow) - frames[:-1]).abs().mean(dim=1, keepdim=True)
    unmoved = (frames[1:] - frames[:-1]).abs().mean(dim=1, keepdim=True)
    maps = labels_of(drive)
    assert maps.instances is not None
    inside = ~hidden & ~instance_edges(maps.instances)[:-1, None]
    assert inside.float().mean() > 0.7
    assert apart[inside].mean() < 2.0
    assert apart[inside].median() < 0.6
    assert apart[inside].mean() < 0.3 * unmoved[inside].mean()
    assert apart[hidden].mean() > 3 * apart[~hidden].mean()


def test_finer_pictures_come_back_more_exactly() -> None:
    """So what is left is sampling, and not the flow."""
    errors = []
    for scale in (1, 3):
        drive, size = make_drive(5, 2), (64 * scale, 96 * scale)
        frames, (flow, hidden) = film_of(drive, *size), flow_of(drive, *size)
        apart = (warp(frames[1:], flow) - frames[:-1]).abs().mean(dim=1, keepdim=True)
        errors.append(float(apart[~hidden].mean()))
    assert errors[1] < 0.6 * errors[0]


def test_what_is_not_hidden_is_found_again_by_its_instance(drive: Drive) -> None:
    maps, (flow, hidden) = labels_of(drive), flow_of(drive)
    assert maps.instances is not None
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    for t in range(T - 1):
        to_x = (x + flow[t, 0]).round().long().clamp(0, W - 1)
        to_y = (y + flow[t, 1]).round().long().clamp(0, H - 1)
        same = maps.instances[t + 1, to_y, to_x] == maps.instances[t]
        edges = instance_edges(maps.instances[t : t + 1])[0]
        assert same[~hidden[t, 0]].float().mean() > 0.96  # far houses are a pixel wide
        assert same[~hidden[t, 0] & ~edges].float().mean() > 0.995


def test_the_roads_flow_is_that_of_a_plane_driven_over() -> None:
    drive = make_drive(4, 2)
    straight = replace(drive, place=np.array([[1.8, 5.0], [1.8, 5.4]]), yaw=np.zeros(2))
    flow, hidden = flow_of(straight)
    road = (labels_of(straight).labels[0] == ROAD) & ~hidden[0, 0]
    assert road.float().mean() > 0.2
    focal, horizon = min(H, W), HORIZON * H
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    depth = focal * EYE / (y - horizon)
    scale = depth / (depth - 0.4)  # 0.4 m nearer
    expected = torch.stack([(x - W / 2) * (scale - 1), (y - horizon) * (scale - 1)])
    torch.testing.assert_close(flow[0][:, road], expected[:, road], atol=1e-3, rtol=1e-3)


def test_a_standing_camera_sees_only_traffic_move() -> None:
    drive = make_drive(4, 2)
    still = replace(drive, place=drive.place[[0, 0]], yaw=drive.yaw[[0, 0]])
    (flow, _), maps, frames = flow_of(still), labels_of(still), film_of(still)
    things = (maps.labels[0] == CAR) | (maps.labels[0] == PERSON)
    assert flow[0, :, ~things].abs().max() < 1e-4
    assert flow[0, :, things].abs().max() > 0.5
    nobody = ~(things | (maps.labels[1] == CAR) | (maps.labels[1] == PERSON))
    inner = torch.nn.functional.max_pool2d((~nobody)[None].float(), 3, 1, 1)[0] == 0
    assert torch.equal(frames[0][:, inner], frames[1][:, inner])


def test_the_sky_moves_with_the_turn_of_the_camera_alone() -> None:
    drive = make_drive(4, 2)
    ahead = replace(drive, yaw=np.zeros(2))
    sky = labels_of(ahead).labels[0] == SKY
    assert sky.float().mean() > 0.03
    assert flow_of(ahead)[0][0][:, sky].abs().max() < 1e-4
    turned = replace(drive, yaw=np.array([0.0, 0.02]))
    middle = flow_of(turned)[0][0, 0, H // 4, W // 2 - 1 : W // 2 + 1].mean()
    assert middle == pytest.approx(-np.tan(0.02) * min(H, W), rel=0.02)


def test_instances_are_one_thing_each_and_stay_it(drive: Drive) -> None:
    maps = labels_of(drive)
    assert maps.instances is not None
    classes = torch.where(maps.instances >= 1000, maps.instances // 1000, maps.instances)
    assert torch.equal(classes, maps.labels.int())
    numbers = [set(frame[frame >= 1000].tolist()) for frame in maps.instances]
    assert len(numbers[0]) > 5
    for before, after in pairwise(numbers):
        assert len(before & after) > 0.7 * len(before)


def test_maps_belong_to_the_drive_and_not_to_the_looks(drive: Drive) -> None:
    ours = WORLD.truth(WORLD.make_identity(1), drive, height=H, width=W)
    theirs = WORLD.truth(WORLD.make_identity(2), drive, height=H, width=W)
    assert isinstance(ours, LabelMaps) and isinstance(theirs, LabelMaps)
    assert torch.equal(ours.labels, theirs.labels)


def test_smaller_maps_are_larger_ones_thinned_out(drive: Drive) -> None:
    large, small = labels_of(drive[:1], 3 * 40, 3 * 60), labels_of(drive[:1], 40, 60)
    assert torch.equal(large.rescale(40, 60).labels, small.labels)


def test_a_long_drive_has_traffic_to_its_end() -> None:
    late = make_drive(4, 3000)[2990:]
    shown = labels_of(late).labels
    assert {CAR, PERSON, ROAD, SKY} <= set(shown.unique().tolist())
