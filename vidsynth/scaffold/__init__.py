"""`vidsynth new plugin`: a complete small distribution, to be changed into somebody's own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal, get_args

from vidsynth import __version__
from vidsynth.errors import BadOption, OutputExists
from vidsynth.files import cannot_write, make_folder

PluginKind = Literal["extractor", "generator", "discriminator", "metric", "stage"]
KINDS: tuple[PluginKind, ...] = get_args(PluginKind)

# Template -> file in the new folder.
_COMMON = {
    "pyproject.toml": "pyproject.toml",
    "readme.md": "README.md",
    "test_common.py": "tests/test_$name.py",
}


def write_plugin(name: str, kind: PluginKind, parent: Path) -> Path:
    """Write the distribution `vidsynth-NAME` into the folder `parent`.

    Args:
        name: of the plugin and, with "vidsynth-" before it, of its distribution.
        kind: of plugin.
        parent: where its folder goes.

    Returns:
        Its folder: pyproject.toml, README.md, one module, and its tests.

    Raises:
        BadOption: the name is none for a Python module.
        OutputExists: the folder is there already.
        CannotWrite: it cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BadOption(
            f"{name!r} cannot name a plugin; begin with a letter, and use small letters, digits "
            "and _ only"
        )
    words = _words(name, kind)
    folder = parent / words["distribution"]
    if folder.exists():
        raise OutputExists(f"{folder} exists already; choose another name or remove it")
    make_folder(parent)
    try:
        # Whole or not at all: filled under another name, then renamed.
        with tempfile.TemporaryDirectory(prefix=".vidsynth-new-", dir=parent) as temporary:
            begun = Path(temporary) / folder.name
            for path, text in _files(kind, words).items():
                (begun / path).parent.mkdir(parents=True, exist_ok=True)
                (begun / path).write_text(text, encoding="utf-8")
            begun.rename(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def _words(name: str, kind: PluginKind) -> dict[str, str]:
    """What stands for what in the templates."""
    major, minor = __version__.split(".")[:2]
    return {
        "name": name,
        "kind": kind,
        "group": f"vidsynth.{kind}s",
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "module": f"vidsynth_{name}",
        "distribution": f"vidsynth-{name.replace('_', '-')}",
        "versions": f">={major}.{minor},<{int(major) + 1}",
        "use": _read(f"use_{kind}.txt").strip(),
    }


def _files(kind: PluginKind, words: Mapping[str, str]) -> dict[str, str]:
    """Path in the folder -> text."""
    made = {path: _read(template) for template, path in _COMMON.items()}
    made["tests/test_$name.py"] += _read(f"test_{kind}.py")
    made["$module.py"] = _read(f"{kind}.py")
    words = {**words, "use": Template(words["use"]).substitute(words)}
    return {
        Template(path).substitute(words): Template(text).substitute(words)
        for path, text in made.items()
    }


def _read(template: str) -> str:
    """A template; those of Python are no modules, so that nobody imports or checks them as such."""
    path = files("vidsynth.scaffold") / "templates" / f"{template.removesuffix('.txt')}.txt"
    return path.read_text(encoding="utf-8")
