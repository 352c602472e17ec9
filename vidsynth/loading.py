"""Plugins ready for use: imported, and found to be what their entry points say they are."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

from vidsynth import registry
from vidsynth.errors import PluginError
from vidsynth.kinds import BASES


def load(kind: registry.Kind, name: str) -> Any:
    """The class of the plugin `name`, which derives from the base of its kind.

    Raises UnknownName and PluginError as `registry.load` does; and PluginError for a class that is
    of another kind, lacks a method of its kind, or has options that cannot be built.
    """
    plugin = registry.load(kind, name)
    if wrong := _wrong(kind, plugin):
        raise PluginError(f"{registry.describe(kind, name)} {wrong}")
    return plugin


def _wrong(kind: registry.Kind, plugin: Any) -> str:
    """What its author has to mend; "" where nothing is."""
    base = BASES[kind]
    if not issubclass(plugin, base):
        return (
            f"is no {base.__name__}; derive {plugin.__name__} from vidsynth.kinds."
            f"{base.__name__}, or name it under another entry-point group than "
            f"{registry.group(kind)}"
        )
    if inspect.isabstract(plugin):
        lacking = ", ".join(sorted(plugin.__abstractmethods__))
        return f"lacks what every {kind} has; define {lacking} in {plugin.__name__}"
    if not isinstance(plugin.Options, type) or not dataclasses.is_dataclass(plugin.Options):
        return f"has no usable options; make {plugin.__name__}.Options a frozen dataclass"
    try:
        get_type_hints(plugin.Options)
        plugin.Options()
    except Exception as error:  # foreign code, as on import
        return (
            f"has options that cannot be built ({type(error).__name__}: {error}); give each field "
            f"of {plugin.Options.__qualname__} a type and a default that it allows"
        )
    return ""
