"""A whole `vidsynth transfer` in a process of its own, ended at a moment that is chosen for it.

Moments are counted in what the process asks of the file system, so that they fall where it
matters and are the same every time; one in four is a moment on the clock.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import kept, registry
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.kinds import Extractor

ENDS = ("kill", "power", "term", "int", "clock")
STEPS = 6
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
    """Where the picture is brighter than grey: label 1."""

    Options = NoOptions
    paper = ""
    weights_licence = "none needed"
    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            labels: Tensor = (clip.frames[:, 0] > 160).to(torch.uint8)
            yield LabelMaps(labels=labels, num_classes=2)


@dataclass(frozen=True, slots=True)
class End:
    """How a process is to end: by which signal or accident, and when."""

    how: str
    after: int
    """Requests to the file system; for "clock", milliseconds."""
    seed: int = 0
    """Of what a power cut destroys."""


class Fate:
    """Counts requests to the file system below `folder`, and ends the process at one of them."""

    def __init__(self, folder: Path, end: End | None) -> None:
        self.count = 0
        self._folder, self._end = str(folder), end
        self._undo: list[tuple[Path, bytes | None]] = []
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
        if self._end and self._end.how == "power":
            self._journal(event, path, details)
        self._busy = False

    def _journal(self, event: str, path: str, details: tuple[Any, ...]) -> None:
        """Renames are lost in a power cut until the folder is told to the disk."""
        if event == "open" and os.path.isdir(path):
            self._undo.clear()
        elif event == "os.rename":
            there = Path(os.fspath(details[1]))
            self._undo.append((there, there.read_bytes() if there.is_file() else None))

    def _finish(self, how: str) -> None:
        if how in ("term", "int"):
            signal.raise_signal({"term": signal.SIGTERM, "int": signal.SIGINT}[how])
            return
        if how == "power":
            self._cut_power()
        os.kill(os.getpid(), signal.SIGKILL)

    def _cut_power(self) -> None:
        assert self._end is not None
        rng = random.Random(self._end.seed)
        for path, before in reversed(self._undo):
            if rng.random() < 0.5:
                path.unlink(missing_ok=True)
                if before is not None:
                    path.write_bytes(before)
        for partial in Path(self._folder).rglob("*.partial*"):
            if partial.name.startswith("."):
                os.truncate(partial, rng.randrange(partial.stat().st_size + 1))


_REQUESTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate", "os.rmdir"}


def run(folder: str, end: End | None, count_to: Any = None) -> None:
    """`vidsynth transfer` of source.mp4 and target.mp4 in `folder`; the process ends with it."""
    place = Path(folder)
    log = os.open(place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.environ |= {"VIDSYNTH_CACHE": f"{folder}/cache", "VIDSYNTH_OFFLINE": "1"}
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kept.WORTH = float("inf")
    fate = Fate(place, end)
    sys.addaudithook(fate)
    if end and end.how == "clock":
        threading.Timer(end.after / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
    square = EntryPoint("square", "killing:SquareExtractor", registry.group("extractor"))
    installed = [e for kind in registry.KINDS for e in entry_points(group=registry.group(kind))]
    code = 1
    try:
        with registry.only([square, *installed]):
            main(arguments(place))
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        code = 130
    if count_to is not None:
        count_to.value = fate.count
    sys.stderr.flush()
    os._exit(code)


def arguments(place: Path) -> list[str]:
    """Of the command line."""
    files = ("source.mp4", "target.mp4")
    named = {"-o": "out/out.mp4", "--recipe": "square.toml", "--subject": "subject"}
    options = [word for flag, name in named.items() for word in (flag, str(place / name))]
    rest = ["--steps", str(STEPS), "--device", "cpu", "--overwrite"]
    return ["transfer", *(str(place / name) for name in files), *options, *rest]
