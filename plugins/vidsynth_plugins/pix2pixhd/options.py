"""Every setting of pix2pixHD, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidsynth.losses import GanLoss

Norm = Literal["instance", "batch", "affine"]
Stem = Literal["conv7", "shuffle"]
Upsampling = Literal["transposed", "smooth"]
Network = Literal["global", "spade"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pix2PixHDOptions:
    """The defaults are the published global generator G1 and its discriminators.

    Attributes:
        network: "global" reads the maps and paints, as published; "spade" is told by the maps at
            every layer how to normalise (Park et al. 2019), which suits label maps. The latter has
            no stem, upsampling, skips or local enhancers to choose.
        filters: channels at the finest resolution. With local enhancers, those of the outermost
            one: the global generator inside has `filters * 2**local_enhancers`.
        downsamplings: halvings of the picture on the way to the residual blocks.
        blocks: residual blocks of the global generator.
        local_enhancers: networks round the global one, each doubling the resolution.
        local_blocks: residual blocks of each local enhancer.
        norm: "instance" or "batch" normalisation; "affine" is instance normalisation with a learned
            scale and offset, which is what batch normalisation of one frame at a time comes to.
        stem: "conv7" works at full resolution, as published; "shuffle" folds 2x2 pixels into
            channels, so that everything runs at half resolution, about four times cheaper.
        upsampling: "transposed" convolutions, as published; or "smooth", the same followed by a
            1-2-1 blur, which takes away the grid that they leave for the first thousands of steps.
        skips: add the encoder's features to the decoder's at each resolution (U-Net).
        background: where the stream has a background plate, paint only the subject and composite
            it over the plate under a soft mask.
        window: conditioning frames seen at once, the current one and those before it.
        previous: condition on the frame generated before, and judge pairs of frames.
        face: refine the face with a residual of a network of its own, judged by its own
            discriminator.
        face_size: side of the square that face crops are resized to, in pixels.
        gan: adversarial loss: "lsgan", "hinge" or "vanilla".
        gan_weight: of the generator's adversarial loss.
        feature_matching: weight of the L1 between discriminator activations.
        perceptual: weight of the L1 between VGG19 activations; skipped, and said so, where the
            weights of VGG19 are not on this machine.
        l1: weight of the L1 between frames.
        subject_weight: how many times more the L1 counts on the subject than on the background,
            less one.
        face_weight: of the face region's adversarial and perceptual losses.
        discriminator: a discriminator plugin, by name.
        d_filters: channels of the discriminators' first layer.
        d_layers: strided layers of each discriminator.
        d_scales: discriminators, each at half the resolution of the one before.
        learning_rate: of Adam for the generator, per step.
        d_learning_rate: of Adam for the discriminators, per step.
        decay_from: share of the training after which both learning rates fall linearly to 0.
        coarse_fraction: share of the training in which the global generator learns alone, at the
            resolution that the local enhancers leave to it.
        fixed_fraction: share of the training, after that, in which it stays fixed while the local
            enhancers learn.
    """

    network: Network = "global"
    filters: int = 64
    downsamplings: int = 4
    blocks: int = 9
    local_enhancers: int = 0
    local_blocks: int = 3
    norm: Norm = "instance"
    stem: Stem = "conv7"
    upsampling: Upsampling = "transposed"
    skips: bool = False
    background: bool = True
    window: int = 1
    previous: bool = False
    face: bool = False
    face_size: int = 64
    gan: GanLoss = "lsgan"
    gan_weight: float = 1.0
    feature_matching: float = 10.0
    perceptual: float = 10.0
    l1: float = 0.0
    subject_weight: float = 0.0
    face_weight: float = 0.5
    discriminator: str = "multiscale_patch"
    d_filters: int = 64
    d_layers: int = 3
    d_scales: int = 2
    learning_rate: float = 2e-4
    d_learning_rate: float = 2e-4
    decay_from: float = 0.5
    coarse_fraction: float = 0.0
    fixed_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("filters", "window", "face_size", "d_filters", "d_layers", "d_scales"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("downsamplings", "blocks", "local_enhancers", "local_blocks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative; got {getattr(self, name)}")
        if self.network == "spade":
            if self.stem != "conv7" or self.skips or self.local_enhancers:
                raise ValueError(
                    "the spade network has no stem, skips or local enhancers to choose; set stem "
                    "to 'conv7', skips to false and local_enhancers to 0"
                )
            if not self.downsamplings or not self.blocks:
                raise ValueError("the spade network needs downsamplings and blocks of 1 or more")
        if self.stem == "shuffle" and self.local_enhancers:
            raise ValueError("local enhancers need the full-resolution stem; set stem to 'conv7'")
        if self.coarse_fraction + self.fixed_fraction > 1:
            raise ValueError("coarse_fraction and fixed_fraction together exceed 1")
        if (self.coarse_fraction or self.fixed_fraction) and not self.local_enhancers:
            raise ValueError("coarse_fraction and fixed_fraction need local_enhancers of 1 or more")

    @property
    def num_made(self) -> int:
        """Frames generated, and judged together, per training sample."""
        return 2 if self.previous else 1
