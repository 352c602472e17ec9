"""Hostile media: every case ends in success or in a sentence, in bounded time and memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import handling
import pytest

SECONDS = 300.0
"""Until a process that neither answers nor computes counts as hanging."""
PEAK_MB = 2500.0

Answer = tuple[str, dict[str, str], float]


class Worker:
    """A process that handles cases. One that crashes or hangs is replaced."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["handling"])
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=handling.work, args=(there, self._seed, str(self._folder)), daemon=True
        )
        self._process.start()
        there.close()

    def ask(self, number: int) -> Answer:
        self._here.send(number)
        try:
            if self._here.poll(SECONDS):
                return self._here.recv()
            fault = f"FAULT: hangs for {SECONDS:.0f} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            ended = self._process.exitcode
            fault = f"FAULT: the process died ({ended})"
            if ended == -signal.SIGPROF:
                fault = f"FAULT: still computing after {handling.CPU_SECONDS:.0f} s"
        self.stop()
        self._start()
        return f"case {number}", {"all": fault}, 0.0

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()


@pytest.fixture
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(request.config.getoption("--soak-seed"), tmp_path)
    yield worker
    worker.stop()


def test_hostile_media_end_in_success_or_a_sentence(
    request: pytest.FixtureRequest, worker: Worker, record_property: Callable[[str, object], None]
) -> None:
    faults, outcomes, peak = [], Counter[str](), 0.0
    for number in range(request.config.getoption("--soak-cases")):
        name, found, mb = worker.ask(number)
        peak = max(peak, mb)
        for command, outcome in found.items():
            outcomes[outcome.split(":")[0]] += 1
            if outcome.startswith("FAULT"):
                faults.append(f"case {number} ({name}), {command}: {outcome}")
    record_property("outcomes", dict(outcomes))
    print(f"\n{number + 1} cases: {dict(outcomes)}, peak {peak:.0f} MB")
    assert not faults, "\n".join(faults)
    assert outcomes["fine"] and outcomes["refused"]
    assert peak < PEAK_MB


def test_a_case_is_the_same_file_every_time(tmp_path: Path) -> None:
    from corpus import Corpus

    damaged = len(Corpus(3, tmp_path)._crafted) + 5
    twice = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        twice.append(Corpus(3, tmp_path).make(damaged, folder))
    one, other = (case.path.read_bytes() for case in twice)
    assert twice[0].name == twice[1].name and one == other
