"""The command line: help from a table, flags that reach the jobs, errors as sentences."""

from __future__ import annotations

import inspect
import io
import re
import subprocess
import sys
import time
import tomllib
import types
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

from vidsynth import __version__, animating, jobs, registry
from vidsynth.cli import COMMANDS, main, progress
from vidsynth.errors import Interrupted, TrainingFailed, UnsupportedVideo
from vidsynth.report import Reporter


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="vidsynth", catch_exceptions=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Jobs note their arguments instead of working: (name, positional, keywords)."""
    made: list[tuple[Any, ...]] = []
    for name in ("transfer", "train", "render", "extract"):
        monkeypatch.setattr(
            jobs, name, lambda *a, _name=name, **k: made.append((_name, a, k)), raising=True
        )
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"Usage: vidsynth {name}" in result.output


@pytest.mark.parametrize("name", ["transfer", "train", "render", "extract"])
def test_a_command_takes_exactly_what_its_job_takes(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    offered = [p.name for p in command.params if p.expose_value]
    taken = list(inspect.signature(getattr(jobs, name)).parameters)
    if name == "extract":  # with --for it is another job
        others = inspect.signature(animating.extract_for).parameters
        taken += [p for p in others if p not in (*taken, "source", "folder")]
    positional = [p.name for p in command.params if isinstance(p, click.Argument)]
    assert len(positional) + 1 == len(
        [
            p
            for p in inspect.signature(getattr(jobs, name)).parameters.values()
            if p.default is p.empty
        ]
    )
    assert set(offered[len(positional) :]) | {"reporter"} == set(taken[len(positional) :])


def test_flags_reach_the_job(calls: list[tuple[Any, ...]]) -> None:
    line = """transfer a.mp4 b.mp4 -o c.mp4 --recipe dance --preset draft --size 128 --budget 1m30s
        --start 0:05 --end 10s --audio none --device cpu --seed 3 --side-by-side --overwrite
        --person 2 --steadiness 0.2 --no-provenance --certificate me.pem --consent agreed
        -s generator.filters=8 -s training.batch=1"""
    result = run(*line.split())
    assert result.exit_code == 0, result.output
    ((name, positional, keywords),) = calls
    assert (name, positional) == ("transfer", (Path("a.mp4"), Path("b.mp4"), Path("c.mp4")))
    assert isinstance(keywords.pop("reporter"), Reporter)
    assert keywords == {
        "recipe": "dance",
        "preset": "draft",
        "generator": None,
        "size": 128,
        "budget": 90.0,
        "steps": None,
        "subject": None,
        "audio": "none",
        "start": 5.0,
        "end": 10.0,
        "person": 2,
        "device": "cpu",
        "seed": 3,
        "side_by_side": True,
        "steadiness": 0.2,
        "codec": "h264",
        "overwrite": True,
        "provenance": False,
        "certificate": Path("me.pem"),
        "consent": "agreed",
        "fps": None,
        "settings": ("generator.filters=8", "training.batch=1"),
    }


@pytest.mark.parametrize("name", ["transfer", "train", "render", "extract"])
def test_defaults_are_those_of_python(name: str, calls: list[tuple[Any, ...]]) -> None:
    defaults = {
        p.name: p.default
        for p in inspect.signature(inspect.unwrap(ORIGINALS[name])).parameters.values()
        if p.default is not p.empty
    }
    files = ("a.mp4", "b.mp4") if name in ("transfer", "render") else ("a.mp4",)
    assert run(name, *files, "-o", "c").exit_code == 0
    keywords = calls[0][2]
    differing = {k: (v, defaults[k]) for k, v in keywords.items() if v != defaults[k]}
    assert list(differing) == ["reporter"]


ORIGINALS = {name: getattr(jobs, name) for name in ("transfer", "train", "render", "extract")}


def test_the_package_of_commands_can_be_run() -> None:
    """`accelerate launch -m vidsynth.cli` needs it."""
    done = subprocess.run(
        [sys.executable, "-m", "vidsynth.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"vidsynth, version {__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trnsfer a b", "error: there is no command 'trnsfer'; did you mean 'transfer'?"),
        ("transfer a b -o c --budget soon", "error: 'soon' is no duration"),
        ("recipes show danse", "error: there is no recipe 'danse'; did you mean 'dance'?"),
        ("plugins show pix2pixdh", "did you mean 'pix2pixhd'?"),
        ("transfer a b -o c --audio both", "'both' is not one of 'source', 'target', 'none'"),
        ("transfer a b", "Missing option '-o'"),
    ],
)
def test_the_users_mistakes_are_sentences_with_exit_code_2(arguments: str, message: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "prefix", "code"),
    [
        (UnsupportedVideo("a.mp4: is empty; give a video"), "error: ", 2),
        (TrainingFailed("losses stayed non-finite"), "error: ", 1),
        (Interrupted("stopped at step 3"), "", 130),
    ],
)
def test_errors_print_their_message_and_notes(
    monkeypatch: pytest.MonkeyPatch, error: Exception, prefix: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(jobs, "train", fail)
    error.add_note("in stage 'read' at frame 3 (0.10 s)")
    result = run("train", "a.mp4", "-o", "b")
    assert result.exit_code == code
    assert result.stderr.splitlines() == [
        f"{prefix}{error}",
        "  in stage 'read' at frame 3 (0.10 s)",
    ]


@pytest.mark.parametrize("arguments", ["--debug train a -o b", "train a -o b --debug"])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnsupportedVideo("a: is empty")

    monkeypatch.setattr(jobs, "train", fail)
    assert isinstance(run(*arguments.split()).exception, UnsupportedVideo)


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "transfer", interrupted)
    result = run("transfer", "a", "b", "-o", "c")
    assert result.exit_code == 130
    assert "same command again" in result.stderr


def test_a_missing_file_is_told_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    result = run("transfer", "nowhere.mp4", "neither.mp4", "-o", str(out))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and "nowhere.mp4" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_plugins_are_listed_with_kind_and_package() -> None:
    rows = [re.split(r"  +", line) for line in run("plugins", "list").output.splitlines()]
    assert [row[:2] for row in rows] == [
        [name, kind] for kind in registry.KINDS for name in registry.names(kind)
    ]
    assert ["pix2pixhd", "generator", f"vidsynth {__version__}"] in rows


def test_no_plugins_is_said() -> None:
    with registry.only([]):
        assert "no plugins are installed" in run("plugins", "list").output


def test_no_third_party_runs_only_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.ALLOWED, "foreign")  # restored, whatever the flag does to it
    with registry.only(foreign(tmp_path, "paint = foreign_module:Paint")):
        assert "not in VIDSYNTH_PLUGINS" not in run("plugins", "list").output
        assert "not in VIDSYNTH_PLUGINS" in run("--no-third-party", "plugins", "list").output
        refused = run("--no-third-party", "plugins", "show", "paint")
    assert refused.exit_code == 2
    assert "add foreign to the environment variable VIDSYNTH_PLUGINS" in refused.output


def foreign(folder: Path, line: str, kind: str = "generator") -> list[EntryPoint]:
    """Entry points of a package "foreign" that has this line in its group."""
    info = folder / "foreign-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[vidsynth.{kind}s]\n{line}\n")
    return [e for d in distributions(path=[str(folder)]) for e in d.entry_points]


def test_plugins_check_prints_a_table_and_fails_with_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("plugins", "check", "l1")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"films_add_up +passed +The same film twice", shown.output)
    module: Any = types.ModuleType("tests_of_cli")
    module.Wrong = wrong_metric()
    monkeypatch.setitem(sys.modules, "tests_of_cli", module)
    with registry.only(foreign(tmp_path, "wrong = tests_of_cli:Wrong", "metric")):
        shown = run("plugins", "check", "wrong")
    assert shown.exit_code == 1
    assert re.search(r"better_for_the_truth\w+ +failed +50 for the truth", shown.output)
    assert re.search(r"films_add_up +fails as expected +it forgets", shown.output)


def wrong_metric() -> type:
    """Scores everything alike."""
    psnr: Any = registry.load("metric", "psnr")

    class Wrong(psnr):
        __module__ = "vidsynth"
        expected_failures: ClassVar = {"films_add_up": "it forgets"}

        def measure(self, made: Any, real: Any) -> Any:
            self._found.clear()
            return torch.full((len(made),), 50.0)

    return Wrong


def test_plugins_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    with registry.only(foreign(tmp_path, "l1 = vidsynth_plugins.metrics.pixels:L1")):
        result = run("plugins", "doctor")
    assert result.exit_code == 1
    assert "! generator 'l1' of foreign 2.0 is no Generator; derive L1 from" in result.output
    with registry.only([]):
        assert run("plugins", "doctor").exit_code == 0


def test_plugins_show_explains_options_as_one_would_set_them() -> None:
    text = run("plugins", "show", "pix2pixhd").output
    assert "Wang et al. 2018" in text
    assert "accepts: pose, face, labels, whatever can be drawn" in text
    assert "licence of the code: Apache-2.0" in text
    assert "-s generator.filters  int, default 64\n      channels at the finest" in text


def test_a_shown_recipe_is_a_recipe_file() -> None:
    shown = tomllib.loads(run("recipes", "show", "dance").output)
    assert shown["generator"]["plugin"] == "exemplar"
    assert shown["presets"]["draft"]["training"]["minutes"] == 1.0
    listed = run("recipes", "list").output
    assert shown["summary"] in listed


def test_doctor_finds_what_is_there() -> None:
    text = run("doctor").output
    for found in (
        "Python 3.",
        "torch 2.",
        "CPU cores",
        "encoder libx264",
        "'pix2pixhd' of",
        "VGG19",
        "MiB",
    ):
        assert found in text


def test_doctor_survives_a_broken_plugin(tmp_path: Path) -> None:
    gone = EntryPoint("gone", "no_such_module:Gone", "vidsynth.generators")
    with registry.only([gone]):
        result = run("doctor")
    assert result.exit_code == 0
    assert "! generator 'gone' of unknown cannot be imported" in result.output


# Progress.


def lines_of(console_file: io.StringIO) -> list[str]:
    return [line for line in console_file.getvalue().splitlines() if line.strip()]


def test_plain_progress_is_one_line_at_most_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "perf_counter", lambda: now)
    file = io.StringIO()
    reporter = progress.LineReporter(Console(file=file, width=200))
    with reporter.step("track the target", total=300) as step:
        for frame in range(1, 301):
            now = frame / 10
            step.update(frame, lost=2)
    assert lines_of(file) == [
        "track the target ...",
        "track the target: 100 of 300 frames, 10 per second, 20s left, lost 2",
        "track the target: 200 of 300 frames, 10 per second, 10s left, lost 2",
        "track the target: 300 of 300 frames, 10 per second, lost 2",
        "track the target: 300 frames in 30s (10 per second)",
    ]


def test_time_budgets_are_told_in_time() -> None:
    step = progress._CountedStep("training", 600.0, "seconds")
    step.began = time.perf_counter() - 60
    step.update(60.0, loss=0.123456)
    assert step.words() == "1m00s of 10m00s, 9m00s left, loss 0.123"


def test_what_an_earlier_run_did_does_not_count_as_speed() -> None:
    step = progress._CountedStep("training", 600.0, "seconds", 300.0)
    step.began = time.perf_counter() - 100
    step.update(400.0)
    assert step.words() == "6m40s of 10m00s, 3m20s left"


def test_bars_are_drawn_and_leave_one_line_per_step() -> None:
    file = io.StringIO()
    reporter = progress.BarReporter(Console(file=file, force_terminal=True, width=120))
    with (
        reporter.step("outer [x]", total=4) as outer,
        reporter.step("inner", unit="steps") as inner,
    ):
        outer.update(2)
        inner.update(5, loss=0.5)
        reporter.warn("careful [1]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "warning: careful [1]" in text
    assert "outer [x]: 2 frames in" in text
    assert "inner: 5 steps in" in text


def test_a_bar_keeps_to_one_line_of_a_narrow_terminal() -> None:
    reporter = progress.BarReporter(Console(file=io.StringIO(), force_terminal=True, width=80))
    with reporter.step("training", total=100, unit="steps") as step:
        step.update(50, G_gan=1.0, G_feature_matching=10.0, G_l1=20.0, D_real=1.0)
        (task,) = reporter._progress.tasks
        words = progress._Words(reporter.console).render(task).plain
    assert words.startswith("50 of 100 steps") and words.endswith("…")
    assert len("training  ") + progress.BAR_WIDTH + len(words) <= 80


def test_a_step_that_fails_claims_no_success() -> None:
    file = io.StringIO()
    for reporter in (
        progress.LineReporter(Console(file=file)),
        progress.BarReporter(Console(file=file, force_terminal=True)),
    ):
        with pytest.raises(UnsupportedVideo), reporter.step("read", total=3) as step:
            step.update(1)
            raise UnsupportedVideo("broken")
    assert "per second)" not in file.getvalue()


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert type(progress.reporter()) is Reporter
    monkeypatch.setenv("RANK", "0")
    assert isinstance(progress.reporter(), progress.LineReporter | progress.BarReporter)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (3720, "1h02m"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_rates_are_plain_numbers() -> None:
    assert [progress._rate(r) for r in (0.521, 41.23, 1723.4)] == ["0.521", "41.2", "1723"]


QUIET = """
import os, sys, warnings
from vidsynth.cli.common import quiet_libraries
with quiet_libraries():
    os.write(2, b"W0000 from C\\n")
    warnings.warn("for developers")
    print("for the user", file=sys.stderr)
os.write(2, b"after\\n")
print("last", file=sys.stderr)
"""


def test_libraries_keep_off_the_terminal_and_only_while_a_job_runs() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["for the user", "after", "last"]
