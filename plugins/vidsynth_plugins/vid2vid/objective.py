"""How vid2vid is trained: on sequences that it makes itself, each frame from its own last ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, log2
from typing import Any

import torch
from torch import Tensor, nn

from vidsynth import registry
from vidsynth.blocks import crop_boxes, halve, square_boxes, warp
from vidsynth.clip import Clip
from vidsynth.kinds import Discriminator, Judgement, Objective, Phase, TrainBatch
from vidsynth.losses import feature_matching, fool, judge_fake, judge_real, weighted_l1
from vidsynth_plugins.flow import FlowEstimator, Remembering, flow_estimator
from vidsynth_plugins.pix2pixhd.networks import MultiscalePatch, MultiscalePatchOptions
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
    first step on. Its length doubles as training goes on. The gradient runs back through `backprop`
    frames.
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
            self._pass = self._run(batch)
            return self._sequencer_losses(self._pass)
        if seen is None or seen.batch is not batch:
            seen = self._run(batch)
        return self._judge_losses(seen)

    def _run(self, batch: TrainBatch) -> _Pass:
        shown = _halved(batch) if self.sequencer.is_coarse else batch
        made = make(self.sequencer, shown)
        frames, raw = (torch.stack([getattr(m, n) for m in made], 1) for n in ("frame", "raw"))
        num_made = frames.shape[1]
        real, maps = (x[:, -num_made:] for x in (shown.frames_BTCHW, shown.maps_BTCHW))
        flow, sure = self._real_flow(real[:, :-1], real[:, 1:])
        verdicts = self._verdicts(shown, frames, raw, real, maps, flow)
        return _Pass(batch, shown, made, frames, raw, real, flow, sure, verdicts)

    def _verdicts(
        self,
        shown: TrainBatch,
        made: Tensor,
        raw: Tensor,
        real: Tensor,
        maps: Tensor,
        flow: Tensor,
    ) -> dict[str, _Verdict]:
        o, judges = self.options, self.judges
        of_real = judges.frames(real, maps)
        found = {"": _Verdict(judges.frames(made, maps), of_real, 1.0)}
        if o.raw and o.judge_raw:
            found["raw_"] = _Verdict(judges.frames(raw, maps), of_real, o.raw)
        for scale, judge in enumerate(judges.video):
            rows = _rows(made.shape[1], o.d_frames, o.d_frames**scale)
            if rows:
                index = torch.tensor(rows).flatten()
                theirs = self._flow_at(flow, real, rows) / o.flow_px
                fake, true = (judge(x[:, index], theirs) for x in (made, real))
                found[f"video{scale}_"] = _Verdict(fake, true, o.video_weight)
        for name in o.regions:
            boxes = shown.regions.get(name)
            if boxes is None or judges.region is None:
                continue
            boxes_X4 = boxes[:, -made.shape[1] :].flatten(0, 1)
            there = boxes_X4[:, 2] > boxes_X4[:, 0]
            if there.any():
                crops = [_crops(x, boxes_X4, there, o.region_size) for x in (made, real, maps)]
                fake, true = (judges.region(x, crops[2]) for x in crops[:2])
                found[f"{name}_"] = _Verdict(fake, true, o.region_weight)
        return found

    def _sequencer_losses(self, seen: _Pass) -> dict[str, Tensor]:
        o = self.options
        losses: dict[str, Tensor] = {}
        for name, verdict in seen.verdicts.items():
            losses[f"{name}gan"] = verdict.weight * o.gan_weight * fool(verdict.fake, o.gan)
            losses[f"{name}feature_matching"] = (
                verdict.weight * o.feature_matching * feature_matching(verdict.fake, verdict.real)
            )
        importance = self._importance(seen)
        for name, frames, weight in (("", seen.frames, 1.0), ("raw_", seen.raw, o.raw)):
            if weight and o.l1:
                losses[f"{name}l1"] = weight * o.l1 * weighted_l1(frames, seen.real, importance)
            if weight and self.perceptual is not None and (o.judge_raw or not name):
                self.perceptual.to(frames.device)
                unlike = self.perceptual(frames.flatten(0, 1), seen.real.flatten(0, 1))
                losses[f"{name}perceptual"] = weight * o.perceptual * unlike
        return losses | self._motion_losses(seen, importance)

    def _motion_losses(self, seen: _Pass, importance: Tensor | None) -> dict[str, Tensor]:
        """What the flow, the share of paint and the made frames owe to the real frames' flow."""
        o, moved = self.options, [n for n, made in enumerate(seen.made) if made.flow is not None]
        moved = [n for n in moved if n > 0]  # before the first frame nothing is known
        if not moved:
            return {}
        now, before = torch.tensor(moved), torch.tensor(moved) - 1

        def flat(x_BNCHW: Tensor) -> Tensor:
            return x_BNCHW.flatten(0, 1)

        sure = flat(seen.sure[:, before])
        weight = sure if importance is None else sure * flat(importance[:, now])
        theirs = flat(seen.flow[:, before])
        ours = flat(torch.stack([seen.made[n].flow for n in moved], 1))  # pyright: ignore
        share = flat(torch.stack([seen.made[n].share for n in moved], 1))  # pyright: ignore
        real_before, real_now = flat(seen.real[:, before]), flat(seen.real[:, now])
        made_before, made_now = flat(seen.frames[:, before]), flat(seen.frames[:, now])
        carried = warp(made_before, theirs).detach()
        terms = {
            "flow": (o.flow_weight, weighted_l1(ours, theirs, weight)),
            "flow_warp": (o.warp_weight, weighted_l1(warp(real_before, ours), real_now, weight)),
            "steady": (o.warp_weight, weighted_l1(made_now, carried, weight)),
            "carry": (o.carry_weight, (share * sure).mean()),
        }
        return {name: weight * loss for name, (weight, loss) in terms.items() if weight}

    def _judge_losses(self, seen: _Pass) -> dict[str, Tensor]:
        gan = self.options.gan
        losses: dict[str, Tensor] = {}
        for name, verdict in seen.verdicts.items():
            losses[f"{name}real"] = 0.5 * verdict.weight * judge_real(verdict.real, gan)
            losses[f"{name}fake"] = 0.5 * verdict.weight * judge_fake(verdict.fake, gan)
        return losses

    def _importance(self, seen: _Pass) -> Tensor | None:
        subject = seen.shown.weights_BT1HW
        if subject is None or not self.options.subject_weight:
            return None
        return 1 + self.options.subject_weight * subject[:, -seen.frames.shape[1] :]

    # The flow of the real frames

    def _real_flow(self, before_BNCHW: Tensor, now_BNCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Flow (B, N, 2, H, W) in pixels from each frame of `now` to that of `before`, and where
        it holds (B, N, 1, H, W), 0 or 1."""
        if self._flow is None:
            self._flow = Remembering(_estimator(self.options, now_BNCHW.device))
        shape = now_BNCHW.shape[:2]
        before, now = before_BNCHW.flatten(0, 1), now_BNCHW.flatten(0, 1)
        pairs = zip(_bytes(now), _bytes(before), strict=True)
        flows = [torch.from_numpy(self._flow.flow_between(a, b)) for a, b in pairs]
        if not flows:
            empty = now.new_zeros(*shape, 3, *now.shape[2:])
            return empty[:, :, :2], empty[:, :, 2:]
        flow = torch.stack(flows).permute(0, 3, 1, 2).to(now)
        apart = (now - warp(before, flow)).square().sum(dim=1, keepdim=True)
        return flow.unflatten(0, shape), (apart < SURE).to(now).unflatten(0, shape)

    def _flow_at(self, flow: Tensor, real: Tensor, rows: list[list[int]]) -> Tensor:
        """(B, rows * d_frames, 2, H, W): for each frame in the rows the flow to the one before it
        there; zero for the first of a row."""
        found = []
        for row in rows:
            found.append(torch.zeros_like(flow[:, :1]))
            if row[1] - row[0] == 1:
                found.append(flow[:, row[0] : row[-1]])
            else:
                index = torch.tensor(row)
                found.append(self._real_flow(real[:, index[:-1]], real[:, index[1:]])[0])
        return torch.cat(found, dim=1)

    # The schedule: longer sequences, lower rates; "coarse", then "fixed", then "joint".

    def at_progress(self, progress: float) -> None:
        o, stage = self.options, self._stage_at(progress)
        if stage != self._stage:
            self._enter(stage)
            for phase in self.phases:
                phase.optimizer.state.clear()  # each stage is a new Adam
        given = o.past if o.start != "none" else 0
        self.num_frames = given + length_at(progress, o.sequence, o.longest)
        start = o.decay_from
        factor = 1.0 if progress <= start else max(0.0, (1 - progress) / (1 - start))
        for phase, rate in zip(self.phases, (o.learning_rate, o.d_learning_rate), strict=True):
            for group in phase.optimizer.param_groups:
                group["lr"] = rate * factor

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
    """The batch's sequences from their beginning; given frames are not among what is made."""
    o = sequencer.options
    made: list[Made] = []
    past: Past | None = None
    for n in range(batch.num_frames):
        if past is not None and n % o.backprop == 0:
            past = past.detached()
        given = batch.frames_BTCHW[:, n] if o.start == "given" and n < o.past else None
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
        self.frames = _discriminator(o.discriminator, ours, channels, 1)
        self.video = nn.ModuleList(
            _discriminator(o.video_discriminator, ours, 2, o.d_frames)
            for _ in range(o.temporal_scales)
        )
        self.region = None
        if o.regions:
            small = MultiscalePatchOptions(filters=o.d_filters, layers=2, scales=1)
            self.region = MultiscalePatch(small, condition_channels=channels)


def _discriminator(
    name: str, values: Mapping[str, int], channels: int, num_frames: int
) -> Discriminator:
    plugin = registry.load("discriminator", name)
    known = {f.name for f in fields(plugin.Options)}
    options = plugin.Options(**{n: v for n, v in values.items() if n in known})
    return plugin(options, condition_channels=channels, num_frames=num_frames)


@dataclass(frozen=True, slots=True, eq=False)
class _Verdict:
    fake: Judgement
    real: Judgement
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One run of the sequencer and the discriminators, with its graph."""

    batch: TrainBatch
    shown: TrainBatch
    """The same, at the resolution that the sequencer works at."""
    made: Sequence[Made]
    frames: Tensor
    raw: Tensor
    real: Tensor
    flow: Tensor
    """(B, N - 1, 2, H, W)"""
    sure: Tensor
    """(B, N - 1, 1, H, W)"""
    verdicts: Mapping[str, _Verdict]


def _rows(num_frames: int, length: int, stride: int) -> list[list[int]]:
    """Indices of rows of `length` frames, `stride` apart, that end at the last frame, at `length`
    frames before it, and so on."""
    span = stride * (length - 1)
    lasts = range(num_frames - 1, span - 1, -length)
    return [list(range(last - span, last + 1, stride)) for last in reversed(lasts)]


def _crops(images_BNCHW: Tensor, boxes_X4: Tensor, there_X: Tensor, size: int) -> Tensor:
    """(there, 1, C, size, size)"""
    images_XCHW = images_BNCHW.flatten(0, 1)[there_X]
    height, width = images_XCHW.shape[2:]
    boxes_X4 = square_boxes(boxes_X4[there_X], height, width, margin=REGION_MARGIN)
    return crop_boxes(images_XCHW, boxes_X4, size)[:, None]


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
