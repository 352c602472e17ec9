"""Finishing stages do what they say, to the number."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth import drawing, video
from vidsynth.clip import Clip
from vidsynth.conditioning import VOID, LabelMaps
from vidsynth.kinds import StagePlugin
from vidsynth.stream import Chunk
from vidsynth.testing import moving_squares, times, waving_person
from vidsynth_plugins.finishing import (
    ColourMatch,
    ColourMatchOptions,
    CutOut,
    CutOutOptions,
    DrawOver,
    DrawOverOptions,
    Upscale,
    UpscaleOptions,
    statistics,
    to_lab,
)


def made(stage: StagePlugin, *chunks: Chunk) -> Tensor:
    return torch.cat([c.clip.frames for c in stage.process(iter(chunks)) if c.clip is not None])


def chunk(frames: Tensor) -> Chunk:
    return Chunk(times(len(frames)), Clip(frames, times(len(frames))))


def lively(seed: int, low: int, high: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (1, 3, 24, 24), generator=rng, dtype=torch.uint8)


def test_colours_drift_no_more() -> None:
    first = lively(0, 60, 180)
    drifted = (first.float() * 0.8 + torch.tensor([25.0, 0.0, 5.0]).view(1, 3, 1, 1)).byte()
    frames = made(ColourMatch(), chunk(first), chunk(drifted))
    wanted, before, after = (statistics(to_lab(f)) for f in (first[0], drifted[0], frames[1]))
    for ours, theirs, was in zip(after, wanted, before, strict=True):
        assert np.abs(ours - theirs).max() < 0.25 < 2 < np.abs(was - theirs).max()
    assert int((frames[0].int() - first[0].int()).abs().max()) <= 1


def test_strength_is_the_share_of_the_way() -> None:
    first, other = lively(0, 60, 120), lively(1, 120, 200)
    half = made(ColourMatch(ColourMatchOptions(strength=0.5)), chunk(first), chunk(other))
    means = [float(statistics(to_lab(f))[0][0]) for f in (first[0], half[1], other[0])]
    assert means[1] == pytest.approx((means[0] + means[2]) / 2, abs=0.2)
    none = made(ColourMatch(ColourMatchOptions(strength=0.0)), chunk(first), chunk(other))
    assert int((none[1].int() - other[0].int()).abs().max()) <= 1


def test_colours_come_from_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "reference.mp4"
    reference = chunk(lively(2, 100, 140).expand(4, -1, -1, -1))
    video.write_video(path, iter([reference]), fps=Fraction(25))
    frames = made(ColourMatch(ColourMatchOptions(reference=path)), chunk(lively(1, 0, 90)))
    lightness = float(statistics(to_lab(frames[0]))[0][0])
    assert reference.clip is not None
    wanted = float(statistics(to_lab(reference.clip.frames[0]))[0][0])
    assert lightness == pytest.approx(wanted, abs=1.0)


def test_upscaling_keeps_what_is_smooth_and_sharpening_raises_what_is_not() -> None:
    ramp = torch.linspace(40, 200, 32).to(torch.uint8).expand(1, 3, 32, 32)
    larger = made(Upscale(UpscaleOptions(factor=2.0)), chunk(ramp))
    assert larger.shape == (1, 3, 64, 64)
    wanted = torch.nn.functional.interpolate(ramp.float(), (64, 64), mode="bilinear")
    assert float((larger - wanted)[..., 8:-8].abs().max()) < 3
    squares = moving_squares(1, 32, 32).frames
    soft, sharp = (
        made(Upscale(UpscaleOptions(sharpen=s)), chunk(squares)).float() for s in (0.0, 1.0)
    )
    assert float(sharp.diff(dim=3).abs().mean()) > 1.2 * float(soft.diff(dim=3).abs().mean())
    assert made(Upscale(UpscaleOptions(factor=0.5)), chunk(squares)).shape == (1, 3, 16, 16)


def test_only_the_classes_asked_for_are_kept() -> None:
    labels = torch.tensor([[[0, 1], [2, VOID]]], dtype=torch.uint8)
    frames = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    shown = chunk(frames).with_signal(LabelMaps(labels=labels, num_classes=3))
    cut = made(CutOut(CutOutOptions(classes=(1, 2), colour=(9, 8, 7))), shown)
    assert cut[0, :, 0, 0].tolist() == cut[0, :, 1, 1].tolist() == [9, 8, 7]
    assert torch.equal(cut[0, :, 0, 1], frames[0, :, 0, 1])
    assert torch.equal(cut[0, :, 1, 0], frames[0, :, 1, 0])


def test_signals_are_drawn_as_the_preview_draws_them() -> None:
    clip = moving_squares(2, 48, 48)
    pose = waving_person(2, 48, 48)
    shown = Chunk(clip.pts, clip).with_signal(pose)
    assert torch.equal(made(DrawOver(), shown), drawing.overlay(clip, pose).frames)
    assert torch.equal(made(DrawOver(DrawOverOptions(kinds=("face",))), shown), clip.frames)
