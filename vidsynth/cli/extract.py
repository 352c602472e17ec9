"""`vidsynth extract`: what the tracker sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("video", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="File to write (.safetensors).")
@click.option(
    "--extractor",
    default="pose",
    show_default=True,
    metavar="NAME",
    help="Extractor plugin: pose, face, face3d, labels, or one you installed.",
)
@click.option("--preview", type=FILE, help="Also write a video with the tracking drawn over it.")
@job_options("start", "end", "person", "overwrite", "fps", "settings", "debug")
def extract(video: Path, output: Path, **options: Any) -> None:
    """Track the person or face in VIDEO and write what was found to OUTPUT."""
    from vidsynth import jobs
    from vidsynth.cli.progress import reporter

    with running():
        jobs.extract(video, output, reporter=reporter(), **options)
