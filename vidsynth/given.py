"""Conditioning that is there already, in files: label maps beside a target, or as a source."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from vidsynth import drawing, video
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, UnsupportedVideo
from vidsynth.kinds import Extractor, Given
from vidsynth.report import Reporter
from vidsynth.retarget import refuse_another_shape
from vidsynth.tracking import Tracked

# N frames


def as_given(labels: str | Path | None, instances: str | Path | None) -> Given | None:
    """What a user named. Raises BadOption for instance maps without label maps."""
    if labels is None:
        if instances is not None:
            raise BadOption("--instances go with label maps; name those with --labels")
        return None
    return Given(Path(labels), None if instances is None else Path(instances))


def target_with_maps(
    target: Path,
    given: Given,
    extractor: Extractor,
    *,
    size: int,
    fps: Fraction | None,
    reporter: Reporter,
) -> Tracked:
    """A target's frames and the maps of each.

    Args:
        target: the frames: a video, or a folder of pictures.
        given: as many maps, in the same order, of the same shape.
        extractor: reads them.
        size: pixels; maps are kept no larger than this, by their shorter side.
        fps: of a folder of pictures.
        reporter: told of progress.

    Raises:
        UnsupportedVideo: frames and maps do not go together, or cannot be read.
        BadOption: the extractor reads no files.
    """
    spec = video.probe(target).spec
    with reporter.step(f"reading {given.maps.name}"):
        signal = extractor.read(given, shorter=size)
    refuse_another_shape(signal.size, (spec.height, spec.width), str(given.maps), str(target))
    pts = _times(target, fps, reporter)
    if len(signal) != len(pts):
        raise UnsupportedVideo(
            f"{target} has {len(pts)} frames and {given.maps} {len(signal)} label maps; there "
            "must be one map for each frame, in the same order"
        )
    return Tracked(path=target, signal=signal, pts=pts)


def maps_as_source(
    given: Given,
    extractor: Extractor,
    *,
    size: int,
    fps: Fraction | None,
    start: float | None,
    end: float | None,
    reporter: Reporter,
) -> Tracked:
    """Maps alone, that drive a subject; arguments as of `target_with_maps`, and seconds.

    Raises UnsupportedVideo: they cannot be read, or none lies between `start` and `end`.
    """
    with reporter.step(f"reading {given.maps.name}"):
        signal = extractor.read(given, shorter=size)
    pts = _times(given.maps, fps, reporter)
    wanted = (pts >= (start or 0.0)) & (pts < (float("inf") if end is None else end))
    if not wanted.any():
        raise UnsupportedVideo(
            f"{given.maps}: ends at {float(pts[-1]):.2f} s; choose another --start or --end"
        )
    index = wanted.nonzero()[:, 0]
    return Tracked(path=given.maps, signal=signal[index], pts=pts[index])


def hash_of(given: Given | None) -> str:
    """What maps somebody gave; the empty string for none."""
    if given is None:
        return ""
    return "+".join(video.content_hash(p) for p in (given.maps, given.instances) if p is not None)


def in_colours(tracked: Tracked, size: tuple[int, int], *, chunk: int) -> Iterator[Clip]:
    """What conditioning looks like, as clips of `chunk` frames of (height, width) pixels."""
    for start in range(0, len(tracked.pts), chunk):
        span = slice(start, start + chunk)
        part: Conditioning = tracked.signal[span]
        yield Clip(drawing.in_colours(part.draw(*size)), tracked.pts[span])


def _times(path: Path, fps: Fraction | None, reporter: Reporter) -> Tensor:
    """(N,) seconds of each frame, which takes decoding a video."""
    with reporter.step(f"reading {path.name}", total=video.probe(path).num_frames) as step:
        pts: list[Tensor] = []
        for chunk in video.read_chunks(path, fps=fps, note=reporter.warn):
            pts.append(chunk.pts)
            step.update(sum(map(len, pts)))
    return torch.cat(pts)
