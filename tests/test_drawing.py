"""Label maps, resizing, strokes and the preview overlay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidsynth.clip import Clip
from vidsynth.conditioning import LabelMaps
from vidsynth.drawing import fill_disc, in_colours, instance_edges, overlay, resize
from vidsynth.testing import waving_person


def random_labels(height: int = 9, width: int = 13) -> LabelMaps:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (3, height, width), generator=rng, dtype=torch.uint8)
    instances = torch.randint(0, 3, (3, height, width), generator=rng, dtype=torch.int32)
    return LabelMaps(labels=labels, num_classes=4, instances=instances)


def test_labels_are_drawn_as_one_channel_per_class() -> None:
    maps = random_labels()
    drawn = maps.draw(9, 13)
    expected = F.one_hot(maps.labels.long(), 4).permute(0, 3, 1, 2) * 255
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn[:, :4].long(), expected)


def test_instance_edges_are_pixels_that_differ_from_a_neighbour() -> None:
    maps = random_labels()
    assert maps.instances is not None
    ids = maps.instances.numpy()
    expected = np.zeros(ids.shape, bool)
    for (t, y, x), value in np.ndenumerate(ids):
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        inside = [(b, a) for b, a in around if 0 <= b < ids.shape[1] and 0 <= a < ids.shape[2]]
        expected[t, y, x] = any(ids[t, b, a] != value for b, a in inside)
    assert np.array_equal(instance_edges(maps.instances).numpy(), expected)
    assert np.array_equal(maps.draw(9, 13)[:, 4].numpy(), expected * np.uint8(255))


def test_labels_without_instances_have_no_edge_channel() -> None:
    maps = LabelMaps(labels=random_labels().labels, num_classes=4)
    assert maps.draw(9, 13).shape == (3, 4, 9, 13)


def test_labels_grow_by_whole_pixels_and_never_mix() -> None:
    maps = random_labels()
    bigger = maps.draw(18, 39)[:, :4]
    expected = maps.draw(9, 13)[:, :4].repeat_interleave(2, 2).repeat_interleave(3, 3)
    assert torch.equal(bigger, expected)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_shrinking_averages_areas(channels: int) -> None:
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, channels, 8, 12), generator=rng, dtype=torch.uint8)
    expected = F.avg_pool2d(frames.float(), 2)
    assert (resize(frames, 4, 6).float() - expected).abs().max() <= 0.5


def test_growing_keeps_a_ramp_a_ramp() -> None:
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(1, 3, 4, 16)
    grown = resize(ramp, 8, 32)[0, 0, 3].float()
    expected = (torch.arange(32) + 0.5) * 5 - 5
    assert (grown - expected)[1:-1].abs().max() <= 1


def test_same_size_is_the_same_frames() -> None:
    frames = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    assert torch.equal(resize(frames, 5, 7), frames)


def test_disc_covers_its_area_about_its_centre() -> None:
    canvas = np.zeros((40, 40), np.uint8)
    fill_disc(canvas, np.array([18.25, 21.5]), 8, 255)
    weight = canvas / 255
    rows, columns = np.indices(canvas.shape) + 0.5
    assert weight.sum() == pytest.approx(np.pi * 8**2, rel=0.15)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(18.25, abs=0.1)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(21.5, abs=0.1)


def test_points_far_outside_do_not_upset_the_canvas() -> None:
    canvas = np.zeros((8, 8), np.uint8)
    fill_disc(canvas, np.array([1e9, -1e9]), 3, 255)
    fill_disc(canvas, np.array([np.nan, 4]), 1, 255)
    assert canvas.shape == (8, 8)
    assert canvas[:, 4:].max() == 0


def test_overlay_changes_drawn_pixels_only() -> None:
    pose = waving_person(2, 64, 48)
    clip = Clip(
        torch.full((2, 3, 64, 48), 100, dtype=torch.uint8), torch.tensor([0.0, 0.5]).double()
    )
    drawn = pose.draw(64, 48).amax(dim=1, keepdim=True) > 0
    shown = overlay(clip, pose)
    changed = (shown.frames != clip.frames).any(dim=1, keepdim=True)
    assert changed.any()
    assert not (changed & ~drawn).any()
    assert torch.equal(shown.pts, clip.pts)


def test_overlay_shows_labels_in_distinct_colours() -> None:
    labels = torch.arange(4, dtype=torch.uint8).repeat_interleave(4).expand(1, 16, 16)
    clip = Clip(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1).double())
    shown = overlay(clip, LabelMaps(labels=labels, num_classes=4)).frames
    colours = {tuple(shown[0, :, 0, x].tolist()) for x in (0, 4, 8, 12)}
    assert len(colours) == 4


def test_one_channel_is_shown_in_grey() -> None:
    maps = torch.randint(0, 256, (2, 1, 4, 5), dtype=torch.uint8)
    assert torch.equal(in_colours(maps), maps.expand(2, 3, 4, 5))
