"""Options: frozen dataclass <-> plain dict <-> TOML <-> `-s key=value`.

A plugin author writes a stdlib dataclass; pydantic validates it here, at the edge, and nowhere
else. Later code trusts the frozen value.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from vidsynth.errors import BadOption, UnknownName

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of the options dataclass `cls`, validated.

    Args:
        cls: a stdlib dataclass whose fields all have defaults.
        values: what the user set, by field name; nested dataclasses take mappings.
        where: what the options are of, for messages: "generator" gives "generator.filters".

    Raises:
        UnknownName: a key that is no field, with the nearest one proposed.
        BadOption: a value that its field cannot take.
    """
    from pydantic import TypeAdapter, ValidationError

    _refuse_unknown(cls, values, where)
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise BadOption("; ".join(_complaint(e, where) for e in error.errors())) from error


def _refuse_unknown(cls: type, values: Mapping[str, Any], where: str) -> None:
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for key, value in values.items():
        if key not in known:
            raise UnknownName.among(f"option of {where}", key, known)
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown(hints[key], value, f"{where}.{key}")


def _complaint(error: Mapping[str, Any], where: str) -> str:
    key = ".".join([where, *map(str, error["loc"])])
    reason = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # the dataclass itself objects, to several fields together
        return f"{key}: {reason}"
    return f"{key} = {error['input']!r} cannot be used: {reason[0].lower()}{reason[1:]}"


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["generator.filters=32", "generator.stem=plain"]` as a nested dict; a later one wins.

    A value is read as TOML (`32`, `0.5`, `true`, `[1, 2]`, `"text"`), and as bare text where it
    is no TOML.

    Raises:
        BadOption: no `=`, an empty key, or a key used both as an option and as a section.
    """
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise BadOption(f"-s {assignment}: write it as key=value, e.g. generator.filters=32")
        section = parsed
        for part in path[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise BadOption(f"-s {assignment}: {part!r} has been given a value; drop one")
        if isinstance(section.get(path[-1]), dict):
            raise BadOption(f"-s {assignment}: {key.strip()!r} is a section; name an option of it")
        section[path[-1]] = _parse_value(text.strip())
    return parsed


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_UNITS = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)")


def parse_duration(text: str) -> float:
    """Seconds in "90", "90s", "10m", "1h30m", "1:30" or "0:01:30.5".

    Raises BadOption for anything else.
    """
    match = _UNITS.fullmatch(text.strip()) or _CLOCK.fullmatch(text.strip())
    try:
        if match and any(match.groups()):
            hours, minutes, seconds = (float(g or 0) for g in match.groups())
            return 3600 * hours + 60 * minutes + seconds
    except ValueError:  # "1.2.3s"
        pass
    raise BadOption(f"{text!r} is no duration; write it like 90s, 10m, 1h30m or 1:30")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` sets, section by section. Neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(inner, value) if both else value  # pyright: ignore[reportArgumentType]
    return merged


def to_dict(options: Any) -> Any:
    """A dataclass instance as plain dicts, lists, numbers and strings, ready for TOML or JSON."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return {
            f.name: to_dict(getattr(options, f.name)) for f in dataclasses.fields(options) if f.init
        }
    if isinstance(options, Mapping):
        return {str(key): to_dict(value) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return [to_dict(value) for value in options]
    return str(options) if isinstance(options, Path) else options


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML text of nested plain values. None is left out: TOML has no word for it."""
    import tomli_w

    return tomli_w.dumps(_without_none(values))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionDoc:
    """One option, as its author documents it."""

    name: str
    type: str
    default: Any
    """As `to_dict` gives it."""
    text: str
    """Empty when the "Attributes:" section of the docstring says nothing of it."""


def describe_options(cls: type) -> list[OptionDoc]:
    """The fields of an options dataclass, with the words of its docstring's "Attributes:", and of
    those it inherits from."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        texts |= _attributes(inspect.cleandoc(base.__doc__ or ""))
    hints = get_type_hints(cls)
    return [
        OptionDoc(
            name=f.name,
            type=_type_words(hints[f.name]),
            default=to_dict(_default(f)),
            text=texts.get(f.name, ""),
        )
        for f in dataclasses.fields(cls)
        if f.init
    ]


def _type_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _attributes(docstring: str) -> dict[str, str]:
    """Name -> text of the `name: text` entries under "Attributes:"; they may span lines."""
    _, _, section = docstring.partition("Attributes:\n")
    texts: dict[str, str] = {}
    name, indent = "", None
    for line in section.splitlines():
        entry = re.match(r"(\s*)(\w+)(?: \([^)]*\))?: *(.*)", line)
        if entry and entry[1] == (indent := entry[1] if indent is None else indent):
            name = entry[2]
            texts[name] = entry[3].strip()
        elif name and line.startswith(f"{indent} "):
            texts[name] += " " + line.strip()
        elif line.strip():
            break
    return texts
