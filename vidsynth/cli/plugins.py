"""`vidsynth plugins`: what is installed, from metadata; `show` imports the one asked for."""

from __future__ import annotations

import json

import click

from vidsynth import registry
from vidsynth.errors import UnknownName
from vidsynth.options import describe_options


@click.group()
def plugins() -> None:
    """List and explain the installed plugins."""


@plugins.command("list")
def list_plugins() -> None:
    """Name, kind and package of each plugin. Imports none of them."""
    rows = [
        (name, kind, f"{info.distribution} {info.version}".strip())
        for kind in registry.KINDS
        for name in registry.names(kind)
        for info in [registry.describe(kind, name)]
    ]
    if not rows:
        click.echo("no plugins are installed; `pip install vidsynth` brings the first ones")
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    for name, kind, package in rows:
        click.echo(f"{name:{widths[0]}}  {kind:{widths[1]}}  {package}")


@plugins.command()
@click.argument("name")
def show(name: str) -> None:
    """Explain plugin NAME: what it is, its paper, its licence, its options."""
    kinds: list[registry.Kind] = [k for k in registry.KINDS if _has(k, name)]
    if not kinds:
        known = {n for kind in registry.KINDS for n in registry.names(kind)}
        raise UnknownName.among("plugin", name, known)
    click.echo("\n\n".join(_explain(kind, name) for kind in kinds))


def _has(kind: registry.Kind, name: str) -> bool:
    found = registry.names(kind)
    return name in found or name in {registry.describe(kind, n).full_name for n in found}


def _explain(kind: registry.Kind, name: str) -> str:
    info = registry.describe(kind, name)
    plugin = registry.load(kind, name)
    lines = [
        f"{info} ({info.module})",
        (plugin.__doc__ or "").strip().split("\n\n")[0],
        f"paper: {getattr(plugin, 'paper', '') or 'none'}",
        f"licence of pretrained weights: {getattr(plugin, 'weights_licence', 'not stated')}",
        "options:",
    ]
    # The others are set by the plugin that uses them.
    section = {"extractor": "extractor", "generator": "generator", "metric": info.name}.get(kind)
    for option in describe_options(plugin.Options):  # pyright: ignore[reportAttributeAccessIssue]
        key = f"-s {section}.{option.name}" if section else option.name
        default = "none" if option.default is None else json.dumps(option.default)
        lines.append(f"  {key}  {option.type}, default {default}")
        if option.text:
            lines.append(f"      {option.text}")
    return "\n".join(lines)
