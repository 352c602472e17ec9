"""Options and argument types that several commands share."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import click

from vidsynth.cli import DEBUG, debug_option
from vidsynth.options import parse_duration

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Duration(click.ParamType):
    """Seconds, written like 90s, 10m, 1h30m or 1:30."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        return parse_duration(value) if isinstance(value, str) else float(value)


FILE = click.Path(path_type=Path)

# Each option says what happens when it is left out, unless click shows a default.
_OPTIONS: dict[str, Decorator] = {
    "output": click.option(
        "-o", "--output", type=FILE, required=True, help="Video file to write (.mp4, .mov, .mkv)."
    ),
    "recipe": click.option(
        "--recipe",
        metavar="NAME|FILE",
        help="Recipe; by default dance or face, as the video asks, or street with --labels.",
    ),
    "preset": click.option(
        "--preset",
        metavar="NAME",
        help="draft (a minute), standard (the default) or studio (the best); sets size and time.",
    ),
    "generator": click.option(
        "--generator", metavar="NAME", help="Generator plugin; by default the recipe's."
    ),
    "size": click.option(
        "--size", type=click.IntRange(min=1), help="Shorter side in pixels; default: the recipe's."
    ),
    "budget": click.option(
        "--budget", type=Duration(), help="Time to train, like 10m; default: the recipe's."
    ),
    "steps": click.option(
        "--steps", type=click.IntRange(min=1), help="Training steps, instead of a time."
    ),
    "subject": click.option(
        "--subject", type=FILE, help="Folder to keep the trained target in, or to go on from."
    ),
    "audio": click.option(
        "--audio",
        type=click.Choice(["source", "target", "none"]),
        default="source",
        show_default=True,
        help="Whose sound the result carries.",
    ),
    "start": click.option("--start", type=Duration(), help="Where to begin in the source."),
    "end": click.option("--end", type=Duration(), help="Where to stop in the source."),
    "person": click.option(
        "--person",
        type=click.IntRange(min=1),
        help="Which person to follow, by size: 1 is the largest (default).",
    ),
    "device": click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|mps",
        help="Where to compute; cuda:1 names the second GPU.",
    ),
    "seed": click.option("--seed", type=int, default=0, show_default=True, help="Random seed."),
    "side_by_side": click.option(
        "--side-by-side", is_flag=True, help="Show the source beside the result."
    ),
    "steadiness": click.option(
        "--steadiness",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="0 keeps what flickers; up to 0.5 frames calm down, up to 1 the motion too.",
    ),
    "instances": click.option(
        "--instances",
        type=FILE,
        help="Instance maps that go with the label maps, so that things of one class that touch "
        "stay apart.",
    ),
    "fps": click.option(
        "--fps",
        type=float,
        help="Frames per second of a folder of pictures; default: 25, or the subject's own.",
    ),
    "codec": click.option(
        "--codec", default="h264", show_default=True, help="Video codec to write."
    ),
    "overwrite": click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
    "provenance": click.option(
        "--provenance/--no-provenance",
        default=True,
        help="Say in the result that it is synthetic (default), signed where c2pa is installed.",
    ),
    "certificate": click.option(
        "--certificate",
        type=FILE,
        help="PEM file with your own key and certificate to sign with; default: a self-made one.",
    ),
    "consent": click.option(
        "--consent",
        metavar="TEXT|FILE",
        help="What the person in the target agreed to; kept in the subject, told by its films.",
    ),
    "settings": click.option(
        "-s",
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a recipe's setting, like -s generator.filters=48; repeatable.",
    ),
    "debug": debug_option,
}


def job_options(*names: str) -> Decorator:
    """The shared options of these names, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return decorate


@contextmanager
def running() -> Iterator[None]:
    """Around a job: a polite kill unwinds like Ctrl-C, and libraries keep off the terminal."""
    debug = click.get_current_context().meta.get(DEBUG)
    with _sigterm_as_ctrl_c(), nullcontext() if debug else quiet_libraries():
        yield


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """So that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Only Python's own standard error reaches the terminal, and no warning for developers.

    MediaPipe's C++ writes to file descriptor 2 whatever log level it is given.
    """
    terminal = os.dup(2)
    python = sys.stderr
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        if not sys.warnoptions:  # the user's own -W or PYTHONWARNINGS
            warnings.simplefilter("ignore")
        python.flush()
        if _descriptor(python) == 2:
            sys.stderr = os.fdopen(terminal, "w", 1, encoding=python.encoding, closefd=False)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = python
            os.dup2(terminal, 2)
            os.close(terminal)


def _descriptor(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError):  # a file in memory
        return None
