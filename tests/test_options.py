"""Options are validated once, with messages that name the option and what it takes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from vidsynth import options
from vidsynth.errors import BadOption, UnknownName


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Attributes:
    depth: in layers.
    """

    depth: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Options of a sample plugin.

    Attributes:
        filters: channels of the first layer;
            they double after each one.
        mode: what to do at the edges.
        rates: learning rates, per phase.
        weights: file of weights.
        inner: of the inner network.

    The rest is no attribute: it must not be read as one.
    """

    filters: int = 8
    mode: Literal["reflect", "zeros"] = "reflect"
    rates: tuple[float, ...] = (0.1, 0.2)
    weights: Path | None = None
    inner: Inner = field(default_factory=Inner)
    silent: bool = False

    def __post_init__(self) -> None:
        if self.filters < 1:
            raise ValueError("filters must be at least 1")


def test_build_takes_what_toml_can_say() -> None:
    built = options.build(
        Sample, {"filters": 16, "rates": [0.5], "weights": "a.pt", "inner": {"depth": 3}}, where="g"
    )
    assert built == Sample(
        filters=16, rates=(0.5,), weights=Path("a.pt"), inner=Inner(depth=3), silent=False
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"filters": "many"}, r"g\.filters = 'many' cannot be used: .*integer"),
        ({"mode": "wrap"}, r"g\.mode = 'wrap' cannot be used: .*'reflect' or 'zeros'"),
        ({"rates": [0.1, "x"]}, r"g\.rates\.1 = 'x'"),
        ({"inner": {"depth": 1.5}}, r"g\.inner\.depth = 1\.5"),
        ({"filters": 0}, "g: filters must be at least 1"),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        options.build(Sample, values, where="g")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"filtres": 3}, "no option of g 'filtres'; did you mean 'filters'?"),
        ({"inner": {"dept": 3}}, "no option of g.inner 'dept'; did you mean 'depth'?"),
    ],
)
def test_an_unknown_key_proposes_the_nearest(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        options.build(Sample, values, where="g")
    assert message in str(caught.value)


def test_options_survive_toml() -> None:
    before = Sample(filters=3, mode="zeros", rates=(1.0, 2.0), weights=Path("w"), silent=True)
    text = options.to_toml(options.to_dict(before))
    assert options.build(Sample, tomllib.loads(text), where="g") == before


def test_none_is_left_out_of_toml() -> None:
    assert tomllib.loads(options.to_toml({"a": None, "b": {"c": None, "d": 1}})) == {"b": {"d": 1}}


def test_assignments_nest_and_are_read_as_toml() -> None:
    assert options.parse_assignments(
        ["g.filters=32", "g.mode = zeros", "g.rates=[0.5, 1]", "on=true", 'name="a = b"', "t=10m"]
    ) == {
        "g": {"filters": 32, "mode": "zeros", "rates": [0.5, 1]},
        "on": True,
        "name": "a = b",
        "t": "10m",
    }


def test_a_later_assignment_wins() -> None:
    assert options.parse_assignments(["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("bad", [["a"], ["=3"], ["a..b=3"], ["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_a_bad_assignment_says_how_to_write_it(bad: list[str]) -> None:
    with pytest.raises(BadOption, match=f"^-s {bad[-1]}: "):
        options.parse_assignments(bad)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5", 1.5),
        ("10m", 600),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1m30s", 90),
        ("1:30", 90),
        ("0:01:30.5", 90.5),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert options.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "10 minutes", "-5", "1:2:3:4", "1.2.3", "m", "10ms"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="no duration"):
        options.parse_duration(text)


def test_merge_goes_section_by_section_and_changes_neither() -> None:
    base, over = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "b": {"z": 1}}
    assert options.merge(base, over) == {"a": {"x": 1, "y": 3}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}
    assert over == {"a": {"y": 3}, "b": {"z": 1}}


def test_options_are_described_in_their_authors_words() -> None:
    docs = {d.name: d for d in options.describe_options(Sample)}
    assert docs["filters"].text == "channels of the first layer; they double after each one."
    assert (docs["filters"].type, docs["filters"].default) == ("int", 8)
    assert docs["mode"].type == "reflect or zeros"
    assert docs["rates"].default == [0.1, 0.2]
    assert docs["inner"].text == "of the inner network."
    assert docs["inner"].default == {"depth": 2}
    assert docs["silent"].text == ""


def test_inherited_options_keep_their_descriptions() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(Sample):
        """More of it.

        Attributes:
            reach: in pixels.
        """

        reach: int = 1

    docs = {d.name: d.text for d in options.describe_options(More)}
    assert docs["reach"] == "in pixels."
    assert docs["filters"].startswith("channels of the first layer")
