"""The benches: fair turns, honest ratios, reports that say what was measured."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result

from vidsynth import bench, registry, video
from vidsynth.bench import (
    BENCHES,
    Asked,
    Row,
    generate,
    likeness,
    measure,
    pipeline,
    plugins,
    quality,
    scale,
    steadiness,
    train_step,
)
from vidsynth.bench.material import (
    RECIPE_OF,
    film,
    published_objective,
    random_batch,
    reference_of,
    study,
    true_signal,
    write_maps,
)
from vidsynth.bench.turns import InTurns
from vidsynth.cli import main
from vidsynth.conditioning import LabelMaps
from vidsynth.devices import prefetch_beside
from vidsynth.errors import UnknownName, VidsynthError
from vidsynth.recipes import load_recipe
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


@pytest.mark.parametrize("method", ["pix2pixhd", "vid2vid"])
def test_our_schedule_is_the_references_to_rounding(method: str) -> None:
    assert train_step.maths_difference(4, 64, TINY, method=method) < 1e-10


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
    sequence = train_step.Case(filters=4, size=32, batch=1, method="vid2vid")
    settings = train_step.Settings(
        rounds=2,
        cases=(case, sequence),
        blocks=1,
        d_filters=8,
        maths_size=64,
        worlds=("head",),
        recipe_size=32,
        film_frames=30,
        memory=False,
    )
    rows = named(train_step.measured(settings, CPU, Reporter()))
    assert rows["maths: max parameter difference after 3 steps of pix2pixhd in float64"].ok
    assert rows["maths: max parameter difference after 3 steps of vid2vid in float64"].ok
    for which in (case, sequence):
        assert rows[f"{which}: ours fp32 over reference"].goal == 1.15
    assert rows["face recipe, 32 px, batch 1: a step"].value > 0


@pytest.mark.slow
def test_generate_runs() -> None:
    settings = generate.Settings(
        rounds=2,
        generator_rounds=1,
        filters=4,
        blocks=1,
        size=32,
        frames=3,
        forms=("face recipe",),
        compile=False,
        fidelity_size=64,
        fidelity_seconds=0.5,
        film_frames=40,
    )
    rows = named(generate.measured(settings, CPU, Reporter()))
    assert rows["fp16 on the CPU: refused"].ok
    assert rows["pix2pixHD ngf 4, 32 px: eager fp32"].unit == "fps"
    assert rows["face recipe, 32 px: eager fp32"].value > 0
    for name, row in rows.items():
        if name.endswith("against fp32"):
            assert 20 < row.value < 100  # alike, and not the same computation


# Quality


def test_trainings_take_turns_and_finish() -> None:
    journal: list[str] = []

    def work(name: str, steps: int) -> Callable[[Callable[[], None]], None]:
        def go(pause: Callable[[], None]) -> None:
            for _ in range(steps):
                journal.append(name)
                pause()

        return go

    a, b = InTurns(work("a", 2)), InTurns(work("b", 4))
    while not (a.done and b.done):
        a.turn(0.0)
        b.turn(0.0)
    assert "".join(journal) == "ababbb"


def test_a_training_that_fails_says_so_and_one_can_be_stopped() -> None:
    def fails(pause: Callable[[], None]) -> None:
        pause()
        raise VidsynthError("no memory")

    ended: list[bool] = []

    def endless(pause: Callable[[], None]) -> None:
        try:
            while True:
                pause()
        finally:
            ended.append(True)

    failing, going = InTurns(fails), InTurns(endless)
    failing.turn(0.0)
    with pytest.raises(VidsynthError, match="no memory"):
        failing.turn(0.0)
    going.turn(0.01)
    assert not going.done
    going.stop()
    assert ended == [True]


def test_sharpness_sees_blur_and_parts_see_their_own() -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (3, 3, 32, 32), generator=rng, dtype=torch.uint8)
    blurred = F.avg_pool2d(real.float(), 3, 1, 1).round().to(torch.uint8)
    assert likeness.sharpness(real, real) == pytest.approx(1.0)
    assert likeness.sharpness(blurred, real) < 0.2
    left = torch.zeros(3, 32, 32, dtype=torch.bool)
    left[:, :, :8] = True
    half = torch.where(left[:, None], blurred, real)
    found = likeness.judged(half, real, {"face": left, "hands": ~left, "eyes": left & ~left})
    assert found["hands PSNR"] == pytest.approx(100.0)
    error = (half.double() - real.double()).square()[..., :8].mean(dim=(1, 2, 3))
    expected = float((10 * torch.log10(255**2 / error)).mean())
    assert found["face PSNR"] == pytest.approx(expected)
    assert found["face PSNR"] < found["PSNR"] < found["hands PSNR"]
    assert "eyes PSNR" not in found  # never seen


@pytest.mark.slow
@pytest.mark.parametrize("world", ["puppet", "head"])
def test_quality_runs(world: str, tmp_path: Path) -> None:
    settings = quality.Settings(
        worlds=(world,),
        size=64,
        film_size=128,
        film_frames=40,
        minutes={"ours": 0.01, "plain": 0.01, "reference": 0.01},
        slice_seconds=0.2,
        filters=4,
        sheet=tmp_path / "sheet.png",
    )
    rows = named(quality.measured(settings, CPU, Reporter()))
    for answer in (
        "ours 0.01 min",
        "plain 0.01 min",
        "reference 0.01 min",
        "nearest training frame",
        "warped training frame",
        "ours painting from the frames beside the true one 0.01 min",
    ):
        assert rows[f"{world}: {answer}, PSNR"].value > 5
        assert rows[f"{world}: {answer}, flow_warp"].value >= 0
        assert rows[f"{world}: {answer}, face PSNR"].unit == "dB"
    assert rows[f"{world}: truth, flow_warp"].value > 0
    assert rows[f"{world}: ours 0.01 min, steps"].value >= 1
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None and picture.shape == (5 * 64, 8 + 8 * len("reference") + 6 * 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["puppet", "head"])
def test_a_frame_warped_to_itself_is_that_frame(world: str, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", world, 40, height=128, width=128)
    recipe = load_recipe(RECIPE_OF[world]).with_overrides({"size": 64})
    seen = study(path, recipe)
    exam = quality.Exam.of(world, seen)
    alone = replace(seen.footage, gallery=seen.footage.as_gallery(exam.index))
    answers = exam.free_answers(replace(seen, footage=alone))
    assert likeness.judged(answers[quality.WARPED], exam.truth, {})["PSNR"] > 35
    others = exam.free_answers(seen)
    assert likeness.judged(others[quality.WARPED], exam.truth, {})["PSNR"] < 33


def test_goals_compare_the_moments_that_were_promised() -> None:
    nothing = torch.zeros(0)
    exam = quality.Exam("clip", nothing, nothing, {})
    good = {"PSNR": 25.0, "SSIM": 0.8, "L1": 6.0, "sharpness": 0.7, "face PSNR": 21.0}
    poor = {"PSNR": 20.0, "SSIM": 0.6, "L1": 9.0, "sharpness": 0.2, "face PSNR": 22.0}
    for minutes in (1.0, 2.0, 4.0, 8.0):
        exam.scores["ours", minutes] = good
        exam.scores["plain", minutes] = poor
        exam.scores["reference", minutes] = poor
    exam.scores["last training frame", 0.0] = poor
    exam.scores["warped training frame", 0.0] = {**poor, "PSNR": 24.0}
    exam.scores["ours", 4.0] = {**good, "flow_warp": 2.0}
    exam.scores["plain", 4.0] = {**poor, "flow_warp": 3.0}
    rows = named(exam.goals(["last training frame"]))
    first = "clip: ours 1 min better than reference 8 min, "
    assert (rows[first + "L1"].value, rows[first + "L1"].ok) == (3.0, True)
    assert (rows[first + "face PSNR"].value, rows[first + "face PSNR"].ok) == (-1.0, False)
    assert rows["clip: ours 4 min better than reference 4 min, PSNR"].goal == 4.5
    assert rows["clip: ours 4 min better than reference 4 min, SSIM"].ok
    assert rows["clip: ours 8 min better than plain 8 min, SSIM"].ok
    assert rows["clip: ours 2 min better than last training frame, PSNR"].value == 5.0
    assert rows["clip: ours 4 min better than plain 4 min, flow_warp"].value == 1.0  # lower
    assert not rows["clip: ours 4 min better than warped training frame, PSNR"].ok  # 1.5 dB


# Steadiness


@pytest.mark.slow
def test_steadiness_runs() -> None:
    settings = steadiness.Settings(
        size=64, film_size=128, film_frames=60, minutes=0.02, slice_seconds=0.3
    )
    rows = named(steadiness.measured(settings, CPU, Reporter()))
    for who in ("real", "frames", "sequence", "frames at --steadiness 1"):
        assert rows[f"puppet: {who}, flow_warp"].value >= 0
        assert rows[f"puppet: {who}, SSIM"].value <= 1
    assert rows["puppet: real, SSIM"].value == pytest.approx(1.0)
    at = [rows[f"puppet: frames at --steadiness {s}, flow_warp"].value for s in ("0", "1")]
    assert at[1] < at[0]
    assert rows["puppet: sequence below frames, flicker"].goal == 0.25


@pytest.mark.slow
def test_steadiness_runs_on_a_scene_with_its_parts_taken_out() -> None:
    settings = steadiness.Settings(
        worlds=("street",), parts=True, size=32, film_size=48, film_frames=40, minutes=0.01
    )
    rows = named(steadiness.measured(settings, CPU, Reporter()))
    for who in ("frames", "sequence", *steadiness.PARTS):
        assert rows[f"street: {who}, flow_warp"].value >= 0
    assert rows["street: real, flicker"].value > 0  # the camera drives


def test_the_maps_of_a_scene_are_read_back_as_they_are(tmp_path: Path) -> None:
    truth = true_signal("street", 3, (24, 32))
    assert isinstance(truth, LabelMaps) and truth.instances is not None
    given = write_maps(truth, tmp_path)
    extractor: Any = registry.load("extractor", "labels")
    back = extractor(extractor.Options(model="given")).read(given, shorter=24)
    assert torch.equal(back.labels, truth.labels)
    assert torch.equal(back.instances, truth.instances)


def test_drift_is_what_the_end_loses_against_the_beginning() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (8, 3, 32, 32), generator=rng, dtype=torch.uint8)
    assert steadiness.drift(truth, truth) == pytest.approx(0.0)
    worse = truth.clone()
    worse[6:] = 128
    assert steadiness.drift(worse, truth) < -0.5
    assert steadiness.drift(worse.flip(0), truth.flip(0)) > 1.0


# The pipeline


@pytest.mark.slow
def test_pipeline_runs() -> None:
    settings = pipeline.Settings(
        rounds=1,
        chain_rounds=1,
        warmup=0,
        height=96,
        width=128,
        frames=25,
        colour_frames=2,
        tracked_frames={"pose": 4, "face": 4},
        tracking_rounds={"pose": 1, "face": 1},
        chain_frames=32,
        chain_size=64,
        chain_options=(("filters", 4), ("blocks", 1), ("face", False)),
        short_seconds=1,
        long_seconds=2,
    )
    rows = named(pipeline.measured(settings, CPU, Reporter()))
    for colours in pipeline.COLOURS:
        assert rows[f"decode: mean difference from swscale, {colours}"].ok
    assert rows["decode to RGB tensors over PyAV to_ndarray"].goal == 1.5
    assert rows["encode over PyAV"].goal == 0.95
    assert {"tracking pose over mediapipe", "tracking face over mediapipe"} <= rows.keys()
    how = pipeline.THREADS if prefetch_beside(CPU) else pipeline.SERIAL
    assert rows[f"tracking and rendering, {how} as shipped: over its slowest stage alone"].value > 0
    assert rows["memory: 2 s over 1 s"].value == pytest.approx(1.0, abs=0.1)


def test_a_wrong_matrix_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one matrix that says it has the other is off by more than rounding."""
    path = film(tmp_path / "film.mp4", "puppet", 4, height=96, width=128)
    right = pipeline._colour_row("BT.601", path, tmp_path / "right.mp4", 2)
    matrix, _, colour_range = pipeline.COLOURS["BT.601"]
    monkeypatch.setitem(pipeline.COLOURS, "BT.601", (matrix, 1, colour_range))
    wrong = pipeline._colour_row("BT.601", path, tmp_path / "wrong.mp4", 2)
    assert right.value < 1 < wrong.value


