"""The bench of films from words: what it counts as right, and where moments meet."""

from __future__ import annotations

import pytest
import torch

from vidsynth.bench.clip_judge import ClipNet
from vidsynth.bench.text import recognised, seams_of, warp_errors
from vidsynth.worlds import shapes

NAMES = ("red-circle-left", "red-square-left", "blue-circle-up")


class Always(ClipNet):
    """Takes every clip for the class of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(len(NAMES))
        self.number = number

    def forward(self, clips_BTCHW: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(clips_BTCHW), len(NAMES))
        logits[:, self.number] = 1
        return logits


def test_parts_of_a_class_are_right_each_by_itself():
    clips = {name: torch.zeros(2, 4, 3, 16, 16, dtype=torch.uint8) for name in NAMES}
    found = recognised(Always(0), clips, NAMES)
    expected = {"colour": 2 / 3, "shape": 2 / 3, "motion": 2 / 3, "all three": 1 / 3}
    assert found == pytest.approx(expected)
    assert recognised(Always(2), {NAMES[2]: clips[NAMES[2]]}, NAMES)["all three"] == 1


def test_moments_meet_at_every_stride():
    assert seams_of({"stride": 3}, 10) == [3, 6, 9]


def test_a_jump_costs_more_than_a_motion():
    film = shapes.film("red-circle-right", 0, 8, 12.0, 32)
    film[4:] = film[4:].roll(11, dims=2)
    errors = torch.tensor(warp_errors(film))
    assert errors[0].isnan() and errors[4] > 3 * errors[[2, 3, 5, 6]].nanmedian()
