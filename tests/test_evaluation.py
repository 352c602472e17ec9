"""Evaluation: right partners, right floors, honest intervals, and nothing that stops the rest."""

from __future__ import annotations

import inspect
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from yardsticks import YARDSTICKS, entry

import vidsynth
from vidsynth import evaluation, jobs, registry, scores, video, weights
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.errors import (
    BadOption,
    BadSubject,
    CannotWrite,
    MissingWeights,
    NotMeasurable,
    OutputExists,
    UnknownName,
    UnsupportedVideo,
)
from vidsynth.evaluation import evaluate, films
from vidsynth.evaluation.films import encoded, film, kept, recording
from vidsynth.evaluation.intervals import interval
from vidsynth.evaluation.results import Evaluation, number
from vidsynth.report import Reporter
from vidsynth.stream import Chunk
from vidsynth.worlds import WORLDS

# T frames


class Told(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def paint(
    path: Path, levels: Sequence[float], *, times: Sequence[float] | None = None, width: int = 64
) -> Path:
    """A video of a grey ramp on which a square of these red levels stands still."""
    ramp = torch.linspace(40, 160, width).byte().expand(len(levels), 3, 48, width).clone()
    for t, level in enumerate(levels):
        ramp[t, 0, 12:36, 8:32] = round(level)
    seconds = torch.arange(len(levels)) / 25 if times is None else torch.tensor(times)
    pts = seconds.double()
    video.write_video(path, iter([Chunk(pts, Clip(ramp, pts))]), fps=Fraction(25), start=0.0, crf=4)
    return path


def beat(num_frames: int, phase: float = 0.0) -> list[float]:
    """A level that rises and falls, different at every frame of a second."""
    return [120 + 90 * math.sin(t / 4 + phase) for t in range(num_frames)]


@pytest.fixture(autouse=True)
def only_yardsticks() -> Iterator[None]:
    with registry.only(offered()):
        yield


def offered(*more: EntryPoint) -> list[EntryPoint]:
    """The yardsticks instead of the installed metrics, and every other plugin."""
    kinds = [kind for kind in registry.KINDS if kind != "metric"]
    return [*YARDSTICKS, *more, *(e for k in kinds for e in entry_points(group=registry.group(k)))]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A real film, and a made one that is a little off."""
    real = paint(tmp_path / "real.mp4", beat(60))
    return paint(tmp_path / "made.mp4", beat(60, 0.2)), real


def rows(evaluation: Any, table: int = 0) -> dict[str, Any]:
    return {row.metric: row for row in evaluation.tables[table].rows}


def frames(path: Path) -> Tensor:
    return torch.cat([c.clip.frames for c in video.read_chunks(path) if c.clip is not None])


# What is compared with what.


def test_a_made_film_is_held_against_the_same_moments(two):
    made, real = two
    found = rows(evaluate(made, real))
    expected = scores.psnr(frames(made), frames(real)).double()
    assert found["likeness"].value == pytest.approx(float(expected.mean()), abs=1e-6)
    torch.testing.assert_close(found["likeness"].per_frame, expected)
    assert found["brightness"].value == pytest.approx(float(frames(made).float().mean()), abs=1e-3)


def test_frames_find_their_partners_by_time(tmp_path):
    """The made film shows every other moment, and begins later."""
    levels = beat(80)
    real = paint(tmp_path / "real.mp4", levels)
    times = [t / 25 for t in range(0, 60, 2)]
    made = paint(tmp_path / "made.mp4", levels[20::2], times=times)
    found = rows(evaluate(made, real, start=0.8))["likeness"]
    assert found.count == 30
    assert float(found.per_frame.min()) > 35
    assert "paired by time" in found.protocol
    off_by_one = rows(evaluate(made, real, start=0.84))["likeness"]
    assert off_by_one.value < found.value - 3


def test_equally_many_frames_with_other_timestamps_are_paired_by_number(tmp_path):
    levels, told = beat(50), Told()
    real = paint(tmp_path / "real.mp4", levels)
    made = paint(tmp_path / "made.mp4", levels, times=[t / 30 for t in range(50)])
    found = rows(evaluate(made, real, reporter=told))["likeness"]
    assert float(found.per_frame.min()) > 35
    assert "paired by number" in found.protocol
    assert any("compared by number" in line for line in told.lines)


def test_films_of_other_moments_are_refused_with_what_to_do(tmp_path):
    real = paint(tmp_path / "real.mp4", beat(30))
    made = paint(tmp_path / "made.mp4", beat(80))
    with pytest.raises(BadOption, match=r"only 30 have a partner among 30 .* --start"):
        evaluate(made, real)


def test_a_few_frames_without_a_partner_are_left_out_and_told(tmp_path):
    told, real = Told(), paint(tmp_path / "real.mp4", beat(58))
    made = paint(tmp_path / "made.mp4", beat(60))
    assert rows(evaluate(made, real, reporter=told))["likeness"].count == 58
    assert any("2 of 60 frames have no partner" in line for line in told.lines)


def test_two_pictures_side_by_side_are_refused(tmp_path, two):
    made, real = two
    both = paint(tmp_path / "both.mp4", beat(60), width=128)
    with pytest.raises(BadOption, match="side by side"):
        evaluate(both, real)
    with pytest.raises(BadOption, match="side by side"):
        evaluate(both, source=real, target=made)


def test_another_size_is_brought_to_the_made_one_and_the_rule_is_told(tmp_path, two):
    made, real = two
    small = paint(tmp_path / "small.mp4", beat(60))
    pts = torch.arange(60, dtype=torch.float64) / 25
    shrunk = torch.nn.functional.avg_pool2d(frames(made).float(), 2).round().byte()
    video.write_video(
        small, iter([Chunk(pts, Clip(shrunk, pts))]), fps=Fraction(25), overwrite=True
    )
    found = rows(evaluate(small, real))["likeness"]
    assert "32x24 px, others resized to it (area down, linear up)" in found.protocol
    assert "48x36 px" in rows(evaluate(made, real, size=36))["likeness"].protocol


def test_the_stride_thins_the_pairs(two):
    made, real = two
    whole, thin = (rows(evaluate(made, real, stride=s))["likeness"] for s in (1, 4))
    assert torch.equal(thin.per_frame, whole.per_frame[::4])
    assert "15 frames of 1 film, stride 4" in thin.protocol


def test_cross_reenactment_takes_motion_and_looks_from_two_films(tmp_path, two):
    made, real = two
    other = paint(tmp_path / "other.mp4", [200.0] * 40)
    evaluation = evaluate(made, source=real, target=other)
    found, table = rows(evaluation), evaluation.tables[0]
    assert table.kind == "cross-reenactment"
    assert set(found) == {"redness", "palette", "brightness"}
    assert table.films[0].references == {"motion": "real.mp4", "looks": "other.mp4"}
    assert any(note.startswith("likeness: need the same moments") for note in table.notes)
    colour = (frames(made).float().mean((0, 2, 3)) - frames(other).float().mean((0, 2, 3))).abs()
    assert found["palette"].value == pytest.approx(float(colour.sum()), abs=1e-3)


def test_both_comparisons_make_two_tables(two):
    made, real = two
    evaluation = evaluate(made, real, source=real, target=real)
    assert [t.kind for t in evaluation.tables] == ["self-reenactment", "cross-reenactment"]


def test_folders_are_paired_by_name_and_the_rest_is_named(tmp_path):
    told = Told()
    for folder, names in (("made", "ab"), ("real", "bac")):
        (tmp_path / folder).mkdir()
        for name in names:
            phase = {"a": 0.0, "b": 1.0, "c": 2.0}[name]
            paint(tmp_path / folder / f"{name}.mp4", beat(30, phase))
    (tmp_path / "made" / "a.mp4.toml").write_text("settings")
    evaluation = evaluate(tmp_path / "made", tmp_path / "real", reporter=told)
    assert [film.made for film in evaluation.tables[0].films] == ["a.mp4", "b.mp4"]
    found = rows(evaluation)["likeness"]
    assert len(found.per_frame) == 60
    assert float(found.per_frame.min()) > 60  # a with a, b with b: the same files
    assert any("c.mp4" in line and "left out" in line for line in told.lines)


def test_folders_without_a_common_name_are_refused(tmp_path):
    for folder, name in (("made", "x"), ("real", "y")):
        (tmp_path / folder).mkdir()
        paint(tmp_path / folder / f"{name}.mp4", beat(10))
    with pytest.raises(BadOption, match=r"no film in .*made \(x\) .*real \(y\)"):
        evaluate(tmp_path / "made", tmp_path / "real")


# Films.


def test_films_of_one_length_come_in_equal_clips_whatever_was_chosen(tmp_path):
    of = recording(paint(tmp_path / "a.mp4", beat(60)), reporter=Reporter())
    some = film(of, size=(24, 32), index=torch.arange(1, 60, 3))
    clips = list(some.read())
    assert [len(clip) for clip in clips] == [8, 8, 4]
    assert torch.equal(torch.cat([clip.pts for clip in clips]), some.pts)
    assert clips[0].frames.shape[2:] == (24, 32)
    again = kept(some)
    assert all(a is b for a, b in zip(again.read(), again.read(), strict=True))
    assert torch.equal(next(again.read()).frames, clips[0].frames)


def test_only_small_films_are_kept_in_memory(tmp_path, monkeypatch):
    of = recording(paint(tmp_path / "a.mp4", beat(12)), reporter=Reporter())
    monkeypatch.setattr(films, "IN_MEMORY_BYTES", 12 * 3 * 48 * 64 - 1)
    whole, small = film(of, size=(48, 64)), film(of, size=(24, 32))
    assert kept(whole) is whole
    assert kept(small) is not small


def test_tracking_follows_the_crop_the_choice_and_the_size(tmp_path):
    puppet = WORLDS["puppet"]
    chunks = puppet.render(puppet.make_identity(1), puppet.make_motion(1, 6), height=160, width=160)
    video.write_video(tmp_path / "a.mp4", chunks, fps=Fraction(25))
    whole = recording(tmp_path / "a.mp4", reporter=Reporter())
    part = recording(tmp_path / "a.mp4", crop=(20, 10, 140, 150), reporter=Reporter())
    points = film(whole, size=(160, 160)).track("pose").keypoints
    chosen = film(part, size=(280, 240), index=torch.tensor([1, 4])).track("pose")
    expected = (points[[1, 4], 0, :, :2] - torch.tensor([20.0, 10.0])) * 2
    assert chosen.size == (280, 240)
    torch.testing.assert_close(chosen.keypoints[:, 0, :, :2], expected, atol=1e-3, rtol=0)


# Floors.


def test_the_floor_of_truth_is_the_real_film_after_the_codec(two, tmp_path):
    made, real = two
    found = rows(evaluate(made, real))["likeness"]
    whole = recording(real, reporter=Reporter())
    written = encoded(film(whole, size=whole.size), tmp_path, reporter=Reporter()).path
    expected = scores.psnr(frames(written), frames(real)).double().mean()
    assert found.floor == pytest.approx(float(expected), abs=1e-6)
    assert found.value < found.floor < 60
    assert "encoding" in found.floor_rule


def test_the_floor_of_looks_is_one_half_against_the_other(two):
    made, real = two
    found = rows(evaluate(made, real))["palette"]
    halves = frames(real).float().mean((2, 3)).split(30)
    expected = (halves[0].mean(0) - halves[1].mean(0)).abs().sum()
    assert found.floor == pytest.approx(float(expected), abs=1e-3)


def test_the_floor_of_a_film_judged_alone_is_the_real_film(two):
    made, real = two
    found = rows(evaluate(made, real))["brightness"]
    assert found.floor == pytest.approx(float(frames(real).float().mean()), abs=1e-3)


# Intervals.


def test_the_interval_of_independent_values_is_that_of_the_mean() -> None:
    values = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 7
    found = interval(values, [2000], block=5)
    assert found is not None
    half = 1.96 / math.sqrt(2000)
    assert found.low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
    assert found.high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)
    assert "blocks of 5 frames" in found.rule and "2000 bootstrap resamples" in found.rule
    assert interval(values, [2000], block=5) == found  # seeded


def test_the_interval_knows_that_neighbours_are_alike() -> None:
    """An AR(1) process with 0.9: the mean's deviation is sqrt(19) times that of white noise."""
    noise = torch.randn(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, last = torch.empty_like(noise), 0.0
    for t, step in enumerate(noise.tolist()):
        values[t] = last = 0.9 * last + math.sqrt(1 - 0.81) * step
    found = interval(values, [20000], block=200)
    assert found is not None
    expected = 2 * 1.96 * math.sqrt(19 / 20000)
    assert found.high - found.low == pytest.approx(expected, rel=0.2)


def test_the_interval_skips_what_was_not_measured() -> None:
    values = torch.full((100,), torch.nan, dtype=torch.float64)
    assert interval(values, [100], block=10) is None
    values[50:] = 3.0
    found = interval(values, [100], block=10)
    assert found is not None and (found.low, found.high) == (3.0, 3.0)


def test_with_many_films_whole_films_are_drawn() -> None:
    """Ten films of one value each: blocks of two frames would be sure of themselves."""
    values = torch.arange(10, dtype=torch.float64).repeat_interleave(50)
    films, blocks = interval(values, [50] * 10, block=2), interval(values, [500], block=2)
    assert films is not None and blocks is not None
    assert films.high - films.low > 3 * (blocks.high - blocks.low)
    assert "10 films" in films.rule


def test_only_the_mean_of_frames_has_an_interval(two):
    found = rows(evaluate(*two))
    assert found["palette"].interval is None
    likeness = found["likeness"]
    assert likeness.interval.low < likeness.value < likeness.interval.high


# What cannot be measured.


def test_what_cannot_be_measured_is_said_and_stops_nothing(two):
    gone = EntryPoint("gone", "no_such_module:Gone", "vidsynth.metrics")
    more = (entry("unweighed", "Unweighed"), entry("picky", "Picky"), gone)
    with registry.only(offered(*more)):
        found = rows(evaluate(*two))
        shown = CliRunner().invoke(main, ["eval", *map(str, two)])
    assert found["unweighed"].value is None and "get it from" in found["unweighed"].problem
    assert "at least 60 s" in found["picky"].problem
    assert "cannot be imported" in found["gone"].problem
    assert found["likeness"].value is not None
    assert shown.exit_code == 0
    assert "unweighed: net.pth (3 MB) is needed; get it from <there>" in shown.stdout


def test_nothing_measured_at_all_is_an_error_that_says_why(two):
    with (
        registry.only(offered(entry("picky", "Picky"))),
        pytest.raises(NotMeasurable, match="picky: 5 windows are too few"),
    ):
        evaluate(*two, metrics=["picky"])


def test_a_metric_with_the_wrong_number_of_values_is_its_authors_fault(two):
    with registry.only(offered(entry("short", "Short"))):
        assert "gave 59 values for 60 frames" in rows(evaluate(*two))["short"].problem


def test_weights_are_downloaded_only_for_metrics_that_were_named(two, monkeypatch):
    monkeypatch.delenv("VIDSYNTH_OFFLINE")
    asked: list[str] = []

    def fetch(*_: object) -> None:
        asked.append("downloaded")
        raise MissingWeights("no network")

    monkeypatch.setattr(weights, "_download", fetch)
    with registry.only(offered(entry("hungry", "Hungry"))):
        assert "not on this machine" in rows(evaluate(*two))["hungry"].problem
        assert asked == []
        assert rows(evaluate(*two, metrics=["hungry", "likeness"]))["hungry"].problem
        assert asked == ["downloaded"]


def test_options_of_metrics_are_set_by_the_metrics_name(two):
    plain = rows(evaluate(*two, metrics=["likeness"]))
    twice = rows(evaluate(*two, metrics=["likeness"], settings=["likeness.gain=2"]))
    assert twice["likeness"].value == pytest.approx(2 * plain["likeness"].value)
    assert list(plain) == ["likeness"]
    with pytest.raises(UnknownName, match="did you mean 'likeness'"):
        evaluate(*two, settings=["likenes.gain=2"])
    with pytest.raises(UnknownName, match="did you mean 'gain'"):
        evaluate(*two, settings=["likeness.gian=2"])
    with pytest.raises(UnknownName, match="did you mean 'likeness'"):
        evaluate(*two, metrics=["likenes"])


# A subject.


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A puppet's film and a subject trained on it for two steps."""
    folder, puppet = tmp_path_factory.mktemp("subject"), WORLDS["puppet"]
    chunks = puppet.render(
        puppet.make_identity(2), puppet.make_motion(2, 60), height=160, width=160
    )
    video.write_video(folder / "target.mp4", chunks, fps=Fraction(25))
    small = ["generator.filters=8", "generator.blocks=1", "generator.d_filters=8"]
    jobs.train(
        folder / "target.mp4", folder / "dancer", steps=2, size=96, recipe="dance", settings=small
    )
    return folder / "dancer", folder / "target.mp4"


def test_a_subject_is_measured_on_the_frames_it_never_saw(subject):
    evaluation = evaluate(*subject, device="cpu")
    (facts,) = evaluation.tables[0].films
    assert (facts.made, facts.height, facts.width, facts.frames) == ("dancer.mp4", 96, 96, 6)
    found = rows(evaluation)["likeness"]
    # The card has the score of the same frames before the codec, whose own error is the floor's.
    card = json.loads((subject[0] / "subject.json").read_text())
    errors = [10 ** (-psnr / 10) for psnr in (card["scores"][-1]["psnr"], found.floor)]
    assert found.value == pytest.approx(-10 * math.log10(sum(errors)), abs=0.5)
    assert found.floor > found.value + 5


def test_a_subject_wants_the_video_it_was_trained_on(subject, two):
    with pytest.raises(BadSubject, match=r"trained on target\.mp4, .* another video"):
        evaluate(subject[0], two[1])
    with pytest.raises(BadOption, match="--start"):
        evaluate(*subject, start=1.0)


# Outputs.


def test_the_json_is_as_its_module_says(two, tmp_path):
    with registry.only(offered(entry("picky", "Picky"))):
        evaluate(*two, json_file=tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found) == {"format", "versions", "tables"} and found["format"] == 1
    assert found["versions"]["vidsynth"] == vidsynth.__version__
    (table,) = found["tables"]
    assert set(table) == {"kind", "films", "rows", "notes"}
    assert set(table["films"][0]) == {"made", "references", "frames", "height", "width"}
    documented = {
        "metric", "about", "unit", "higher_is_better", "against", "value", "interval",
        "interval_rule", "floor", "floor_rule", "count", "protocol", "caveat", "problem",
        "per_frame",
    }  # fmt: skip
    by_name = {row["metric"]: row for row in table["rows"]}
    assert all(set(row) == documented for row in by_name.values())
    assert all((row["value"] is None) == bool(row["problem"]) for row in by_name.values())
    likeness = by_name["likeness"]
    assert len(likeness["per_frame"]) == 60 and len(likeness["interval"]) == 2
    assert likeness["protocol"] == (
        "Likeness 1; 64x48 px, others resized to it (area down, linear up); 60 frames of 1 film, "
        f"stride 1; frames paired by time; vidsynth {vidsynth.__version__}; N = 60"
    )


def test_outputs_are_checked_before_any_work_and_never_replaced_unasked(two, tmp_path):
    made, real = two
    mine = tmp_path / "mine.html"
    mine.write_text("precious")
    with pytest.raises(OutputExists, match="--overwrite"):
        evaluate(made, real, output=mine)
    assert mine.read_text() == "precious"
    with pytest.raises(CannotWrite, match=r"\.html"):
        evaluate(made, real, output=real, overwrite=True)
    with pytest.raises(CannotWrite, match=r"\.json"):
        evaluate(made, real, json_file=tmp_path / "numbers.txt")
    evaluate(made, real, output=mine, overwrite=True)
    assert mine.read_text().startswith("<!doctype html>")


def test_the_command_takes_what_the_function_takes_with_the_same_defaults(monkeypatch):
    asked: list[dict[str, Any]] = []
    parameters = inspect.signature(evaluate).parameters.values()
    monkeypatch.setattr(
        evaluation, "evaluate", lambda *_, **k: asked.append(k) or Evaluation(tables=[])
    )
    result = CliRunner().invoke(main, ["eval", "a.mp4", "b.mp4"])
    assert result.exit_code == 0, result.output
    asked[0].pop("reporter")
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    defaults.pop("reporter")
    assert asked[0] == defaults


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MADE"], "held against nothing"),
        (["nowhere.mp4", "REAL"], "nowhere.mp4: no such file"),
        (["FOLDER", "REAL"], "without subject.json"),
        (["MADE", "FOLDER"], "holds no pictures"),
        (["FOLDER", "FOLDER", "--source", "REAL"], "go with one made film"),
        (["FOLDER", "FOLDER"], "holds no videos"),
        (["MADE", "REAL", "--metric", "psrn"], "there is no metric 'psrn'"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(two, tmp_path, arguments, said):
    (tmp_path / "folder").mkdir()
    named = {"MADE": two[0], "REAL": two[1], "FOLDER": tmp_path / "folder"}
    result = CliRunner().invoke(main, ["eval", *(str(named.get(a, a)) for a in arguments)])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_the_table_shows_value_interval_floor_and_doubts(two):
    result = CliRunner().invoke(main, ["eval", *map(str, two)])
    assert result.exit_code == 0, result.output
    found = rows(evaluate(*two))["likeness"]
    (line,) = (line for line in result.stdout.splitlines() if "likeness" in line)
    assert line.split() == [
        "likeness", "↑", number(found.value), number(found.interval.low, 3), "to",
        number(found.interval.high, 3), number(found.floor), "60", "dB",
    ]  # fmt: skip
    assert "* palette: few frames" in result.stdout


def test_a_damaged_film_is_told(two, tmp_path):
    made, real = two
    (tmp_path / "text.mp4").write_text("no video\n" * 9)
    with pytest.raises(UnsupportedVideo):
        evaluate(tmp_path / "text.mp4", real)
    shutil.copyfile(made, tmp_path / "cut.mp4")
    whole = made.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    told = Told()
    with pytest.raises(BadOption, match="same moments"):
        evaluate(real, tmp_path / "cut.mp4", reporter=told)
    assert any("cut off" in line for line in told.lines)


def test_numbers_have_four_digits() -> None:
    shown = [number(v) for v in (31.962, 0.97551, 1720.4, 5.0, 0.0, 1.2e-5, None)]
    assert shown == ["31.96", "0.9755", "1720", "5.000", "0.000", "1.20e-05", "-"]
    assert [number(v, 3) for v in (31.962, 0.0036, 142.4)] == ["32.0", "0.00360", "142"]
