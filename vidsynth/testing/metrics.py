"""Conformance checks of metrics, on films and trackings that the kit makes up.

Both the frames and what the trackers are said to see in them are known: a film and its distorted
copy, which is blurred, shifted, flickers, drifts in colour, moves otherwise and loses its subject.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any
from unittest import SkipTest

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import loading
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning, FaceSequence, PoseSequence
from vidsynth.errors import MissingWeights, NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth.testing.conformance import FILM, PIECE, Case, Check, Memory, raises
from vidsynth.testing.samples import nodding_face, sizes, waving_person

# T frames, H, W pixels

FRAMES = 12


_MADE_UP = {"face": nodding_face, "pose": waving_person}


def film_of(clip: Clip, *, chunk: int = 16, name: str = "film", distorted: bool = False) -> Film:
    """A film of these frames, in clips of `chunk`, in which a face and a body are seen.

    What other extractors see in it, they see themselves.

    Args:
        clip: the frames.
        chunk: frames of each clip that `read` gives.
        name: of the film.
        distorted: let the trackers see another motion, and nobody in every fifth frame.
    """
    spec = VideoSpec(height=clip.height, width=clip.width, fps=Fraction(25))

    def track(extractor: str) -> Conditioning:
        if extractor not in _MADE_UP:
            plugin: Any = loading.load("extractor", extractor)
            signals = list(plugin().extract(read()))
            return type(signals[0]).concat(signals)
        signal = _MADE_UP[extractor](len(clip), clip.height, clip.width)
        return _moved_otherwise(signal) if distorted else signal

    def read() -> Iterator[Clip]:
        start = 0
        for length in sizes(len(clip), chunk):
            yield clip[start : start + length]
            start += length

    return Film(name=name, spec=spec, pts=clip.pts, read=read, track=track)


def _moved_otherwise(signal: PoseSequence | FaceSequence) -> Conditioning:
    sway = 3 * torch.sin(torch.arange(len(signal)) * 1.7)
    seen = signal.seen.clone()
    seen[::5] = False
    if isinstance(signal, PoseSequence):
        keypoints = signal.keypoints.clone()
        keypoints[:, 0, 13:17, :2] += sway[:, None, None]
        return replace(signal, keypoints=keypoints, seen=seen)
    landmarks = signal.landmarks.clone()
    landmarks[:, 61:99, 0] += sway[:, None]
    landmarks[:, 468:, 0] += sway[:, None]
    turn = torch.eye(3).repeat(len(signal), 1, 1)
    angle = sway / 20
    turn[:, 0, 0], turn[:, 1, 1] = angle.cos(), angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin(), angle.sin()
    return replace(signal, landmarks=landmarks, rotation=turn @ signal.rotation, seen=seen)


def _distorted(clip: Clip) -> Clip:
    frames = clip.frames.float()
    blurred = F.avg_pool2d(F.pad(frames, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    flickering = 16 * (torch.arange(len(clip)) % 2)
    drifting = torch.linspace(0, 60, len(clip))
    levels = blurred.roll(1, dims=3) * 0.9 + (flickering + drifting)[:, None, None, None]
    return Clip(levels.round().clamp(0, 255).to(torch.uint8), clip.pts)


def better_for_the_truth_than_for_a_distortion(case: Case) -> None:
    """The real film itself scores better than a film that is worse in every way."""
    truth = _measure(case, case.footage(FRAMES))
    wrong = _measure(case, _distorted(case.footage(FRAMES)), distorted=True)
    better = (
        truth.value > wrong.value if _metric(case).higher_is_better else truth.value < wrong.value
    )
    assert better, f"{truth.value:g} for the truth, {wrong.value:g} for a distortion"


def clips_of_films_do_not_matter(case: Case) -> None:
    """Frames one by one, by five or all at once give the same value."""
    made = _distorted(case.footage(FRAMES))
    whole = _measure(case, made, chunk=FRAMES, distorted=True)
    for chunk in (1, 5):
        assert _same(_measure(case, made, chunk=chunk, distorted=True), whole)


def says_what_it_is(case: Case) -> None:
    """Unit, direction, kind of reference and protocol are there."""
    metric, found = _metric(case), _measure(case, case.footage(FRAMES))
    assert isinstance(metric.unit, str) and isinstance(metric.higher_is_better, bool)
    assert metric.against in ("truth", "motion", "looks", "nothing")
    assert found.protocol and found.count > 0


def frames_are_counted_once(case: Case) -> None:
    """One number per frame of each film, NaN where there is none, and their mean is the value."""
    found = _measure(case, _distorted(case.footage(FRAMES)), distorted=True, times_over=2)
    if found.per_frame is None:
        return
    assert found.per_frame.dtype == torch.float64 and len(found.per_frame) == 2 * FRAMES
    known = found.per_frame[~found.per_frame.isnan()]
    assert len(known) == found.count
    assert math.isclose(float(known.mean()), found.value, rel_tol=1e-9, abs_tol=1e-12)


def films_add_up(case: Case) -> None:
    """The same film twice counts twice, and is as good as once."""
    once = _measure(case, case.footage(FRAMES))
    twice = _measure(case, case.footage(FRAMES), times_over=2)
    assert twice.count == 2 * once.count
    if once.per_frame is not None:
        assert math.isclose(twice.value, once.value, rel_tol=1e-6, abs_tol=1e-9)


def repeats_itself(case: Case) -> None:
    made = _distorted(case.footage(FRAMES))
    assert _same(*(_measure(case, made, distorted=True) for _ in range(2)), tolerance=0.0)


def nothing_seen_is_not_measurable(case: Case) -> None:
    """Asked before it has seen a film, it says so."""
    with raises(NotMeasurable):
        _metric(case).compute()


def memory_stays_bounded(case: Case) -> None:
    """A film twice as long takes no more memory: its pictures are not kept."""
    # Large enough that numbers per frame, like the features of a network, weigh little beside it.
    case = replace(case, height=max(128, case.height), width=max(128, case.width))
    memory, footage, metric = Memory(), case.footage(FILM), _metric(case)
    film = film_of(footage, chunk=PIECE)

    def read() -> Iterator[Clip]:
        for done, clip in enumerate(film.read()):
            memory.watch(done * PIECE)
            yield Clip(clip.frames.clone(), clip.pts)

    try:
        metric.update(replace(film, read=read), film if metric.against != "nothing" else None)
    except MissingWeights as error:
        raise SkipTest(str(error)) from error
    memory.assert_bounded(footage[:1].frames.nbytes)


CHECKS: tuple[Check, ...] = (
    better_for_the_truth_than_for_a_distortion,
    clips_of_films_do_not_matter,
    says_what_it_is,
    frames_are_counted_once,
    films_add_up,
    repeats_itself,
    nothing_seen_is_not_measurable,
    memory_stays_bounded,
)


def _metric(case: Case) -> Metric:
    metric = case.plugin(case.built_options())
    assert isinstance(metric, Metric)
    return metric


def _measure(
    case: Case, made: Clip, *, chunk: int = 16, distorted: bool = False, times_over: int = 1
) -> Measurement:
    metric = _metric(case)
    film = partial(film_of, chunk=chunk)
    real = film(case.footage(len(made)), name="real")
    for _ in range(times_over):
        try:
            metric.update(
                film(made, name="made", distorted=distorted),
                None if metric.against == "nothing" else real,
            )
        except MissingWeights as error:
            raise SkipTest(str(error)) from error
    return metric.compute()


def _same(ours: Measurement, theirs: Measurement, tolerance: float = 1e-6) -> bool:
    def close(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)

    assert (ours.per_frame is None) == (theirs.per_frame is None)
    if ours.per_frame is not None and theirs.per_frame is not None:
        assert close(ours.per_frame, theirs.per_frame)
    values = (torch.tensor(m.value, dtype=torch.float64) for m in (ours, theirs))
    return ours.count == theirs.count and ours.protocol == theirs.protocol and close(*values)
