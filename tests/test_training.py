"""The loop: resume, roll-back, budgets, several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import TinyObjective, tiny_footage, weights_of

from vidsynth import watching
from vidsynth.errors import BadSubject, CannotWrite, Interrupted, TrainingFailed
from vidsynth.processes import Processes
from vidsynth.scores import Scores
from vidsynth.training import (
    Budget,
    Run,
    TrainOptions,
    activation_bytes,
    sample_starts,
    train,
)

CPU = torch.device("cpu")


def run_training(
    folder: Path, steps: int, objective: TinyObjective | None = None, *, warmup_steps: int = 0
):
    torch.manual_seed(0)
    objective = objective or TinyObjective()
    kept: list[dict[str, torch.Tensor]] = []
    run = train(
        objective,
        tiny_footage(),
        folder,
        budget=Budget(steps=steps),
        options=TrainOptions(batch=2, warmup_steps=warmup_steps),
        score=lambda weights, run: Scores(psnr=1.0, ssim=0.5, l1=2.0),
        keep=lambda weights, run: kept.append({k: v.clone() for k, v in weights.items()}),
        device=CPU,
    )
    return run, objective, kept[-1]


def assert_bit_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_resumed_run_is_bit_equal_to_an_undisturbed_one(tmp_path):
    whole, reference, reference_ema = run_training(tmp_path / "whole", 20)
    # The learning rate follows the share of the budget that is used, so the first session stops
    # early in the same budget, the way an interruption does.
    torch.manual_seed(0)
    stopped = TinyObjective()
    stop_after(stopped, 7)
    with pytest.raises(Interrupted, match="step 7"):
        run_training(tmp_path / "parts", 20, stopped)
    resumed, objective, ema = run_training(tmp_path / "parts", 20)
    assert whole.step == resumed.step == 20
    assert_bit_equal(weights_of(reference.network), weights_of(objective.network))
    assert_bit_equal(weights_of(reference.judge), weights_of(objective.judge))
    assert_bit_equal(reference_ema, ema)


def stop_after(objective: TinyObjective, calls: int) -> None:
    original = objective.losses

    def losses(phase, batch, step):
        if phase == "D" and objective.calls == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return original(phase, batch, step)

    objective.losses = losses


def test_training_lowers_the_loss_and_ema_follows(tmp_path):
    _, objective, ema = run_training(tmp_path, 150)
    batch = tiny_footage().batch(torch.arange(20), 1, CPU)
    for weights in (weights_of(objective.network), ema):
        fresh = TinyObjective()
        before = fresh.losses("G", batch, 0)["l1"].item()
        fresh.network.load_state_dict(weights)
        assert fresh.losses("G", batch, 0)["l1"].item() < 0.25 * before


def test_a_non_finite_loss_rolls_back_and_says_so(tmp_path, caplog):
    run, objective, _ = run_training(tmp_path, 6, TinyObjective(poisoned_at=(4,)))
    assert run.step == 6
    assert run.rollbacks == 1
    assert "rolled back to step 0" in caplog.text
    assert all(torch.isfinite(p).all() for p in objective.network.parameters())
    rates = [p.optimizer.param_groups[0]["lr"] for p in objective.phases]
    assert rates[0] < 0.6e-2  # halved


@pytest.mark.parametrize(("steps", "share"), [(1, 0.25), (3, 0.75), (4, 1.0), (6, 1.0)])
def test_learning_rates_rise_from_nothing_over_the_warm_up(tmp_path, steps, share):
    _, objective, _ = run_training(tmp_path, steps, warmup_steps=3)
    scheduled = 1e-2 * (1 - 0.5 * (steps - 1) / steps)
    rate = objective.phases[0].optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(share * scheduled)


def test_losses_that_stay_non_finite_end_with_the_reason(tmp_path):
    with pytest.raises(TrainingFailed, match="G/l1"):
        run_training(tmp_path, 6, TinyObjective(poisoned_at=tuple(range(2, 99))))


class Collapsing(TinyObjective):
    """From a step on, one side's losses go where a collapse takes them."""

    def __init__(self, side: str, since: int, until: int = 10**9) -> None:
        super().__init__()
        self.side, self.since, self.until = side, since, until

    def losses(self, phase, batch, step):
        losses = super().losses(phase, batch, step)
        if phase == self.side and self.since <= self.calls < self.until:
            factor = {"G": 500.0, "D": 1e-9}[phase]
            losses = {name: factor * value for name, value in losses.items()}
        return losses


@pytest.mark.parametrize(
    ("side", "until", "said"),
    [("G", 72, "the generator collapsed"), ("D", 260, "the discriminator collapsed")],
)
def test_a_collapse_rolls_back_to_before_it_and_says_so(
    tmp_path, side, until, said, caplog, monkeypatch
):
    monkeypatch.setattr(watching, "PATIENCE", 30)
    run, objective, _ = run_training(tmp_path, until + 40, Collapsing(side, 40, until))
    assert said in caplog.text and "learning rate halved" in caplog.text
    assert run.step == until + 40 and run.rollbacks == 1
    rate = objective.phases[0].optimizer.param_groups[0]["lr"]
    assert rate <= 0.5 * 1e-2