def test_a_film_is_repeated_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", "puppet", 10, height=64, width=64)
    long = pipeline.repeated(path, tmp_path / "long.mp4", 25)
    pts = torch.cat([chunk.pts for chunk in video.read_chunks(long)])
    assert len(pts) == 30
    assert torch.allclose(pts.diff(), torch.full((29,), 1 / 25, dtype=torch.float64), atol=1e-4)


@pytest.mark.slow
def test_scale_runs() -> None:
    settings = scale.Settings(
        rounds=1,
        sizes=(32, 64),
        batches=(1, 2),
        batch_size_px=32,
        film_frames=(10, 20),
        film_size=(64, 64),
        processes=(2,),
        steps=2,
        network={"filters": 4, "blocks": 1, "d_filters": 4},
    )
    rows = named(scale.measured(settings, CPU, Reporter()))
    assert rows["generation: a pixel at 64 px over one at 32 px"].goal is None  # below LARGE
    assert rows["decode and encode: a frame of 20 over one of 10"].goal == 1.1
    assert rows["training: a sample of a batch of 2 over one of 1"].value > 0
    assert rows[f"training: 2 processes on {measure.cores()} cores"].value > 0


def test_growth_is_1_where_cost_is_linear() -> None:
    small = measure.Timings((1.0, 2.0, 3.0), (0.0,) * 3)
    large = measure.Timings((4.0, 8.0, 12.0), (0.0,) * 3)
    assert scale._growth("", small, large, 4.0, goal=1.1).value == 1.0
    assert scale._growth("", small, large, 2.0, goal=1.1).ok is False


