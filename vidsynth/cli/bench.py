"""`vidsynth bench`: run one benchmark, show its rows as they come, keep them as JSON."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from vidsynth import __version__
from vidsynth.bench import BENCHES, Asked, Row, load
from vidsynth.cli.common import FILE, job_options, running
from vidsynth.errors import Interrupted
from vidsynth.files import check_free, writing

VERSIONED = ("torch", "av", "mediapipe", "opencv-contrib-python", "numpy", "accelerate")


def _list(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        width = max(map(len, BENCHES))
        for name, (_, text) in BENCHES.items():
            click.echo(f"{name:{width}}  {text}")
        ctx.exit()


@click.command()
@click.argument("name")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list,
    help="List the benches and stop.",
)  # fmt: skip
@click.option("--json", "report", type=FILE, help="Also write the rows to this file.")
@click.option("--full", is_flag=True, help="Everything; without it a bench ends within 20 minutes.")
@click.option(
    "--clip", type=FILE, help="A video of your own, where a bench takes one (quality, face3d)."
)
@click.option(
    "--subject", type=FILE, help="A trained model to judge instead of training (dvdgan, text)."
)
@click.option("--world", metavar="puppet|head", help="A synthetic world instead of the first.")
@click.option("--sheet", type=FILE, help="A picture to write, to look at (quality, text).")
@job_options("size", "device", "overwrite", "debug")
def bench(name: str, report: Path | None, overwrite: bool, **asked: Any) -> None:
    """Measure one thing, NAME, on this machine; `--list` says what there is.

    Every ratio comes from one run in which both sides took turns; values are medians, beside them
    the smallest and the largest round. Goals are shown where there are some; falling short of one
    is no error.
    """
    measure = load(name)
    for path in (report, asked["sheet"]):
        if path is not None:
            check_free(path, overwrite)
    from vidsynth.cli.progress import reporter

    with running():
        rows: list[Row] = []
        facts = _facts(asked["device"])
        show = _table()
        try:
            for row in measure(Asked(**asked, reporter=reporter())):
                rows.append(row)
                show(row)
                if report is not None:
                    _write(report, facts, rows)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped after {len(rows)} rows"
                + (f", which are in {report}" if report and rows else "")
                + "; run the same command again for all of them"
            ) from None
    if report is not None and not rows:
        _write(report, facts, rows)


def _facts(device: str) -> dict[str, Any]:
    return {
        "device": _device_words(device),
        "versions": {"vidsynth": __version__, "python": platform.python_version()}
        | {name: version for name, version in _versions()},
        "command": shlex.join(["vidsynth", *sys.argv[1:]]),
    }


def _device_words(device: str) -> str:
    import torch

    from vidsynth import devices

    chosen = devices.choose(device)
    if chosen.type == "cuda":
        return f"{chosen}: {torch.cuda.get_device_properties(chosen).name}"
    return f"{chosen}: {_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONED:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _write(path: Path, facts: dict[str, Any], rows: list[Row]) -> None:
    """The rows so far: whole, or not at all."""
    text = json.dumps({**facts, "rows": [row.to_dict() for row in rows]}, indent=2)
    with writing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _table() -> Any:
    """A function that prints the next row of one table, whose heading is printed now."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file has no edge to wrap at
        console = Console(width=120)
    widths = {"value": 16, "min - max": 17, "goal": 10, "": 5}
    room = max(20, console.width - sum(widths.values()) - 2 * len(widths))

    def line(*cells: str, style: str | None = None) -> None:
        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(width=room)
        for width in widths.values():
            table.add_column(width=width, justify="right")
        table.add_row(*cells, style=style)
        console.print(table, highlight=False)

    line("what", *widths, style="bold")

    def show(row: Row) -> None:
        value = f"{number(row.value)} {row.unit}".rstrip()
        spread = "" if row.spread is None else " - ".join(map(number, row.spread))
        goal = "" if row.goal is None else f"{'<=' if row.at_most else '>='} {number(row.goal)}"
        mark, style = {None: ("", None), True: ("ok", "green"), False: ("short", "yellow")}[row.ok]
        line(row.name, value, spread, goal, mark, style=style)

    return show


def number(value: float) -> str:
    """Four digits where they matter: "0.9312", "12.34", "1816", "2.1e-14"."""
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
