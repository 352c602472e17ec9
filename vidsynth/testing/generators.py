"""Conformance checks of generators and of the objectives that train them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import options
from vidsynth.classes import Prompt
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadSubject, VidsynthError
from vidsynth.exemplars import Before, Exemplars, Gallery, plan
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective, Recalled, TrainBatch
from vidsynth.plate import BackgroundPlate, cut_out
from vidsynth.processes import Processes
from vidsynth.stream import Chunk
from vidsynth.testing.conformance import FILM, PIECE, Case, Check, Memory, assert_near, raises
from vidsynth.testing.samples import chunked, sizes, times
from vidsynth.training import Budget, Run, load_state, save_state, train_step

# B batch, T frames, C channels, H, W pixels

CPU = torch.device("cpu")
STEPS = 20


def makes_frames_of_the_size_asked_for(case: Case) -> None:
    """One clip per chunk: uint8, the requested size, the same timestamps, in order."""
    stage = _Stage.of(case)
    lengths = (3, 1, 4)
    clips = stage.run(stage.signals(8), lengths)
    assert [len(c) for c in clips] == list(lengths)
    assert {(c.height, c.width) for c in clips} == {(case.height, case.width)}
    assert torch.equal(torch.cat([c.pts for c in clips]), times(8))


def chunk_sizes_do_not_matter(case: Case) -> None:
    """Frames one by one, by four or by sixteen come out the same."""
    stage = _Stage.of(case)
    whole = stage.frames(stage.signals(16), sizes(16, 16))
    for size in (1, 4):
        frames = stage.frames(stage.signals(16), sizes(16, size))
        assert_near(frames, whole, case.tolerance, f"frames made {size} at a time")


def streams_do_not_mix(case: Case) -> None:
    """Two videos taken in turns through one generator come out as each does alone."""
    stage = _Stage.of(case)
    forwards = stage.signals(8)
    backwards = [signal[torch.arange(7, -1, -1)] for signal in forwards]
    alone = [stage.frames(signals, sizes(8, 2)) for signals in (forwards, backwards)]
    with torch.inference_mode():
        in_turns = list(zip_longest(stage(forwards, sizes(8, 2)), stage(backwards, sizes(8, 2))))
    for index, expected in enumerate(alone):
        got = torch.cat([pair[index].frames for pair in in_turns])
        assert_near(got, expected, case.tolerance, f"frames of video {index}")


def same_seed_same_frames(case: Case) -> None:
    first, second = (_Stage.of(case) for _ in range(2))
    ours, theirs = (s.frames(s.signals(4), (4,)) for s in (first, second))
    assert_near(ours, theirs, 0.0, "frames of the same seed")


def what_broke_off_is_gone_on_with(case: Case) -> None:
    """Behind a clip, from what it remembers, another process makes the same bits; a generator
    whose `memory` is None begins such a film anew."""
    stage, fresh = (_Stage.of(case) for _ in range(2))
    signals, pts = stage.signals(8), times(8)
    rng, later = (torch.Generator() for _ in range(2))
    with torch.inference_mode():
        film = stage(signals, (4, 4), pts, rng=rng.manual_seed(0))
        next(film)
        memory = stage.generator.memory()
        if memory is None:
            return
        fresh.generator.go_on({name: value.clone() for name, value in memory.items()})
        later.set_state(rng.get_state())
        (rest,) = fresh([s[4:] for s in signals], (4,), pts[4:], rng=later)
        (expected,) = film
    assert_near(rest.frames, expected.frames, 0.0, "frames of a film that broke off")


def empty_video_gives_nothing(case: Case) -> None:
    assert _Stage.of(case).run([], ()) == []


def one_frame_is_enough(case: Case) -> None:
    stage = _Stage.of(case)
    assert [len(c) for c in stage.run(stage.signals(1), (1,))] == [1]


def odd_sizes_are_fine(case: Case) -> None:
    """Width and height need not be even, nor multiples of anything."""
    odd = replace(case, height=case.height | 1, width=(case.width + 2) | 1)
    makes_frames_of_the_size_asked_for(odd)


def variable_frame_rate_is_kept(case: Case) -> None:
    stage = _Stage.of(case)
    pts = times(8, variable=True)
    clips = stage.run(stage.signals(8), (3, 5), pts=pts)
    assert torch.equal(torch.cat([c.pts for c in clips]), pts)


def missing_signal_is_refused(case: Case) -> None:
    """A stream without the conditioning raises a VidsynthError that says so."""
    with raises(VidsynthError):
        _Stage.of(case).run([], (2,), pts=times(2))


def foreign_weights_are_refused(case: Case) -> None:
    """Weights of another network raise BadSubject."""
    with raises(BadSubject):
        _Stage.of(case).generator.load_weights({"of.another.network": torch.zeros(1)})


def memory_stays_bounded(case: Case) -> None:
    """A film twice as long takes no more memory: neither frames nor signals are kept."""
    memory, stage = Memory(), _Stage.of(case)
    signals = stage.signals(FILM)

    def chunks() -> Iterator[Chunk]:
        pieces = chunked(times(FILM), sizes(FILM, PIECE), signals=signals)
        for done, chunk in enumerate(pieces):
            memory.watch(done * PIECE)
            yield chunk

    rng = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for _ in stage.generator.generate(chunks(), stage.spec, rng=rng):
            pass
    memory.assert_bounded(3 * case.height * case.width)


def training_brings_frames_nearer(case: Case) -> None:
    """Twenty steps on a small clip make its frames more like the truth."""
    stage = _Stage.of(case)
    assert stage.objective is not None
    objective = stage.objective
    truth = case.footage(objective.num_frames + 4).frames
    signals = stage.signals(len(truth))

    def error() -> float:
        stage.generator.load_weights(objective.generator.state_dict())
        made = stage.frames(signals, (len(truth),))
        return float((made.float() - truth.float()).abs().mean())

    before = error()
    for step in range(STEPS):
        stage.train(step)
    after = error()
    assert after < before, f"mean error {before:.2f} levels before, {after:.2f} after {STEPS} steps"


def resume_is_exact(case: Case) -> None:
    """Saved, loaded into a new objective, the next step is bit-equal on the CPU."""
    stage, fresh = _Stage.of(case), _Stage.of(case, seed=1)
    assert stage.objective is not None and fresh.objective is not None
    for step in range(2):
        stage.train(step)
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder), stage.objective, _ema(stage.objective), Run(step=2))
        budget = Budget(steps=STEPS)
        load_state(Path(folder), fresh.objective, _ema(fresh.objective), budget, CPU)
    for s in (stage, fresh):
        s.train(2)
    for ours, theirs in zip(stage.objective.phases, fresh.objective.phases, strict=True):
        expected = ours.module.state_dict()
        for name, value in theirs.module.state_dict().items():
            assert torch.equal(value, expected[name]), f"{ours.name}: {name} differs"


CHECKS: tuple[Check, ...] = (
    makes_frames_of_the_size_asked_for,
    chunk_sizes_do_not_matter,
    streams_do_not_mix,
    same_seed_same_frames,
    what_broke_off_is_gone_on_with,
    empty_video_gives_nothing,
    one_frame_is_enough,
    odd_sizes_are_fine,
    variable_frame_rate_is_kept,
    missing_signal_is_refused,
    memory_stays_bounded,
    foreign_weights_are_refused,
    training_brings_frames_nearer,
    resume_is_exact,
)


_TRAINING = (foreign_weights_are_refused, training_brings_frames_nearer, resume_is_exact)
UNTRAINED = tuple(check for check in CHECKS if check not in _TRAINING)
"""The checks of a generator that is not trained (`PretrainedGenerator`)."""


@dataclass(frozen=True, eq=False)
class _Stage:
    """A generator with fresh weights, the objective they came from, and what conditions it."""

    case: Case
    generator: Generator
    objective: Objective | None
    """None for one that is not trained."""
    spec: VideoSpec

    @staticmethod
    def of(case: Case, *, seed: int = 0) -> _Stage:
        plugin: Any = case.plugin
        kinds = case.kinds or tuple(k for k in plugin.accepts if k in case.makers)[:1]
        assert kinds, f"the kit makes none of the kinds that {plugin.__name__} accepts"
        drawn = [k for k in kinds if k is not Prompt]  # words have no picture
        channels = sum(case.makers[k](1, 16, 16).draw(16, 16).shape[1] for k in drawn)
        chosen = case.built_options()
        conditions = Conditions.for_options(
            options.to_dict(chosen),
            kinds=kinds,
            channels=channels,
            background=case.background,
            words=plugin.words_of(chosen, _texts(case, kinds)),
        )
        generator: Generator = plugin(chosen, conditions=conditions)
        spec = VideoSpec(height=case.height, width=case.width, fps=Fraction(25))
        torch.manual_seed(seed)
        objective = None if generator.pretrained else generator.objective(spec)
        if objective is not None:
            generator.load_weights(objective.generator.state_dict())
        return _Stage(case, generator, objective, spec)

    def signals(self, num_frames: int) -> list[Conditioning]:
        height, width = self.case.height, self.case.width
        made: list[Conditioning] = [
            self.case.makers[kind](num_frames, height, width)
            for kind in self.generator.conditions.kinds
        ]
        if self.case.background:
            plate = self.plate()
            made.append(BackgroundPlate(image=plate, frame_index=torch.arange(num_frames)))
        conditions = self.generator.conditions
        if conditions.exemplars:
            gallery, index = self.gallery(), torch.arange(num_frames)
            chosen = plan(gallery, made[0], conditions.exemplars)
            before = Before.of(made[0], index) if conditions.carry else None
            made.append(gallery.recall(made[0], chosen, CPU, before=before))
        return made

    def gallery(self) -> Gallery:
        """Some moments of the footage that the signals go with."""
        clip = self.case.footage(10)[::3]
        make = self.case.makers[self.generator.conditions.kinds[0]]
        signal = make(10, self.case.height, self.case.width)
        images = clip.frames
        if self.case.background:
            images = torch.cat([images, cut_out(images, self.plate(), None)], dim=1)
        return Gallery(images=images, signal=signal[::3], pts=clip.pts)

    def plate(self) -> Tensor:
        return self.case.footage(1, seed=9).frames[0]

    def __call__(
        self,
        signals: Sequence[Conditioning],
        lengths: Sequence[int],
        pts: Tensor | None = None,
        *,
        rng: torch.Generator | None = None,
    ) -> Iterator[Clip]:
        chunks: Iterator[Chunk] = chunked(
            times(sum(lengths)) if pts is None else pts, lengths, signals=signals
        )
        rng = rng or torch.Generator().manual_seed(0)
        return self.generator.generate(chunks, self.spec, rng=rng)

    def run(
        self, signals: Sequence[Conditioning], lengths: Sequence[int], pts: Tensor | None = None
    ) -> list[Clip]:
        with torch.inference_mode():
            return list(self(signals, lengths, pts))

    def frames(self, signals: Sequence[Conditioning], lengths: Sequence[int]) -> Tensor:
        return torch.cat([clip.frames for clip in self.run(signals, lengths)])

    def train(self, step: int) -> None:
        """One step of the training loop, on two samples of footage that the signals go with."""
        assert self.objective is not None
        self.objective.at_progress(step / STEPS)
        torch.manual_seed(step)
        train_step(self.objective, self._batch(step), Run(step=step), Processes())

    def _batch(self, step: int) -> TrainBatch:
        assert self.objective is not None
        num_frames, num_recalled = self.objective.num_frames, self.objective.num_recalled
        footage = self.case.footage(num_frames + 4)
        size = (self.case.height, self.case.width)
        signals = self.signals(len(footage))
        kinds = self.generator.conditions.kinds
        drawn = [s for s in signals[: len(kinds)] if not isinstance(s, Prompt)]
        maps = [s.draw(*size) for s in drawn] or [torch.zeros(len(footage), 0, *size)]
        plates = [s.draw(*size)[0] for s in signals if isinstance(s, BackgroundPlate)]
        remembered = [Recalled.of(s, CPU) for s in signals if isinstance(s, Exemplars)]
        subject = signals[0].silhouette(*size)
        starts = (step % 5, (step + 2) % 5)

        def samples(x_TX: Tensor) -> Tensor:
            return torch.stack([x_TX[s : s + num_frames] for s in starts])

        def last(x_TX: Tensor) -> Tensor:
            return samples(x_TX)[:, num_frames - num_recalled :]

        return TrainBatch(
            frames_BTCHW=samples(footage.as_float()),
            maps_BTCHW=samples(torch.cat(maps, 1)) / 255,
            background_CHW=plates[0] / 127.5 - 1 if plates else None,
            weights_BT1HW=None if subject is None else samples(subject) / 255,
            recalled=remembered[0].each(last) if remembered else None,
            regions={name: samples(box) for name, box in signals[0].regions().items()},
            captions=(*_texts(self.case, kinds), "", "")[: len(starts)],
        )


def _texts(case: Case, kinds: Sequence[type[Conditioning]]) -> tuple[str, ...]:
    """What the made-up prompts say, where there are any."""
    made = [case.makers[kind](1, 16, 16) for kind in kinds if kind is Prompt]
    return tuple(text for prompt in made if isinstance(prompt, Prompt) for text in prompt.texts)


def _ema(objective: Objective) -> dict[str, Tensor]:
    return {n: v.detach().clone() for n, v in objective.generator.state_dict().items()}
