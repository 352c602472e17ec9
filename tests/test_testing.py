"""The conformance kit catches what it says it catches: each check fails on a plugin at fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.errors import NotMeasurable, PluginError, UnknownName
from vidsynth.kinds import Discriminator, Extractor, Film, Judgement, Measurement, Metric
from vidsynth.testing import (
    Case,
    checks_of,
    chunked,
    conformance,
    examine,
    metrics,
    moving_squares,
    sizes,
    times,
)
from vidsynth.testing.samples import SIGNALS


@dataclass(frozen=True, kw_only=True)
class Options:
    """Attributes:
    threshold: brightness that counts as foreground, 0 to 255.
    """

    threshold: int = 100


class Bright(Extractor):
    """Labels bright pixels: a plugin without fault."""

    Options: ClassVar[type] = Options
    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            bright = clip.frames.amax(dim=1) > self.options.threshold
            yield LabelMaps(labels=bright.to(torch.uint8), num_classes=2)


class Judge(Discriminator):
    """A patch discriminator of one layer: a plugin without fault."""

    Options: ClassVar[type] = Options

    def __init__(self, options: object | None = None, **shape: int) -> None:
        super().__init__(options, **shape)
        self.layer = torch.nn.Conv2d(3 + self.condition_channels, 4, 3)

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        seen = [frames_BTCHW] if condition_BTCHW is None else [frames_BTCHW, condition_BTCHW]
        hidden = self.layer(torch.cat(seen, dim=2).flatten(0, 1))
        return Judgement([hidden.mean(1, keepdim=True)], [[hidden]])


@conformance(Bright, options={"threshold": 50})
def test_a_sound_extractor_passes_every_check(check: Any) -> None:
    check()


@conformance(Judge)
def test_a_sound_discriminator_passes_every_check(check: Any) -> None:
    check()


@dataclass(frozen=True, kw_only=True)
class Undocumented:
    threshold: int = 100


@dataclass(frozen=True, kw_only=True)
class Unwritable:
    """Attributes:
    limit: TOML has no None, so a None that is not the default is lost.
    """

    limit: int | None = 3


class Remembers(Bright):
    """Keeps state on the plugin, so that streams mix and repeats differ."""

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self.previous: Tensor | None = None

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            past = clip.frames[:1] if self.previous is None else self.previous
            moved = (torch.cat([past, clip.frames[:-1]]) != clip.frames).any(dim=1)
            self.previous = clip.frames[-1:]
            yield LabelMaps(labels=moved.to(torch.uint8), num_classes=2)


class PerClip(Bright):
    """Compares within a clip only, so that the chunk size shows."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for clip in clips:
            above_mean = clip.frames.float() > clip.frames.float().mean()
            yield LabelMaps(labels=above_mean.any(1).to(torch.uint8), num_classes=2)


