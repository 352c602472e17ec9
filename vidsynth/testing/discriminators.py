"""Conformance checks of discriminators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vidsynth.kinds import Discriminator
from vidsynth.testing.conformance import Case, Check

# B batch, T frames, C channels, H, W pixels

BATCH, CHANNELS = 2, 3


def gradient_reaches_every_frame(case: Case) -> None:
    """Each frame moves the judgement, and finitely."""
    judge, frames, condition = _built(case)
    frames.requires_grad_()
    judgement = judge(frames, condition)
    torch.stack([logits.square().mean() for logits in judgement.logits]).sum().backward()
    assert frames.grad is not None and bool(frames.grad.isfinite().all())
    reached = frames.grad.abs().flatten(2).sum(2) > 0
    assert bool(reached.all()), f"frames without gradient (batch, frame): {(~reached).nonzero()}"


def real_and_fake_features_align(case: Case) -> None:
    """Features of two inputs pair up scale by scale and layer by layer, as matching them needs."""
    judge, frames, condition = _built(case)
    real, fake = judge(frames, condition), judge(torch.rand_like(frames) * 2 - 1, condition)
    assert len(real.features) == len(real.logits) == len(fake.logits) > 0
    for ours, theirs in zip(real.features, fake.features, strict=True):
        assert [f.shape for f in ours] == [f.shape for f in theirs]


def condition_matters(case: Case) -> None:
    """The same frames under another condition are judged otherwise."""
    judge, frames, condition = _built(case)
    ours, theirs = (judge(frames, c).logits for c in (condition, 1 - condition))
    assert any(not torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def judges_without_a_condition(case: Case) -> None:
    plugin: Any = case.plugin
    judge = plugin(case.built_options(), num_frames=_num_frames(case))
    _, frames, _ = _built(case)
    assert all(bool(logits.isfinite().all()) for logits in judge(frames, None).logits)


def same_seed_same_judgement(case: Case) -> None:
    """Built twice from one seed, it judges the same frames the same."""
    (ours, frames, condition), (theirs, *_) = (_built(case) for _ in range(2))
    for a, b in zip(ours(frames, condition).logits, theirs(frames, condition).logits, strict=True):
        assert torch.equal(a, b), "the judgements of one seed differ"


def odd_sizes_are_fine(case: Case) -> None:
    """Width and height need not be even, nor multiples of anything."""
    real_and_fake_features_align(replace(case, height=case.height | 1, width=(case.width + 2) | 1))


CHECKS: tuple[Check, ...] = (
    gradient_reaches_every_frame,
    real_and_fake_features_align,
    condition_matters,
    judges_without_a_condition,
    same_seed_same_judgement,
    odd_sizes_are_fine,
)


def _num_frames(case: Case) -> int:
    plugin: Any = case.plugin
    return 3 if plugin.temporal else 1


def _built(case: Case) -> tuple[Discriminator, Tensor, Tensor]:
    """The discriminator; frames (B, T, 3, H, W) in [-1, 1]; conditions (B, T, C, H, W)."""
    plugin: Any = case.plugin
    num_frames = _num_frames(case)
    torch.manual_seed(0)
    judge = plugin(case.built_options(), condition_channels=CHANNELS, num_frames=num_frames)
    frames = case.footage(BATCH * num_frames).as_float()
    shape = (BATCH, num_frames, CHANNELS, case.height, case.width)
    return judge, frames.reshape(BATCH, num_frames, *frames.shape[1:]), torch.rand(shape)
