"""Conformance checks of extractors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, zip_longest

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import UnsupportedVideo, VidsynthError
from vidsynth.kinds import Extractor
from vidsynth.testing.conformance import (
    FILM,
    PIECE,
    Case,
    Check,
    Memory,
    assert_same_signal,
    raises,
)
from vidsynth.testing.samples import sizes, times


def gives_one_signal_per_clip(case: Case) -> None:
    """As many signals as clips, in order, of the clips' lengths, sizes and of the kind promised."""
    lengths = (3, 1, 4)
    signals = _extract(case, case.footage(8), lengths)
    assert [len(s) for s in signals] == list(lengths)
    for signal in signals:
        assert type(signal) is case.built(Extractor).produces
        assert signal.size == (case.height, case.width)
        assert len(signal.present()) == len(signal)


def chunk_sizes_do_not_matter(case: Case) -> None:
    """Frames one by one, by four or by sixteen give the same signal."""
    whole = _joined(case, 16, 16)
    for size in (1, 4):
        assert_same_signal(_joined(case, 16, size), whole, case.tolerance)


def streams_do_not_mix(case: Case) -> None:
    """Two videos taken in turns through one extractor give what each gives alone."""
    extractor = case.built(Extractor)
    videos = [case.footage(8, seed=seed) for seed in (0, 1)]
    alone = [list(extractor.extract(_clips(v, sizes(8, 2)))) for v in videos]
    in_turns = list(zip_longest(*(extractor.extract(_clips(v, sizes(8, 2))) for v in videos)))
    for index, expected in enumerate(alone):
        got = [pair[index] for pair in in_turns]
        for ours, theirs in zip(got, expected, strict=True):
            assert_same_signal(ours, theirs, case.tolerance)


def repeats_itself(case: Case) -> None:
    """The same video gives the same signal again."""
    assert_same_signal(_joined(case, 4, 4), _joined(case, 4, 4), 0.0)


def empty_video_gives_nothing(case: Case) -> None:
    assert list(case.built(Extractor).extract(iter(()))) == []


def one_frame_is_enough(case: Case) -> None:
    assert [len(s) for s in _extract(case, case.footage(1), (1,))] == [1]


def odd_sizes_are_fine(case: Case) -> None:
    """Width and height need not be even, nor multiples of anything."""
    gives_one_signal_per_clip(replace(case, height=case.height | 1, width=(case.width + 2) | 1))


def variable_frame_rate_is_fine(case: Case) -> None:
    uneven = case.footage(8, pts=times(8, variable=True))
    assert sum(len(s) for s in _extract(case, uneven, (4, 4))) == 8


def errors_pass_through(case: Case) -> None:
    """A video that breaks off in the middle raises its own error, not another one."""

    def breaking() -> Iterator[Clip]:
        yield case.footage(2)
        raise UnsupportedVideo("the file breaks off")

    with raises(VidsynthError, match="breaks off"):
        list(case.built(Extractor).extract(breaking()))


def memory_stays_bounded(case: Case) -> None:
    """A film twice as long takes no more memory: neither pictures nor signals are kept."""
    memory, video = Memory(), case.footage(FILM)

    def clips() -> Iterator[Clip]:
        for start in range(0, FILM, PIECE):
            memory.watch(start)
            part = video[start : start + PIECE]
            yield Clip(part.frames.clone(), part.pts)

    for _ in case.built(Extractor).extract(clips()):
        pass
    memory.assert_bounded(video[:1].frames.nbytes)


CHECKS: tuple[Check, ...] = (
    gives_one_signal_per_clip,
    chunk_sizes_do_not_matter,
    streams_do_not_mix,
    repeats_itself,
    empty_video_gives_nothing,
    one_frame_is_enough,
    odd_sizes_are_fine,
    variable_frame_rate_is_fine,
    errors_pass_through,
    memory_stays_bounded,
)


def _clips(video: Clip, lengths: Sequence[int]) -> Iterator[Clip]:
    return (video[end - n : end] for end, n in zip(accumulate(lengths), lengths, strict=True))


def _extract(case: Case, video: Clip, lengths: Sequence[int]) -> list[Conditioning]:
    return list(case.built(Extractor).extract(_clips(video, lengths)))


def _joined(case: Case, num_frames: int, size: int) -> Conditioning:
    signals = _extract(case, case.footage(num_frames), sizes(num_frames, size))
    return type(signals[0]).concat(signals)
