"""The plain reporter: silent about progress, never about warnings."""

from __future__ import annotations

import logging

import pytest

from vidsynth.report import Reporter


def test_facts_and_warnings_go_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    with caplog.at_level(logging.INFO, "vidsynth"):
        reporter.say("a fact")
        reporter.warn("a warning")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "a fact"),
        ("WARNING", "a warning"),
    ]


def test_progress_goes_nowhere(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter().step("track", total=3) as step:
        step.update(2, loss=0.5)
    assert (caplog.records, tuple(capsys.readouterr())) == ([], ("", ""))
