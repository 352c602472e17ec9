"""`vidsynth generate`: clips that no video drives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.option("--subject", type=FILE, required=True, help="Model folder, of vidsynth train CLIPS.")
@click.option("-o", "--output", type=FILE, help="Video file to write (.mp4, .mov, .mkv).")
@click.option("--class", "class_name", metavar="NAME", help="What to show; see --list-classes.")
@click.option("--list-classes", is_flag=True, help="Print what the model can show, and stop.")
@click.option(
    "--frames", type=click.IntRange(min=1), help="Length; default: that of the clips it learnt."
)
@click.option("--to-class", metavar="NAME", help="Change into this class on the way.")
@click.option("--to-seed", type=int, help="Change into this seed's clip on the way.")
@click.option(
    "--truncation", type=float, help="Noise within this only, like 0.7: more usual, less varied."
)
@click.option(
    "--sheet", type=FILE, help="Picture to write: many seeds of the class, or every class."
)
@job_options("device", "seed", "codec", "overwrite", "provenance", "certificate", "debug")
def generate(subject: Path, output: Path | None, list_classes: bool, **options: Any) -> None:
    """Make a clip of a class, of any length, with the model in the folder --subject.

    \b
        vidsynth generate --subject model/ --list-classes
        vidsynth generate --subject model/ --class walking --frames 48 --seed 3 -o out.mp4
        vidsynth generate --subject model/ --sheet classes.png

    The same seed gives the same clip.
    """
    from vidsynth import generation
    from vidsynth.cli.progress import reporter
    from vidsynth.subject import load_subject

    with running():
        if list_classes:
            for name in generation.classes_of(load_subject(subject)):
                click.echo(name)
            return
        generation.generate(subject, output, reporter=reporter(), **options)
