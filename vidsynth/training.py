"""train(): the one loop. Phases, EMA, bf16, several processes, exact resume, roll-back.

Nothing random survives a step: sampling and PyTorch's generators are derived anew from
(seed, step, rank), after Karras et al.'s EDM2 training loop, so a resumed run needs no RNG state
to go on bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import watching
from vidsynth.checkpoint import (
    Budget,
    Run,
    has_state,
    is_finite,
    load_state,
    modules_of,
    save_state,
)
from vidsynth.devices import Precision, autocast
from vidsynth.errors import Interrupted, TrainingFailed
from vidsynth.objectives import Objective, Recalled, Samples, TrainBatch
from vidsynth.processes import Processes
from vidsynth.report import Reporter
from vidsynth.scores import Judged

# B batch, T frames, H, W pixels

FIRST_SCORE_SECONDS = 60.0
MAX_ROLLBACKS = 4


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How training runs, whatever the method.

    Attributes:
        minutes: how long to train when neither a budget nor a number of steps is given.
        batch: samples per step, over all processes together.
        ema: decay of the exponential moving average of the generator's weights, per step; the
            average warms up, so that short runs are not dragged down by the first steps.
        warmup_steps: steps over which the learning rates rise from 0 to those of the schedule.
        checkpoint_seconds: seconds between checkpoints.
        precision: "auto" takes bfloat16 where the hardware gains from it; "fp32" or "bf16".
    """

    minutes: float = 3.0
    batch: int = 2
    ema: float = 0.999
    warmup_steps: int = 0
    checkpoint_seconds: float = 60.0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("batch must be at least 1")
        if self.warmup_steps < 0:
            raise ValueError("warmup_steps cannot be negative")
        if not 0 <= self.ema < 1:
            raise ValueError("ema must be in [0, 1)")


