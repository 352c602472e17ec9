"""Stages for pipelines: colours, size, cutting out, drawing over."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import drawing, video
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.errors import BadOption
from vidsynth.kinds import StagePlugin
from vidsynth.stages import clips_of
from vidsynth.stream import Chunk

# T frames, H, W pixels


class FrameStage(StagePlugin):
    """A stage that changes each chunk's pictures and remembers nothing."""

    @abstractmethod
    def change(self, clip: Clip, chunk: Chunk) -> Tensor:
        """(T, 3, H, W) uint8 instead of the frames of `clip`, the chunk's own."""

    def process(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            assert chunk.clip is not None, "a pipeline carries pictures"
            yield chunk.with_clip(Clip(self.change(chunk.clip, chunk), chunk.pts))


@dataclass(frozen=True, kw_only=True)
class ColourMatchOptions:
    """Whose colours are wanted.

    Attributes:
        reference: a video, the colours of whose first frames are taken on; none given: the first
            frame that comes, so that colours do not drift.
        strength: share of the way to them, in [0, 1].
    """

    reference: Path | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1; got {self.strength}")


class ColourMatch(StagePlugin):
    """Every frame with the mean and the spread of colours of a reference, in CIELAB.

    Reinhard et al. 2001, "Color Transfer between Images", with CIELAB for their l-alpha-beta.
    """

    Options = ColourMatchOptions
    paper = 'Reinhard et al. 2001, "Color Transfer between Images"'
    options: ColourMatchOptions

    def process(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        wanted = None if self.options.reference is None else _colours_of(self.options.reference)
        for chunk in chunks:
            assert chunk.clip is not None, "a pipeline carries pictures"
            made = torch.empty(chunk.clip.frames.shape, dtype=torch.uint8)
            for frame, out in zip(chunk.clip.frames.cpu(), made, strict=True):
                lab = to_lab(frame)
                if wanted is None:
                    wanted = statistics(lab)
                out.copy_(from_lab(self._matched(lab, *wanted)))
            yield chunk.with_clip(Clip(made, chunk.pts))

    def _matched(self, lab: NDArray, mean: NDArray, spread: NDArray) -> NDArray:
        own_mean, own_spread = statistics(lab)
        moved = (lab - own_mean) * (spread / np.maximum(own_spread, 1e-3)) + mean
        return lab + self.options.strength * (moved - lab)


def to_lab(frame: Tensor) -> NDArray:
    """(3, H, W) uint8 RGB as (H, W, 3) float32 CIELAB."""
    return cv2.cvtColor(frame.permute(1, 2, 0).numpy().astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def from_lab(lab: NDArray) -> Tensor:
    """The inverse of `to_lab`, rounded."""
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return torch.from_numpy(np.rint(rgb * 255).clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def statistics(lab: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of each channel of (..., 3)."""
    pixels = lab.reshape(-1, 3)
    return pixels.mean(axis=0), pixels.std(axis=0)


def _colours_of(path: Path) -> tuple[NDArray, NDArray]:
    """Of the first frames of a video. Raises UnsupportedVideo."""
    chunks = video.read_chunks(path)
    first = next(clips_of(chunks), None)
    chunks.close()
    if first is None:
        raise BadOption(f"{path} has no frame to take colours from; give another reference")
    return statistics(np.stack([to_lab(frame) for frame in first.frames]))


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How much larger.

    Attributes:
        factor: of both sides, above 0; below 1 makes smaller.
        sharpen: how much fine detail is raised afterwards: 0 not at all, 1 doubles it.
    """

    factor: float = 2.0
    sharpen: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 8:
            raise ValueError(f"factor must be above 0 and up to 8; got {self.factor}")
        if self.sharpen < 0:
            raise ValueError(f"sharpen cannot be negative; got {self.sharpen}")


class Upscale(FrameStage):
    """Another size by Lanczos resampling, then an unsharp mask. It invents no detail."""

    Options = UpscaleOptions
    options: UpscaleOptions

    def change(self, clip: Clip, chunk: Chunk) -> Tensor:
        height, width = (
            max(1, round(side * self.options.factor)) for side in clip.frames.shape[2:]
        )
        made = np.empty((len(clip), height, width, 3), np.uint8)
        for frame, out in zip(clip.frames.permute(0, 2, 3, 1).cpu().numpy(), made, strict=True):
            frame = np.ascontiguousarray(frame)
            method = cv2.INTER_AREA if self.options.factor < 1 else cv2.INTER_LANCZOS4
            larger = cv2.resize(frame, (width, height), interpolation=method).astype(np.float32)
            soft = cv2.GaussianBlur(larger, (0, 0), max(0.5, self.options.factor / 2))
            sharper = larger + self.options.sharpen * (larger - soft)
            out[:] = np.rint(sharper).clip(0, 255)
        return drawing.as_maps(made)


@dataclass(frozen=True, kw_only=True)
class CutOutOptions:
    """What is kept, and what stands behind it.

    Attributes:
        classes: label ids that are kept; 1 is a person where the extractor `labels` made them.
        colour: red, green and blue in 0 to 255 of all the rest.
    """

    classes: tuple[int, ...] = (1,)
    colour: tuple[int, int, int] = (0, 255, 0)

    def __post_init__(self) -> None:
        if not all(0 <= level <= 255 for level in self.colour):
            raise ValueError(f"colour must be of levels 0 to 255; got {self.colour}")


class CutOut(FrameStage):
    """Only the pixels of some classes, on a plain colour."""

    Options = CutOutOptions
    needs: ClassVar = (LabelMaps,)
    options: CutOutOptions

    def change(self, clip: Clip, chunk: Chunk) -> Tensor:
        labels = drawing.nearest(chunk.require(LabelMaps).labels, clip.height, clip.width)
        kept = torch.isin(labels, torch.tensor(self.options.classes, dtype=labels.dtype))
        behind = torch.tensor(self.options.colour, dtype=torch.uint8)[:, None, None]
        return torch.where(kept[:, None], clip.frames.cpu(), behind)


@dataclass(frozen=True, kw_only=True)
class DrawOverOptions:
    """What is shown.

    Attributes:
        kinds: kinds of signal to draw, like "pose"; empty: all that can be drawn.
        strength: how opaque the drawing is, in [0, 1].
    """

    kinds: tuple[str, ...] = ()
    strength: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be between 0 and 1; got {self.strength}")


class DrawOver(FrameStage):
    """What trackers see, drawn over the pictures."""

    Options = DrawOverOptions
    needs: ClassVar = (Conditioning,)
    options: DrawOverOptions

    def change(self, clip: Clip, chunk: Chunk) -> Tensor:
        for kind, signal in chunk.signals.items():
            if kind.drawable and (not self.options.kinds or kind.kind in self.options.kinds):
                clip = drawing.overlay(clip, signal, strength=self.options.strength)
        return clip.frames
