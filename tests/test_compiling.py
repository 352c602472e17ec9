"""Long runs are compiled when that pays, and nothing changes but the time."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from vidsynth import compiling
from vidsynth.compiling import LongRun, frozen


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """A compiler that only notes what it is called with."""
    seen: list[torch.Size] = []

    def compile_(function, **_: object):
        def fast(images):
            seen.append(images.shape)
            return function(images)

        return fast

    monkeypatch.setattr(torch, "compile", compile_)
    return seen


def run(network: nn.Module, num_frames: int | None, seconds: float) -> LongRun:
    """The first three chunks of 8 frames."""
    long_run = LongRun(network, num_frames)
    for _ in range(3):
        network(torch.zeros(8, 3, 8, 8))
        long_run.made(8, seconds)
    return long_run


@pytest.mark.parametrize("num_frames, compiled", [(None, False), (300, False), (100_000, True)])
def test_only_long_runs_are_compiled(
    network: nn.Module, fake: list[torch.Size], num_frames: int | None, compiled: bool
) -> None:
    assert run(network, num_frames, 0.4).compiled == compiled
    assert bool(fake) == compiled


def test_a_quick_network_is_not_worth_compiling(network: nn.Module, fake: list[torch.Size]) -> None:
    assert not run(network, 100_000, 0.004).compiled


def test_the_slow_first_call_does_not_count(network: nn.Module, fake: list[torch.Size]) -> None:
    long_run = LongRun(network, 1000)
    long_run.made(8, 60.0)
    long_run.made(8, 0.4)
    assert not long_run.compiled


def test_a_shorter_last_chunk_is_not_compiled_anew(
    network: nn.Module, fake: list[torch.Size]
) -> None:
    run(network, 100_000, 0.4)
    assert network(torch.zeros(3, 3, 8, 8)).shape[0] == 3
    assert {shape[0] for shape in fake} == {8}


def test_where_nothing_can_be_compiled_the_run_goes_on_and_says_so(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function, **_: object):
        def fast(images):
            raise RuntimeError("no compiler found\nand a long story")

        return fast

    monkeypatch.setattr(torch, "compile", broken)
    images = torch.ones(8, 3, 8, 8)
    expected = network(images)
    with caplog.at_level(logging.WARNING):
        run(network, 100_000, 0.4)
        assert torch.equal(network(images), expected)
        assert torch.equal(network(images), expected)
    assert caplog.text.count("cannot be compiled here (no compiler found)") == 1


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_pictures(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.0)
    images = torch.rand(8, 3, 8, 8)
    with torch.inference_mode():
        expected = network(images)
        assert run(network, 100, 0.4).compiled
        assert torch.allclose(network(images), expected, atol=1e-5)


@pytest.mark.slow
def test_a_frozen_networks_weights_are_constants(network: nn.Module) -> None:
    """Which the compiler has laid out for its kernels: weights that change later do not count."""
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        expected, fast = network(images), frozen(network)
        assert torch.allclose(fast(images), expected, atol=1e-5)
        for weight in network.parameters():
            weight.zero_()
        assert torch.allclose(fast(images), expected, atol=1e-5)
