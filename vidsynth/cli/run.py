"""`vidsynth run`: a pipeline of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("pipeline", type=FILE)
@click.argument("source", type=FILE)
@job_options("output")
@click.option(
    "--audio",
    type=click.Choice(["source", "none"]),
    default="source",
    show_default=True,
    help="Whose sound the result carries.",
)
@job_options("start", "end", "device", "seed", "codec", "overwrite", "debug")
def run(pipeline: Path, source: Path, output: Path, **options: Any) -> None:
    """Put SOURCE through the stages that the file PIPELINE names.

    \b
        [[stages]]
        extract = "labels"      # an extractor plugin; options follow
        [[stages]]
        stage = "cut_out"       # a stage plugin
        colour = [0, 255, 0]
        [[stages]]
        subject = "dancer/"     # a folder written by vidsynth train
        [[stages]]
        generate = "NAME"       # a generator that brings its own weights

    Stages that do not fit together are refused before SOURCE is opened.
    """
    from vidsynth import pipeline as pipelines
    from vidsynth.cli.progress import reporter

    with running():
        pipelines.run(source, pipeline, output, reporter=reporter(), **options)
