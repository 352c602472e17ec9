"""`vidsynth train`: learn a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("target", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Subject folder to write.")
@job_options("recipe", "preset", "generator", "size", "budget", "steps", "person", "device", "seed")
@job_options("settings", "debug")
def train(target: Path, output: Path, **options: Any) -> None:
    """Learn how the person in TARGET looks, into a subject folder for `vidsynth render`.

    A folder that an earlier run left unfinished is gone on with, exactly where it stopped. Run it
    under `accelerate launch -m vidsynth.cli train ...` to use several GPUs or machines.
    """
    from vidsynth import jobs
    from vidsynth.cli.progress import reporter

    with running():
        jobs.train(target, output, reporter=reporter(), **options)
