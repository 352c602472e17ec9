"""The conformance kit: what every plugin promises, as checks that its author runs.

In the plugin's own tests, after scikit-learn's `parametrize_with_checks`:

    @conformance(MyExtractor, options={"threshold": 0.3})
    def test_my_extractor(check):
        check()

Each check becomes a test of its own. A check that the method cannot pass by its nature is declared
with a reason, and fails again as soon as it does pass:

    @conformance(MyDiffusion, expected_failures={"chunk_sizes_do_not_matter": "windowed"})
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from typing import Any, Protocol

from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import UnknownName
from vidsynth.kinds import Discriminator, Extractor, Generator, Metric, Plugin
from vidsynth.options import build, describe_options, to_dict, to_toml
from vidsynth.testing.samples import moving_squares


class ClipMaker(Protocol):
    """Makes test footage; a video with the thing that an extractor tracks, for example."""

    def __call__(
        self, num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
    ) -> Clip: ...


@dataclass(frozen=True, kw_only=True)
class Case:
    """A plugin and the conditions it is checked under.

    Attributes:
        plugin: the class.
        options: changes to its default options, by name: small networks keep the checks fast.
        clip: makes the footage.
        height, width: of it, in pixels.
        kinds: what a generator is conditioned on; by default the first kind that it accepts and
            the kit can make.
        background: give a generator a background plate too.
        tolerance: greatest difference between numbers that should be equal: pixels in signals,
            levels of 255 in frames. Batches of another size are rounded differently.
    """

    plugin: type[Plugin]
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: ClipMaker = moving_squares
    height: int = 32
    width: int = 32
    kinds: tuple[type[Conditioning], ...] = ()
    background: bool = False
    tolerance: float = 1.0

    def built_options(self) -> Any:
        return build(self.plugin.Options, self.options, where=self.plugin.__name__)

    def footage(self, num_frames: int, *, seed: int = 0, pts: Tensor | None = None) -> Clip:
        return self.clip(num_frames, self.height, self.width, pts=pts, seed=seed)


Check = Callable[[Case], None]


def imports_without_a_gpu(case: Case) -> None:
    """The plugin's module imports in a fresh process that sees no accelerator."""
    complaint = _import_alone(case.plugin.__module__)
    assert not complaint, complaint


@cache
def _import_alone(module: str) -> str:
    """What Python says on importing `module` in a fresh process without a GPU; "" if nothing."""
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def options_are_documented(case: Case) -> None:
    """Options is a frozen dataclass; each field has a default, and words under "Attributes:"."""
    cls = case.plugin.Options
    assert is_dataclass(cls) and cls.__dataclass_params__.frozen, f"{cls} is no frozen dataclass"  # pyright: ignore
    cls()
    undocumented = [option.name for option in describe_options(cls) if not option.text]
    assert not undocumented, f"not documented under Attributes: {', '.join(undocumented)}"


def options_survive_toml(case: Case) -> None:
    """Options written as TOML and read back are equal."""
    options = case.built_options()
    text = to_toml(to_dict(options))
    again = build(case.plugin.Options, tomllib.loads(text), where=case.plugin.__name__)
    assert again == options, f"{again} came back for {options}"


COMMON: tuple[Check, ...] = (imports_without_a_gpu, options_are_documented, options_survive_toml)


def checks_of(plugin: type[Plugin]) -> tuple[Check, ...]:
    """The checks that apply to a plugin, by its kind."""
    from vidsynth.testing import discriminators, extractors, generators, metrics

    by_kind = {
        Extractor: extractors.CHECKS,
        Generator: generators.CHECKS,
        Discriminator: discriminators.CHECKS,
        Metric: metrics.CHECKS,
    }
    own = next((checks for kind, checks in by_kind.items() if issubclass(plugin, kind)), ())
    return (*COMMON, *own)


def conformance(
    plugin: type[Plugin],
    *,
    expected_failures: Mapping[str, str] | None = None,
    **conditions: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that runs a test once per check, as its argument `check`.

    Args:
        plugin: the class under test.
        expected_failures: check -> why this plugin cannot pass it.
        conditions: fields of `Case`.

    Raises:
        UnknownName: an expected failure of a check that there is not.
    """
    import pytest

    case = Case(plugin=plugin, **conditions)
    expected = dict(expected_failures or {})
    parameters = [
        pytest.param(
            partial(check, case),
            id=check.__name__,
            marks=[pytest.mark.xfail(reason=expected.pop(check.__name__), strict=True)]
            if check.__name__ in expected
            else [],
        )
        for check in checks_of(plugin)
    ]
    for name in expected:
        raise UnknownName.among("check", name, [c.__name__ for c in checks_of(plugin)])
    return pytest.mark.parametrize("check", parameters)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    """Same shape, and no number further apart than `tolerance`; NaN equals NaN."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    ours, theirs = ours.double().nan_to_num(), theirs.double().nan_to_num()
    apart = float((ours - theirs).abs().max()) if ours.numel() else 0.0
    assert apart <= tolerance, f"{what} differ by up to {apart:g}, allowed is {tolerance:g}"


def assert_same_signal(ours: Conditioning, theirs: Conditioning, tolerance: float) -> None:
    """Every tensor of two signals is equal within `tolerance`."""
    for f in fields(ours):  # pyright: ignore[reportArgumentType]
        pair = (getattr(ours, f.name), getattr(theirs, f.name))
        if isinstance(pair[0], Tensor):
            assert_near(*pair, tolerance, f"{ours.kind}.{f.name}")
        elif isinstance(pair[0], Mapping):
            for name, value in pair[0].items():
                assert_near(value, pair[1][name], tolerance, f"{ours.kind}.{f.name}.{name}")
        else:
            assert pair[0] == pair[1], f"{ours.kind}.{f.name}: {pair[0]} and {pair[1]}"
