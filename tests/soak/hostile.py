"""Plugins that break what their kind promises, each in one way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tiny import TinyGenerator

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.kinds import Extractor, Measurement, Metric, StagePlugin
from vidsynth.stream import Chunk
from vidsynth.testing import nodding_face, sliding_labels

print("NOISE: this module talks when it is imported")

RELEASED = threading.Event()
"""Lets what hangs go on."""


class Fine(Extractor):
    """Nothing is wrong with it; the others differ from it."""

    produces = LabelMaps

    def extract(self, clips: Iterator[Clip]) -> Iterator[Any]:
        for clip in clips:
            yield self.see(clip)

    def see(self, clip: Clip) -> Any:
        return sliding_labels(len(clip), clip.height, clip.width)


class Raises(Fine):
    def extract(self, clips: Iterator[Clip]) -> Iterator[Any]:
        yield self.see(next(clips))
        raise KeyError("lost")


class TooShort(Fine):
    def see(self, clip: Clip) -> LabelMaps:
        return super().see(clip)[:-1]


class EndsEarly(Fine):
    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        yield self.see(next(clips))
        next(clips)


class StopsAsking(Fine):
    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        yield self.see(next(clips))


class TooOften(Fine):
    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        for clip in clips:
            yield self.see(clip)
            yield self.see(clip)


class AnotherKind(Fine):
    def see(self, clip: Clip) -> Conditioning:
        return nodding_face(len(clip), clip.height, clip.width)


class NoConditioning(Fine):
    def see(self, clip: Clip) -> dict[str, int]:
        return {"left": 1}


class PartsDiffer(Fine):
    def see(self, clip: Clip) -> LabelMaps:
        whole = super().see(clip)
        return LabelMaps(labels=whole.labels, num_classes=2, instances=whole.instances[:1])


class NoNumbers(Fine):
    produces = type(nodding_face(1, 8, 8))

    def see(self, clip: Clip) -> Conditioning:
        face = nodding_face(len(clip), clip.height, clip.width)
        face.scale[-1] = float("nan")
        return face


class OptionsNoDataclass(Fine):
    Options = dict


@dataclass(frozen=True, kw_only=True)
class Needy:
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Mistyped:
    threshold: Flaot = 0.5  # noqa: F821  # pyright: ignore


@dataclass(frozen=True, kw_only=True)
class Refusing:
    threshold: float = 0.5

    def __post_init__(self) -> None:
        raise ValueError("nothing is right")


class OptionsWithoutDefault(Fine):
    Options = Needy


class OptionsOfNoType(Fine):
    Options = Mistyped


class OptionsThatRefuse(Fine):
    Options = Refusing


class Lacking(Extractor):
    produces = LabelMaps


class Nothing:
    """No extractor at all."""


class Hangs(Fine):
    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        yield self.see(next(clips))
        RELEASED.wait()


class Paints(TinyGenerator):
    """Nothing is wrong with it; the other generators differ from it."""

    def generate(self, chunks: Iterator[Chunk], spec: Any, *, rng: Any) -> Iterator[Any]:
        for clip in super().generate(chunks, spec, rng=rng):
            yield self.spoilt(clip)

    def spoilt(self, clip: Clip) -> Any:
        return clip


class PaintsFewer(Paints):
    def spoilt(self, clip: Clip) -> Clip:
        return clip[:-1]


class PaintsSmaller(Paints):
    def spoilt(self, clip: Clip) -> Clip:
        return Clip(clip.frames[:, :, 1:], clip.pts)


class PaintsTensors(Paints):
    def spoilt(self, clip: Clip) -> torch.Tensor:
        return clip.frames


class PaintsFloats(Paints):
    def spoilt(self, clip: Clip) -> Clip:
        return Clip(clip.frames.float(), clip.pts)


class PaintsOnce(Paints):
    def generate(self, chunks: Iterator[Chunk], spec: Any, *, rng: Any) -> Iterator[Any]:
        yield next(super().generate(chunks, spec, rng=rng))
        next(chunks)


class PaintsAndFalls(Paints):
    def spoilt(self, clip: Clip) -> Clip:
        raise RuntimeError("out of paint")


class Delays(StagePlugin):
    def process(self, chunks: Iterator[Chunk]) -> Iterator[Any]:
        for chunk in chunks:
            yield Chunk(chunk.pts + 1, chunk.clip and Clip(chunk.clip.frames, chunk.pts + 1))


class Swallows(StagePlugin):
    def process(self, chunks: Iterator[Chunk]) -> Iterator[Any]:
        for number, chunk in enumerate(chunks):
            if number % 2:
                yield chunk


class Doubles(StagePlugin):
    def process(self, chunks: Iterator[Chunk]) -> Iterator[Any]:
        for chunk in chunks:
            yield chunk
            yield chunk


class GivesClips(StagePlugin):
    def process(self, chunks: Iterator[Chunk]) -> Iterator[Any]:
        for chunk in chunks:
            yield chunk.clip


class Counts(Metric):
    """Nothing is wrong with it; the other metrics differ from it."""

    unit, higher_is_better, against = "", True, "nothing"
    value: Any = 7.0

    def update(self, made: Any, real: Any) -> None: ...

    def compute(self) -> Any:
        return Measurement(value=self.value, count=1, protocol="counted")


class CountsNothing(Counts):
    value = float("nan")


class CountsAndFalls(Counts):
    def update(self, made: Any, real: Any) -> None:
        raise ZeroDivisionError("by zero")


class CountsLoosely(Counts):
    def compute(self) -> Any:
        return 3
