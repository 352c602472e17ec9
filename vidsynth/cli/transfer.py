"""`vidsynth transfer`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("source", type=FILE)
@click.argument("target", type=FILE)
@job_options("output", "recipe", "preset", "generator", "size", "budget", "steps", "subject")
@job_options(
    "audio",
    "start",
    "end",
    "person",
    "device",
    "seed",
    "side_by_side",
    "steadiness",
    "codec",
    "overwrite",
    "provenance",
    "certificate",
    "consent",
)
@job_options("fps", "settings", "debug")
def transfer(source: Path, target: Path, output: Path, **options: Any) -> None:
    """Make the person in TARGET move like the one in SOURCE.

    Tracks both videos, learns how the target looks (for --budget), fits the source's motion to the
    target's body or head, and writes OUTPUT with the source's timing and sound. What is tracked
    and learned is kept: a second transfer to the same target starts at once.

    With --recipe animate TARGET may be a picture: a pretrained model moves it (see doctor).
    """
    from vidsynth import animating, jobs
    from vidsynth.cli.progress import reporter

    with running():
        if animating.animates(options["recipe"]):
            chosen = animating.without_training(options)
            animating.animate(source, target, output, reporter=reporter(), **chosen)
            return
        jobs.transfer(source, target, output, reporter=reporter(), **options)
