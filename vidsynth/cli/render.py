"""`vidsynth render`: a trained subject, driven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("subject", type=FILE)
@click.argument("source", type=FILE)
@job_options(
    "output", "audio", "start", "end", "person", "device", "seed", "side_by_side", "steadiness"
)
@click.option("--target", type=FILE, help="Video whose sound --audio target takes.")
@job_options("codec", "overwrite", "settings", "debug")
def render(subject: Path, source: Path, output: Path, **options: Any) -> None:
    """Make SUBJECT, a folder written by `vidsynth train`, move like the person in SOURCE."""
    from vidsynth import jobs
    from vidsynth.cli.progress import reporter

    with running():
        jobs.render(subject, source, output, reporter=reporter(), **options)
