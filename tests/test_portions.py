"""A device that runs out of memory within a film is asked for fewer frames at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import pytest
import torch
from tiny import CONDITIONS, TinyGenerator, moving_square
from torch import Tensor

from vidsynth import stages, stream
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import DeviceUnavailable, StageFailed
from vidsynth.stream import Chunk

CPU = torch.device("cpu")
SPEC = VideoSpec(height=16, width=16, fps=Fraction(25))
FRAMES = 22
FULL = "CUDA out of memory. Tried to allocate 2 GiB"


class Hungry(TinyGenerator):
    """Each frame follows from the one before and from chance; so many frames at once fill the
    device, from the given one on."""

    def __init__(self, most: int, *, since: int = 0, remembers: bool = True) -> None:
        torch.manual_seed(0)
        super().__init__(conditions=CONDITIONS)
        self.load_weights(self.network.state_dict())
        self.most, self.since, self.remembers = most, since, remembers
        self.told: Tensor | None = None
        self.last = torch.zeros(())
        self.sizes: list[int] = []

    def memory(self) -> Mapping[str, Tensor] | None:
        return {"before": self.last} if self.remembers else None

    def go_on(self, memory: Mapping[str, Tensor]) -> None:
        self.told = memory["before"]

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        before, self.told = self.told, None
        for chunk in chunks:
            noise = torch.rand(len(chunk), 3, 16, 16, generator=rng)
            if len(chunk) > self.most and float(chunk.pts[-1]) * 25 >= self.since:
                raise torch.OutOfMemoryError(FULL)
            made = []
            for fresh, some in zip(self.network(drawn(self, chunk)), noise, strict=True):
                before = 0.9 * (fresh if before is None else 0.5 * (fresh + before)) + 0.1 * some
                made.append(before)
            self.sizes.append(len(chunk))
            if before is not None:
                self.last = before
            yield Clip.from_float(torch.stack(made), chunk.pts)


def drawn(generator: Hungry, chunk: Chunk) -> Tensor:
    return generator.conditions.draw(chunk, SPEC.height, SPEC.width).float() / 255


def rendered(generator: Hungry, told: list[str] | None = None) -> Clip:
    clip, motion = moving_square(FRAMES)
    line = [
        stages.conditioning_on(motion),
        stages.generating(
            generator, SPEC, seed=3, device=CPU, warn=([] if told is None else told).append
        ),
    ]
    made: list[Chunk] = []
    stream.run(stages.timeline(clip.pts), line, made.extend, prefetch=0)
    assert [len(chunk) for chunk in made] == [8, 8, 6]
    whole = Clip.concat(list(stages.clips_of(iter(made))))
    assert torch.equal(whole.pts, clip.pts)
    return whole


@pytest.mark.parametrize("since", [0, 9, 21])
@pytest.mark.parametrize("most", [1, 3, 4])
def test_frames_are_the_same_in_smaller_portions(most: int, since: int) -> None:
    told: list[str] = []
    undisturbed = rendered(Hungry(8)).frames
    hungry = Hungry(most, since=since)
    assert torch.equal(rendered(hungry, told).frames, undisturbed)
    assert sum(hungry.sizes) == FRAMES  # no frame is made twice
    assert max(hungry.sizes[-2:]) <= most
    assert told[0].startswith("cpu has not the memory for so many frames at once: going on from ")


def test_one_frame_that_does_not_fit_is_told_with_its_moment() -> None:
    with pytest.raises(DeviceUnavailable, match=r"cpu ran out of memory at 0\.36 s \(CUDA out of"):
        rendered(Hungry(0, since=9))


def test_a_generator_that_remembers_nothing_does_not_go_on_wrongly() -> None:
    assert torch.equal(
        rendered(Hungry(4, remembers=False)).frames, rendered(Hungry(8)).frames
    )  # before its first frame there is nothing to remember
    with pytest.raises(DeviceUnavailable, match="smaller --size"):
        rendered(Hungry(4, since=9, remembers=False))


def test_memory_that_fails_before_the_generator_ends_the_film_with_an_error() -> None:
    clip, motion = moving_square(FRAMES)

    def failing() -> Iterator[Chunk]:
        yield from stages.timeline(clip.pts[:8])
        raise torch.OutOfMemoryError(FULL)

    generating = stages.generating(Hungry(8), SPEC, seed=3, device=CPU)
    made: list[Chunk] = []
    with pytest.raises(StageFailed, match="out of memory"):
        stream.run(failing(), [stages.conditioning_on(motion), generating], made.extend, prefetch=0)
    assert [len(chunk) for chunk in made] == [8]
