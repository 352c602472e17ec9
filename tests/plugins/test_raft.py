"""RAFT against direct sums, against torchvision's answers, and as the flow of `flow_warp`."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import weights
from vidsynth.clip import Clip
from vidsynth.errors import MissingWeights
from vidsynth.testing import times
from vidsynth.testing.metrics import film_of
from vidsynth_plugins.flow import DISFlow, FlowChoice, RAFTFlow, flow_estimator
from vidsynth_plugins.metrics.steadiness import FlowWarp, FlowWarpOptions
from vidsynth_plugins.raft import (
    LARGE,
    LEVELS,
    RAFT,
    SMALL,
    Sizes,
    correlation_pyramid,
    look_up,
    upsample,
)

# B batch, C channels, H, W pixels, h, w cells

FILE = weights.WEIGHTS["raft_large"].file


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texture(height: int, width: int, seed: int = 0, cell: int = 6) -> Tensor:
    """(3, height, width) in [0, 1]: smooth and everywhere different."""
    coarse = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=rng(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)


def two_pictures(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    pictures = [texture(height, width, seed) * 2 - 1 for seed in range(2 * batch)]
    return torch.stack(pictures[:batch]), torch.stack(pictures[batch:])


def waves(network: torch.nn.Module, strength: float) -> torch.nn.Module:
    """Its weights replaced by sines of their place: the same in every program."""
    state = network.state_dict()
    for number, name in enumerate(sorted(state)):
        found = state[name]
        if not found.is_floating_point():
            continue
        wave = (torch.arange(found.numel()).double() * 0.7 + number).sin().reshape(found.shape)
        if found.ndim == 4:
            wave = wave * math.sqrt(strength / found[0].numel())
        elif name.endswith("running_var"):
            wave = 1 + wave / 2
        else:
            wave = wave / 10
        state[name] = wave.float()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    return waves(RAFT(SMALL), 0.7)


@pytest.mark.parametrize(
    ("sizes", "parameters", "names"),
    [(LARGE, 5_257_536, "23b50731fc53e26a"), (SMALL, 990_162, "b52844207e5a43c4")],
    ids=["large", "small"],
)
def test_networks_take_the_published_files(sizes: Sizes, parameters: int, names: str) -> None:
    """Parameters as torchvision tells them, and a checksum of its own names and shapes."""
    network = RAFT(sizes)
    assert sum(p.numel() for p in network.parameters()) == parameters
    lines = [f"{name} {tuple(found.shape)}" for name, found in network.state_dict().items()]
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16] == names


@pytest.mark.parametrize(
    ("sizes", "strength", "answers"),
    [
        (
            LARGE,
            1.5,
            [
                (6.1815, -0.2808),
                (9.0756, 0.6166),
                (-0.5716, 8.9163),
                (4.7379, 9.1358),
                (4.6543, 9.0144),
                (-1.0575, 3.1156),
            ],
        ),
        (
            SMALL,
            0.7,
            [
                (82.6456, -53.9189),
                (19.8766, 28.2465),
                (1.7081, 8.5104),
                (3.9234, 14.511),
                (10.1259, -1.257),
                (-8.3691, 27.2532),
            ],
        ),
    ],
    ids=["large", "small"],
)
def test_flow_is_that_of_torchvision(
    sizes: Sizes, strength: float, answers: list[tuple[float, float]]
) -> None:
    """Its x and y at some pixels, from torchvision 0.29 with the same weights and pictures."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(152.0), indexing="ij")
    shifts = torch.tensor([0.0, 1.0, 2.0])[:, None, None]
    first = (x / 7 + shifts).sin() * (y / 9 - shifts).cos()
    second = ((x - 3) / 7 + shifts).sin() * ((y + 2) / 9 - shifts).cos()
    flow = waves(RAFT(sizes), strength)(first[None], second[None])[0]
    found = [tuple(flow[:, row, column].tolist()) for row, column in PIXELS]
    assert np.allclose(found, answers, atol=2e-3)
    assert np.ptp(answers, axis=0).min() > 0.5  # else the answers could be one constant


