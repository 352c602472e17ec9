"""Plugins, found through entry points: listed from metadata alone, imported on first use.

The group of a kind is its API version: a breaking change to generators makes the group
`vidsynth.generators.v2`. In-tree plugins register like everybody else's. `VIDSYNTH_PLUGINS` names
the packages whose plugins may run beside vidsynth's own; empty, none may.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distributions,
    entry_points,
    version,
)
from typing import Literal, get_args

from vidsynth.errors import PluginError, UnknownName

Kind = Literal["extractor", "generator", "discriminator", "encoder", "metric", "stage"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ALLOWED = "VIDSYNTH_PLUGINS"
"""Environment variable: packages, or `package:name`, separated by commas or spaces."""
OURS = "vidsynth"


def group(kind: Kind) -> str:
    """The entry-point group of a kind: "vidsynth.generators"."""
    return f"vidsynth.{kind}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """What the metadata of an installed distribution says about one plugin."""

    name: str
    kind: Kind
    distribution: str
    version: str
    module: str
    """Empty when its entry point is malformed."""
    attribute: str
    requires: tuple[str, ...] = ()
    """The distribution's requirements, as in "av>=17; extra == 'x'"."""

    @property
    def full_name(self) -> str:
        """`distribution:name`, which is unique where `name` may not be."""
        return f"{self.distribution}:{self.name}"

    @property
    def is_ours(self) -> bool:
        """Whether it comes with vidsynth."""
        return _normal(self.distribution) == OURS

    @property
    def allowed(self) -> bool:
        """Whether `VIDSYNTH_PLUGINS` lets it run."""
        listed = os.environ.get(ALLOWED)
        if listed is None or self.is_ours:
            return True
        wanted = {_normal(word) for word in re.split(r"[,\s]+", listed)}
        return not wanted.isdisjoint({_normal(self.distribution), _normal(self.full_name)})

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.distribution} {self.version}".rstrip()


def installed() -> list[PluginInfo]:
    """All plugins, allowed or not, by kind and name. Reads metadata once and imports nothing."""
    return survey()[0]


def survey() -> tuple[list[PluginInfo], list[str]]:
    """What `installed` gives; and packages whose entry points cannot be read, as sentences."""
    offers, unreadable = _offers()
    found = [info for kind in KINDS for info, _ in _found(kind, offers)]
    return sorted(found, key=lambda i: (KINDS.index(i.kind), i.name, i.distribution)), unreadable


def names(kind: Kind) -> list[str]:
    """Names that `load` takes, sorted; a name that two distributions claim is given in full."""
    found = [info for info, _ in _found(kind) if info.allowed]
    return sorted(short_names(found).values())


def short_names(infos: Iterable[PluginInfo]) -> dict[PluginInfo, str]:
    """What each may be called: its name, or its full name where several of a kind claim it."""
    infos = list(infos)
    claims = Counter((i.kind, i.name) for i in infos)
    return {i: i.name if claims[i.kind, i.name] == 1 else i.full_name for i in infos}


def describe(kind: Kind, name: str) -> PluginInfo:
    """What is known of a plugin without importing it.

    Raises:
        UnknownName: nothing installed offers it.
        PluginError: several distributions do, or it may not run.
    """
    return _find(kind, name)[0]


def load(kind: Kind, name: str) -> type:
    """The plugin's class, imported now if it has not been.

    Args:
        kind: as in `KINDS`.
        name: its entry point's name, or `distribution:name`.

    Raises:
        UnknownName: nothing installed offers it.
        PluginError: several distributions do, it may not run, its import failed, or it is no class.
    """
    info, entry_point = _find(kind, name)
    if not info.module:
        raise PluginError(
            f"{info} has the malformed entry point {entry_point.value!r}; it must be written "
            f"package.module:Class: report it to the author of {info.distribution}"
        )
    try:
        loaded = entry_point.load()
    except Exception as error:  # the one place where anything may go wrong: foreign code
        raise PluginError(
            f"{info} cannot be imported: {type(error).__name__}: {error}; {remedy(info)}"
        ) from error
    if not isinstance(loaded, type):
        raise PluginError(
            f"{info} is no class but {loaded!r}; its entry point must name the plugin's class"
        )
    return loaded


