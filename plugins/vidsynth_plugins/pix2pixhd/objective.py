"""How pix2pixHD is trained: one pass of generator and discriminators serves both their losses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth.blocks import crop_boxes, square_boxes
from vidsynth.errors import MissingWeights
from vidsynth.kinds import Judgement
from vidsynth.losses import (
    PerceptualLoss,
    feature_matching,
    fool,
    judge_fake,
    judge_real,
    linear_decay,
    weighted_l1,
)
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth.subject import build_discriminator
from vidsynth.weights import WEIGHTS
from vidsynth_plugins.pix2pixhd.discriminators import MultiscalePatch, MultiscalePatchOptions
from vidsynth_plugins.pix2pixhd.networks import LocalEnhancer
from vidsynth_plugins.pix2pixhd.options import Pix2PixHDOptions
from vidsynth_plugins.pix2pixhd.painter import FACE_MARGIN, Painted, Painter, halved_to

# B batch, T frames of the sample, N of them generated (1 or 2), C channels, H, W pixels

log = logging.getLogger(__name__)


class Pix2PixHDObjective(Objective):
    """Phase "G" trains the painter, phase "D" the discriminators.

    The reference makes three discriminator passes: the fake detached for D, the real, and the fake
    again for G. Here the fake and the real are judged once, in phase "G", and phase "D" goes back
    through the same graph: the same numbers, since D's losses come from before G's step there too.
    """

    def __init__(self, options: Pix2PixHDOptions, painter: Painter) -> None:
        self.options = options
        self.num_frames = options.window + options.num_made - 1
        self.num_recalled = options.num_made if painter.slots else 0
        self.painter = painter
        self.judges = Judges(options, painter.channels)
        self.perceptual = perceptual_loss(options.perceptual)
        self.phases = (
            Phase("G", painter, adam(painter, options.learning_rate)),
            Phase("D", self.judges, adam(self.judges, options.d_learning_rate)),
        )
        self._pass: Pass | None = None
        self._stage = ""
        self._enter(self._stage_at(0.0))

    @property
    def generator(self) -> nn.Module:
        return self.painter

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        seen, self._pass = self._pass, None  # never two at once: a pass is most of the memory
        if phase == "G":
            del seen
            self._pass = self._run(batch)
            return self.painter_losses(self._pass)
        if seen is None or seen.batch is not batch:
            seen = self._run(batch)
        return self._judge_losses(seen)

    def _run(self, batch: TrainBatch) -> Pass:
        painted = paint(self.painter, self.options, batch)
        made = painted.frames
        real = _sized(batch.frames_BTCHW[:, -made.shape[1] :], made)
        maps = _sized(batch.maps_BTCHW[:, -made.shape[1] :], made)
        faces = batch.regions.get("face")
        fake_face = real_face = None
        if self.judges.face is not None and faces is not None and not self.painter.is_coarse:
            faces_X4 = faces[:, -made.shape[1] :].flatten(0, 1)
            crops = [_face_crops(x, faces_X4, self.options.face_size) for x in (made, real, maps)]
            fake_face = Judged(crops[0], self.judges.face(crops[0], crops[2]))
            real_face = Judged(crops[1], self.judges.face(crops[1], crops[2]))
        return Pass(
            batch=batch,
            raw=painted.raw,
            fake=Judged(made, self.judges.frames(made, maps)),
            real=Judged(real, self.judges.frames(real, maps)),
            fake_face=fake_face,
            real_face=real_face,
        )

    def painter_losses(self, seen: Pass) -> dict[str, Tensor]:
        """What phase "G" minimises, weighted."""
        o = self.options
        made, real = seen.fake.frames, seen.real.frames
        losses = {
            "gan": o.gan_weight * fool(seen.fake.judgement, o.gan),
            "feature_matching": o.feature_matching
            * feature_matching(seen.fake.judgement, seen.real.judgement),
        }
        if o.l1:
            losses["l1"] = o.l1 * weighted_l1(made, real, self.importance(seen))
        if self.perceptual is not None:
            self.perceptual.to(made.device)
            losses["perceptual"] = o.perceptual * self._unlikeness(seen.fake, seen.real)
        if seen.fake_face is not None and seen.real_face is not None:
            losses["face_gan"] = o.face_weight * fool(seen.fake_face.judgement, o.gan)
            if self.perceptual is not None:
                unlike = self._unlikeness(seen.fake_face, seen.real_face)
                losses["face_perceptual"] = o.face_weight * o.perceptual * unlike
        return losses

    def _judge_losses(self, seen: Pass) -> dict[str, Tensor]:
        gan = self.options.gan
        losses = {
            "real": 0.5 * judge_real(seen.real.judgement, gan),
            "fake": 0.5 * judge_fake(seen.fake.judgement, gan),
        }
        if seen.fake_face is not None and seen.real_face is not None:
            losses["face_real"] = 0.5 * judge_real(seen.real_face.judgement, gan)
            losses["face_fake"] = 0.5 * judge_fake(seen.fake_face.judgement, gan)
        return losses

    def _unlikeness(self, fake: Judged, real: Judged) -> Tensor:
        assert self.perceptual is not None
        return self.perceptual(fake.frames.flatten(0, 1), real.frames.flatten(0, 1))

    def importance(self, seen: Pass) -> Tensor | None:
        """(B, N, 1, H, W): how much the L1 counts at each place; None for everywhere the same."""
        subject, made = seen.batch.weights_BT1HW, seen.fake.frames
        if subject is None or not self.options.subject_weight:
            return None
        return 1 + self.options.subject_weight * _sized(subject[:, -made.shape[1] :], made)

    # The staged schedule: "coarse", then "fixed", then "joint".

    def at_progress(self, progress: float) -> None:
        stage = self._stage_at(progress)
        if stage != self._stage:
            self._enter(stage)
            for phase in self.phases:
                phase.optimizer.state.clear()  # each stage is a new Adam, as published
        left = linear_decay(progress, self.options.decay_from)
        rates = (self.options.learning_rate, self.options.d_learning_rate)
        for phase, rate in zip(self.phases, rates, strict=True):
            phase.at_rate(rate * left)

    def _stage_at(self, progress: float) -> str:
        if progress < self.options.coarse_fraction:
            return "coarse"
        fixed_until = self.options.coarse_fraction + self.options.fixed_fraction
        return "fixed" if progress < fixed_until else "joint"

    def _enter(self, stage: str) -> None:
        self._stage = stage
        body = self.painter.body
        if isinstance(body, LocalEnhancer):
            body.coarse.requires_grad_(stage != "fixed")
            for parameter in body.coarse.parameters():
                parameter.grad = None  # or Adam would go on with the last one
            if body.coarse_head is not None:
                body.coarse_only.fill_(stage == "coarse")

    def state(self) -> dict[str, Any]:
        return {"stage": self._stage}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._enter(state["stage"])


class Judges(nn.Module):
    """The discriminators: of whole frames and, with that option, of faces."""

    def __init__(self, options: Pix2PixHDOptions, channels: int) -> None:
        super().__init__()
        settings = {
            "filters": options.d_filters,
            "layers": options.d_layers,
            "scales": options.d_scales,
        }
        self.frames = build_discriminator(
            options.discriminator,
            settings,
            condition_channels=channels,
            num_frames=options.num_made,
        )
        self.face = None
        if options.face:
            face_options = MultiscalePatchOptions(filters=options.d_filters, layers=2, scales=1)
            self.face = MultiscalePatch(face_options, condition_channels=channels)


def paint(painter: Painter, options: Pix2PixHDOptions, batch: TrainBatch) -> Painted:
    """The batch's last frame, or its last two with the gradient running through both: (B, N, 3, H,
    W)."""
    windows_BNCHW = stack_windows(batch.maps_BTCHW, options.window)
    faces_BT4 = batch.regions.get("face")
    previous = None
    if options.previous:
        previous = torch.zeros_like(batch.frames_BTCHW[:, 0])
    made = []
    for n in range(-options.num_made, 0):
        faces_B4 = None if faces_BT4 is None else faces_BT4[:, n]
        recalled = batch.recalled and batch.recalled.each(lambda x, n=n: x[:, n])
        one = painter(windows_BNCHW[:, n], previous, batch.background_CHW, faces_B4, recalled)
        made.append(one)
        previous = one.frames if options.previous else None
    return Painted(
        frames=torch.stack([one.frames for one in made], dim=1),
        raw=torch.stack([one.raw for one in made], dim=1),
    )


def stack_windows(maps_BTCHW: Tensor, window: int) -> Tensor:
    """(B, T - window + 1, window * C, H, W): each frame's maps after those of the frames before."""
    count = maps_BTCHW.shape[1] - window + 1
    return torch.cat([maps_BTCHW[:, n : n + count] for n in range(window)], dim=2)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    frames: Tensor
    judgement: Judgement


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One run of the painter and the discriminators, with its graph."""

    batch: TrainBatch
    raw: Tensor
    """(B, N, 3, H, W)"""
    fake: Judged
    real: Judged
    fake_face: Judged | None
    real_face: Judged | None


def _sized(images_BTCHW: Tensor, like_BTCHW: Tensor) -> Tensor:
    """At the resolution of `like`, which is smaller while the painter is coarse."""
    if images_BTCHW.shape[-2:] == like_BTCHW.shape[-2:]:
        return images_BTCHW
    halved = halved_to(images_BTCHW.flatten(0, 1), like_BTCHW)
    return halved.unflatten(0, images_BTCHW.shape[:2])


def _face_crops(images_BNCHW: Tensor, faces_X4: Tensor, size: int) -> Tensor:
    """(B * N, 1, C, size, size)"""
    boxes_X4 = square_boxes(faces_X4, *images_BNCHW.shape[-2:], margin=FACE_MARGIN)
    return crop_boxes(images_BNCHW.flatten(0, 1), boxes_X4, size)[:, None]


def adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), learning_rate, betas=(0.5, 0.999), fused=True)


def perceptual_loss(weight: float) -> PerceptualLoss | None:
    """None for a weight of 0, and where VGG19's weights are not on this machine, which is told."""
    if not weight:
        return None
    try:
        return PerceptualLoss.pretrained(offline=True)
    except MissingWeights:
        log.warning(
            "no perceptual loss: VGG19 (%.0f MB) is not on this machine; training does without "
            "(vidsynth doctor says where to put it)",
            WEIGHTS["vgg19"].size_mb,
        )
        return None
