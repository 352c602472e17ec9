"""Frames with their timestamps: the one thing that flows through vidsynth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

# T frames, H height, W width. One axis order everywhere: clips T C H W, batches B T C H W.


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpec:
    """What a video looks like, without its frames."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: Fraction
    """Average frame rate, e.g. Fraction(24000, 1001). Timing itself is in `Clip.pts`."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a video needs at least one pixel; got {self.width}x{self.height}")
        if self.fps <= 0:
            raise ValueError(f"fps must be positive; got {self.fps}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Clip:
    """Consecutive frames of one video."""

    frames: Tensor
    """(T, 3, H, W) uint8 RGB in [0, 255], on any device."""
    pts: Tensor
    """(T,) float64 presentation times in seconds, always on the CPU, strictly increasing."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            raise ValueError(
                f"frames must be uint8 (T, 3, H, W); got {self.frames.dtype} "
                f"{tuple(self.frames.shape)}"
            )
        if self.pts.shape != self.frames.shape[:1] or self.pts.dtype != torch.float64:
            raise ValueError(
                f"pts must be float64 (T,) with T = {len(self.frames)}; got {self.pts.dtype} "
                f"{tuple(self.pts.shape)}"
            )
        if self.pts.device.type != "cpu":
            raise ValueError(f"pts stay on the CPU; got {self.pts.device}")
        if bool((self.pts.diff() <= 0).any()):
            raise ValueError("pts must be strictly increasing")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: slice) -> Clip:
        if not isinstance(key, slice):
            raise TypeError("a Clip is sliced, not indexed: clip[3:4]")
        return Clip(self.frames[key], self.pts[key])

    def __repr__(self) -> str:
        span = f"{self.pts[0]:.3f}-{self.pts[-1]:.3f} s" if len(self) else "empty"
        return f"Clip({len(self)} x {self.width}x{self.height}, {span}, {self.frames.device})"

    @property
    def height(self) -> int:
        return self.frames.shape[2]

    @property
    def width(self) -> int:
        return self.frames.shape[3]

    def to(self, device: torch.device | str) -> Clip:
        return Clip(self.frames.to(device), self.pts)

    def as_float(self) -> Tensor:
        """(T, 3, H, W) float32 in [-1, 1]. With `from_float`, the only conversion there is."""
        return self.frames.to(torch.float32).div_(127.5).sub_(1.0)

    @staticmethod
    def from_float(frames: Tensor, pts: Tensor) -> Clip:
        """Round (T, 3, H, W) floats in [-1, 1] to the nearest level; out-of-range values clip."""
        levels = frames.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
        return Clip(levels.to(torch.uint8), pts)

    @staticmethod
    def concat(clips: Sequence[Clip]) -> Clip:
        """Join consecutive clips of one video, in order. Raises ValueError for none at all."""
        if not clips:
            raise ValueError("concat needs at least one clip")
        if len(clips) == 1:
            return clips[0]
        return Clip(torch.cat([c.frames for c in clips]), torch.cat([c.pts for c in clips]))
