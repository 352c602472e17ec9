"""The portrait network: what it sees, what it leaves out, and what it is over a plate."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from vidsynth.clip import VideoSpec
from vidsynth.conditioning import FaceSequence
from vidsynth.errors import BadOption
from vidsynth.kinds import Conditions
from vidsynth_plugins.portrait import Portrait, PortraitOptions
from vidsynth_plugins.portrait.networks import PortraitNet

SMALL = {"filters": 4, "most_filters": 8, "levels": 3, "window": 2, "d_filters": 4}


def net(*, channels: int = 9, background: bool = False, **options: object) -> PortraitNet:
    torch.manual_seed(0)
    made = PortraitNet(
        PortraitOptions(**SMALL, **options), channels=channels, background=background
    )  # pyright: ignore
    return made.eval()


def test_the_published_network_has_eleven_frames_of_nine_channels_and_eight_levels() -> None:
    with torch.device("meta"):
        network = PortraitNet(PortraitOptions(), channels=9, background=False)
    assert network.down[0][0].in_channels == 99  # pyright: ignore
    assert len(network.down) == len(network.up) == 8
    assert PortraitOptions().l1 == 100.0


def test_what_is_left_out_changes_nothing_and_the_rest_does() -> None:
    network = net(leave_out=("gaze",))
    maps = torch.rand(1, 18, 24, 24)
    before = network(maps)
    other = maps.clone()
    other[:, [6, 7, 8, 15, 16, 17]] = 0.9
    assert torch.equal(network(other), before)
    other[:, 9] = 0.9
    assert not torch.equal(network(other), before)


def test_over_a_plate_the_frame_lies_between_paint_and_plate() -> None:
    network = net(background=True)
    maps, plate = torch.rand(1, 18, 16, 16), torch.full((3, 16, 16), 0.75)
    torch.nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -30.0]))
    assert torch.allclose(network(maps, plate), plate[None])


def test_leaving_out_needs_the_nine_channels() -> None:
    conditions = Conditions(kinds=(FaceSequence,), channels=6)
    with pytest.raises(BadOption, match="leave_out"):
        Portrait(PortraitOptions(leave_out=("uv",)), conditions=conditions)
    with pytest.raises(ValueError, match="diffuse, uv, gaze"):
        PortraitOptions(leave_out=("eyes",))


def test_pictures_too_small_to_judge_are_refused() -> None:
    portrait = Portrait(
        PortraitOptions(**SMALL),  # pyright: ignore
        conditions=Conditions(kinds=(FaceSequence,), channels=6),
    )
    with pytest.raises(BadOption, match="larger size"):
        portrait.objective(VideoSpec(height=8, width=8, fps=Fraction(25)))
