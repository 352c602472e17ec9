"""One thread, a cache of the tests' own, and skips that cannot hide in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
# A shell starts background jobs with Ctrl-C ignored, which Python then leaves as it is.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_MEDIA = Path(__file__).parents[2] / "shared" / "media"
# What a machine may lack for good reason. Any other skip is a failure in CI.
MAY_BE_MISSING = ("needs_media", "needs_cuda", "needs_weights")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of tests/soak: how much to try. They stand here, where pytest reads them wherever it runs."""
    group = parser.getgroup("soak")
    for name, default, what in (
        ("cases", 200, "hostile media files to try"),
        ("kills", 20, "moments at which jobs are killed"),
        ("seconds", 30, "length of the film that must stay frame-exact and in step"),
        ("seed", 0, "of what is drawn at random"),
    ):
        group.addoption(f"--soak-{name}", type=int, default=default, metavar="N", help=what)


@pytest.fixture(autouse=True, scope="session")
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests neither read nor fill the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDSYNTH_CACHE", str(folder))
        patch.setenv("VIDSYNTH_OFFLINE", "1")
        yield folder


@pytest.fixture
def shared_media() -> Path:
    """Folder of the real clips; the test needs the marker `needs_media`."""
    return SHARED_MEDIA


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_media") and not SHARED_MEDIA.is_dir():
        pytest.skip("the real clips of ../shared/media are not here")
    if item.get_closest_marker("needs_cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    excused = hasattr(report, "wasxfail") or any(
        item.get_closest_marker(marker) for marker in MAY_BE_MISSING
    )
    if report.skipped and _in_ci() and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must be there: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped" and _in_ci():
        report.outcome = "failed"
        report.longrepr = f"a whole module skipped in CI: {report.longrepr}"
    return report


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"