# Plugins


def test_thirty_dummies_cost_no_import_and_three_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.install_dummies(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    dummies = [i for i in registry.installed() if i.distribution.startswith("vidsynth-dummy")]
    assert len(dummies) == plugins.DUMMIES - 1  # the entry points of one cannot be read
    assert len(registry.survey()[1]) == 1
    assert sum(not info.module for info in dummies) == 1
    assert not list(tmp_path.glob("imported-*"))
    (raising,) = [i for i in dummies if i.name == f"dummy{plugins.DUMMIES - 3}"]
    with pytest.raises(VidsynthError, match="RuntimeError: broken"):
        registry.load(raising.kind, raising.name)
    assert [f.name for f in tmp_path.glob("imported-*")] == [f"imported-{plugins.DUMMIES - 3}"]


def test_plugins_rows_tell_start_and_boundary() -> None:
    tiny = plugins.Settings(rounds=1, renders=1, size=32, filters=4, frames=10)
    rows = named(chain(plugins.start_rows(tiny), plugins.boundary_rows(tiny, CPU)))
    assert rows["dummy plugins that were imported"].value == 0
    assert rows["greatest difference between both renders"].value <= 1
    start = [row for name, row in rows.items() if name.endswith("30 dummy plugins")]
    assert [row.goal for row in start] == [300.0, 300.0]
    assert all(row.at_most and row.value > 0 for row in start)
    (boundary,) = [row for name, row in rows.items() if name.startswith("plugin boundary")]
    assert (boundary.unit, boundary.goal, boundary.at_most) == ("%", 2.0, True)
