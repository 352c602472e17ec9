"""`vidsynth edit`: a trained face, changed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, Duration, job_options, running


@click.command()
@click.argument("subject", type=FILE)
@job_options("output")
@click.option(
    "--change",
    "changes",
    multiple=True,
    metavar="NAME=CURVE",
    help="What to add: yaw=15, or over time smile=0s:0,1.5s:1; repeatable.",
)
@click.option(
    "--curves", type=FILE, help="TOML file of them: yaw = 15, smile = [[0, 0], [1.5, 1]]."
)
@click.option(
    "--target",
    type=FILE,
    help="The video SUBJECT was trained on, to change; default: SUBJECT at rest.",
)
@click.option(
    "--seconds", type=Duration(), default=4.0, show_default=True, help="Length without --target."
)
@job_options(
    "device",
    "seed",
    "steadiness",
    "codec",
    "overwrite",
    "provenance",
    "certificate",
    "debug",
)
def edit(subject: Path, output: Path, **options: Any) -> None:
    """Film SUBJECT, a folder written by `vidsynth train`, with some things changed.

    \b
    The head: yaw, pitch, roll (degrees), x, y (shares of the height), size.
    The eyes: gaze_yaw, gaze_pitch (degrees).
    Expressions, 0 to 1: smile, jaw_open, blink, brow_up, brow_down, pucker and more; with _left
    or _right on one side. They need a subject of the recipe portrait, like the eyes.
    """
    from vidsynth import editing
    from vidsynth.cli.progress import reporter

    with running():
        editing.edit(subject, output, reporter=reporter(), **options)
