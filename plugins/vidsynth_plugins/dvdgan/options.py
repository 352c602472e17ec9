"""Every setting of DVD-GAN, in frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidsynth_plugins.dvdgan.layers import Statistics

Augmentation = Literal["colour", "translation", "cutout"]
Recurrence = Literal["each", "first", "none"]
Total = Literal["sum", "mean"]
NoisePer = Literal["clip", "frame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DVDGANOptions:
    """The defaults are small enough for a CPU; the paper's networks have `filters` of 128.

    Attributes:
        num_frames: length of the clips that are learnt. Made ones may have any length.
        run_up: the clips that are judged begin up to so many frames into a film, which nothing is
            learnt from, so that films may be longer than what was learnt. For clips that are
            moments of something that goes on; 0 for those with a beginning of their own.
        filters: channels at full resolution; they double per halving, up to 8 times as many.
        levels: doublings from the coarsest grid to the frame; 0 chooses them so that the grid's
            shorter side is 4 to 7 places.
        blocks: residual blocks of each stage; 2 as published.
        recurrence: a ConvGRU at "each" resolution below the frame's, as in the second version of
            the paper, or only at the "first", the coarsest, as in the first; "none" has no memory.
        noise: numbers of noise.
        noise_per: "clip" draws them once, "frame" for each frame anew.
        embedding: numbers that stand for a class.
        statistics: batch normalisation of each time "step" by itself, as published, or of the whole
            "clip".
        spatial: the discriminator plugin that judges single frames; empty for none.
        temporal: the discriminator plugin that judges motion; empty for none.
        d_filters: channels of the discriminators' first layer.
        d_frames: frames that the spatial discriminator judges, drawn at random (k).
        d_total: how a discriminator makes one score of its frames': "sum", as published, or "mean",
            whose margin does not depend on how many frames there are.
        d_steps: discriminator steps per generator step.
        augment: what is done at random to made and real clips before they are judged, the same in
            every frame of a clip, so that few clips are not learnt by heart: "colour",
            "translation", "cutout".
        orthogonal: weight of the regulariser that keeps the rows of the generator's weights at
            right angles; 1e-4 in BigGAN, 0 for none.
        learning_rate: of Adam for the generator, per step.
        d_learning_rate: of Adam for the discriminators, per step.
        decay_from: share of the training after which both learning rates fall linearly to 0.
    """

    num_frames: int = 12
    run_up: int = 0
    filters: int = 16
    levels: int = 0
    blocks: int = 2
    recurrence: Recurrence = "each"
    noise: int = 32
    noise_per: NoisePer = "clip"
    embedding: int = 32
    statistics: Statistics = "step"
    spatial: str = "dvd_spatial"
    temporal: str = "dvd_temporal"
    d_filters: int = 16
    d_frames: int = 8
    d_total: Total = "mean"
    d_steps: int = 2
    augment: tuple[Augmentation, ...] = ()
    orthogonal: float = 0.0
    learning_rate: float = 5e-4
    d_learning_rate: float = 5e-4
    decay_from: float = 0.7

    def __post_init__(self) -> None:
        counts = ("num_frames", "filters", "blocks", "noise", "embedding", "d_filters", "d_frames")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if min(self.levels, self.run_up) < 0 or self.d_steps < 1:
            raise ValueError("levels and run_up cannot be negative; d_steps must be at least 1")
        if not self.spatial and not self.temporal:
            raise ValueError("name at least one discriminator: spatial, temporal or both")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialOptions:
    """Of the spatial discriminator.

    Attributes:
        filters: channels of the first block; they double per block, up to 8 times as many.
        levels: halvings of the frame.
        frames: how many frames of a clip are judged, drawn at random (k); fewer where the clip
            is shorter.
        total: the "sum" or the "mean" of the frames' scores.
    """

    filters: int = 16
    levels: int = 3
    frames: int = 8
    total: Total = "sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalOptions:
    """Of the temporal discriminator.

    Attributes:
        filters: channels of the first block; they double per block, up to 8 times as many.
        levels: halvings, the one before the network included.
        shrink: how many times smaller, each way, frames are judged (the paper's phi).
        volumes: how many blocks, the first ones, convolve over time too.
        total: the "sum" or the "mean" of the frames' scores.
    """

    filters: int = 16
    levels: int = 3
    shrink: int = 2
    volumes: int = 2
    total: Total = "sum"
