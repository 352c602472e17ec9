"""The conformance kit: what every plugin promises, as checks that its author runs.

In the plugin's own tests, after scikit-learn's `parametrize_with_checks`:

    @conformance(MyExtractor, options={"threshold": 0.3})
    def test_my_extractor(check):
        check()

Each check becomes a test of its own; `vidsynth plugins check NAME` runs them all without pytest.
The class says how to check it (`Plugin.checked`), and which checks its method cannot pass by
nature, each with a reason (`Plugin.expected_failures`); such a check fails as soon as it passes.
"""

from __future__ import annotations

import gc
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal, Self, TypeVar
from unittest import SkipTest

from torch import Tensor, nn

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import PluginError, UnknownName
from vidsynth.kinds import Discriminator, Extractor, Generator, Metric, Plugin, StagePlugin
from vidsynth.options import build, describe_options, to_dict, to_toml
from vidsynth.testing.alone import complaint_on_import
from vidsynth.testing.samples import SIGNALS, ClipMaker, SignalMaker, filmed, moving_squares

P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A plugin and the conditions it is checked under.

    Attributes:
        plugin: the class.
        options: changes to its default options, by name: small networks keep the checks fast.
        clip: makes the footage.
        world: film this synthetic world instead ("puppet", "head" or "street").
        height, width: of it, in pixels.
        kinds: what a generator is conditioned on; by default the first kind that it accepts and
            the kit can make.
        signals: kind -> how to make it up, for kinds that do not come with vidsynth.
        background: give a generator a background plate too.
        tolerance: greatest difference between numbers that should be equal: pixels in signals,
            levels of 255 in frames. Batches of another size are rounded differently.
    """

    plugin: type[Plugin]
    options: Mapping[str, Any] = field(default_factory=dict)
    clip: ClipMaker = moving_squares
    world: str = ""
    height: int = 32
    width: int = 32
    kinds: tuple[type[Conditioning], ...] = ()
    signals: Mapping[type[Conditioning], SignalMaker] = field(default_factory=dict)
    background: bool = False
    tolerance: float = 1.0

    @classmethod
    def of(cls, plugin: type[Plugin], **conditions: Any) -> Self:
        """As the class itself says (`Plugin.checked`), where `conditions` says nothing else."""
        return cls(plugin=plugin, **{**plugin.checked, **conditions})

    def built(self, kind: type[P]) -> P:
        """The plugin with its options, which must be of this kind."""
        plugin = self.plugin(self.built_options())
        assert isinstance(plugin, kind)
        return plugin

    def built_options(self) -> Any:
        return build(self.plugin.Options, self.options, where=self.plugin.__name__)

    def footage(self, num_frames: int, *, seed: int = 0, pts: Tensor | None = None) -> Clip:
        make = filmed(self.world) if self.world else self.clip
        return make(num_frames, self.height, self.width, pts=pts, seed=seed)

    @property
    def makers(self) -> Mapping[type[Conditioning], SignalMaker]:
        """All kinds of conditioning that can be made up."""
        return {**SIGNALS, **self.signals}


Check = Callable[[Case], None]


def imports_without_a_gpu(case: Case) -> None:
    """The plugin's module imports in a fresh process that sees no accelerator."""
    complaint = complaint_on_import(case.plugin.__module__)
    assert not complaint, complaint


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
    from vidsynth.testing import discriminators, extractors, generators, metrics, stages

    by_kind = {
        Extractor: extractors.CHECKS,
        Generator: generators.CHECKS,
        Discriminator: discriminators.CHECKS,
        Metric: metrics.CHECKS,
        StagePlugin: stages.CHECKS,
    }
    own = next((checks for kind, checks in by_kind.items() if issubclass(plugin, kind)), ())
    if issubclass(plugin, Generator) and plugin.pretrained:
        own = generators.UNTRAINED
    return (*COMMON, *own)