def train(
    objective: Objective,
    footage: Samples,
    folder: Path,
    *,
    budget: Budget,
    options: TrainOptions,
    score: Callable[[Mapping[str, Tensor], Run], Judged],
    keep: Callable[[Mapping[str, Tensor], Run], None],
    device: torch.device,
    seed: int = 0,
    processes: Processes | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Train until the budget is used, going on from `folder`'s checkpoint when there is one.

    Args:
        objective: phases and losses; moved to `device`.
        footage: the target, or clips.
        folder: `training/` of the subject: checkpoint, TensorBoard.
        budget: total, earlier sessions included.
        options: batch, EMA, checkpoints.
        score: judges EMA weights, on held-out frames where there are some.
        keep: stores EMA weights where rendering finds them.
        device: where to train; bfloat16 is used where it is a gain.
        seed: with the same seed, device and versions, the result is the same bit for bit.
        processes: the other processes of an `accelerate launch`.
        reporter: told of progress.

    Returns:
        Where training stands; `seconds` is wall-clock time in this loop, scoring included.

    Raises:
        TrainingFailed: losses stayed non-finite, or generator or discriminator collapsed, after
            several roll-backs; the last good checkpoint is kept.
        Interrupted: Ctrl-C or SIGTERM; the checkpoint was written.
        BadSubject: the checkpoint is damaged or does not fit the options.
    """
    processes = processes or Processes()
    reporter = reporter or Reporter()
    for module in modules_of(objective).values():
        module.to(device).train()
        processes.share(module)
    footage.starts(objective.num_frames)  # raises where there is not even one
    longest = footage.longest_run()
    run = Run()
    ema = {n: v.detach().clone() for n, v in objective.generator.state_dict().items()}

    def load() -> Run:
        return load_state(folder, objective, ema, budget, device, reporter=reporter)

    if has_state(folder):
        run = load()
        reporter.say(f"going on from step {run.step} ({run.seconds:.0f} s of training so far)")
    elif processes.is_main:
        save_state(folder, objective, ema, run)
    board = _Board(folder) if processes.is_main else None
    saved, batch_size = run, options.batch
    total, done_before = (budget.steps, run.step) if budget.steps else (budget.seconds, run.seconds)
    with (
        reporter.step("training", total, _unit(budget), done=done_before) as bar,
        _interruption() as interrupted,
    ):
        while processes.agree(budget.allows(run) and not interrupted):
            began = perf_counter()

            # Everything random in this step follows from these numbers.
            seed_everything(seed, run.step, processes.rank, run.rollbacks)
            objective.at_progress(processes.agree(budget.progress(run)))
            num_frames = min(objective.num_frames, longest)
            starts = footage.starts(num_frames)
            chosen = sample_starts(starts, run, batch_size, seed, processes)
            batch = footage.batch(chosen, num_frames, device, num_recalled=objective.num_recalled)

            # One optimiser step per phase.
            pace = 0.5**run.rollbacks * min(1.0, (run.step + 1) / (options.warmup_steps + 1))
            try:
                losses = train_step(
                    objective, batch, run, processes, precision=options.precision, pace=pace
                )
            except torch.OutOfMemoryError as error:
                if batch_size == 1 or processes.count > 1:
                    raise _no_memory(run, error) from error
                batch_size //= 2
                run = saved = load()  # half a step may have been done
                reporter.warn(
                    f"{device} has not the memory for so many samples a step: going on from step "
                    f"{run.step} with {batch_size}"
                )
                continue
            generator = objective.phases[0].name
            bad = [name for name, value in losses.items() if not math.isfinite(value)]
            watch = run.watch if bad else watching.watched(run.watch, losses, generator)
            due = run.seconds - saved.seconds > options.checkpoint_seconds
            reason = watching.collapse(watch, generator)
            if bad:
                reason = f"losses ({', '.join(bad)}) were not finite"
            elif (due or run.step % 50 == 49) and not is_finite(objective):
                reason = "weights were not finite"
            if reason:
                run = saved = _rolled_back(load, run, reason, keep, ema, reporter)
                continue
            _update_ema(ema, objective.generator.state_dict(), options.ema, run.step)

            # Tell, score, save.
            before = run
            seconds = run.seconds + perf_counter() - began
            run = replace(run, step=run.step + 1, seconds=seconds, watch=watch)
            bar.update(run.step if budget.steps else run.seconds, **_facts(losses))
            if run.step == 5:
                _tell_pace(run, budget, reporter)
            done = not budget.allows(run)
            due = due and not watching.is_suspicious(watch)
            if processes.is_main and (done or _score_is_due(before.seconds, run.seconds)):
                run, found = _scored(score, ema, run, began=perf_counter())
                due = True
                reporter.say(f"{found.of} at {_clock(run.seconds)}: {found}")
            if board and (run.step % 10 == 0 or done):
                board.write(losses, run)
            if processes.is_main and due:
                # In this order: who finds weights of so many steps finds their checkpoint too.
                save_state(folder, objective, ema, run)
                keep(ema, run)
                saved = run
    if processes.is_main:
        if saved.step != run.step:
            save_state(folder, objective, ema, run)
        keep(ema, run)
    processes.wait()
    if interrupted:
        raise Interrupted(
            f"stopped at step {run.step} after {_clock(run.seconds)} of training; everything is "
            "kept, and the same command goes on from here"
        )
    return run


def train_step(
    objective: Objective,
    batch: TrainBatch,
    run: Run,
    processes: Processes,
    *,
    precision: Precision = "fp32",
    pace: float = 1.0,
) -> dict[str, float]:
    """One step of every phase that is due, on one batch. Returns the losses' values.

    `pace` scales the learning rates that `at_progress` has just set.

    Each phase back-propagates into its own module only, so that phases may share one graph: the
    discriminator's judgement of a fake serves both sides, and no gradient is computed that the
    phase would throw away.
    """
    due = [phase for phase in objective.phases if run.step % phase.every == 0]
    values: dict[str, Tensor] = {}
    for phase in due:
        with autocast(batch.frames_BTCHW.device, precision):
            losses = objective.losses(phase.name, batch, run.step)
        values |= {f"{phase.name}/{name}": loss.detach() for name, loss in losses.items()}
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        parameters = [p for p in phase.module.parameters() if p.requires_grad]
        phase.optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=parameters, retain_graph=phase is not due[-1])
        processes.average([p.grad for p in parameters if p.grad is not None])
        for group in phase.optimizer.param_groups:
            group["lr"] *= pace
        # A non-finite loss must not reach the weights; the loop rolls back when it sees it.
        if bool(torch.isfinite(total)) or processes.count > 1:
            phase.optimizer.step()
    names, stacked = list(values), torch.stack([v.float() for v in values.values()])
    return dict(zip(names, processes.average([stacked])[0].tolist(), strict=True))


def activation_bytes(objective: Objective, batch: TrainBatch) -> int:
    """Memory that one step on `batch` keeps for back-propagation, from a trial at small size."""
    height, width = batch.frames_BTCHW.shape[3:]
    scale = min(1.0, 128 / min(height, width))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective.losses(objective.phases[0].name, _resized(batch, scale), 0)
    return round(sum(kept.values()) / scale**2)


def _resized(batch: TrainBatch, scale: float) -> TrainBatch:
    def small(x: Tensor) -> Tensor:
        flat = x.reshape(-1, *x.shape[-3:])
        flat = F.interpolate(flat, scale_factor=scale, mode="area")
        return flat.view(*x.shape[:-2], *flat.shape[-2:])

    recalled = batch.recalled
    if recalled is not None:
        recalled = recalled.each(small)
        recalled = Recalled(recalled.images, recalled.flow * scale, recalled.valid)
    return TrainBatch(
        frames_BTCHW=small(batch.frames_BTCHW),
        maps_BTCHW=small(batch.maps_BTCHW),
        background_CHW=None if batch.background_CHW is None else small(batch.background_CHW),
        weights_BT1HW=None if batch.weights_BT1HW is None else small(batch.weights_BT1HW),
        recalled=recalled,
        regions={name: boxes * scale for name, boxes in batch.regions.items()},
    )


def seed_everything(*numbers: int) -> None:
    """Seed PyTorch's generators from several small numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 63)
    torch.manual_seed(mixed)


def sample_starts(starts: Tensor, run: Run, batch: int, seed: int, processes: Processes) -> Tensor:
    """This process's share of the step's samples: epochs without replacement, no state kept."""
    positions = torch.arange(run.step * batch, (run.step + 1) * batch)
    chosen = []
    for position in positions.tolist():
        epoch, index = divmod(position, len(starts))
        rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch * 101 + run.rollbacks)
        chosen.append(starts[torch.randperm(len(starts), generator=rng)[index]])
    return torch.stack(chosen[processes.rank :: processes.count])


