"""World shapes: classes are what they say, at any size and for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidsynth.worlds import WORLDS, shapes

ALL = shapes.class_names()


def centre_of_mass(mask: torch.Tensor) -> np.ndarray:
    """(T, 2) x, y of masks that do not reach over an edge, in pixels."""
    t, y, x = mask.nonzero(as_tuple=True)
    count = torch.bincount(t, minlength=len(mask))
    sums = [torch.bincount(t, weights=v + 0.5, minlength=len(mask)) for v in (x, y)]
    return torch.stack([s / count for s in sums], dim=1).numpy()


def centred(name: str, num_frames: int, seed: int = 1):
    looks, motion = shapes.of_class(name, seed, num_frames, 50.0)
    return looks, replace(motion, start=(0.5, 0.5))


def test_there_is_a_class_for_every_motion_shape_and_colour():
    assert len(ALL) == len(set(ALL)) == 6 * 3 * 4
    for name in ALL:
        assert shapes.class_of(*shapes.of_class(name, 5, 1)) == name


def test_captions_name_all_three():
    assert shapes.caption(*shapes.of_class("red-circle-right", 0, 1)) == "a red circle moves right"
    told = {shapes.caption(*shapes.of_class(name, 0, 1)) for name in ALL}
    assert len(told) == len(ALL)


@pytest.mark.parametrize(
    ("kind", "direction"), [("right", (1, 0)), ("left", (-1, 0)), ("down", (0, 1)), ("up", (0, -1))]
)
def test_what_moves_straight_moves_there_at_its_pace(kind, direction):
    looks, motion = centred(f"red-square-{kind}", 10)
    mask = shapes.truth(looks, motion, height=200, width=300).labels
    moved = np.diff(centre_of_mass(mask), axis=0).mean(axis=0)
    assert moved == pytest.approx(np.array(direction) * motion.pace * 200 / 50, abs=0.15)


def test_what_circles_keeps_its_distance_and_comes_back():
    looks, motion = centred("blue-circle-circling", 100)
    places = centre_of_mass(shapes.truth(looks, motion, height=200, width=200).labels)
    away = np.hypot(*(places - 100).T)
    assert away == pytest.approx(np.full(100, shapes.CIRCLING_RADIUS * 200), abs=0.6)
    turn = round(50 / motion.pace)
    assert places[turn] == pytest.approx(places[0], abs=3)


def test_what_pulses_changes_its_area_as_told():
    looks, motion = centred("green-circle-pulsing", 40)
    mask = shapes.truth(looks, motion, height=200, width=200).labels
    _, sizes = shapes.middles(motion, 200, 200)
    expected = np.pi * (looks.radius * 200 * sizes) ** 2
    assert mask.sum(dim=(1, 2)).numpy() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "area"),
    [("circle", np.pi), ("square", 4 * 0.85**2), ("triangle", 3 * 3**0.5 * 0.55**2)],
)
def test_shapes_have_the_areas_of_their_formulas(shape, area):
    looks, motion = centred(f"red-{shape}-right", 1)
    mask = shapes.truth(looks, motion, height=400, width=400).labels
    assert float(mask.sum()) == pytest.approx(area * (looks.radius * 400) ** 2, rel=0.02)


def test_frames_show_the_colour_where_the_truth_says_and_the_ground_elsewhere():
    looks, motion = shapes.of_class("yellow-triangle-left", 3, 6)
    frames = shapes.film("yellow-triangle-left", 3, 6, 25.0, 96).permute(1, 0, 2, 3)
    inside = shapes.truth(looks, motion, height=96, width=96).labels.bool()
    assert frames[:, inside].float().mean(dim=1).numpy() == pytest.approx(looks.rgb, abs=12)
    assert frames[:, ~inside].float().mean(dim=1).numpy() == pytest.approx(looks.ground, abs=8)


def test_nothing_is_lost_at_the_edges():
    """What leaves on one side comes in on the other: the area stays."""
    looks, motion = shapes.of_class("red-square-right", 2, 60, 25.0)
    areas = shapes.truth(looks, motion, height=64, width=64).labels.sum(dim=(1, 2))
    assert int(areas.max() - areas.min()) <= 0.12 * int(areas.max())


def test_a_larger_picture_is_the_same_picture():
    small, large = (shapes.film("blue-square-down", 4, 5, 25.0, s).float() for s in (32, 128))
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert (shrunk - small).abs().mean() < 3


def test_members_of_a_class_differ():
    first, second = (shapes.film("red-circle-up", seed, 4, 25.0, 32).float() for seed in (1, 2))
    assert (first - second).abs().mean() > 10


def test_the_world_is_listed():
    assert WORLDS["shapes"].make_motion is shapes.make_motion
