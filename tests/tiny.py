"""A small world for tests of the core: a moving square, its labels, a generator of two layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import filled
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps
from vidsynth.dataset import Drawings, Footage
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth.report import Reporter
from vidsynth.stream import Chunk
from vidsynth.subject import PluginRef, SubjectCard

CONDITIONS = Conditions(kinds=(LabelMaps,), channels=2)


def tiny_card(**changes: Any) -> SubjectCard:
    """The card of a subject of 32x32 whose generator is the tiny one."""
    card = SubjectCard(
        recipe="dance",
        extractor=PluginRef(name="pose"),
        generator=PluginRef(name="tiny", options={"width": 4}),
        channels=2,
        background=False,
        height=32,
        width=32,
        fps="25",
        window=(0, 0, 32, 32),
        summary={},
    )
    return replace(card, **changes)


def moving_square(num_frames: int, size: int = 16) -> tuple[Clip, LabelMaps]:
    """A red square that walks right over grey, and where it is."""
    frames = torch.full((num_frames, 3, size, size), 90, dtype=torch.uint8)
    labels = torch.zeros(num_frames, size, size, dtype=torch.uint8)
    for t in range(num_frames):
        x = t % (size - 4)
        frames[t, 0, 5:9, x : x + 4] = 220
        labels[t, 5:9, x : x + 4] = 1
    pts = torch.arange(num_frames, dtype=torch.float64) / 25
    return Clip(frames, pts), LabelMaps(labels=labels, num_classes=2)


def tiny_footage(num_frames: int = 40, size: int = 16) -> Footage:
    clip, labels = moving_square(num_frames, size)
    training = torch.ones(num_frames, dtype=torch.bool)
    training[-10:] = False
    return Footage(
        pictures=clip.frames,
        drawings=Drawings.made(labels, clip.pts, CONDITIONS, Reporter()),
        regions={},
        signal=labels,
        pts=clip.pts,
        spec=VideoSpec(height=size, width=size, fps=Fraction(25)),
        window=(0, 0, size, size),
        plate=None,
        crop=(0, 0, size, size),
        training=training,
        held_out=slice(num_frames - 8, num_frames),
    )


@dataclass(frozen=True, kw_only=True)
class TinyOptions:
    """Of the tiny generator.

    Attributes:
        width: channels of the hidden layer.
        background: composite over a plate.
    """

    width: int = 8
    background: bool = False


def _network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh()
    )


class TinyGenerator(Generator):
    """Two convolutions."""

    Options = TinyOptions
    accepts = (LabelMaps,)
    options: TinyOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self.network = _network(self.options.width)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.network = filled(_network(self.options.width), weights, method="tiny")

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        for chunk in chunks:
            maps = self.conditions.draw(chunk, spec.height, spec.width).float() / 255
            yield Clip.from_float(self.network(maps), chunk.pts)

    def objective(self, spec: VideoSpec) -> TinyObjective:
        return TinyObjective(self.options.width)


class TinyObjective(Objective):
    """L1 and a least-squares GAN, with the judgement shared by both phases."""

    def __init__(self, width: int = 8, *, poisoned_at: tuple[int, ...] = ()) -> None:
        self.network = _network(width)
        self.judge = nn.Conv2d(3, 1, 4, stride=2)
        self.poisoned_at = poisoned_at
        self.calls = 0
        self.phases = [
            Phase("G", self.network, torch.optim.Adam(self.network.parameters(), 1e-2)),
            Phase("D", self.judge, torch.optim.Adam(self.judge.parameters(), 1e-3)),
        ]

    @property
    def generator(self) -> nn.Module:
        return self.network

    def at_progress(self, progress: float) -> None:
        for phase, rate in zip(self.phases, (1e-2, 1e-3), strict=True):
            for group in phase.optimizer.param_groups:
                group["lr"] = rate * (1 - 0.5 * progress)

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        if phase == "G":
            real = batch.frames_BTCHW.flatten(0, 1)
            fake = self.network(batch.maps_BTCHW.flatten(0, 1))
            # Noise, as dropout would be: a resume must give the same.
            fake = fake + 1e-3 * torch.randn_like(fake)
            self.of_fake, self.of_real = self.judge(fake), self.judge(real)
            l1 = F.l1_loss(fake, real)
            self.calls += 1
            if self.calls in self.poisoned_at:
                l1 = l1 * float("nan")
            return {"gan": 0.01 * (self.of_fake - 1).square().mean(), "l1": l1}
        return {"gan": (self.of_real - 1).square().mean() + self.of_fake.square().mean()}


def weights_of(module: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in module.state_dict().items()}