PIXELS = ((0, 0), (5, 140), (37, 60), (64, 77), (100, 20), (127, 151))


@pytest.mark.parametrize("size", [(128, 128), (130, 141), (201, 129), (17, 40)])
def test_any_size_is_taken(small: Callable[..., Tensor], size: tuple[int, int]) -> None:
    first, second = two_pictures(*size)
    flow = small(first, second, updates=2)
    assert flow.shape == (1, 2, *size) and flow.isfinite().all()


def test_padding_continues_the_picture_to_the_right_and_below(
    small: Callable[..., Tensor],
) -> None:
    first, second = two_pictures(131, 150)
    whole = [F.pad(p, (0, 2, 0, 5), mode="replicate") for p in (first, second)]
    assert torch.equal(small(first, second), small(*whole)[:, :, :131, :150])


def test_pairs_of_a_batch_do_not_know_of_each_other(small: Callable[..., Tensor]) -> None:
    first, second = two_pictures(128, 136, batch=3)
    together = small(first, second)
    assert torch.equal(together, small(first, second))
    for k in range(3):
        alone = small(first[k : k + 1], second[k : k + 1])
        assert torch.allclose(together[k : k + 1], alone, atol=1e-3)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_correlations_are_looked_up_where_the_flow_leads() -> None:
    """Against sums written out: pooled blocks of dot products, bilinear, 0 outside."""
    height, width, radius, channels = 16, 19, 2, 5
    first, second = torch.randn(2, 1, channels, height, width, generator=rng()).double()
    places = torch.rand(1, 2, height, width, generator=rng(1)).double() * 24 - 3
    found = look_up(correlation_pyramid(first, second), places, radius)
    assert found.shape == (1, LEVELS * 25, height, width)

    def correlation(row: int, column: int, level: int, y: int, x: int) -> float:
        if not (0 <= y < height >> level and 0 <= x < width >> level):
            return 0.0
        block = second[0, :, y << level : (y + 1) << level, x << level : (x + 1) << level]
        products = torch.einsum("c,chw->hw", first[0, :, row, column], block)
        return float(products.mean()) / math.sqrt(channels)

    def bilinear(row: int, column: int, level: int, y: float, x: float) -> float:
        top, left = math.floor(y), math.floor(x)
        return sum(
            (1 - abs(y - v)) * (1 - abs(x - u)) * correlation(row, column, level, v, u)
            for v, u in itertools.product((top, top + 1), (left, left + 1))
        )

    for row, column in ((0, 0), (7, 3), (15, 18), (4, 11)):
        x, y = places[0, :, row, column].tolist()
        expected = [
            bilinear(row, column, level, y / 2**level + dy, x / 2**level + dx)
            for level in range(LEVELS)
            for dx, dy in itertools.product(range(-radius, radius + 1), repeat=2)
        ]
        assert np.allclose(found[0, :, row, column], expected, atol=1e-9)


def test_upsampling_weighs_the_cells_around() -> None:
    """Against sums written out, cell by cell and pixel by pixel."""
    height, width = 3, 4
    flow = torch.randn(1, 2, height, width, generator=rng()).double()
    mask = torch.randn(1, 9 * 64, height, width, generator=rng(1)).double()
    found, beyond = upsample(flow, mask), F.pad(flow, (1, 1, 1, 1))
    shares = mask.view(9, 8, 8, height, width).softmax(dim=0)
    for row, column in itertools.product(range(8 * height), range(8 * width)):
        cell_row, cell_column = row // 8, column // 8
        around = beyond[0, :, cell_row : cell_row + 3, cell_column : cell_column + 3].flatten(1)
        expected = 8 * around @ shares[:, row % 8, column % 8, cell_row, cell_column]
        assert torch.allclose(found[0, :, row, column], expected)


