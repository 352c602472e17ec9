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
    "output", "instances", "audio", "start", "end", "person", "device", "seed", "side_by_side"
)
@click.option("--target", type=FILE, help="Video whose sound --audio target takes.")
@job_options("steadiness", "codec", "overwrite", "provenance", "certificate", "fps")
@job_options("settings", "debug")
def render(subject: Path, source: Path, output: Path, **options: Any) -> None:
    """Make SUBJECT, a folder written by `vidsynth train`, move like the person in SOURCE.

    SOURCE is a video, or a folder of pictures that are its frames. A subject that was trained with
    --labels is driven by label maps of the same sort: a folder of PNGs, or a label video.
    """
    from vidsynth import jobs
    from vidsynth.cli.progress import reporter

    with running():
        jobs.render(subject, source, output, reporter=reporter(), **options)
