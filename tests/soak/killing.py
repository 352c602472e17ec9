"""A whole `vidsynth transfer` in a process of its own, ended at a moment that is chosen for it.

Moments are counted in what the process asks of the file system, so that they fall where it
matters and are the same every time; one in four is a moment on the clock.
"""

from __future__ import annotations

import os
import random
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import c2pa  # noqa: F401 - these are what a transfer imports, once for all who are killed
import torch
import torch._dynamo
import torch.utils.tensorboard
from torch import Tensor

import vidsynth.jobs  # noqa: F401
import vidsynth_plugins.pix2pixhd.objective  # noqa: F401
from vidsynth import kept, notes, registry
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.kinds import Extractor

ENDS = ("kill", "power", "term", "int", "clock")
STEPS = 6
LOG = "log.txt"
LOOKED = "looked at a clip"
RECIPE = """
summary = "A square that is driven by a square."
size = 32

[extractor]
plugin = "square"

[generator]
plugin = "pix2pixhd"
filters = 4
downsamplings = 1
blocks = 1
d_filters = 4
d_scales = 1
d_layers = 1
background = false
previous = true
perceptual = 0.0

[training]
batch = 1
checkpoint_seconds = 0.0
precision = "fp32"
"""


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """There are none."""


class SquareExtractor(Extractor):
    """Where the picture is brighter than grey: label 1. It notes that, and logs each look."""

    Options = NoOptions
    paper = ""
    weights_licence = "none needed"
    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            labels = self.notes.once(partial(_looked, clip))["labels"]
            yield LabelMaps(labels=labels, num_classes=2)
            self.notes.rest()


def _looked(clip: Clip) -> dict[str, Tensor]:
    print(LOOKED, file=sys.stderr)
    return {"labels": (clip.frames[:, 0] > 160).to(torch.uint8)}


@dataclass(frozen=True, slots=True)
class End:
    """How a process is to end: by which signal or accident, and when."""

    how: str
    after: int
    """Requests to the file system; for "clock", milliseconds of processor time."""
    seed: int = 0
    """Of what a power cut destroys."""


class Fate:
    """Counts requests to the file system below `folder`, and ends the process at one of them."""

    def __init__(self, folder: Path, end: End | None) -> None:
        self.count = 0
        self._folder, self._end = str(folder), end
        self.disk = Disk(folder, end.seed if end else 0)
        self._busy = False

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if self._busy or event not in _REQUESTS or not details:
            return
        path = os.fspath(details[0]) if isinstance(details[0], (str, os.PathLike)) else ""
        if not path.startswith(self._folder):
            return
        if event == "open" and not os.path.isdir(path) and details[1] in ("r", "rb"):
            return
        self._busy = True
        self.count += 1
        if self._end and self._end.how != "clock" and self.count == self._end.after:
            self._finish(self._end.how)
        if self._end and self._end.how == "power" and event == "os.rename":
            self.disk.renamed(Path(path), Path(os.fspath(details[1])))
        self._busy = False

    @contextmanager
    def watched_disk(self) -> Iterator[None]:
        """Within the block it is known what has reached the disk; no audit tells of that."""
        before = os.fsync

        def fsync(handle: int) -> None:
            before(handle)
            self.disk.reached(handle)

        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync = before

    def _finish(self, how: str) -> None:
        if how in ("term", "int"):
            signal.raise_signal({"term": signal.SIGTERM, "int": signal.SIGINT}[how])
            return
        if how == "power":
            self.disk.cut_power()
        os.kill(os.getpid(), signal.SIGKILL)


class Disk:
    """What a power cut leaves of a folder: what was told to the disk, and parts of the rest.

    Of each file that was written and not synced, some of its beginning; of renames that their
    folder was not synced after, some, in whatever order.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._rng = folder, random.Random(seed)
        self._began = time.time_ns()
        self._renames: list[tuple[Path, Path, bytes | None]] = []
        self._safe: dict[int, tuple[int, int]] = {}

    def renamed(self, here: Path, there: Path) -> None:
        """Told before it is done."""
        self._renames.append((here, there, there.read_bytes() if there.is_file() else None))

    def reached(self, handle: int) -> None:
        """An open file, or folder, is on the disk as it is now."""
        found = os.fstat(handle)
        self._safe[found.st_ino] = (found.st_mtime_ns, found.st_size)
        if stat.S_ISDIR(found.st_mode):
            lost = [r for r in self._renames if r[1].parent.stat().st_ino != found.st_ino]
            self._renames = lost

    def cut_power(self) -> None:
        for path in [p for p in self._folder.rglob("*") if p.is_file() and p.name != LOG]:
            found = path.stat()
            is_safe = self._safe.get(found.st_ino) == (found.st_mtime_ns, found.st_size)
            if found.st_mtime_ns >= self._began and not is_safe:
                os.truncate(path, self._rng.randrange(found.st_size + 1))
        for here, there, before in reversed(self._renames):
            if self._rng.random() < 0.5 and there.exists():
                there.rename(here)
                if before is not None:
                    there.write_bytes(before)


_REQUESTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate", "os.rmdir"}


def run(folder: str, end: End | None, count_to: Any = None) -> None:
    """`vidsynth transfer` of source.mp4 and target.mp4 in `folder`; the process ends with it."""
    place = Path(folder)
    log = os.open(place / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.environ |= {"VIDSYNTH_CACHE": f"{folder}/cache", "VIDSYNTH_OFFLINE": "1"}
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kept.WORTH = float("inf")
    notes.EVERY = 0.0
    fate = Fate(place, end)
    sys.addaudithook(fate)
    if end and end.how == "clock":
        threading.Thread(target=_kill_after, args=(end.after / 1000,), daemon=True).start()
    square = EntryPoint("square", "killing:SquareExtractor", registry.group("extractor"))
    installed = [e for kind in registry.KINDS for e in entry_points(group=registry.group(kind))]
    code = 1
    try:
        with registry.only([square, *installed]), fate.watched_disk():
            main(arguments(place))
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        code = 130
    if count_to is not None:
        count_to[:] = [fate.count, round(1000 * time.process_time())]
    sys.stderr.flush()
    os._exit(code)


def _kill_after(seconds: float) -> None:
    """Of the processor's time: how fast the machine is does not matter."""
    while time.process_time() < seconds:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


def arguments(place: Path) -> list[str]:
    """Of the command line."""
    files = ("source.mp4", "target.mp4")
    named = {"-o": "out/out.mp4", "--recipe": "square.toml", "--subject": "subject"}
    options = [word for flag, name in named.items() for word in (flag, str(place / name))]
    rest = ["--steps", str(STEPS), "--device", "cpu", "--overwrite"]
    return ["transfer", *(str(place / name) for name in files), *options, *rest]