def test_upsampling_with_equal_shares_is_the_mean_of_nine_cells() -> None:
    flow = torch.randn(2, 2, 5, 6, generator=rng())
    means = 8 * F.avg_pool2d(flow, 3, stride=1, padding=1)
    expected = means.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert torch.allclose(upsample(flow, torch.zeros(2, 9 * 64, 5, 6)), expected, atol=1e-5)
    assert torch.allclose(upsample(torch.ones(1, 2, 4, 4), None), torch.tensor(8.0))


def save_constant(path: Path, *, flow: tuple[float, float]) -> str:
    """A file of weights that give this flow everywhere; its fingerprint."""
    torch.manual_seed(0)
    state = RAFT().state_dict()
    state["update_block.flow_head.conv2.weight"].zero_()
    state["update_block.flow_head.conv2.bias"].copy_(torch.tensor(flow) / (8 * 12))
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def warp(flow: FlowChoice) -> FlowWarp:
    return FlowWarp(FlowWarpOptions(flow=flow, device="cpu"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder, and no network."""
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("VIDSYNTH_OFFLINE", "1")
    return tmp_path


def test_flow_is_read_as_x_then_y_in_pixels(tmp_path: Path) -> None:
    digest = save_constant(tmp_path / "own.pth", flow=(3.0, -1.5))
    estimator = RAFTFlow(device="cpu", weights=str(tmp_path / "own.pth"))
    assert estimator.name == f"RAFT large, 12 updates, weights {digest}"
    first, second = ((texture(60, 90, seed) * 255).byte() for seed in range(2))
    flow = estimator.flow_between(first, second)
    assert flow.shape == (60, 90, 2) and flow.dtype == np.float32
    assert np.allclose(flow[8:, 8:], [3.0, -1.5], atol=1e-4)  # cells at the border mix in zeros


def test_auto_takes_raft_where_its_weights_are(folder: Path) -> None:
    assert isinstance(flow_estimator("auto"), DISFlow)
    save_constant(folder / FILE, flow=(0.0, 0.0))
    assert isinstance(flow_estimator("auto", device="cpu"), RAFTFlow)
    assert isinstance(flow_estimator("dis"), DISFlow)


def test_raft_without_weights_says_where_to_get_them(folder: Path) -> None:
    film = film_of(Clip((texture(40, 40) * 255).byte().expand(2, -1, -1, -1), times(2)))
    with pytest.raises(
        MissingWeights, match=r"21\.1 MB, licence: BSD-3-Clause.*put it at"
    ) as error:
        warp("raft").update(film, None)
    assert str(folder / FILE) in str(error.value)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save(RAFT(SMALL).state_dict(), tmp_path / "small.pth")
    with pytest.raises(MissingWeights, match="weights of RAFT lack"):
        RAFTFlow(device="cpu", weights=str(tmp_path / "small.pth"))


def test_the_protocol_names_the_flow_and_its_weights(folder: Path) -> None:
    """A still texture that turns brighter by d everywhere has 3 (d / 255)^2, without motion."""
    still = texture(48, 56) * 200 + 20
    film = film_of(Clip(torch.stack([still, still + 10]).byte(), times(2)))
    digest = save_constant(folder / FILE, flow=(0.0, 0.0))
    raft, dis = warp("auto"), warp("dis")
    raft.update(film, None)
    dis.update(film, None)
    assert f"RAFT large, 12 updates, weights {digest}" in raft.compute().protocol
    assert "DIS medium on grey" in dis.compute().protocol
    assert raft.compute().value == pytest.approx(3000 * (10 / 255) ** 2, rel=1e-4)


HERE = weights.available("raft_large")


@pytest.mark.needs_weights
@pytest.mark.skipif(not HERE, reason=f"weights raft_large are not in {weights.folder()}")
def test_published_weights_see_how_a_picture_moves() -> None:
    wide = (texture(200, 240, cell=10) * 255).byte()
    first, second = wide[:, 10:170, 20:212], wide[:, 13:173, 15:207]
    flow = RAFTFlow(device="cpu").flow_between(first, second)[24:-24, 24:-24]
    assert np.allclose(np.median(flow, axis=(0, 1)), [5, -3], atol=0.2)
    assert np.abs(flow - [5, -3]).mean() < 0.5
