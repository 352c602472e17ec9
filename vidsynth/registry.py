"""Plugins, found through entry points: listed from metadata alone, imported on first use.

The group of a kind is its API version: a breaking change to generators makes the group
`vidsynth.generators.v2`. In-tree plugins register like everybody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, get_args

from vidsynth.errors import PluginError, UnknownName

Kind = Literal["extractor", "generator", "discriminator", "encoder", "metric"]
KINDS: tuple[Kind, ...] = get_args(Kind)


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
    attribute: str

    @property
    def full_name(self) -> str:
        """`distribution:name`, which is unique where `name` may not be."""
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.distribution} {self.version}".rstrip()


def names(kind: Kind) -> list[str]:
    """Names that `load` takes, sorted; a name that two distributions claim is given in full."""
    found = _found(kind)
    claims = Counter(info.name for info, _ in found)
    return sorted(i.name if claims[i.name] == 1 else i.full_name for i, _ in found)


def describe(kind: Kind, name: str) -> PluginInfo:
    """What is known of a plugin without importing it.

    Raises:
        UnknownName: nothing installed offers it.
        PluginError: several distributions do.
    """
    return _find(kind, name)[0]


def load(kind: Kind, name: str) -> type:
    """The plugin's class, imported now if it has not been.

    Args:
        kind: as in `KINDS`.
        name: its entry point's name, or `distribution:name`.

    Raises:
        UnknownName: nothing installed offers it.
        PluginError: several distributions do, its import failed, or it is no class.
    """
    info, entry_point = _find(kind, name)
    try:
        loaded = entry_point.load()
    except Exception as error:  # the one place where anything may go wrong: foreign code
        raise PluginError(
            f"{info} cannot be imported: {type(error).__name__}: {error}; install what it misses, "
            f"or install {info.distribution} again"
        ) from error
    if not isinstance(loaded, type):
        raise PluginError(
            f"{info} is no class but {loaded!r}; its entry point must name the plugin's class"
        )
    return loaded


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


def _found(kind: Kind) -> list[tuple[PluginInfo, EntryPoint]]:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if _offered is None:
        offered: Iterable[EntryPoint] = entry_points(group=group(kind))
    else:
        offered = (e for e in _offered if e.group == group(kind))
    return [(_info(kind, e), e) for e in offered]


def _info(kind: Kind, entry_point: EntryPoint) -> PluginInfo:
    return PluginInfo(
        name=entry_point.name,
        kind=kind,
        distribution=entry_point.dist.name if entry_point.dist else "unknown",
        version=entry_point.dist.version if entry_point.dist else "",
        module=entry_point.module,
        attribute=entry_point.attr,
    )


def _find(kind: Kind, name: str) -> tuple[PluginInfo, EntryPoint]:
    matches = [(i, e) for i, e in _found(kind) if name in (i.name, i.full_name)]
    if not matches:
        raise UnknownName.among(kind, name, names(kind))
    if len(matches) > 1:
        full = " or ".join(sorted(repr(info.full_name) for info, _ in matches))
        raise PluginError(f"several packages offer a {kind} {name!r}; say which: {full}")
    return matches[0]