class Drops(Bright):
    """Loses the last clip."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        held = None
        for signal in super().extract(clips):
            if held is not None:
                yield held
            held = signal


class Rounds(Bright):
    """Works at even sizes."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        for s in super().extract(clips):
            assert isinstance(s, LabelMaps)
            even = s.labels[:, : s.size[0] // 2 * 2, : s.size[1] // 2 * 2]
            yield replace(s, labels=even)


class Random(Bright):
    """Differs from run to run."""

    runs = count()

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        run = next(self.runs)
        for clip in clips:
            labels = torch.full((len(clip), clip.height, clip.width), run, dtype=torch.uint8)
            yield LabelMaps(labels=labels, num_classes=200)


class Swallows(Bright):
    """Hides that the video broke off."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        try:
            yield from super().extract(clips)
        except Exception:
            return


class NeedsFrames(Bright):
    """Cannot do without a first clip of two frames or more."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        first = next(clips, None)
        assert first is not None and len(first) > 1

        def again() -> Iterator[Clip]:
            yield first
            yield from clips

        return super().extract(again())


class KeepsAll(Bright):
    """Keeps every picture it has seen."""

    def extract(self, clips: Iterator[Clip]) -> Iterator[Conditioning]:
        kept = []

        def keeping() -> Iterator[Clip]:
            for clip in clips:
                kept.append(clip.frames.float())
                yield clip

        return super().extract(keeping())


class FirstFrameOnly(Judge):
    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        return super().forward(frames_BTCHW[:1].expand_as(frames_BTCHW), condition_BTCHW)


class Unconditional(Judge):
    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        if condition_BTCHW is not None:
            condition_BTCHW = torch.zeros_like(condition_BTCHW)
        return super().forward(frames_BTCHW, condition_BTCHW)


class Restless(Judge):
    """Starts from other weights each time, whatever the seed."""

    def __init__(self, options: object | None = None, **shape: int) -> None:
        super().__init__(options, **shape)
        rng = torch.Generator()
        rng.seed()
        torch.nn.init.normal_(self.layer.weight, generator=rng)


class Unaligned(Judge):
    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        judgement = super().forward(frames_BTCHW, condition_BTCHW)
        return Judgement(judgement.logits, [])


def with_options(options: type) -> type[Bright]:
    return type("Other", (Bright,), {"Options": options})


@pytest.mark.parametrize(
    ("plugin", "check", "options"),
    [
        (with_options(Undocumented), "options_are_documented", {}),
        (with_options(Unwritable), "options_survive_toml", {"limit": None}),
        (Remembers, "streams_do_not_mix", {}),
        (PerClip, "chunk_sizes_do_not_matter", {}),
        (Drops, "gives_one_signal_per_clip", {}),
        (Drops, "one_frame_is_enough", {}),
        (Drops, "variable_frame_rate_is_fine", {}),
        (Rounds, "odd_sizes_are_fine", {}),
        (Random, "repeats_itself", {}),
        (Swallows, "errors_pass_through", {}),
        (NeedsFrames, "empty_video_gives_nothing", {}),
        (KeepsAll, "memory_stays_bounded", {}),
        (Restless, "same_seed_same_judgement", {}),
        (FirstFrameOnly, "gradient_reaches_every_frame", {}),
        (Unconditional, "condition_matters", {}),
        (Unaligned, "real_and_fake_features_align", {}),
    ],
)
def test_a_fault_is_caught(plugin: type[Any], check: str, options: dict[str, Any]) -> None:
    run = {c.__name__: c for c in checks_of(plugin)}[check]
    # LabelMaps are classes, not pixels: no difference is small.
    case = Case(plugin=plugin, options=options, tolerance=0.0)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(case)


def test_an_expected_failure_is_shown_with_its_reason() -> None:
    mark: Any = conformance(PerClip, expected_failures={"chunk_sizes_do_not_matter": "by clip"})
    (marked,) = [p for p in mark.mark.args[1] if p.marks]
    assert marked.id == "chunk_sizes_do_not_matter"
    assert marked.marks[0].kwargs == {"reason": "by clip", "strict": True}


def test_expected_failures_of_the_class_count_too() -> None:
    class Declared(PerClip):
        expected_failures: ClassVar = {"chunk_sizes_do_not_matter": "by clip"}
        checked: ClassVar = {"tolerance": 0.0}

    found = {f.check: f for f in examine(Case.of(Declared)) if f.outcome != "passed"}
    (finding,) = found.values()
    assert (finding.check, finding.outcome) == ("chunk_sizes_do_not_matter", "expected")
    assert finding.reason == "by clip" and finding.ok


def test_an_expected_failure_that_passes_is_a_failure() -> None:
    class Boasts(Bright):
        expected_failures: ClassVar = {"repeats_itself": "so they say"}

    found = {f.check: f for f in examine(Case.of(Boasts))}
    assert found["repeats_itself"].outcome == "passed unexpectedly"
    assert not found["repeats_itself"].ok


def test_a_failed_check_says_why() -> None:
    found = {f.check: f for f in examine(Case.of(Rounds, height=31))}
    assert found["odd_sizes_are_fine"].outcome == "failed"
    assert all(f.promise for f in found.values())
    assert found["one_frame_is_enough"].ok


def test_an_expected_failure_without_a_reason_is_refused() -> None:
    with pytest.raises(PluginError, match="Bright gives no reason why repeats_itself"):
        conformance(Bright, expected_failures={"repeats_itself": " "})


def test_an_expected_failure_of_no_check_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'repeats_itself'"):
        conformance(Bright, expected_failures={"repeat_itself": "typo"})


class Apart(Metric):
    """Mean absolute difference; its subclasses get one thing wrong each."""

    Options = Options
    unit = "levels"
    higher_is_better = False

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self.found: list[Tensor] = []

    def update(self, made: Film, real: Film | None) -> None:
        assert real is not None
        for ours, theirs in zip(made.read(), real.read(), strict=True):
            apart = ours.frames.double() - theirs.frames.double()
            self.found.append(apart.abs().mean(dim=(1, 2, 3)))

    def compute(self) -> Measurement:
        if not self.found:
            raise NotMeasurable("no film")
        values = torch.cat(self.found)
        return Measurement(
            value=float(values.mean()), count=len(values), protocol="apart 1", per_frame=values
        )


class WrongWay(Apart):
    higher_is_better = True


class OnlyTheFirstClip(Apart):
    def update(self, made: Film, real: Film | None) -> None:
        assert real is not None
        first = [next(film.read()).frames.double() for film in (made, real)]
        self.found.append((first[0] - first[1]).abs().mean(dim=(1, 2, 3)))


class Forgetful(Apart):
    def update(self, made: Film, real: Film | None) -> None:
        self.found.clear()
        super().update(made, real)


class Hoards(Apart):
    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self.kept: list[Tensor] = []

    def update(self, made: Film, real: Film | None) -> None:
        def keeping() -> Iterator[Clip]:
            for clip in made.read():
                self.kept.append(clip.frames.half())
                yield clip

        super().update(replace(made, read=keeping), real)


class NeverAtALoss(Apart):
    def compute(self) -> Measurement:
        return super().compute() if self.found else Measurement(value=0, count=0, protocol="")


@pytest.mark.parametrize(
    ("plugin", "caught"),
    [
        (Apart, set()),
        (WrongWay, {"better_for_the_truth_than_for_a_distortion"}),
        (OnlyTheFirstClip, {"clips_of_films_do_not_matter"}),
        (Forgetful, {"films_add_up", "frames_are_counted_once"}),
        (Hoards, {"memory_stays_bounded"}),
        (NeverAtALoss, {"nothing_seen_is_not_measurable"}),
    ],
)
def test_faults_of_metrics_are_caught(plugin: type[Metric], caught: set[str]) -> None:
    failed = set()
    for check in metrics.CHECKS:
        try:
            check(Case(plugin=plugin))
        except (AssertionError, pytest.fail.Exception):
            failed.add(check.__name__)
    assert failed == caught


def test_squares_move_and_depend_on_the_seed_alone() -> None:
    clip = moving_squares(10, 32, 40)
    assert torch.equal(moving_squares(10, 32, 40).frames, clip.frames)
    assert not torch.equal(moving_squares(10, 32, 40, seed=1).frames, clip.frames)
    assert bool((clip.frames[1:] != clip.frames[:-1]).flatten(1).any(1).all())
    assert len(moving_squares(0, 3, 3)) == 0


def test_variable_times_increase_and_vary() -> None:
    gaps = times(50, variable=True).diff()
    assert float(times(50, variable=True)[0]) == 0
    assert 0.02 <= float(gaps.min()) < float(gaps.max()) <= 0.06


def test_chunks_cover_the_stream_in_order() -> None:
    clip = moving_squares(7, 8, 8)
    chunks = list(chunked(clip.pts, sizes(7, 3), clip=clip))
    assert [len(c) for c in chunks] == [3, 3, 1]
    assert torch.equal(torch.cat([c.clip.frames for c in chunks if c.clip]), clip.frames)
    with pytest.raises(ValueError, match="add up to 6 for 7"):
        list(chunked(clip.pts, (3, 3), clip=clip))


DRAWABLE = [kind for kind in SIGNALS if kind.drawable]


@pytest.mark.parametrize("kind", DRAWABLE, ids=lambda kind: kind.kind)
def test_made_up_signals_are_seen_and_move(kind: type[Conditioning]) -> None:
    signal = SIGNALS[kind](8, 48, 40)
    assert (type(signal), len(signal), signal.size) == (kind, 8, (48, 40))
    assert bool(signal.present().all())
    maps = signal.draw(48, 40)
    assert bool((maps[:4] != maps[4:]).any())
