"""`vidsynth plugins`: what is installed, from metadata; the other commands import what they ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import click

from vidsynth import registry
from vidsynth.cli.common import job_options, running
from vidsynth.errors import PluginError, UnknownName
from vidsynth.options import describe_options
from vidsynth.registry import PluginInfo

NOT_ALLOWED = f"may not run: not in {registry.ALLOWED}, or --no-third-party"


@click.group()
def plugins() -> None:
    """List, explain and check the installed plugins."""


@plugins.command("list")
def list_plugins() -> None:
    """Name, kind and package of each plugin. Imports none of them."""
    infos, complaints = registry.survey()
    called = registry.short_names(infos)
    rows = [
        (name, info.kind, f"{info.distribution} {info.version}".strip(), _note(info))
        for info, name in called.items()
    ]
    if not rows:
        click.echo("no plugins are installed; `pip install vidsynth` brings the first ones")
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for name, kind, package, note in rows:
        line = f"{name:{widths[0]}}  {kind:{widths[1]}}  {package:{widths[2]}}"
        click.echo(f"{line}  {note}".rstrip())
    for complaint in complaints:
        click.echo(f"! {complaint}")


def _note(info: PluginInfo) -> str:
    """What metadata alone says against a plugin."""
    if not info.allowed:
        return NOT_ALLOWED
    if not info.module:
        return "! its entry point is malformed"
    if not info.is_ours and registry.missing_requirements(info):
        return f"! {registry.remedy(info)}"
    return ""


@plugins.command()
@click.argument("name")
def show(name: str) -> None:
    """Explain plugin NAME: what it is, its paper, its licence, its options."""
    click.echo("\n\n".join(_explain(info) for info in _named(name)))


@plugins.command()
@click.argument("name")
@job_options("debug")
def check(name: str) -> None:
    """Run the conformance checks of plugin NAME.

    A check that its author declared the method unable to pass is shown with the reason. Ends with
    exit code 1 when a promise is broken.
    """
    from vidsynth import loading

    broken = False
    for info in _named(name):
        plugin = loading.load(info.kind, info.full_name)
        with running():
            broken |= _checked(info, plugin)
    if broken:
        click.get_current_context().exit(1)


@plugins.command()
def doctor() -> None:
    """Import every plugin and say which cannot be used, why, and what mends it.

    Ends with exit code 1 when there are some.
    """
    found = list(findings())
    for line in found:
        click.echo(line)
    if any(line.startswith("!") for line in found):
        click.get_current_context().exit(1)


def findings() -> Iterator[str]:
    """A line for each plugin; what is wrong begins with "!"."""
    from vidsynth import loading

    infos, complaints = registry.survey()
    for info, name in registry.short_names(infos).items():
        if not info.allowed:
            yield f"- {info} {NOT_ALLOWED}"
            continue
        try:
            loading.load(info.kind, info.full_name)
        except PluginError as error:
            yield f"! {error}"
            continue
        lacking = [] if info.is_ours else registry.missing_requirements(info)
        if lacking:
            yield f"! {info} can be imported, but {registry.remedy(info)}"
        elif name != info.name:
            yield f"- {info} works; others have its name, so call it {name!r}"
        else:
            yield f"{info} works"
    yield from (f"! {complaint}" for complaint in complaints)


def _named(name: str) -> list[PluginInfo]:
    """The plugins of any kind that go by this name. Raises UnknownName, PluginError."""
    infos = registry.installed()
    found = [info for info in infos if name in (info.name, info.full_name)]
    if not found:
        raise UnknownName.among("plugin", name, set(registry.short_names(infos).values()))
    # One of each kind; says so where a name is not enough.
    kinds: list[registry.Kind] = [info.kind for info in found]
    return [registry.describe(kind, name) for kind in dict.fromkeys(kinds)]


def _explain(info: PluginInfo) -> str:
    from vidsynth import loading

    plugin = loading.load(info.kind, info.full_name)
    lines = [
        f"{info} ({info.module})",
        (plugin.__doc__ or "").strip().split("\n\n")[0],
        f"paper: {getattr(plugin, 'paper', '') or 'none'}",
        f"licence of the code: {_code_licence(info)}",
        f"licence of pretrained weights: {getattr(plugin, 'weights_licence', 'not stated')}",
        *_traffic(plugin),
        "options:",
    ]
    # The others are set by the plugin that uses them.
    section = {"extractor": "extractor", "generator": "generator", "metric": info.name}.get(
        info.kind
    )
    for option in describe_options(plugin.Options):
        key = f"-s {section}.{option.name}" if section else option.name
        default = "none" if option.default is None else json.dumps(option.default)
        lines.append(f"  {key}  {option.type}, default {default}")
        if option.text:
            lines.append(f"      {option.text}")
    return "\n".join(lines)


def _code_licence(info: PluginInfo) -> str:
    try:
        about = metadata.metadata(info.distribution)
    except metadata.PackageNotFoundError:
        return "not stated"
    stated = [about[field] for field in ("License-Expression", "License") if field in about]
    return next(filter(None, stated), "not stated")


def _traffic(plugin: Any) -> Iterator[str]:
    """What it takes and gives, as far as its kind says."""
    from vidsynth.kinds import words_for

    for attribute, words in {"accepts": "accepts", "needs": "needs", "gives": "gives"}.items():
        if kinds := getattr(plugin, attribute, ()):
            yield f"{words}: {words_for(kinds)}"
    if hasattr(plugin, "produces"):
        yield f"produces: {plugin.produces.kind}"
    if hasattr(plugin, "temporal"):
        yield f"judges: {'several frames together' if plugin.temporal else 'frames'}"
    if hasattr(plugin, "higher_is_better"):
        better = "higher" if plugin.higher_is_better else "lower"
        unit = f"in {plugin.unit}, " if plugin.unit else ""
        yield f"measures: {unit}{better} is better, against: {plugin.against}"


def _checked(info: PluginInfo, plugin: Any) -> bool:
    """Print the table of one plugin; whether a promise is broken."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from vidsynth.testing import Case, examine

    styles = {"passed": "green", "expected": "yellow", "skipped": "yellow"}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    tally: dict[str, int] = {}
    broken = False
    for found in examine(Case.of(plugin)):
        words = "fails as expected" if found.outcome == "expected" else found.outcome
        tally[words] = tally.get(words, 0) + 1
        broken |= not found.ok
        style = styles.get(found.outcome, "red")
        reason = escape(found.reason or found.promise)
        table.add_row(found.check, f"[{style}]{words}[/{style}]", reason)
    console = Console()
    if not console.is_terminal:  # a file has no edge to wrap at
        console = Console(width=160)
    console.print(str(info), markup=False, highlight=False)
    console.print(table, highlight=False)
    console.print(", ".join(f"{count} {words}" for words, count in tally.items()))
    return broken
