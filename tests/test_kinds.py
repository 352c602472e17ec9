"""What the base classes of plugins promise by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps, PoseSequence
from vidsynth.errors import IncompatibleStages, UnknownName
from vidsynth.kinds import Conditions, Discriminator, Extractor, Generator, Judgement, NoOptions
from vidsynth.objectives import Objective
from vidsynth.options import build
from vidsynth.stream import Chunk
from vidsynth.testing import sliding_labels, times, waving_person


@dataclass(frozen=True, kw_only=True)
class Options:
    """Attributes:
    level: of grey, 0 to 255.
    """

    level: int = 7


class Grey(Generator):
    Options = Options
    accepts = (PoseSequence, LabelMaps)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None: ...

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        yield from ()

    def objective(self, spec: VideoSpec) -> Objective:
        raise AssertionError("not trained here")


class Nothing(Discriminator):
    Options = Options

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        return Judgement([], [])


def test_a_plugin_is_built_from_its_own_options_only() -> None:
    conditions = Conditions(kinds=(PoseSequence,), channels=3)
    assert Grey(conditions=conditions).options == Options()
    assert Grey(Options(level=9), conditions=conditions).options == Options(level=9)
    with pytest.raises(TypeError, match="Grey takes Options; got dict"):
        Grey({"level": 9}, conditions=conditions)


def test_a_plugin_that_names_no_options_has_none() -> None:
    class Bare(Discriminator):
        forward = Nothing.forward

    assert Bare().options == NoOptions()
    with pytest.raises(UnknownName, match="level"):
        build(Bare.Options, {"level": 3}, where="discriminator")


def test_a_generator_refuses_kinds_that_it_does_not_accept() -> None:
    class PoseOnly(Grey):
        accepts = (PoseSequence,)

    with pytest.raises(IncompatibleStages, match=r"PoseOnly .* 'labels'; it accepts: pose"):
        PoseOnly(conditions=Conditions(kinds=(LabelMaps,), channels=3))


def test_an_abstract_plugin_cannot_be_built() -> None:
    class Lazy(Extractor):
        Options = Options
        produces = PoseSequence

    with pytest.raises(TypeError, match="abstract"):
        Lazy()  # pyright: ignore[reportAbstractUsage]


def test_a_discriminator_is_both_plugin_and_module() -> None:
    judge = Nothing(Options(level=3), condition_channels=2, num_frames=3)
    assert (judge.options, judge.condition_channels, judge.num_frames) == (Options(level=3), 2, 3)
    assert list(judge.parameters()) == []


def test_conditions_draw_their_kinds_in_order_along_channels() -> None:
    person, labels = waving_person(3, 24, 20), sliding_labels(3, 24, 20)
    chunk = Chunk(times(3)).with_signal(person).with_signal(labels)
    channels = person.draw(24, 20).shape[1], labels.draw(24, 20).shape[1]
    both = Conditions(kinds=(LabelMaps, PoseSequence), channels=sum(channels)).draw(chunk, 24, 20)
    assert torch.equal(both, torch.cat([labels.draw(24, 20), person.draw(24, 20)], dim=1))
    one = Conditions(kinds=(PoseSequence,), channels=channels[0]).draw(chunk, 24, 20)
    assert torch.equal(one, person.draw(24, 20))


def test_conditions_need_their_signals() -> None:
    with pytest.raises(IncompatibleStages, match="carries: none"):
        Conditions(kinds=(PoseSequence,), channels=3).draw(Chunk(times(2)), 8, 8)
