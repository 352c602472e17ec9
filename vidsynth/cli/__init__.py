"""The command line. Help comes from a table, so that `--help` imports neither torch nor plugins."""

from __future__ import annotations

import os
from importlib import import_module

import click

from vidsynth import __version__
from vidsynth.errors import Interrupted, UnknownName, VidsynthError

# Command -> (where it is, what it does). The module is imported when the command is used.
COMMANDS = {
    "transfer": ("vidsynth.cli.transfer:transfer", "Make the target move like the source."),
    "train": ("vidsynth.cli.train:train", "Learn a target's looks into a subject folder."),
    "render": ("vidsynth.cli.render:render", "Make a trained subject move like a source."),
    "run": ("vidsynth.cli.run:run", "Put a video through a pipeline of your own."),
    "generate": ("vidsynth.cli.generate:generate", "Make clips that no video drives."),
    "edit": ("vidsynth.cli.edit:edit", "Turn, move or animate a trained subject by hand."),
    "extract": ("vidsynth.cli.extract:extract", "Track the person or face in a video."),
    "eval": ("vidsynth.cli.eval:eval_", "Measure how good a made video is."),
    "inspect": ("vidsynth.cli.inspect:inspect", "Say whether and how a video was made."),
    "import": ("vidsynth.cli.import_:import_", "Put published weights into a subject."),
    "plugins": ("vidsynth.cli.plugins:plugins", "List, explain and check the installed plugins."),
    "new": ("vidsynth.cli.new:new", "Begin a plugin of your own."),
    "recipes": ("vidsynth.cli.recipes:recipes", "List and print the recipes."),
    "bench": ("vidsynth.cli.bench:bench", "Measure speed and quality on this machine."),
    "doctor": ("vidsynth.cli.doctor:doctor", "Say what is installed, what is missing, and why."),
}


class LazyGroup(click.Group):
    """Imports a command's module when that command is called, and turns errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownName.among("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except VidsynthError as error:
            if ctx.meta.get(DEBUG):
                raise
            prefix = "" if isinstance(error, Interrupted) else "error: "
            click.echo(f"{prefix}{error}", err=True)
            for note in getattr(error, "__notes__", ()):
                click.echo(f"  {note}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stopped:
            click.echo("\nstopped; run the same command again to go on", err=True)
            for note in getattr(stopped, "__notes__", ()):
                click.echo(f"  {note}", err=True)
            ctx.exit(130)


DEBUG = "vidsynth.debug"


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value  # shared by a group and its commands


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show the traceback of an error, and what libraries print.",
)


def _only_ours(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vidsynth.registry import ALLOWED  # reads metadata, which --help need not wait for

        os.environ[ALLOWED] = ""  # so that processes started from this one keep to it


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidsynth")
@click.option(
    "--no-third-party",
    is_flag=True,
    expose_value=False,
    callback=_only_ours,
    help="Run no plugins but vidsynth's own.",
)
@debug_option
def main() -> None:
    """Video synthesis and reenactment: one command turns two videos into a finished one.

    The source gives the motion, the target gives the looks:

    \b
        vidsynth transfer source.mp4 target.mp4 -o out.mp4
    """
