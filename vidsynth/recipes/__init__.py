"""Recipes: named, complete settings of a job, as TOML files.

A recipe file and `-s` speak the same language: `-s generator.filters=48` sets `filters` in the
section `[generator]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from vidsynth.errors import BadOption, UnknownName
from vidsynth.options import merge


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which plugins do a job, and how each part is set."""

    name: str
    summary: str
    """One sentence for `vidsynth recipes list`."""
    extractor: str
    """Name of the plugin that tracks both videos; empty in a recipe that learns from clips."""
    generator: str
    """Name of the plugin that draws the target."""
    size: int = 256
    """Shorter side of the made frames in pixels, unless the user says otherwise."""
    extractor_options: Mapping[str, Any] = field(default_factory=dict)
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    retarget: Mapping[str, Any] = field(default_factory=dict)
    clips: Mapping[str, Any] | None = None
    """Given where many clips by class are learnt from, and not one target: what is taken of them.
    Such a recipe has neither an extractor nor anything to retarget."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> what it changes, in the nested form of a recipe file."""

    def at_preset(self, name: str) -> Recipe:
        """The recipe as this preset changes it, without presets.

        "standard" is the recipe itself where it says nothing else. Raises UnknownName.
        """
        names = ["standard", *(n for n in self.presets if n != "standard")]
        if name not in names:
            raise UnknownName.among(f"preset of recipe {self.name!r}", name, names)
        return replace(self, presets={}).with_overrides(self.presets.get(name, {}))

    def to_dict(self) -> dict[str, Any]:
        """The nested form of a recipe file, less the name."""
        presets = {"presets": {n: dict(p) for n, p in self.presets.items()}} if self.presets else {}
        driven = {
            "extractor": {"plugin": self.extractor, **self.extractor_options},
            "retarget": dict(self.retarget),
        }
        return (
            presets
            | {"summary": self.summary, "size": self.size}
            | (driven if self.clips is None else {"clips": dict(self.clips)})
            | {
                "generator": {"plugin": self.generator, **self.generator_options},
                "training": dict(self.training),
            }
        )

    def with_overrides(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe with other settings, given in the nested form of a recipe file.

        Another plugin starts from its own defaults: the options of the one it replaces go.
        Option names are checked where the options are built, not here.

        Raises:
            UnknownName: a section that recipes do not have.
            BadOption: a section given as a value, or a value of the wrong type.
        """
        ours = self.to_dict()
        for part in ("extractor", "generator"):
            theirs = settings.get(part, {})
            if (
                part in ours
                and isinstance(theirs, Mapping)
                and theirs.get("plugin", ours[part]["plugin"]) != (ours[part]["plugin"])
            ):
                ours[part] = {}
        return _from_dict(self.name, merge(ours, settings), where=f"recipe {self.name!r}")


def recipe_names() -> list[str]:
    """Recipes that come with vidsynth, sorted."""
    folder = files("vidsynth.recipes")
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe that comes with vidsynth, by name, or the one in a `.toml` file.

    Raises:
        UnknownName: no such recipe, or a section that recipes do not have.
        BadOption: the file is missing, no TOML, or lacks a plugin.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        name, text = path.stem, _read(path)
    elif (name := str(name_or_path)) in recipe_names():
        text = files("vidsynth.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UnknownName.among("recipe", name, recipe_names())
    try:
        return _from_dict(name, tomllib.loads(text), where=f"recipe {name_or_path}")
    except tomllib.TOMLDecodeError as error:
        raise BadOption(f"{name_or_path} is no TOML file: {error}; correct it there") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(
            f"the recipe {path} cannot be read: {error}; give a readable .toml file or one of: "
            f"{', '.join(recipe_names())}"
        ) from error


_SECTIONS = ("extractor", "clips", "generator", "training", "retarget", "presets")


def _from_dict(name: str, values: Mapping[str, Any], *, where: str) -> Recipe:
    for key in values:
        if key not in ("summary", "size", *_SECTIONS):
            raise UnknownName.among(f"section of {where}", key, ("summary", "size", *_SECTIONS))
    for section in _SECTIONS:
        if not isinstance(values.get(section, {}), Mapping):
            raise BadOption(
                f"{section} in {where} is a section; set an option of it, like {section}.name=value"
            )
    clips = values.get("clips")
    for driven in ("extractor", "retarget") if clips is not None else ():
        if values.get(driven):
            raise BadOption(
                f"{where} has [clips] and [{driven}]: it learns either from clips by class or from "
                "a target that is driven; leave one out"
            )
    extractor, generator = (dict(values.get(part, {})) for part in ("extractor", "generator"))
    size = values.get("size", 256)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise BadOption(
            f"size = {size!r} in {where} cannot be used: it is a whole number of pixels"
        )
    return Recipe(
        name=name,
        summary=str(values.get("summary", "")),
        extractor="" if clips is not None else _plugin(extractor, "extractor", where),
        generator=_plugin(generator, "generator", where),
        size=size,
        extractor_options=extractor,
        generator_options=generator,
        training=dict(values.get("training", {})),
        retarget=dict(values.get("retarget", {})),
        clips=None if clips is None else dict(clips),
        presets=dict(values.get("presets", {})),
    )


def _plugin(section: dict[str, Any], part: str, where: str) -> str:
    """Take the plugin's name out of its section."""
    plugin = section.pop("plugin", None)
    if not isinstance(plugin, str):
        raise BadOption(f"{where} names no {part}; set {part}.plugin to the name of one")
    return plugin
