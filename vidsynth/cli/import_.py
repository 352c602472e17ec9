"""`vidsynth import`: a network trained with a method's published code."""

from __future__ import annotations

from pathlib import Path

import click

from vidsynth.cli.common import FILE, job_options


@click.command("import")
@click.argument("weights", type=FILE)
@click.argument("subject", type=FILE)
@job_options("overwrite", "debug")
def import_(weights: Path, subject: Path, overwrite: bool) -> None:
    """Put WEIGHTS, a file of the published implementation, into the folder SUBJECT.

    SUBJECT must exist, for its target's size and range of motion: `vidsynth train TARGET -o
    SUBJECT --steps 1` makes one, and --overwrite lets its weights go. For pix2pixhd give a file
    like latest_net_G.pth; the network's shape is read from it.
    """
    from vidsynth.importing import import_weights

    card = import_weights(weights, subject, overwrite=overwrite).card
    click.echo(f"{subject}: {card.generator.name} now has the weights of {weights.name}", err=True)