def _update_ema(
    ema: dict[str, Tensor], weights: Mapping[str, Tensor], decay: float, step: int
) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    floating = [n for n in weights if weights[n].is_floating_point()]
    for name in floating:
        ema[name].lerp_(weights[name], 1 - decay)
    for name in weights.keys() - set(floating):
        ema[name].copy_(weights[name])


def _no_memory(run: Run, error: Exception) -> TrainingFailed:
    reason = str(error).split(".")[0]
    return TrainingFailed(
        f"out of memory at step {run.step} ({reason}); the last checkpoint is kept: lower --size "
        "or generator.filters with -s, or train on another --device"
    )


def _rolled_back(
    load: Callable[[], Run],
    run: Run,
    reason: str,
    keep: Callable[[Mapping[str, Tensor], Run], None],
    ema: Mapping[str, Tensor],
    reporter: Reporter,
) -> Run:
    """Back at the last checkpoint, at half the learning rate; or the end, with that one."""
    good = load()
    if run.rollbacks >= MAX_ROLLBACKS:
        keep(ema, good)
        raise TrainingFailed(
            f"{reason} at step {run.step}, again after {run.rollbacks} roll-backs; the last good "
            f"checkpoint, of step {good.step}, is kept: lower generator.learning_rate with -s"
        )
    reporter.warn(
        f"{reason} at step {run.step}: rolled back to step {good.step}, learning rate halved"
    )
    return replace(good, rollbacks=run.rollbacks + 1)


def _scored(
    score: Callable[[Mapping[str, Tensor], Run], Judged],
    ema: Mapping[str, Tensor],
    run: Run,
    *,
    began: float,
) -> tuple[Run, Judged]:
    found = score(ema, run)
    row = {"seconds": round(run.seconds, 1), "step": run.step, **found.row()}
    seconds = run.seconds + perf_counter() - began
    return replace(run, scores=(*run.scores, row), seconds=seconds), found


def _score_is_due(before: float, now: float) -> bool:
    """At 1, 2, 4, 8... minutes of training."""
    if now < FIRST_SCORE_SECONDS:
        return False
    last = math.floor(math.log2(now / FIRST_SCORE_SECONDS))
    return before < FIRST_SCORE_SECONDS * 2**last


def _tell_pace(run: Run, budget: Budget, reporter: Reporter) -> None:
    pace = run.seconds / run.step
    if budget.steps is not None:
        reporter.say(f"{pace:.2f} s a step: about {_clock(pace * budget.steps)} in all")
    elif budget.seconds is not None:
        reporter.say(f"{pace:.2f} s a step: about {round(budget.seconds / pace)} steps in all")


def _facts(losses: Mapping[str, float]) -> dict[str, str]:
    return {name.replace("/", "_"): f"{value:.3g}" for name, value in list(losses.items())[:4]}


def _unit(budget: Budget) -> str:
    return "steps" if budget.steps else "seconds"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class _Board:
    """Losses and scores for TensorBoard, opened on first use."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._scored = 0

    def write(self, losses: Mapping[str, float], run: Run) -> None:
        for name, value in losses.items():
            self._writer.add_scalar(name, value, run.step)
        for row in run.scores[self._scored :]:
            for name in row.keys() - {"seconds", "step"}:
                self._writer.add_scalar(f"held-out/{name}", row[name], int(row["step"]))
        self._scored = len(run.scores)
        self._writer.flush()


@contextlib.contextmanager
def _interruption() -> Iterator[list[int]]:
    """A list that becomes non-empty at the first Ctrl-C or SIGTERM; the second one is at once."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are the caller's
        before = {}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
