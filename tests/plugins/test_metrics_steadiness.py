"""Flow-warp error, flicker and drift of films whose motion and flicker are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.errors import NotMeasurable
from vidsynth.kinds import Film, Metric
from vidsynth.testing import times
from vidsynth.testing.metrics import film_of
from vidsynth_plugins.flow import DISFlow
from vidsynth_plugins.metrics.steadiness import (
    ColourDrift,
    Flicker,
    FlowWarp,
    FlowWarpOptions,
    trusted,
    warp_error,
)

# T frames, H, W pixels


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) float: smooth and everywhere different."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=rng) * 200 + 28
    return F.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255)


def sliding(num_frames: int, pixels: int = 2, side: int = 96) -> Tensor:
    """A camera that moves over a still texture by whole pixels per frame."""
    wide = texture(side, side + pixels * num_frames)
    return torch.stack([wide[:, :, pixels * t : pixels * t + side] for t in range(num_frames)])


def film(frames: Tensor) -> Film:
    return film_of(Clip(frames.round().clamp(0, 255).to(torch.uint8), times(len(frames))))


def value(metric: Metric, made: Tensor, real: Tensor | None = None) -> float:
    metric.update(film(made), None if real is None else film(real))
    return metric.compute().value


def flow_warp() -> FlowWarp:
    return FlowWarp(FlowWarpOptions(flow="dis"))


def test_a_film_that_only_moves_has_hardly_any_warp_error() -> None:
    frames = sliding(5)
    flickering = frames + 15 * (torch.arange(5) % 2)[:, None, None, None]
    noisy = frames + 15 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    moving = value(flow_warp(), frames)
    assert moving < 0.3
    assert value(flow_warp(), flickering) > 20 * moving
    assert value(flow_warp(), noisy) > 10 * moving


def test_warp_error_is_the_squared_distance_of_what_changed_its_colour() -> None:
    """A still texture that turns brighter by d everywhere: 3 (d / 255)^2."""
    before = texture(64, 64).clamp(30, 220)
    error = warp_error(before.byte(), before.byte() + 10, DISFlow())
    assert error == pytest.approx(3 * (10 / 255) ** 2, rel=0.05)


def test_flow_points_to_where_the_pixel_went() -> None:
    first, second = (f.byte() for f in sliding(2, pixels=3))
    flow = DISFlow().flow_between(second, first)[16:-16, 16:-16]
    assert np.allclose(np.median(flow, axis=(0, 1)), [3, 0], atol=0.2)


def test_what_was_hidden_or_outside_is_not_trusted() -> None:
    away = np.zeros((20, 20, 2), np.float32)
    assert trusted(away, away).all()
    backward = away.copy()
    backward[:, :5, 0] = -10.0  # comes from outside
    assert not trusted(backward, away)[:, :5].any()
    backward = away.copy()
    backward[8:12, 8:12] = 4.0  # and the way forward does not lead back
    assert not trusted(backward, away)[8:12, 8:12].any()
    assert trusted(backward, away)[:6].all()


def test_flicker_is_measured_in_levels_where_the_truth_stands_still() -> None:
    real = texture(40, 40).expand(6, -1, -1, -1).clamp(30, 200)
    sign = (torch.arange(6) % 2)[:, None, None, None]
    assert value(Flicker(), real, real) == 0
    assert value(Flicker(), real + 8 * sign, real) == pytest.approx(8, abs=0.01)
    fading = real + 5 * torch.arange(6)[:, None, None, None]
    assert value(Flicker(), fading, real) == pytest.approx(0, abs=0.01)


def test_what_moves_in_the_truth_cannot_flicker() -> None:
    moving = sliding(4, pixels=6, side=48)
    half = torch.cat([moving[..., :24], texture(48, 24).expand(4, -1, -1, -1)], dim=3)
    sign = (torch.arange(4) % 2)[:, None, None, None]
    made = half.clone()
    made[..., :20] += 30 * sign
    assert value(Flicker(), made, half) < 1
    with pytest.raises(NotMeasurable, match="stands still"):
        value(
            Flicker(), *(255.0 * (torch.arange(4) % 2)[:, None, None, None].expand(4, 3, 8, 8),) * 2
        )


def test_colour_drift_is_the_distance_of_late_colours_from_early_ones() -> None:
    """In CIELAB, grey differs in lightness only: L = 116 (Y / Yn)^(1/3) - 16."""

    def lightness(level: float) -> float:
        linear = ((level / 255 + 0.055) / 1.055) ** 2.4
        return 116 * linear ** (1 / 3) - 16

    frames = torch.full((16, 3, 8, 8), 100.0)
    frames[12:] = 120.0
    assert value(ColourDrift(), frames) == pytest.approx(lightness(120) - lightness(100), abs=0.05)
    assert value(ColourDrift(), frames[:12]) == pytest.approx(0, abs=1e-6)


def test_short_films_are_not_measurable() -> None:
    with pytest.raises(NotMeasurable, match="fewer than four frames"):
        value(ColourDrift(), torch.zeros(3, 3, 8, 8))
    with pytest.raises(NotMeasurable, match="two frames or more"):
        value(flow_warp(), torch.zeros(1, 3, 32, 32))


def test_what_film_a_frame_belongs_to_is_kept() -> None:
    """Two films end to end: no flow from the last frame of one to the first of the other."""
    metric = flow_warp()
    for seed in (0, 1):
        metric.update(film(texture(48, 48, seed).expand(3, -1, -1, -1)), None)
    found = metric.compute()
    assert found.per_frame is not None and found.count == 4
    assert found.per_frame.isnan().tolist() == [True, False, False] * 2
    assert found.value == 0
