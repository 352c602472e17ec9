"""The benches: fair turns, honest ratios, reports that say what was measured."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from vidsynth import bench
from vidsynth.bench import BENCHES, Asked, Row, measure, train_step
from vidsynth.bench.material import published_objective, random_batch, reference_of
from vidsynth.cli import main
from vidsynth.errors import UnknownName, VidsynthError
from vidsynth.report import Reporter

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TINY = {"blocks": 1, "d_filters": 8}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="vidsynth", catch_exceptions=True)


def named(rows: Iterator[Row]) -> dict[str, Row]:
    found = list(rows)
    assert len({row.name for row in found}) == len(found), "two rows of one name"
    for row in found:
        assert set(row.to_dict()) == {"name", "value", "unit", "spread", "goal", "ok"}
        assert row.spread is None or row.spread[0] <= row.value <= row.spread[1] or row.unit == "x"
        json.dumps(row.to_dict(), allow_nan=False)
    return {row.name: row for row in found}


# Measuring


class FakeClock:
    """Time passes only when a job says so."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.waits = 0

    def clock(self) -> measure.Clock:
        return measure.Clock(lambda: self.wall, lambda: self.cpu, self.synchronise)

    def synchronise(self) -> None:
        self.waits += 1

    def job(self, journal: list[str], name: str, seconds: list[float]) -> None:
        journal.append(name)
        took = seconds.pop(0)
        self.wall += took
        self.cpu += 2 * took


def test_jobs_take_turns_and_warm_ups_are_not_timed() -> None:
    fake, journal = FakeClock(), []
    a, b = [100.0, 1.0, 5.0, 2.0], [100.0, 4.0, 4.0, 40.0]
    jobs = {"a": lambda: fake.job(journal, "a", a), "b": lambda: fake.job(journal, "b", b)}
    timed = measure.interleaved(jobs, rounds=3, warmup=1, clock=fake.clock())
    assert "".join(journal) == "abababab"
    assert timed["a"].wall == (1.0, 5.0, 2.0)
    assert timed["a"].cpu == (2.0, 10.0, 4.0)
    assert (timed["a"].seconds, timed["b"].seconds) == (2.0, 4.0)
    assert timed["b"].cpu_seconds == 8.0
    assert fake.waits == 2 * 8  # before and after every job: a GPU works on its own


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    slow = measure.Timings((4.0, 40.0, 6.0), (0.0,) * 3)
    quick = measure.Timings((2.0, 2.0, 6.0), (0.0,) * 3)
    row = measure.speed_up("r", slow, quick, goal=2.5)
    assert (row.value, row.spread, row.ok) == (3.0, (1.0, 20.0), True)
    assert measure.milliseconds("m", slow, per=2).value == 3000.0
    rate = measure.per_second("f", slow, count=12)
    assert (rate.value, rate.spread) == (2.0, (0.3, 3.0))


def test_a_goal_is_a_floor_or_a_ceiling() -> None:
    assert Row(name="", value=1.2, unit="x", goal=1.15).ok is True
    assert Row(name="", value=1.1, unit="x", goal=1.15).ok is False
    assert Row(name="", value=1.1, unit="x", goal=1.15, at_most=True).ok is True
    assert Row(name="", value=1.1, unit="x").ok is None
    endless = Row(name="", value=float("nan"), unit="", goal=1.0).to_dict()
    assert (endless["value"], endless["ok"]) == (None, False)


def test_a_childs_peak_is_its_own() -> None:
    held = bytearray(300_000_000)  # of ours, not of the child's
    small = measure.peak_in_child(bytearray, 1)
    large = measure.peak_in_child(bytearray, 200_000_000)
    assert 150e6 < large - small < 250e6
    assert small < measure.peak_memory()
    assert len(held) == 300_000_000
    assert multiprocessing.active_children() == []


def test_a_child_that_fails_is_told() -> None:
    with pytest.raises(VidsynthError, match="failed in a process of its own"):
        measure.peak_in_child(int, "no number")


# The command


