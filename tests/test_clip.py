"""Clip and VideoSpec: what they accept, and the one conversion between bytes and floats."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from vidsynth.clip import Clip, VideoSpec
from vidsynth.testing import moving_squares, times


def test_every_level_survives_the_way_to_float_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    clip = Clip(levels, times(1))
    assert torch.equal(Clip.from_float(clip.as_float(), clip.pts).frames, levels)


def test_floats_span_minus_one_to_one() -> None:
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    floats = Clip(frames, times(1)).as_float()
    assert floats.dtype == torch.float32
    assert floats[0, 0, 0].tolist() == [-1.0, 1.0]


def test_floats_out_of_range_clip_and_round_to_the_nearest_level() -> None:
    floats = torch.tensor([-3.0, 3.0, 0.0, 0.0039]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert Clip.from_float(floats, times(1)).frames[0, 0, 0].tolist() == [0, 255, 128, 128]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(2, 3, 4, 4), "uint8"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), r"\(T, 3, H, W\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"\(T, 3, H, W\)"),
        (torch.zeros(3, 3, 4, 4, dtype=torch.uint8), r"T = 3"),
    ],
)
def test_wrong_frames_are_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(frames, times(2))


@pytest.mark.parametrize(
    ("pts", "message"),
    [
        (torch.tensor([0.0, 0.1]), "float64"),
        (torch.tensor([0.1, 0.1], dtype=torch.float64), "strictly increasing"),
        (torch.tensor([0.2, 0.1], dtype=torch.float64), "strictly increasing"),
    ],
)
def test_wrong_timestamps_are_refused(pts: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), pts)


def test_slices_join_again() -> None:
    clip = moving_squares(7, 6, 8)
    joined = Clip.concat([clip[:3], clip[3:4], clip[4:]])
    assert torch.equal(joined.frames, clip.frames)
    assert torch.equal(joined.pts, clip.pts)
    assert (len(joined), joined.height, joined.width) == (7, 6, 8)


def test_an_index_is_no_clip() -> None:
    with pytest.raises(TypeError, match=r"clip\[3:4\]"):
        moving_squares(4, 4, 4)[1]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one"):
        Clip.concat([])


def test_clips_of_other_times_do_not_join() -> None:
    clip = moving_squares(4, 4, 4)
    with pytest.raises(ValueError, match="strictly increasing"):
        Clip.concat([clip[2:], clip[:2]])


def test_repr_tells_the_shape_and_prints_no_pixels() -> None:
    assert repr(moving_squares(5, 6, 8)) == "Clip(5 x 8x6, 0.000-0.160 s, cpu)"
    assert repr(moving_squares(0, 6, 8)) == "Clip(0 x 8x6, empty, cpu)"


@pytest.mark.parametrize(("height", "width", "fps"), [(0, 4, 25), (4, 0, 25), (4, 4, 0)])
def test_an_impossible_spec_is_refused(height: int, width: int, fps: int) -> None:
    with pytest.raises(ValueError):
        VideoSpec(height=height, width=width, fps=Fraction(fps))
