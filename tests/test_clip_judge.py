"""The judge of `vidsynth bench dvdgan` knows real classes, and what is wrong with made clips."""

from __future__ import annotations

import pytest
import torch

from vidsynth.bench import dvdgan
from vidsynth.bench.clip_judge import REAL_SEEDS, TRAINING_SEEDS, Jury, Subject, motion, train_judge
from vidsynth.clips import WORLD_CLIPS
from vidsynth.report import Reporter

CPU = torch.device("cpu")
NAMES = ("red-circle-right", "red-circle-down", "blue-circle-right", "blue-circle-down")
SUBJECT = Subject(names=NAMES, size=24, num_frames=8, fps=12.0)


@pytest.fixture(scope="module")
def jury() -> Jury:
    network = train_judge(SUBJECT, steps=60, per_class=48, device=CPU)
    return Jury(network, SUBJECT, per_class=24)


def test_real_clips_are_recognised_and_varied(jury: Jury):
    verdict = jury.of_real()
    assert verdict.mean_accuracy >= 0.95
    assert verdict.diversity == pytest.approx(1, abs=0.15)


def swapped(jury: Jury) -> dict[str, torch.Tensor]:
    """Clips of other classes under each name."""
    return {name: jury.others[NAMES[(n + 1) % 4]] for n, name in enumerate(NAMES)}


def test_clips_of_another_class_are_not_taken_for_it(jury: Jury):
    assert jury.of(swapped(jury)).mean_accuracy <= 0.1


def test_what_stands_still_is_far_from_what_moves(jury: Jury):
    still = {name: clips[:, :1].expand(-1, 8, -1, -1, -1) for name, clips in jury.others.items()}
    assert jury.of(still).frechet > 5 * jury.of_real().frechet


def test_one_clip_over_and_over_has_no_variety(jury: Jury):
    same = {name: clips[:1].expand(24, -1, -1, -1, -1) for name, clips in jury.others.items()}
    verdict = jury.of(same)
    assert verdict.diversity == 0 and verdict.frechet > 2 * jury.of_real().frechet


def test_noise_is_far_from_real_clips(jury: Jury):
    torch.manual_seed(0)
    noise = {name: torch.randint_like(clips, 256) for name, clips in jury.others.items()}
    assert jury.of(noise).frechet > 20 * jury.of_real().frechet


def test_motion_is_the_mean_change_from_frame_to_frame():
    clips = torch.arange(6, dtype=torch.uint8).view(1, -1, 1, 1, 1).expand(2, -1, 3, 4, 4) * 7
    assert motion(clips) == 7 and motion(clips[:, :1].expand(-1, 6, -1, -1, -1)) == 0


def test_judge_and_generator_learn_from_other_films():
    assert WORLD_CLIPS < TRAINING_SEEDS and TRAINING_SEEDS + 100_000 < REAL_SEEDS


def test_the_bench_runs():
    settings = dvdgan.Settings(
        size=16,
        steps=2,
        classes=NAMES[:2],
        arms=tuple(dvdgan.ARMS),
        judge_steps=5,
        judge_clips=8,
        judged_clips=3,
        rounds=2,
        generator={"num_frames": 4, "filters": 4, "d_filters": 4},
    )
    rows = {row.name: row for row in dvdgan.measured(settings, CPU, Reporter())}
    for arm in dvdgan.ARMS:
        assert rows[f"{arm}: recognised as their class"].goal == 0.9
        assert rows[f"{arm}: variety within a class over that of real clips"].goal == 0.5
        assert rows[f"{arm}: steps of training"].value == 2
        assert rows[f"{arm}, 4 times as long, end: motion over that of real clips"].value >= 0
    (speed_up,) = (row for name, row in rows.items() if name.endswith("ours over plain"))
    assert speed_up.unit == "x" and speed_up.value > 0.5
