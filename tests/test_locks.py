"""Two processes on one folder, and what a dead one leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vidsynth import files, locks
from vidsynth.errors import InUse

HOLD = """
import sys
from pathlib import Path
from vidsynth import files, locks
folder = Path(sys.argv[1])
with locks.alone(folder, "the subject"), files.writing(folder / "card.json") as temporary:
    temporary.write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_is_at_it_and_leaves_its_files_alone(tmp_path, holder):
    with pytest.raises(InUse, match=rf"the subject .* \(number {holder.pid}\); wait"):
        locks.alone(tmp_path, "the subject").__enter__()
    with files.writing(tmp_path / "card.json") as temporary:
        temporary.write_text("mine")
    assert (tmp_path / "card.json").read_text() == "mine"
    holder.communicate("")  # ends the other's write: the later one wins, whole
    assert (tmp_path / "card.json").read_text() == "half"
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_a_dead_process_blocks_nobody_and_its_leavings_go(tmp_path, holder):
    holder.kill()
    holder.wait()
    left = [p.name for p in tmp_path.iterdir()]
    assert len(left) == 2 and ".lock" in left
    with locks.alone(tmp_path, "the subject"), files.writing(tmp_path / "card.json") as temporary:
        temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_leavings_of_other_files_are_not_touched(tmp_path):
    mine = tmp_path / ".other.abc.partial.json"
    mine.write_text("precious")
    with files.writing(tmp_path / "card.json") as temporary:
        temporary.write_text("whole")
    assert mine.read_text() == "precious"
