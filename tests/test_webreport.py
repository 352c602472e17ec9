"""The HTML report: one file that needs nothing else, and shows what is wrong with a film."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_evaluation import beat, offered, paint
from yardsticks import entry

from vidsynth import registry
from vidsynth.evaluation import evaluate
from vidsynth.evaluation.plots import end_to_end, plot, ticks
from vidsynth.evaluation.results import Row, Table
from vidsynth.evaluation.webreport import FULL_SCALE

# T frames

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Elements and words of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert [tag for tag in self._open if tag not in ("th", "td")] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open[-1] in ("th", "td") and tag in ("tr",):  # HTML lets these go unclosed
            self._open.pop()
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a film whose frame 30 is far off, with a name that is no friend of HTML."""
    folder = tmp_path_factory.mktemp("report")
    levels = beat(60)
    real = paint(folder / "real.mp4", levels)
    made = paint(folder / "<b>made & 'bad'.mp4", [*levels[:30], 255 - levels[30], *levels[31:]])
    with registry.only(offered(entry("unweighed", "Unweighed"))):
        evaluate(made, real, source=real, target=real, output=folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def pictures(report: str) -> list[np.ndarray]:
    coded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', report)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(c), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        for c in coded
    ]


def test_the_report_is_one_file_that_loads_nothing(report: str) -> None:
    page = Page(report)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert "http:" not in report and "https:" not in report and "@import" not in report
    assert "url(" not in report
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert "prefers-color-scheme: dark" in report


def test_names_and_messages_are_escaped(report: str) -> None:
    page = Page(report)
    assert "<b>made & 'bad'.mp4" in page.text
    assert "get it from <there> & put it here" in page.text


def test_both_tables_their_doubts_and_gaps_are_there(report: str) -> None:
    page = Page(report)
    for words in (
        "Self-reenactment",
        "Cross-reenactment",
        "few frames",
        "Not measured",
        "Likeness 1; 64x48 px",
        "95 % of 2000 bootstrap resamples of blocks of 15 frames",
        "unweighed: net.pth",
        "against the truth",
    ):
        assert words in page.text, words


def test_the_worst_moment_is_shown_with_its_error(report: str) -> None:
    """The frame that is off is the first of the worst, and its square alone is bright."""
    text = Page(report).text
    first = text.split("Worst moments")[1]
    assert first.strip().startswith("frame 30, 1.20 s: at or near the worst of")
    assert "likeness" in first[:120]
    section = report.split("Worst moments")[1].split("Over time")[0]
    made, real, error = pictures(section)[:3]
    off = np.abs(made.astype(int) - real.astype(int)).mean(2)
    assert off[16:32, 12:28].mean() > FULL_SCALE / 3
    assert error[16:32, 12:28].mean() > 100
    assert error[:, 40:].mean() < 20


def test_a_strip_shows_the_film_from_end_to_end(report: str) -> None:
    strip = report.split("Through the film")[1].split("<h3>")[0]
    assert strip.count("<img") == 16  # eight of the made film, eight of the real one


def test_every_metric_with_values_per_frame_is_drawn(report: str) -> None:
    drawn = [str(svg["aria-label"]) for svg in Page(report).all("svg")]
    assert drawn == [
        "likeness over time", "redness over time", "brightness over time",
        "redness over time", "brightness over time",
    ]  # fmt: skip


def test_a_plot_breaks_where_nothing_was_measured_and_marks_the_worst() -> None:
    values = torch.tensor([1.0, 2.0, torch.nan, 4.0, 3.0], dtype=torch.float64)
    row = Row(metric="a", higher_is_better=False, value=2.5, floor=100.0, per_frame=values)
    drawn = plot(row, torch.arange(5).double(), [5])
    (path,) = re.findall(r'class="line" d="([^"]+)"', drawn)
    assert path.count("M") == 2 and path.count("L") == 2
    assert "worst: 4.000 at 3.00 s" in drawn
    assert 'class="floor"' not in drawn  # so far away, it would squash the line
    near = Row(metric="a", value=2.5, floor=0.5, per_frame=values)
    assert 'class="floor"' in plot(near, torch.arange(5).double(), [5])


def test_a_long_film_is_drawn_in_few_points_without_losing_its_extremes() -> None:
    values = torch.zeros(20000, dtype=torch.float64)
    values[12345] = 50.0
    drawn = plot(
        Row(metric="a", higher_is_better=False, value=0.0, per_frame=values),
        torch.arange(20000).double() / 25,
        [20000],
    )
    assert len(drawn) < 40000
    assert "worst: 50.00 at 493.80 s" in drawn


def test_films_follow_each_other_on_one_clock() -> None:
    pts = torch.tensor([5.0, 5.5, 6.0], dtype=torch.float64)
    assert end_to_end([pts, pts]).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 5, 10]),
        (23.4, 26.1, [24, 25, 26]),
        (-0.03, 0.05, [-0.02, 0, 0.02, 0.04]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_metric_that_never_changes_has_no_worst_frame() -> None:
    same = Row(metric="a", value=1.0, per_frame=torch.ones(9, dtype=torch.float64))
    assert same.worst_frame is None
    assert Table(kind="self-reenactment", films=[], rows=[same]).measured == [same]
    assert "worst" not in plot(same, torch.arange(9).double(), [9])


def test_old_reports_stay_readable_beside_new_ones(tmp_path: Path) -> None:
    """Nothing in a report depends on when or where it was made."""
    film = paint(tmp_path / "a.mp4", beat(12))
    texts = []
    with registry.only(offered()):
        for name in ("1.html", "2.html"):
            evaluate(film, film, output=tmp_path / name)
            texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
