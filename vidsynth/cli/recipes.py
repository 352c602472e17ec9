"""`vidsynth recipes`: which there are and what they set."""

from __future__ import annotations

import click

from vidsynth.options import to_toml
from vidsynth.recipes import load_recipe, recipe_names


@click.group()
def recipes() -> None:
    """List and print the recipes."""


@recipes.command("list")
def list_recipes() -> None:
    """Name and purpose of each recipe."""
    width = max(map(len, recipe_names()))
    for name in recipe_names():
        click.echo(f"{name:{width}}  {load_recipe(name).summary}")


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print recipe NAME as a file to copy, change and give to --recipe."""
    click.echo(to_toml(load_recipe(name).to_dict()), nl=False)