def test_a_collapse_that_comes_back_ends_with_the_reason_and_the_best_weights(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(watching, "PATIENCE", 30)
    run_training(tmp_path, 25)
    with pytest.raises(TrainingFailed, match=r"generator collapsed.*of step 25, is kept"):
        run_training(tmp_path, 200, Collapsing("G", 0))


def test_weights_that_are_no_numbers_reach_no_checkpoint(tmp_path, caplog):
    class Poisoned(TinyObjective):
        def losses(self, phase, batch, step):
            losses = super().losses(phase, batch, step)
            if phase == "G" and self.calls == 4:  # a finite loss whose gradient is none
                weight = self.network[0].weight
                losses["l1"] = losses["l1"] + (weight - weight.detach()).square().sum().sqrt()
            return losses

    torch.manual_seed(0)
    run, objective, _ = run_training(tmp_path, 60, Poisoned())
    assert run.rollbacks >= 1 and "not finite" in caplog.text
    assert all(torch.isfinite(p).all() for p in objective.network.parameters())


def test_noisy_and_slowly_falling_losses_are_no_collapse():
    watch: dict[str, float] = {}
    noise = torch.Generator().manual_seed(0)
    for step in range(3000):
        wobble = 1 + 0.9 * float(torch.rand(1, generator=noise))
        level = 0.02 + 0.98 * 0.998**step
        watch = watching.watched(watch, {"G/a": level * wobble, "D/a": level * wobble}, "G")
        assert watching.collapse(watch, "G") is None


@pytest.mark.parametrize(("risen", "collapsed"), [(1.1, False), (9.0, True)])
def test_a_hinge_loss_may_wander_about_its_zero_but_not_run_away(risen, collapsed):
    watch: dict[str, float] = {}
    for step in range(1500):
        level = 0.4 + (0.14 - 0.4) * min(step, 500) / 500  # down, and up again
        level = level if step < 500 else 0.14 + (risen - 0.14) * min(1, (step - 500) / 300)
        watch = watching.watched(watch, {"G/spatial": level, "D/real": 0.9, "D/made": 1.1}, "G")
    assert (watching.collapse(watch, "G") is not None) is collapsed


def test_a_full_disk_ends_the_training_and_harms_no_checkpoint(tmp_path):
    run_training(tmp_path, 3)
    before = (tmp_path / "state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(CannotWrite, match=r"state\.pt: could not be written"):
            run_training(tmp_path, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    assert run_training(tmp_path, 6)[0].step == 6


class Hungry(TinyObjective):
    """Has memory for so many samples at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.taken = room, []

    def losses(self, phase, batch, step):
        size = len(batch.frames_BTCHW)
        if phase == "D" and size > self.room:  # with the generator's step already done
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.taken.append(size)
        return super().losses(phase, batch, step)


def test_a_batch_that_has_no_room_becomes_a_smaller_one(tmp_path, caplog):
    torch.manual_seed(0)
    run, objective, _ = run_training(tmp_path / "hungry", 6, Hungry(1))
    assert run.step == 6 and objective.taken == [2] + [1] * 12
    assert "going on from step 0 with 1" in caplog.text


def test_one_sample_that_has_no_room_is_told(tmp_path):
    with pytest.raises(TrainingFailed, match=r"out of memory at step 0.*lower --size"):
        run_training(tmp_path, 6, Hungry(0))


def test_checkpoints_that_are_both_damaged_are_named_and_left_alone(tmp_path):
    run_training(tmp_path, 3)
    kept = [tmp_path / "state.pt", tmp_path / "state.previous.pt"]
    for state in kept:
        state.write_bytes(state.read_bytes()[:200])
    damaged = [state.read_bytes() for state in kept]
    with pytest.raises(BadSubject, match=r"state\.pt is damaged"):
        run_training(tmp_path, 6)
    assert [state.read_bytes() for state in kept] == damaged


def flip_a_bit(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_serves(tmp_path, how, caplog):
    _, reference, reference_ema = run_training(tmp_path / "whole", 8)
    run_training(tmp_path / "hurt", 8)
    state = tmp_path / "hurt" / "state.pt"
    data = state.read_bytes()
    weight = next(reference.network.parameters()).detach().numpy().tobytes()
    if how == "gone":  # a power cut between two renames
        state.unlink()
    else:
        assert weight in data  # a flipped bit of a weight is still a weight: only a sum tells
        hurt = data[: len(data) // 2] if how == "cut" else flip_a_bit(data, data.index(weight) + 9)
        state.write_bytes(hurt)
    run, objective, ema = run_training(tmp_path / "hurt", 8)
    assert run.step == 8
    assert_bit_equal(weights_of(reference.network), weights_of(objective.network))
    assert_bit_equal(reference_ema, ema)
    if how != "gone":
        assert "state.pt is damaged" in caplog.text and "at step 0" in caplog.text
        assert (tmp_path / "hurt" / "state.damaged.pt").read_bytes() == hurt


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    run_training(tmp_path, 3)
    with pytest.raises(BadSubject, match="does not fit"):
        run_training(tmp_path, 6, TinyObjective(width=9))


def test_a_budget_in_seconds_stops_in_time(tmp_path):
    torch.manual_seed(0)
    run = train(
        TinyObjective(),
        tiny_footage(),
        tmp_path,
        budget=Budget(seconds=0.5),
        options=TrainOptions(),
        score=lambda weights, run: Scores(psnr=1.0, ssim=0.5, l1=2.0),
        keep=lambda weights, run: None,
        device=CPU,
    )
    assert 0.5 <= run.seconds < 5
    assert run.scores and run.scores[-1]["psnr"] == 1.0


def test_every_sample_is_seen_once_an_epoch_and_processes_share_a_step():
    starts = torch.arange(10) * 3
    alone = Processes()
    seen = [sample_starts(starts, Run(step=s), 2, 0, alone) for s in range(5)]
    assert sorted(torch.cat(seen).tolist()) == starts.tolist()
    shares = []
    for rank in range(2):
        part = Processes()
        part.rank, part.count = rank, 2
        shares.append(sample_starts(starts, Run(step=3), 2, 0, part))
    assert sorted(torch.cat(shares).tolist()) == sorted(seen[3].tolist())


def test_memory_of_a_step_is_estimated_from_what_autograd_keeps():
    batch = tiny_footage().batch(torch.arange(1), 1, CPU)
    estimate = activation_bytes(TinyObjective(), batch)
    # Kept at least: input (2 channels), hidden after ReLU (8), output of tanh (3), floats.
    assert (2 + 8 + 3) * 16 * 16 * 4 <= estimate < 20 * (2 + 8 + 3) * 16 * 16 * 4


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from tiny import TinyObjective, tiny_footage
from vidsynth.scores import Scores
from vidsynth.processes import Processes
from vidsynth.training import Budget, TrainOptions, train

class Quiet(TinyObjective):
    def losses(self, phase, batch, step):
        torch.randn_like = torch.zeros_like  # noise differs between processes: none here
        return super().losses(phase, batch, step)

cpu = torch.device("cpu")
torch.manual_seed(0)
objective, processes = Quiet(), Processes(cpu)
train(objective, tiny_footage(), Path({folder!r}), budget=Budget(steps=8),
      options=TrainOptions(batch=2, precision="fp32"),
      score=lambda w, r: Scores(psnr=1.0, ssim=1.0, l1=1.0),
      keep=lambda w, r: None, device=cpu, processes=processes)
if processes.is_main:
    torch.save([p.detach() for p in objective.network.parameters()], {result!r})
"""


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(tmp_path):
    results = []
    for count in (1, 2):
        result = tmp_path / f"{count}.pt"
        script = tmp_path / f"{count}.py"
        script.write_text(
            TWO_PROCESSES.format(
                tests=str(Path(__file__).parent),
                folder=str(tmp_path / str(count)),
                result=str(result),
            )
        )
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
        flags = ["--num_processes", str(count), "--num_machines", "1", "--main_process_port", "0"]
        subprocess.run(
            [*launch, *flags, "--mixed_precision", "no", "--dynamo_backend", "no", str(script)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=180,
        )
        results.append(torch.load(result, weights_only=True))
    # A sum in another order is all that differs.
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


class Growing(TinyObjective):
    """Asks for longer and longer samples, and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def at_progress(self, progress: float) -> None:
        super().at_progress(progress)
        self.num_frames = 2 + round(48 * progress)

    def losses(self, phase, batch, step):
        self.seen += [batch.num_frames] if phase == "G" else []
        return super().losses(phase, batch, step)


def test_samples_grow_with_the_objective_as_far_as_the_footage_goes(tmp_path):
    _, objective, _ = run_training(tmp_path, 12, Growing())
    assert tiny_footage().longest_run() == 30
    assert objective.seen == [min(2 + 4 * step, 30) for step in range(12)]


def test_growing_samples_resume_bit_equal(tmp_path):
    def growing() -> Growing:
        torch.manual_seed(0)
        return Growing()

    _, reference, _ = run_training(tmp_path / "whole", 8, growing())
    stopped = growing()
    stop_after(stopped, 4)
    with pytest.raises(Interrupted):
        run_training(tmp_path / "parts", 8, stopped)
    _, resumed, _ = run_training(tmp_path / "parts", 8, growing())
    assert stopped.seen + resumed.seen == reference.seen
    assert_bit_equal(weights_of(reference.network), weights_of(resumed.network))