def remedy(info: PluginInfo) -> str:
    """The command that is likeliest to mend a plugin which cannot be imported."""
    lacking = missing_requirements(info)
    if lacking:
        quoted = " ".join(f'"{requirement}"' for requirement in lacking)
        return f"its package lacks what it requires: pip install {quoted}"
    return f"install it again: pip install --force-reinstall --no-deps {info.distribution}"


def missing_requirements(info: PluginInfo) -> list[str]:
    """Requirements of a plugin's distribution that are not installed, or in another version."""
    from packaging.requirements import InvalidRequirement, Requirement

    lacking = []
    for text in info.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            lacking.append(text)
            continue
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        here = _version(wanted.name)
        if here is None or not wanted.specifier.contains(here, prereleases=True):
            lacking.append(f"{wanted.name}{wanted.specifier}")
    return lacking


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@contextmanager
def only(offered: Iterable[EntryPoint]) -> Iterator[None]:
    """Within the block, `offered` is all that is installed: tests need not depend on more."""
    global _offered
    before, _offered = _offered, tuple(offered)
    try:
        yield
    finally:
        _offered = before


_offered: tuple[EntryPoint, ...] | None = None


def _offers() -> tuple[list[EntryPoint], list[str]]:
    """Entry points of all our groups, and what could not be read."""
    if _offered is not None:
        return list(_offered), []
    try:
        everything = entry_points()
        return [e for kind in KINDS for e in everything.select(group=group(kind))], []
    except Exception:  # one damaged package must not hide the others: look at each by itself
        return _offers_one_by_one()


def _offers_one_by_one() -> tuple[list[EntryPoint], list[str]]:
    groups = {group(kind) for kind in KINDS}
    found: dict[str, list[EntryPoint]] = {}
    complaints = []
    for distribution in distributions():
        try:
            ours = [e for e in distribution.entry_points if e.group in groups]
        except Exception as error:
            name = _name(distribution)
            complaints.append(
                f"the entry points of {name} cannot be read ({type(error).__name__}: {error}); "
                f"pip install --force-reinstall --no-deps {name}"
            )
        else:
            if ours:  # the first of a name on the path is the one that is imported
                found.setdefault(_normal(_name(distribution)), ours)
    return [e for offers in found.values() for e in offers], complaints


def _found(
    kind: Kind, offers: Iterable[EntryPoint] | None = None
) -> list[tuple[PluginInfo, EntryPoint]]:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    offers = _offers()[0] if offers is None else offers
    ours = [e for e in offers if e.group == group(kind)]
    # Each look at a distribution's name parses its metadata anew, so look once.
    facts = {id(e.dist): _facts(e.dist) for e in {id(e.dist): e for e in ours}.values()}
    return [(_info(kind, e, *facts[id(e.dist)]), e) for e in ours]


def _facts(distribution: Distribution | None) -> tuple[str, str, tuple[str, ...]]:
    """Name, version and requirements."""
    if distribution is None:
        return "unknown", "", ()
    metadata = distribution.metadata
    requires = tuple(metadata.get_all("Requires-Dist") or ())
    return _name(distribution), metadata["Version"] or "", requires


def _name(distribution: Distribution) -> str:
    return distribution.metadata["Name"] or "unknown"


def _info(
    kind: Kind, entry_point: EntryPoint, distribution: str, version: str, requires: tuple[str, ...]
) -> PluginInfo:
    match = entry_point.pattern.match(entry_point.value)
    return PluginInfo(
        name=entry_point.name,
        kind=kind,
        distribution=distribution,
        version=version,
        module=match["module"] if match else "",
        attribute=(match["attr"] or "") if match else "",
        requires=requires,
    )


def _normal(name: str) -> str:
    """As packages are compared: case, dashes, dots and underscores do not count."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _find(kind: Kind, name: str) -> tuple[PluginInfo, EntryPoint]:
    known = [(i, e) for i, e in _found(kind) if name in (i.name, i.full_name)]
    matches = [(i, e) for i, e in known if i.allowed]
    if known and not matches:
        packages = ", ".join(sorted({i.distribution for i, _ in known}))
        raise PluginError(
            f"{known[0][0]} is installed and may not run; add {packages} to the environment "
            f"variable {ALLOWED}, or leave --no-third-party out"
        )
    if not matches:
        raise UnknownName.among(kind, name, names(kind))
    if len(matches) > 1:
        full = " or ".join(sorted(repr(info.full_name) for info, _ in matches))
        raise PluginError(f"several packages offer a {kind} {name!r}; say which: {full}")
    return matches[0]
