"""Every setting of vid2vid, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidsynth.losses import GanLoss
from vidsynth_plugins.flow import FlowChoice
from vidsynth_plugins.pix2pixhd.options import Norm, Stem, Upsampling

Start = Literal["none", "given", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vid2VidOptions:
    """The defaults learn in minutes on a small machine.

    As published: past 2, filters 128, downsamplings 3, blocks 9, norm "batch", stem "conv7",
    upsampling "transposed", no skips, no background, flow_px 20, least_paint 0, raw 1 and judged,
    l1 0, flow_weight 10, warp_weight 10, temporal_scales 2, d_filters 64, sequence 30, longest 128,
    both learning rates 2e-4.

    Attributes:
        past: generated frames, and their conditioning maps, that each frame is made from.
        filters: channels at the finest resolution of the coarsest level; each finer level has half.
        downsamplings: halvings of the picture on the way to the residual blocks.
        blocks: residual blocks on the way from labels to the picture; half of them, rounded up,
            are in the encoders, and the flow has as many of its own after that.
        levels: networks from coarse to fine, each at twice the resolution of the one before.
        local_blocks: residual blocks of each level above the coarsest.
        norm: "instance" or "batch" normalisation; "affine" is instance normalisation with a learned
            scale and offset, which is what batch normalisation of one frame at a time comes to.
        stem: "conv7" works at full resolution, as published; "shuffle" folds 2x2 pixels into
            channels, so that everything runs at half resolution, about four times cheaper.
        upsampling: "transposed" convolutions, as published, or "smooth", the same followed by a
            1-2-1 blur.
        skips: add the encoders' features to the decoders' at each resolution (U-Net).
        flow: carry the last frame on by an estimated flow; without it each frame is all paint.
        flow_px: pixels of flow that one unit of the network stands for.
        least_paint: share of each frame that is paint at least. What is carried on fades by it, so
            that a fault lives for about 1 / least_paint frames, which the sequences of the training
            show, and not for ever.
        past_noise: deviation of the noise that training adds to the past frames as the networks see
            them (not as they are carried on), which are in [-1, 1]: it keeps them from repeating
            fine patterns of their own from frame to frame until they grow, and costs sharpness.
        foreground: label classes that a network of their own paints, such as cars.
        background: where the stream has a background plate, make only the subject's layer, and
            composite it over the plate under a soft mask.
        start: where the first frames of a sequence come from: "none" paints the first one with
            zeros for a past; "given" takes `past` frames that the stream carries; "image" has a
            network of its own for them, which sees the current maps only.
        cut: share of the conditioning that has to change from one frame to the next for a new
            sequence to start; 1 never cuts.
        gan: adversarial loss: "lsgan", "hinge" or "vanilla".
        gan_weight: of the generator's adversarial losses.
        feature_matching: weight of the L1 between discriminator activations.
        perceptual: weight of the L1 between VGG19 activations; skipped, and said so, where the
            weights of VGG19 are not on this machine.
        l1: weight of the L1 between frames.
        subject_weight: how many times more L1, flow and warps count on the subject than on the
            background, less one.
        raw: how much the losses of the paint count, before the last frame is blended in; those of
            the finished frame count 1.
        judge_raw: the discriminators judge the paint too, as published, and not its L1 alone.
        flow_weight: of the L1, in pixels, between the flow and that of the real frames.
        warp_weight: of the L1 between frames and the ones before, warped to them.
        carry_weight: of the share of paint where the real flow holds: it asks to carry on.
        video_weight: of the adversarial and matching losses of the video discriminators.
        region_weight: of those of the region discriminator.
        regions: boxes that have a discriminator: "face", "left_hand", "right_hand"...
        region_size: side of the square that they are resized to, in pixels.
        discriminator: a discriminator plugin for frames, by name.
        video_discriminator: a temporal discriminator plugin that takes flow as its condition.
        d_frames: frames that the video discriminators see at once.
        temporal_scales: video discriminators; each sees `d_frames` times fewer frames a second, and
            costs as much as that of frames.
        d_filters: channels of the discriminators' first layer.
        d_layers: strided layers of each discriminator.
        d_scales: discriminators of frames, each at half the resolution of the one before.
        reference_flow: where the real frames' flow comes from: "dis", "raft" (needs weights), or
            "auto": raft where its weights are on this machine and there is a GPU, else dis.
        sequence: frames made one after the other in a sample, at first.
        longest: frames that this grows to, doubling in equal shares of the training.
        learnt: frames at the end of each sequence that have losses; those before are only made.
        backprop: frames through which the gradient runs back before it is cut.
        learning_rate: of Adam for the generator, per step.
        d_learning_rate: of Adam for the discriminators, per step.
        decay_from: share of the training after which both learning rates fall linearly to 0.
        coarse_fraction: share of the training in which all levels but the finest learn alone, at
            half the resolution.
        fixed_fraction: share of the training, after that, in which they stay fixed while the
            finest learns.
    """

    past: int = 2
    filters: int = 32
    downsamplings: int = 2
    blocks: int = 4
    levels: int = 1
    local_blocks: int = 3
    norm: Norm = "instance"
    stem: Stem = "shuffle"
    upsampling: Upsampling = "smooth"
    skips: bool = True
    flow: bool = True
    flow_px: float = 5.0
    least_paint: float = 0.3
    past_noise: float = 0.0
    foreground: tuple[int, ...] = ()
    background: bool = True
    start: Start = "none"
    cut: float = 0.8
    gan: GanLoss = "lsgan"
    gan_weight: float = 1.0
    feature_matching: float = 10.0
    perceptual: float = 10.0
    l1: float = 40.0
    subject_weight: float = 5.0
    raw: float = 0.5
    judge_raw: bool = False
    flow_weight: float = 3.0
    warp_weight: float = 20.0
    carry_weight: float = 0.0
    video_weight: float = 1.0
    region_weight: float = 1.0
    regions: tuple[str, ...] = ()
    region_size: int = 64
    discriminator: str = "multiscale_patch"
    video_discriminator: str = "video_patch"
    d_frames: int = 3
    temporal_scales: int = 0
    d_filters: int = 16
    d_layers: int = 3
    d_scales: int = 2
    reference_flow: FlowChoice = "auto"
    sequence: int = 3
    longest: int = 6
    learnt: int = 1
    backprop: int = 1
    learning_rate: float = 5e-4
    d_learning_rate: float = 2e-4
    decay_from: float = 0.5
    coarse_fraction: float = 0.0
    fixed_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "past", "filters", "levels", "region_size", "d_frames", "d_filters", "d_layers",
            "d_scales", "sequence", "longest", "learnt", "backprop",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("downsamplings", "blocks", "local_blocks", "temporal_scales"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative; got {getattr(self, name)}")
        if not 0 <= self.least_paint <= 1:
            raise ValueError(f"least_paint must be in [0, 1]; got {self.least_paint}")
        if self.past_noise < 0:
            raise ValueError(f"past_noise cannot be negative; got {self.past_noise}")
        if not 0 < self.cut <= 1:
            raise ValueError(f"cut must be above 0 and at most 1; got {self.cut}")
        if self.longest < self.sequence:
            raise ValueError("longest cannot be below sequence, which it grows from")
        if self.temporal_scales and self.d_frames < 2:
            raise ValueError("video discriminators need d_frames of 2 or more to see motion")
        if self.stem == "shuffle" and self.levels > 1:
            raise ValueError("several levels need the full-resolution stem; set stem to 'conv7'")
        if self.coarse_fraction + self.fixed_fraction > 1:
            raise ValueError("coarse_fraction and fixed_fraction together exceed 1")
        if (self.coarse_fraction or self.fixed_fraction) and self.levels < 2:
            raise ValueError("coarse_fraction and fixed_fraction need levels of 2 or more")