Outcome = Literal["passed", "failed", "expected", "passed unexpectedly", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    promise: str
    """What was checked, in a sentence."""
    outcome: Outcome
    reason: str = ""
    """Why it failed, was skipped, or was expected to fail."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.outcome not in ("failed", "passed unexpectedly")


def examine(case: Case) -> Iterator[Finding]:
    """Run every check on a plugin, one after the other, whatever they find."""
    expected = expected_failures_of(case.plugin)
    for check in checks_of(case.plugin):
        began = perf_counter()
        outcome, reason = _outcome(check, case)
        if (why := expected.get(check.__name__)) is not None and outcome != "skipped":
            outcome = "expected" if outcome == "failed" else "passed unexpectedly"
            reason = why
        yield Finding(
            check=check.__name__,
            promise=promise_of(check),
            outcome=outcome,
            reason=reason,
            seconds=perf_counter() - began,
        )


def promise_of(check: Check) -> str:
    """The first sentence of a check's docstring, or its name in words."""
    words = (check.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(words.split()) or check.__name__.replace("_", " ")


def _outcome(check: Check, case: Case) -> tuple[Outcome, str]:
    try:
        check(case)
    except SkipTest as reason:
        return "skipped", str(reason)
    except Exception as error:  # whatever foreign code does is what is to be found out
        return "failed", f"{type(error).__name__}: {error}".removeprefix("AssertionError: ")
    return "passed", ""


def expected_failures_of(
    plugin: type[Plugin], also: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Check -> reason. Raises UnknownName for a check that there is not, PluginError without a
    reason."""
    expected = {**plugin.expected_failures, **(also or {})}
    known = [check.__name__ for check in checks_of(plugin)]
    for name, reason in expected.items():
        if name not in known:
            raise UnknownName.among("check", name, known)
        if not reason.strip():
            raise PluginError(
                f"{plugin.__name__} gives no reason why {name} is expected to fail; say in "
                "expected_failures what in the method forbids it"
            )
    return expected


def conformance(
    plugin: type[Plugin],
    *,
    expected_failures: Mapping[str, str] | None = None,
    **conditions: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that runs a test once per check, as its argument `check`.

    Args:
        plugin: the class under test.
        expected_failures: check -> why this plugin cannot pass it, beside those of the class.
        conditions: fields of `Case`, instead of those of the class.

    Raises:
        UnknownName: an expected failure of a check that there is not.
    """
    import pytest

    case = Case.of(plugin, **conditions)
    expected = expected_failures_of(plugin, expected_failures)

    def marks(check: Check) -> list[Any]:
        reason = expected.get(check.__name__)
        return [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]

    parameters = [
        pytest.param(partial(check, case), id=check.__name__, marks=marks(check))
        for check in checks_of(plugin)
    ]
    return pytest.mark.parametrize("check", parameters)


@contextmanager
def raises(expected: type[Exception], match: str = "") -> Iterator[None]:
    """Fails where the block does not raise `expected`, or its message lacks `match`."""
    try:
        yield
    except expected as error:
        assert match in str(error), f"{match!r} is not in: {error}"
        return
    except Exception as error:
        raise AssertionError(
            f"{expected.__name__} was to be raised and {type(error).__name__} was: {error}"
        ) from error
    raise AssertionError(f"{expected.__name__} was not raised")


FILM, PIECE = 50, 2
"""Frames of a long film, and of each of its clips, in the checks of memory."""
LOOKS = (32, 48)
"""After how many frames they look: what works in blocks of 2 to 16 frames has as many of them in
hand both times, and all its buffers are full."""


class Memory:
    """What is held in tensors while a plugin works through a film of FILM frames."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def watch(self, frames_so_far: int) -> None:
        """To be called before each clip is handed over."""
        if frames_so_far in LOOKS:
            self._held.append(held_bytes())

    def assert_bounded(self, frame_bytes: int) -> None:
        """Fails where the frames between the looks left a quarter of their size behind, or more.

        Says nothing of a plugin that did not look at the whole film.
        """
        grown = self._held[1] - self._held[0] if len(self._held) > 1 else 0
        allowed = (LOOKS[1] - LOOKS[0]) * frame_bytes // 4
        assert grown <= allowed, (
            f"{grown} bytes more are held after {LOOKS[1]} frames than after {LOOKS[0]}: memory "
            "must not grow with the length of the video"
        )


def held_bytes() -> int:
    """Bytes of all tensors that Python objects hold, each storage once."""
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    """Same shape, and no number further apart than `tolerance`; NaN equals NaN."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    ours, theirs = ours.double().nan_to_num(), theirs.double().nan_to_num()
    apart = float((ours - theirs).abs().max()) if ours.numel() else 0.0
    assert apart <= tolerance, f"{what} differ by up to {apart:g}, allowed is {tolerance:g}"


def assert_same_signal(ours: Conditioning, theirs: Conditioning, tolerance: float) -> None:
    """Every tensor of two signals is equal within `tolerance`."""
    (tensors, plain), (others, other_plain) = ours.packed(), theirs.packed()
    assert plain == other_plain, f"{ours.kind}: {plain} and {other_plain}"
    assert tensors.keys() == others.keys(), f"{ours.kind}: {[*tensors]} and {[*others]}"
    for name, tensor in tensors.items():
        assert_near(tensor, others[name], tolerance, f"{ours.kind}.{name}")