def told(asked: Asked) -> Iterator[Row]:
    yield Row(name="fast", value=2.0, unit="x", spread=(1.5, 2.5), goal=1.9)
    yield Row(name="slow", value=1.0, unit="x", goal=1.9)
    if asked.full:
        raise KeyboardInterrupt
    yield Row(name="just told", value=float("inf"), unit="ms")


@pytest.fixture
def told_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "load", lambda name: told)
    monkeypatch.setattr("vidsynth.cli.bench.load", lambda name: told)


def test_the_report_has_its_schema_and_falling_short_is_no_error(
    told_bench: None, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    result = run("bench", "told", "--json", str(path), "--device", "cpu")
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert list(report) == ["device", "versions", "command", "rows"]
    assert report["device"].startswith("cpu")
    assert (
        report["versions"]["torch"] == torch.__version__.partition("+")[0]
        or "+" in (report["versions"]["torch"])
    )
    assert report["rows"] == [
        {"name": "fast", "value": 2.0, "unit": "x", "spread": [1.5, 2.5], "goal": 1.9, "ok": True},
        {"name": "slow", "value": 1.0, "unit": "x", "spread": None, "goal": 1.9, "ok": False},
        {
            "name": "just told",
            "value": None,
            "unit": "ms",
            "spread": None,
            "goal": None,
            "ok": None,
        },
    ]
    for word in ("fast", "2 x", "1.5 - 2.5", ">= 1.9", "ok", "short"):
        assert word in result.output


def test_rows_so_far_survive_ctrl_c(told_bench: None, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    result = run("bench", "told", "--full", "--json", str(path), "--device", "cpu")
    assert result.exit_code == 130
    assert "stopped after 2 rows" in result.output
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["fast", "slow"]


def test_a_report_is_not_overwritten_unasked(told_bench: None, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("mine")
    assert run("bench", "told", "--json", str(path)).exit_code != 0
    assert path.read_text() == "mine"
    assert run("bench", "told", "--json", str(path), "--overwrite").exit_code == 0


def test_an_unknown_bench_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match="train-step"):
        bench.load("train-stop")


def test_the_list_names_every_bench_and_costs_nothing() -> None:
    heavy = {"torch", "numpy", "cv2", "av", "mediapipe", "scipy", "vidsynth_plugins"}
    check = (
        "from vidsynth.cli import main\n"
        "main(['bench', '--list'], standalone_mode=False)\n"
        f"import sys\nfound = {heavy!r} & set(sys.modules)\nassert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(BENCHES)


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_is_where_the_table_says(name: str) -> None:
    assert callable(bench.load(name))


# The yardstick, and what is measured against it


def test_our_schedule_is_the_references_to_rounding() -> None:
    assert train_step.maths_difference(4, 32, TINY) < 1e-10


def test_the_difference_would_be_seen() -> None:
    ours = published_objective(32, filters=4, **TINY)
    reference = reference_of(ours)
    before = [p.detach().clone() for p in ours.generator.parameters()]
    reference.step(random_batch(1, 32))
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(reference.generator.parameters(), before, strict=True)
    ]
    assert max(moved) > 1e-5
    assert all(torch.equal(a, b) for a, b in zip(ours.generator.parameters(), before, strict=True))


def test_the_reference_decays_as_published() -> None:
    reference = reference_of(published_objective(32, filters=4, **TINY))
    rates = []
    for progress in (0.0, 0.5, 0.75, 1.0):
        reference.at_progress(progress)
        rates.append(reference.optimizer_D.param_groups[0]["lr"])
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 0.0])


def test_train_step_runs() -> None:
    case = train_step.Case(filters=4, size=32, batch=2)
    settings = train_step.Settings(
        rounds=2,
        cases=(case,),
        blocks=1,
        d_filters=8,
        maths_size=32,
        worlds=("head",),
        recipe_size=32,
        film_frames=30,
        memory=False,
    )
    rows = named(train_step.measured(settings, CPU, Reporter()))
    assert rows["maths: max parameter difference after 3 steps in float64"].ok
    assert rows[f"{case}: ours fp32 over reference"].goal == 1.15
    assert rows["face recipe, 32 px, batch 1: a step"].value > 0
