"""Conformance checks of pipeline stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor

from vidsynth.conditioning import Conditioning
from vidsynth.errors import UnsupportedVideo, VidsynthError
from vidsynth.kinds import StagePlugin
from vidsynth.stream import Chunk
from vidsynth.testing.conformance import FILM, PIECE, Case, Check, Memory, assert_near, raises
from vidsynth.testing.samples import chunked, sizes, times

# T frames, H, W pixels


def every_frame_comes_out_at_its_time(case: Case) -> None:
    """As many frames at the same times come out, in order, with the signals it promises."""
    pts = times(8, variable=True)
    made = list(case.built(StagePlugin).process(_chunks(case, (3, 1, 4), pts=pts)))
    assert torch.equal(torch.cat([chunk.pts for chunk in made]), pts)
    for chunk in made:
        for kind in case.built(StagePlugin).gives:
            assert len(chunk.require(kind)) == len(chunk)


def chunk_sizes_do_not_matter(case: Case) -> None:
    """Frames one by one, by four or by sixteen come out the same."""
    whole = _frames(case, sizes(16, 16))
    for size in (1, 4):
        assert_near(_frames(case, sizes(16, size)), whole, case.tolerance, f"frames {size} a time")


def streams_do_not_mix(case: Case) -> None:
    """Two videos taken in turns through one stage come out as each does alone."""
    stage, lengths = case.built(StagePlugin), sizes(8, 2)
    alone = [list(stage.process(_chunks(case, lengths, seed=seed))) for seed in (0, 1)]
    both = (stage.process(_chunks(case, lengths, seed=seed)) for seed in (0, 1))
    for pair in zip_longest(*both):
        for index, chunk in enumerate(pair):
            expected = alone[index].pop(0)
            assert_near(_picture(chunk), _picture(expected), case.tolerance, f"video {index}")


def repeats_itself(case: Case) -> None:
    """The same video comes out the same again."""
    assert_near(_frames(case, (4, 4)), _frames(case, (4, 4)), 0.0, "two runs")


def empty_video_gives_nothing(case: Case) -> None:
    assert list(case.built(StagePlugin).process(iter(()))) == []


def one_frame_is_enough(case: Case) -> None:
    assert [len(c) for c in case.built(StagePlugin).process(_chunks(case, (1,)))] == [1]


def odd_sizes_are_fine(case: Case) -> None:
    """Width and height need not be even, nor multiples of anything."""
    every_frame_comes_out_at_its_time(
        replace(case, height=case.height | 1, width=(case.width + 2) | 1)
    )


def errors_pass_through(case: Case) -> None:
    """A video that breaks off in the middle raises its own error, not another one."""

    def breaking() -> Iterator[Chunk]:
        yield from _chunks(case, (2,))
        raise UnsupportedVideo("the file breaks off")

    with raises(VidsynthError, match="breaks off"):
        list(case.built(StagePlugin).process(breaking()))


def memory_stays_bounded(case: Case) -> None:
    """A film twice as long takes no more memory: pictures are not kept."""
    memory = Memory()

    def chunks() -> Iterator[Chunk]:
        for done, chunk in enumerate(_chunks(case, sizes(FILM, PIECE))):
            memory.watch(done * PIECE)
            assert chunk.clip is not None
            yield chunk.with_clip(replace(chunk.clip, frames=chunk.clip.frames.clone()))

    for _ in case.built(StagePlugin).process(chunks()):
        pass
    memory.assert_bounded(3 * case.height * case.width)


CHECKS: tuple[Check, ...] = (
    every_frame_comes_out_at_its_time,
    chunk_sizes_do_not_matter,
    streams_do_not_mix,
    repeats_itself,
    empty_video_gives_nothing,
    one_frame_is_enough,
    odd_sizes_are_fine,
    errors_pass_through,
    memory_stays_bounded,
)


def _chunks(
    case: Case, lengths: Sequence[int], *, pts: Tensor | None = None, seed: int = 0
) -> Iterator[Chunk]:
    """Pictures, and every signal that the stage needs."""
    count = sum(lengths)
    kinds = [k for k in case.built(StagePlugin).needs if k is not Conditioning]
    wanted = case.kinds or tuple(kinds) or tuple(case.makers)[: len(case.built(StagePlugin).needs)]
    signals = [case.makers[kind](count, case.height, case.width) for kind in wanted]
    clip = case.footage(count, seed=seed, pts=pts)
    return chunked(clip.pts, lengths, clip=clip, signals=signals)


def _frames(case: Case, lengths: Sequence[int]) -> Tensor:
    return torch.cat([_picture(c) for c in case.built(StagePlugin).process(_chunks(case, lengths))])


def _picture(chunk: Chunk) -> Tensor:
    """Its frames; all its signals drawn, where it has none."""
    if chunk.clip is not None:
        return chunk.clip.frames
    return torch.cat([s.draw(*s.size) for s in chunk.signals.values()], dim=1)
