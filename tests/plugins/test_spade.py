"""The network whose normalisations are told by the maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.errors import BadOption
from vidsynth.options import build
from vidsynth_plugins.pix2pixhd import Pix2PixHDOptions
from vidsynth_plugins.pix2pixhd.painter import Painter
from vidsynth_plugins.pix2pixhd.spade import Spade, SpadeGenerator


def maps(height: int = 32, width: int = 48, classes: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, classes, (1, height // 8, width // 8), generator=rng)
    whole = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return F.one_hot(whole, classes).permute(0, 3, 1, 2).float()


def test_what_is_normalised_is_scaled_and_shifted_by_the_maps_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    layer, hidden = Spade(5, 3, hidden=4, norm="instance"), torch.randn(1, 5, 16, 24) * 3 + 1
    expected = torch.empty_like(hidden)
    told = layer.shared(maps()[:, :, ::2, ::2]).clamp(min=0)
    gamma, beta = layer.gamma(told), layer.beta(told)
    for c in range(5):
        plane = hidden[0, c]
        normal = (plane - plane.mean()) / (plane.var(unbiased=False) + 1e-5).sqrt()
        expected[0, c] = gamma[0, c] * normal + normal + beta[0, c]
    # Nearest: of each two by two pixels the first.
    torch.testing.assert_close(layer(hidden, maps()), expected, atol=1e-5, rtol=1e-5)


def published_weights(maps: int, filters: int = 64, told: int = 128) -> int:
    """How many the published network has without its style encoder, counted layer by layer."""

    def conv(source: int, made: int, side: int = 3, bias: bool = True) -> int:
        return source * made * side**2 + made * bias

    def spade(width: int) -> int:
        return conv(maps, told) + 2 * conv(told, width)

    def block(wide: int, narrow: int) -> int:
        middle = min(wide, narrow)
        main = spade(wide) + conv(wide, middle) + spade(middle) + conv(middle, narrow)
        return main + (wide != narrow) * (spade(wide) + conv(wide, narrow, 1, False))

    widths = [(16, 16)] * 3 + [(16, 8), (8, 4), (4, 2), (2, 1)]
    blocks = sum(block(wide * filters, narrow * filters) for wide, narrow in widths)
    return conv(maps, 16 * filters) + blocks + conv(filters, 3)


def test_the_published_sizes_give_the_published_network() -> None:
    with torch.device("meta"):
        network = SpadeGenerator(36, 3, filters=64, downsamplings=5, blocks=3, norm="batch")
    assert sum(w.numel() for w in network.parameters()) == published_weights(36)
    assert network.stride == 32


@pytest.mark.parametrize(("downsamplings", "blocks"), [(1, 1), (2, 3), (4, 2)])
def test_it_makes_pictures_of_the_size_of_the_maps(downsamplings: int, blocks: int) -> None:
    network = SpadeGenerator(3, 4, filters=4, downsamplings=downsamplings, blocks=blocks)
    assert network(maps()).shape == (1, 4, 32, 48)


def test_a_map_of_one_class_is_not_washed_out() -> None:
    """Normalised maps of one class are all alike, whatever the class; here they are not."""
    torch.manual_seed(0)
    network = SpadeGenerator(2, 3, filters=4, downsamplings=2, blocks=1).eval()
    one, other = torch.zeros(2, 1, 2, 32, 32)
    one[:, 0], other[:, 1] = 1, 1
    assert (network(one) - network(other)).abs().mean() > 0.01


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_every_layer_learns_from_the_maps(norm: str) -> None:
    options = build(
        Pix2PixHDOptions,
        {"network": "spade", "norm": norm, "filters": 4, "downsamplings": 2, "blocks": 2},
        where="generator",
    )
    torch.manual_seed(0)
    painter = Painter(options, channels=3, background=False)
    painter(maps()).frames.square().mean().backward()
    convolutions = [m for m in painter.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 10
    assert all(m.weight.grad is not None and m.weight.grad.any() for m in convolutions)


@pytest.mark.parametrize(
    "change", [{"stem": "shuffle"}, {"skips": True}, {"local_enhancers": 1}, {"downsamplings": 0}]
)
def test_settings_that_it_has_not_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadOption, match="the spade network"):
        build(Pix2PixHDOptions, {"network": "spade", **change}, where="generator")
