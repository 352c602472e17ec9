"""`vidsynth eval`: how good a made video is."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidsynth.cli.common import FILE, Duration, job_options, running

if TYPE_CHECKING:
    from vidsynth.evaluation import Evaluation, Table


FLOOR_EXPLAINED = (
    "↑ higher is better, ↓ lower is better; floor: what real footage itself gets; "
    "-o and --json give the protocol of each number"
)


@click.command(name="eval")
@click.argument("made", type=FILE)
@click.argument("real", type=FILE, required=False)
@click.option("--source", type=FILE, help="The video whose motion MADE should show.")
@click.option("--target", type=FILE, help="A real video of the person MADE should look like.")
@click.option("--labels", type=FILE, help="The label maps that the subject MADE was trained on.")
@job_options("instances")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric, its weights downloaded if need be; repeatable. By default every metric that "
    "needs no download.",
)
@click.option(
    "--size",
    type=click.IntRange(min=16),
    help="Shorter side in pixels at which films are compared; default: MADE's.",
)
@click.option("--start", type=Duration(), help="Where MADE begins in REAL (or in the source).")
@click.option("--end", type=Duration(), help="Where MADE ends in REAL (or in the source).")
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Compare every so manieth frame.",
)
@click.option("-o", "--output", type=FILE, help="Also write this report (.html), with pictures.")
@click.option("--json", "json_file", type=FILE, help="Also write all numbers to this .json file.")
@job_options("device", "overwrite")
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change an option of a metric, METRIC.OPTION=VALUE; repeatable.",
)
@job_options("debug")
def eval_(made: Path, real: Path | None, **options: Any) -> None:
    """Measure how good MADE is.

    \b
    Against the truth, where REAL shows the same moments (self-reenactment):
        vidsynth eval made.mp4 real.mp4 -o report.html
        vidsynth eval made_folder/ real_folder/     (paired by file name)
        vidsynth eval dancer/ target.mp4            (a subject, on frames it
                                                     was never trained on)
    Where there is no truth, motion against one film and looks against
    another (cross-reenactment):
        vidsynth eval made.mp4 --source source.mp4 --target target.mp4

    Beside each value stands what real footage itself gets (the floor) and, where single frames
    tell, a 95 % interval. Report and JSON carry the protocol of every number: two numbers can be
    compared only where their protocols are equal. A metric whose weights are not here says what to
    get and stops nothing; `vidsynth plugins list` names the metrics.
    """
    from vidsynth import evaluation
    from vidsynth.cli.progress import reporter

    with running():
        found = evaluation.evaluate(made, real, reporter=reporter(), **options)
    show(found)


def show(evaluation: Evaluation) -> None:
    """Print the tables to standard output."""
    from rich.console import Console

    from vidsynth.evaluation.results import EXPLAINED

    console = Console()
    if not console.is_terminal:  # a file has no edge to wrap at
        console = Console(width=120)
    for table in evaluation.tables:
        console.print(f"[bold]{table.kind}[/bold]: {EXPLAINED[table.kind]}", highlight=False)
        console.print(_grid(table))
        for line in _footnotes(table):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(FLOOR_EXPLAINED, style="dim", highlight=False, soft_wrap=True)


def _grid(table: Table) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    from vidsynth.evaluation.results import number

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("metric", no_wrap=True)
    for title in ("value", "95 % interval", "floor", "N"):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("unit", style="dim")
    for _, rows in groupby(table.measured, key=lambda row: row.against):
        for row in rows:
            found = row.interval
            grid.add_row(
                escape(f"{row.metric} {row.arrow}" + " *" * bool(row.caveat)),
                number(row.value),
                f"{number(found.low, 3)} to {number(found.high, 3)}" if found else "-",
                number(row.floor),
                str(row.count),
                escape(row.unit),
            )
        grid.add_section()
    return grid


def _footnotes(table: Table) -> list[str]:
    """What the numbers cannot say: doubts, and what was not measured."""
    doubts = [f"* {row.metric}: {row.caveat}" for row in table.measured if row.caveat]
    missing = [f"  {line}" for line in table.unmeasured]
    return [*doubts, *(["not measured:"] if missing else []), *missing]
