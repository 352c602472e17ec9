"""A small network that knows the classes of a world's clips, and what it says of made ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.clipmodels import diversity
from vidsynth.distances import frechet_distance
from vidsynth.worlds import shapes

# B clips, T frames, N classes, C channels, H, W pixels, D features

FEATURES = 48
BATCH = 32
NOISE = 0.05
"""Added to the clips that it learns from, so that it looks at shapes and not at single levels."""
TRAINING_SEEDS, REAL_SEEDS = 1_000_000, 2_000_000
"""Where the films of the judge begin: a generator learns from neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged: the clips of a world."""

    names: tuple[str, ...]
    size: int
    num_frames: int
    fps: float

    def films(self, name: str, first_seed: int, count: int) -> Tensor:
        """(count, T, 3, size, size) uint8: real clips of a class."""
        seeds = range(first_seed, first_seed + count)
        made = (shapes.film(name, seed, self.num_frames, self.fps, self.size) for seed in seeds)
        return torch.stack(list(made))


class ClipNet(nn.Module):
    """Convolutions over time and place, the strongest place of each moment, a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 12, 24, FEATURES)
        strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv3d(before, after, 3, stride, 1), nn.GroupNorm(4, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, clips_BTCHW: Tensor) -> Tensor:
        """(B, FEATURES) of clips in [-1, 1]."""
        return self.body(clips_BTCHW.transpose(1, 2)).amax(dim=(3, 4)).mean(dim=2)

    def forward(self, clips_BTCHW: Tensor) -> Tensor:
        return self.head(self.features(clips_BTCHW))


def train_judge(subject: Subject, *, steps: int, per_class: int, device: torch.device) -> ClipNet:
    """A network that tells the classes of real clips apart."""
    films = [subject.films(name, TRAINING_SEEDS, per_class) for name in subject.names]
    clips = torch.stack(films).flatten(0, 1)
    labels = torch.arange(len(subject.names)).repeat_interleave(per_class)
    torch.manual_seed(0)
    network = ClipNet(len(subject.names)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        index = torch.randint(len(clips), (BATCH,))
        batch = _as_float(clips[index]).to(device)
        logits = network(batch + NOISE * torch.randn_like(batch))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels[index].to(device)).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the judge says of clips of all classes."""

    accuracy: tuple[float, ...]
    """Of each class, the share of clips that is taken for it."""
    diversity: float
    """How many times as different as real ones clips of a class are."""
    frechet: float
    """Squared distance to real clips, between Gaussians of the judge's features."""

    @property
    def mean_accuracy(self) -> float:
        return sum(self.accuracy) / len(self.accuracy)


class Jury:
    """The judge, and the real clips that made ones are held against."""

    def __init__(self, network: ClipNet, subject: Subject, *, per_class: int) -> None:
        self.network = network
        self.subject = subject
        self.real, self.others = (
            {name: subject.films(name, first, per_class) for name in subject.names}
            for first in (REAL_SEEDS, REAL_SEEDS + per_class)
        )

    def of_real(self) -> Verdict:
        """What other real clips get: the best that can be had."""
        return self.of(self.others)

    def of(self, made: Mapping[str, Tensor]) -> Verdict:
        """Of clips (B, T, 3, H, W) uint8 by class."""
        names = self.subject.names
        found = {name: self._seen(made[name]) for name in names}
        accuracy = [
            float((logits.argmax(dim=1) == n).float().mean())
            for n, (logits, _) in enumerate(found[name] for name in names)
        ]
        real = torch.cat([self._seen(self.real[name])[1] for name in names])
        return Verdict(
            accuracy=tuple(accuracy),
            diversity=diversity(_in_order(made, names), _in_order(self.real, names)),
            frechet=frechet_distance(torch.cat([f for _, f in found.values()]), real),
        )

    @torch.no_grad()
    def _seen(self, clips_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features."""
        device = self.network.head.weight.device
        parts = [
            self.network.features(_as_float(part).to(device)) for part in clips_BTCHW.split(BATCH)
        ]
        features_BD = torch.cat(parts)
        return self.network.head(features_BD).cpu(), features_BD.cpu()


def motion(clips_BTCHW: Tensor) -> float:
    """Mean absolute difference of neighbouring frames, levels of 255."""
    return float(clips_BTCHW.float().diff(dim=1).abs().mean())


def _as_float(clips: Tensor) -> Tensor:
    return clips.float().div(127.5).sub_(1.0)


def _in_order(clips: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    return [clips[name] for name in names]
