"""`vidsynth new plugin`: the start of one's own plugin."""

from __future__ import annotations

from pathlib import Path

import click

from vidsynth.cli.common import FILE
from vidsynth.scaffold import KINDS, PluginKind, write_plugin


@click.group()
def new() -> None:
    """Begin something of your own."""


@new.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it shall be.")
@click.option(
    "-o", "--output", type=FILE, default=Path(), help="Folder to put its folder in; default: here."
)
def plugin(name: str, kind: PluginKind, output: Path) -> None:
    """Write a complete small package with the plugin NAME, to be changed into your own.

    It works as it is: a module with options, the entry point, a conformance test, a README.
    """
    folder = write_plugin(name, kind, output)
    click.echo(f"wrote {folder}; go on with: pip install -e {folder} && pytest {folder}")
