"""How vid2vid is trained: on sequences that it makes itself, each frame from its own last ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth.blocks import crop_boxes, halve, square_boxes, warp
from vidsynth.clip import Clip
from vidsynth.kinds import Judgement
from vidsynth.losses import (
    feature_matching,
    fool,
    judge_fake,
    judge_real,
    linear_decay,
    weighted_l1,
)
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth.subject import build_discriminator
from vidsynth_plugins.flow import FlowEstimator, Remembering, flow_estimator
from vidsynth_plugins.pix2pixhd.discriminators import MultiscalePatch, MultiscalePatchOptions
from vidsynth_plugins.pix2pixhd.objective import adam, perceptual_loss
from vidsynth_plugins.vid2vid.networks import Made, Past, Sequencer
from vidsynth_plugins.vid2vid.options import Vid2VidOptions

# B batch, T frames of the sample, N of them made, C channels, H, W pixels

SURE = 0.02
"""Squared distance over the channels in [-1, 1] up to which a real frame and the one before,
warped to it, show that the flow between them holds. As published."""
REGION_MARGIN = 1.3
"""Region crops are squares this many times the longer side of the region's box."""


class Vid2VidObjective(Objective):
    """Phase "G" trains the sequencer, phase "D" the discriminators, on one pass of all of them.

    A sample is a sequence from its beginning, so that frames are made from made frames from the
    first step on; its last frames are learnt, and the gradient runs back through `backprop` of
    them. Sequences double as training goes on: a network that has only ever met the first few
    frames of its own learns to repeat them, and freezes.
    """

    def __init__(self, options: Vid2VidOptions, sequencer: Sequencer) -> None:
        self.options = options
        self.sequencer = sequencer
        self.judges = Judges(options, sequencer.channels)
        self.perceptual = perceptual_loss(options.perceptual)
        self.phases = (
            Phase("G", sequencer, adam(sequencer, options.learning_rate)),
            Phase("D", self.judges, adam(self.judges, options.d_learning_rate)),
        )
        self._flow: FlowEstimator | None = None
        self._pass: _Pass | None = None
        self._stage = ""
        self._enter(self._stage_at(0.0))
        self.at_progress(0.0)

    @property
    def generator(self) -> nn.Module:
        return self.sequencer

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        seen, self._pass = self._pass, None  # never two at once: a pass is most of the memory
        if phase == "G":
            del seen
            self._pass = self._run(batch, step)
            return self._sequencer_losses(self._pass)
        if seen is None or seen.batch is not batch:
            seen = self._run(batch, step)
        return self._judge_losses(seen)

    def _run(self, batch: TrainBatch, step: int) -> _Pass:
        shown = self._shown(batch, step)
        made = make(self.sequencer, shown)
        learnt = min(len(made), self.options.learnt)
        frames = torch.stack([m.frame for m in made], dim=1)
        raw = torch.stack([m.raw for m in made[-learnt:]], dim=1)
        real, maps = (x[:, -len(made) :] for x in (shown.frames_BTCHW, shown.maps_BTCHW))
        return _Pass(
            batch=batch,
            shown=shown,
            frames=frames,
            raw=raw,
            real=real,
            motion=self._motion(made, real, learnt),
            verdicts=self._verdicts(shown, frames, raw, real, maps[:, -learnt:]),
        )

    def _shown(self, batch: TrainBatch, step: int) -> TrainBatch:
        """The batch from some frame on, at the resolution that the sequencer works at.

        Where what is learnt lies in a sequence is drawn at random, so that beginnings are learnt
        as well as what comes of one's own mistakes; from the step, so that several processes draw
        the same and have the same losses.
        """
        spare = max(0, batch.num_frames - self._given - self.options.learnt)
        rng = torch.Generator().manual_seed(step)
        shown = _from(batch, int(torch.randint(spare + 1, (), generator=rng)))
        return _halved(shown) if self.sequencer.is_coarse else shown

    def _verdicts(
        self, shown: TrainBatch, made: Tensor, raw: Tensor, real: Tensor, maps: Tensor
    ) -> dict[str, _Verdict]:
        o, judges, learnt = self.options, self.judges, maps.shape[1]
        last, true_last = made[:, -learnt:], real[:, -learnt:]
        of_real = judges.frames(true_last, maps)
        found = {"": _Verdict(judges.frames(last, maps), of_real, 1.0)}
        if o.raw and o.judge_raw:
            found["raw_"] = _Verdict(judges.frames(raw, maps), of_real, o.raw)
        for scale, judge in enumerate(judges.video):
            rows = _rows(made.shape[1], learnt, o.d_frames, o.d_frames**scale)
            if rows:
                index = torch.tensor(rows).flatten()
                flow = self._flow_along(real, rows) / o.flow_px
                fake, true = (judge(x[:, index], flow) for x in (made, real))
                found[f"video{scale}_"] = _Verdict(fake, true, o.video_weight)
        for name in o.regions:
            boxes = shown.regions.get(name)
            if boxes is None or judges.region is None:
                continue
            boxes_X4 = boxes[:, -learnt:].flatten(0, 1)
            crops = [_crops(x, boxes_X4, o.region_size) for x in (last, true_last, maps)]
            fake, true = (judges.region(x, crops[2]) for x in crops[:2])
            found[f"{name}_"] = _Verdict(fake, true, o.region_weight)
        return found

    def _sequencer_losses(self, seen: _Pass) -> dict[str, Tensor]:
        o, learnt = self.options, seen.raw.shape[1]
        losses: dict[str, Tensor] = {}
        for name, verdict in seen.verdicts.items():
            losses[f"{name}gan"] = verdict.weight * o.gan_weight * fool(verdict.fake, o.gan)
            losses[f"{name}feature_matching"] = (
                verdict.weight * o.feature_matching * feature_matching(verdict.fake, verdict.real)
            )
        real, importance = seen.real[:, -learnt:], self._importance(seen, learnt)
        for name, frames, weight in (
            ("", seen.frames[:, -learnt:], 1.0),
            ("raw_", seen.raw, o.raw),
        ):
            if weight and o.l1:
                losses[f"{name}l1"] = weight * o.l1 * weighted_l1(frames, real, importance)
            if weight and self.perceptual is not None and (o.judge_raw or not name):
                self.perceptual.to(frames.device)
                unlike = self.perceptual(frames.flatten(0, 1), real.flatten(0, 1))
                losses[f"{name}perceptual"] = weight * o.perceptual * unlike
        return losses | self._motion_losses(seen)

    def _motion_losses(self, seen: _Pass) -> dict[str, Tensor]:
        """What the flow, the share of paint and the made frames owe to the real frames' flow."""
        o, motion = self.options, seen.motion
        if motion is None:
            return {}
        count = motion.flow.shape[1]
        importance = self._importance(seen, count)
        weight = motion.sure if importance is None else motion.sure * importance

        def now(x_BNCHW: Tensor) -> Tensor:
            return x_BNCHW[:, -count:]

        def carried(x_BNCHW: Tensor, flow_BP2HW: Tensor) -> Tensor:
            before = x_BNCHW[:, -count - 1 : -1].flatten(0, 1)
            return warp(before, flow_BP2HW.flatten(0, 1)).view_as(now(x_BNCHW))

        same = carried(seen.real, motion.flow)
        steady = carried(seen.frames, motion.true).detach()
        terms = {
            "flow": (o.flow_weight, weighted_l1(motion.flow, motion.true, weight)),
            "flow_warp": (o.warp_weight, weighted_l1(same, now(seen.real), weight)),
            "steady": (o.warp_weight, weighted_l1(now(seen.frames), steady, weight)),
            "carry": (o.carry_weight, (motion.share * motion.sure).mean()),
        }
        return {name: weight * loss for name, (weight, loss) in terms.items() if weight}

    def _judge_losses(self, seen: _Pass) -> dict[str, Tensor]:
        gan = self.options.gan
        losses: dict[str, Tensor] = {}
        for name, verdict in seen.verdicts.items():
            losses[f"{name}real"] = 0.5 * verdict.weight * judge_real(verdict.real, gan)
            losses[f"{name}fake"] = 0.5 * verdict.weight * judge_fake(verdict.fake, gan)
        return losses

    def _importance(self, seen: _Pass, count: int) -> Tensor | None:
        """Of the last `count` frames' pixels: (B, count, 1, H, W)."""
        subject = seen.shown.weights_BT1HW
        if subject is None or not self.options.subject_weight:
            return None
        return 1 + self.options.subject_weight * subject[:, -count:]

    # The flow of the real frames

    def _motion(self, made: Sequence[Made], real: Tensor, learnt: int) -> _Motion | None:
        """What is learnt of motion; None where no frame came before."""
        moving = [m for m in made[max(1, len(made) - learnt) :] if m.flow is not None]
        if not moving:
            return None
        before, now = real[:, -len(moving) - 1 : -1], real[:, -len(moving) :]
        true = self._real_flow(before, now)
        apart = now - warp(before.flatten(0, 1), true.flatten(0, 1)).view_as(now)
        return _Motion(
            flow=torch.stack([m.flow for m in moving], 1),  # pyright: ignore[reportArgumentType]
            share=torch.stack([m.share for m in moving], 1),  # pyright: ignore[reportArgumentType]
            true=true,
            sure=(apart.square().sum(dim=2, keepdim=True) < SURE).to(now),
        )

    def _real_flow(self, before_BNCHW: Tensor, now_BNCHW: Tensor) -> Tensor:
        """(B, N, 2, H, W) pixels: from each frame of `now` to that of `before`."""
        if self._flow is None:
            self._flow = Remembering(_estimator(self.options, now_BNCHW.device))
        pairs = zip(
            _bytes(now_BNCHW.flatten(0, 1)), _bytes(before_BNCHW.flatten(0, 1)), strict=True
        )
        flows = [torch.from_numpy(self._flow.flow_between(now, before)) for now, before in pairs]
        flow = torch.stack(flows).permute(0, 3, 1, 2).to(now_BNCHW)
        return flow.unflatten(0, now_BNCHW.shape[:2])

    def _flow_along(self, real: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
        """(B, rows * d_frames, 2, H, W): for each frame in the rows the flow to the one before it
        there; zero for the first of a row."""
        found = []
        for row in rows:
            index = torch.tensor(row)
            found.append(torch.zeros_like(real[:, :1, :2]))
            found.append(self._real_flow(real[:, index[:-1]], real[:, index[1:]]))
        return torch.cat(found, dim=1)

    # The schedule: longer sequences, lower rates; "coarse", then "fixed", then "joint".

    def at_progress(self, progress: float) -> None:
        o, stage = self.options, self._stage_at(progress)
        if stage != self._stage:
            self._enter(stage)
            for phase in self.phases:
                phase.optimizer.state.clear()  # each stage is a new Adam
        self.num_frames = self._given + length_at(progress, o.sequence, o.longest)
        left = linear_decay(progress, o.decay_from)
        for phase, rate in zip(self.phases, (o.learning_rate, o.d_learning_rate), strict=True):
            phase.at_rate(rate * left)

    @property
    def _given(self) -> int:
        """Frames that open a sequence and are not made."""
        return self.options.past if self.options.start == "given" else 0

    def _stage_at(self, progress: float) -> str:
        if progress < self.options.coarse_fraction:
            return "coarse"
        fixed_until = self.options.coarse_fraction + self.options.fixed_fraction
        return "fixed" if progress < fixed_until else "joint"

    def _enter(self, stage: str) -> None:
        self._stage = stage
        if self.options.coarse_fraction:
            self.sequencer.coarse_only.fill_(stage == "coarse")
        self.sequencer.coarse_is_fixed = stage == "fixed"
        for level in self.sequencer.levels[:-1]:
            level.requires_grad_(stage != "fixed")
            for parameter in level.parameters():
                parameter.grad = None  # or Adam would go on with the last one

    def state(self) -> dict[str, Any]:
        return {"stage": self._stage}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._enter(state["stage"])


def length_at(progress: float, first: int, longest: int) -> int:
    """Frames of a sequence: `first`, doubling in equal shares of the training up to `longest`."""
    stages = 1 + ceil(log2(longest / first))
    return min(longest, first * 2 ** min(stages - 1, int(progress * stages)))


def make(sequencer: Sequencer, batch: TrainBatch) -> list[Made]:
    """The batch's sequences from their beginning; given frames are not among what is made.

    Only the last `learnt` frames have gradients.
    """
    o = sequencer.options
    made: list[Made] = []
    past: Past | None = None
    for n in range(batch.num_frames):
        if past is not None and n % o.backprop == 0:
            past = past.detached()
        given = batch.frames_BTCHW[:, n] if o.start == "given" and n < o.past else None
        learning = n >= batch.num_frames - o.learnt
        with torch.set_grad_enabled(learning and torch.is_grad_enabled()):
            found = sequencer(batch.maps_BTCHW[:, n], past, batch.background_CHW, given)
        past = found.past
        if given is None:
            made.append(found)
    return made


class Judges(nn.Module):
    """The discriminators: of frames, of frames in a row at each temporal scale, of regions."""

    def __init__(self, options: Vid2VidOptions, channels: int) -> None:
        super().__init__()
        o = options
        ours = {"filters": o.d_filters, "layers": o.d_layers, "scales": o.d_scales}
        self.frames = build_discriminator(
            o.discriminator, ours, condition_channels=channels, num_frames=1
        )
        self.video = nn.ModuleList(
            build_discriminator(
                o.video_discriminator, ours, condition_channels=2, num_frames=o.d_frames
            )
            for _ in range(o.temporal_scales)
        )
        self.region = None
        if o.regions:
            small = MultiscalePatchOptions(filters=o.d_filters, layers=2, scales=1)
            self.region = MultiscalePatch(small, condition_channels=channels)


@dataclass(frozen=True, slots=True, eq=False)
class _Verdict:
    fake: Judgement
    real: Judgement
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """Of the last P of the frames that are learnt: those that came after another."""

    flow: Tensor
    """(B, P, 2, H, W) pixels: by the sequencer."""
    share: Tensor
    """(B, P, 1, H, W): how much of each frame is paint."""
    true: Tensor
    """(B, P, 2, H, W) pixels: of the real frames."""
    sure: Tensor
    """(B, P, 1, H, W), 0 or 1: where the real frames' flow holds."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One run of the sequencer and the discriminators, with its graph."""

    batch: TrainBatch
    shown: TrainBatch
    """The part of it that was shown to the sequencer, at the resolution it works at."""
    frames: Tensor
    """(B, N, 3, H, W): all that were made."""
    raw: Tensor
    """(B, learnt, 3, H, W)"""
    real: Tensor
    """(B, N, 3, H, W)"""
    motion: _Motion | None
    verdicts: Mapping[str, _Verdict]


def _rows(num_frames: int, learnt: int, length: int, stride: int) -> list[list[int]]:
    """Indices of rows of `length` frames, `stride` apart: one ends at the last frame, one `length`
    frames before it, and so on, as long as they end in what is learnt."""
    span = stride * (length - 1)
    lasts = range(num_frames - 1, max(span, num_frames - learnt) - 1, -length)
    return [list(range(last - span, last + 1, stride)) for last in reversed(lasts)]


def _from(batch: TrainBatch, start: int) -> TrainBatch:
    """Without its first frames."""
    weights = batch.weights_BT1HW
    return replace(
        batch,
        frames_BTCHW=batch.frames_BTCHW[:, start:],
        maps_BTCHW=batch.maps_BTCHW[:, start:],
        weights_BT1HW=None if weights is None else weights[:, start:],
        regions={name: boxes[:, start:] for name, boxes in batch.regions.items()},
    )


def _crops(images_BNCHW: Tensor, boxes_X4: Tensor, size: int) -> Tensor:
    """(B * N, 1, C, size, size); of a region that is not seen, the middle of the picture."""
    height, width = images_BNCHW.shape[3:]
    squares_X4 = square_boxes(boxes_X4, height, width, margin=REGION_MARGIN)
    return crop_boxes(images_BNCHW.flatten(0, 1), squares_X4, size)[:, None]


def _halved(batch: TrainBatch) -> TrainBatch:
    """At half the resolution, as the levels below the finest see it."""

    def half(x: Tensor) -> Tensor:
        return (
            halve(x.flatten(0, -4)).unflatten(0, x.shape[:-3]) if x.ndim > 3 else halve(x[None])[0]
        )

    plate, weights = batch.background_CHW, batch.weights_BT1HW
    return replace(
        batch,
        frames_BTCHW=half(batch.frames_BTCHW),
        maps_BTCHW=half(batch.maps_BTCHW),
        background_CHW=None if plate is None else half(plate),
        weights_BT1HW=None if weights is None else half(weights),
        regions={name: boxes / 2 for name, boxes in batch.regions.items()},
    )


def _bytes(frames_X3HW: Tensor) -> Tensor:
    """Frames in [-1, 1] as uint8 on the CPU."""
    pts = torch.arange(len(frames_X3HW), dtype=torch.float64)
    return Clip.from_float(frames_X3HW.detach(), pts).frames.cpu()


def _estimator(options: Vid2VidOptions, device: torch.device) -> FlowEstimator:
    """RAFT on a CPU would take longer than all the rest of a step."""
    choice = options.reference_flow
    if choice == "auto" and device.type == "cpu":
        choice = "dis"
    return flow_estimator(choice, device=str(device))
