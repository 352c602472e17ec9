"""The README tells the truth: its help is the real one, its example names what exists."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import vidsynth
from vidsynth import registry
from vidsynth.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The fenced block after `<!-- marker -->`."""
    match = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert match, f"README.md has no block after <!-- {marker} -->"
    return match[1]


def test_help_is_the_real_one() -> None:
    real = CliRunner().invoke(main, ["--help"], prog_name="vidsynth", terminal_width=80).output
    assert block("help") == real


def test_example_calls_what_exists_with_arguments_it_takes() -> None:
    code = block("python example")
    assert len([line for line in code.splitlines() if line.strip()]) <= 16
    calls = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call)]
    called = set()
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        function = getattr(vidsynth, call.func.attr)
        keywords = {str(k.arg): None for k in call.keywords}
        inspect.signature(function).bind(*call.args, **keywords)
        called.add(call.func.attr)
    assert called == {"transfer", "train", "render", "extract", "evaluate"}


@pytest.mark.parametrize(
    "line",
    [line.partition("#")[0] for line in README.splitlines() if line.startswith("vidsynth ")]
    + [block("demo line").split(" && ")[-1]],
)
def test_commands_parse(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    command.make_context(name, list(arguments))


@pytest.mark.parametrize("marker", ["demo line", "test line"])
def test_lines_need_nothing_but_python(marker: str) -> None:
    line = block(marker).strip()
    assert "\n" not in line
    install = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
    assert line.startswith(install)


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`((?:\w+/)+)`", README):
        if not target.startswith("dancer"):
            assert (ROOT / target).exists(), target


def test_the_table_of_plugins_names_every_one_of_ours() -> None:
    table = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    rows = {
        tuple(re.findall(r"^\| `([\w-]+)` \| (\w+)", line)[0])
        for line in table.splitlines()
        if line.startswith("| `")
    }
    ours = {
        (name, kind)
        for kind in registry.KINDS
        for name in registry.names(kind)
        if registry.describe(kind, name).distribution == "vidsynth"
    }
    assert rows == ours
