"""What a generator without a driving video is told: a class or a prompt, in words or encoded, and
the noise that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.conditioning import Conditioning
from vidsynth.errors import UnknownName

# T frames, N classes, D numbers of noise


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassLabel(Conditioning):
    """What is to be shown: one class, or a mixture of classes."""

    kind: ClassVar[str] = "class"
    drawable: ClassVar[bool] = False
    per_frame: ClassVar[tuple[str, ...]] = ("shares",)

    shares: Tensor
    """(T, N) float32: how much of each class, rows that add up to 1. One class is one 1."""
    names: tuple[str, ...]
    """N of them."""

    @classmethod
    def of(cls, name: str, names: Sequence[str], num_frames: int) -> ClassLabel:
        """One class for a whole clip. Raises UnknownName."""
        if name not in names:
            raise UnknownName.among("class", name, names)
        shares = F.one_hot(torch.tensor(list(names).index(name)), len(names)).float()
        return cls(shares=shares.repeat(num_frames, 1), names=tuple(names))

    @property
    def size(self) -> tuple[int, int]:
        return (1, 1)

    def draw(self, height: int, width: int) -> Tensor:
        """A plane for each class, (T, N, height, width): the same everywhere."""
        planes = (self.shares * 255).round().to(torch.uint8)
        return planes[:, :, None, None].expand(-1, -1, height, width)

    def towards(self, other: ClassLabel) -> ClassLabel:
        """As long as this: from its first frame to the other's last, in even steps."""
        along = _along(len(self))
        shares = (1 - along) * self.shares[0] + along * other.shares[-1]
        return ClassLabel(shares=shares, names=self.names)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prompt(Conditioning):
    """What is to be shown, in words, which may change on the way."""

    kind: ClassVar[str] = "prompt"
    drawable: ClassVar[bool] = False
    per_frame: ClassVar[tuple[str, ...]] = ("index",)

    index: Tensor
    """(T,) int64: which of the texts is said at each frame."""
    texts: tuple[str, ...]

    @classmethod
    def of(cls, text: str, num_frames: int) -> Prompt:
        """One text for a whole clip."""
        return cls(index=torch.zeros(num_frames, dtype=torch.int64), texts=(text,))

    @property
    def size(self) -> tuple[int, int]:
        return (1, 1)

    def draw(self, height: int, width: int) -> Tensor:
        raise ValueError("a prompt has no picture; a generator reads `texts` and `index`")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TextEmbedding(Conditioning):
    """A prompt, encoded: the same for every frame of a clip."""

    kind: ClassVar[str] = "text"
    drawable: ClassVar[bool] = False
    per_frame: ClassVar[tuple[str, ...]] = ("pooled",)

    pooled: Tensor
    """(T, D) float32: the sentence embedding, repeated for each frame."""
    tokens: Tensor
    """(L, D) float32: one row per token."""
    prompt: str

    @property
    def size(self) -> tuple[int, int]:
        return (1, 1)

    def draw(self, height: int, width: int) -> Tensor:
        raise ValueError("text has no picture; a generator reads `pooled` and `tokens`")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Noise(Conditioning):
    """The random numbers that a generator makes its film from."""

    kind: ClassVar[str] = "noise"
    drawable: ClassVar[bool] = False
    per_frame: ClassVar[tuple[str, ...]] = ("values",)

    values: Tensor
    """(T, D) float32, standard normal. One clip's is the same for every frame, unless its
    generator draws anew for each."""

    @property
    def size(self) -> tuple[int, int]:
        return (1, 1)

    def draw(self, height: int, width: int) -> Tensor:
        raise ValueError("noise has no picture; a generator reads `values`")

    def towards(self, other: Noise) -> Noise:
        """As long as this: from it to the other, in even steps along the sphere.

        A straight line would pass nearer to 0 than noise ever comes: Shoemake 1985, "Animating
        Rotation with Quaternion Curves".
        """
        ours, theirs = self.values, other.values
        cosine = F.cosine_similarity(ours, theirs, dim=1)[:, None].clamp(-1 + 1e-6, 1 - 1e-6)
        angle, along = cosine.acos(), _along(len(self))
        mixed = ((1 - along) * angle).sin() * ours + (along * angle).sin() * theirs
        return Noise(values=mixed / angle.sin())


def normal(shape: tuple[int, ...], *, rng: torch.Generator, truncation: float | None) -> Tensor:
    """Standard normal numbers; those further from 0 than `truncation` are drawn again.

    Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis".
    """
    values = torch.randn(shape, generator=rng)
    while truncation is not None and bool((values.abs() > truncation).any()):
        again = torch.randn(shape, generator=rng)
        values = torch.where(values.abs() > truncation, again, values)
    return values


def _along(num_frames: int) -> Tensor:
    """(T, 1) from 0 at the first frame to 1 at the last; 0 for a single one."""
    return torch.arange(num_frames)[:, None] / max(1, num_frames - 1)
