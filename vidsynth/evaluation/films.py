"""Video files as the films that metrics read: cut in time, brought to one size, tracked once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from vidsynth import drawing, loading, options, video
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.kinds import Film
from vidsynth.report import Reporter
from vidsynth.stages import CHUNK, average_rate, clips_of
from vidsynth.stream import Chunk
from vidsynth.subject import PluginRef
from vidsynth.tracking import track

# N frames of a file, T frames of a film, H, W pixels

RESIZE_RULE = "area down, linear up"
"""Of `drawing.resize`, for protocols."""
IN_MEMORY_BYTES = 1 << 27
"""Films up to this size are decoded once and kept while they are measured."""
LONG = 3000
"""Frames from which on reading a film takes long enough to tell of it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recording:
    """A video file whose timing is known. What trackers see in it is shared by all its films."""

    path: Path
    pts: Tensor
    """(N,) float64 seconds."""
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1: the part of the picture that counts, in pixels of the file."""
    native: tuple[int, int]
    """(height, width) of the file's whole picture."""
    reporter: Reporter
    trackings: dict[str, Conditioning] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what counts."""
        x0, y0, x1, y1 = self.crop
        return (y1 - y0, x1 - x0)

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[1] / self.size[0]

    def scaled(self, shorter: int) -> tuple[int, int]:
        """(height, width) with the shorter side brought to so many pixels."""
        height, width = (max(1, round(side * shorter / min(self.size))) for side in self.size)
        return height, width

    def tracking(self, extractor: str) -> Conditioning:
        """What the plugin of this name sees in the whole file, in pixels of `size`."""
        if extractor not in self.trackings:
            plugin: Any = loading.load("extractor", extractor)
            built = plugin()
            identity = options.to_dict(PluginRef.of("extractor", extractor, built.options))
            seen = track(self.path, built, identity=identity, reporter=self.reporter).signal
            self.trackings[extractor] = seen.rescale(*self.native).crop(self.crop)
        return self.trackings[extractor]


def recording(
    path: Path, *, crop: tuple[int, int, int, int] | None = None, reporter: Reporter
) -> Recording:
    """Open a video and learn its timestamps, which takes decoding it once.

    Args:
        path: the video.
        crop: x0, y0, x1, y1 in its pixels; by default the whole picture.
        reporter: told of progress, and of damage in the file.

    Raises:
        UnsupportedVideo: it cannot be read.
    """
    info = video.probe(path)
    pts: list[Tensor] = []
    notes: list[str] = []
    teller = reporter if (info.num_frames or LONG) >= LONG else Reporter()
    with teller.step(f"reading {path.name}", total=info.num_frames) as step:
        for chunk in video.read_chunks(path, note=notes.append):
            pts.append(chunk.pts)
            step.update(sum(map(len, pts)))
    for note in notes:
        reporter.warn(note)
    native = (info.spec.height, info.spec.width)
    return Recording(
        path=path,
        pts=torch.cat(pts),
        crop=crop or (0, 0, native[1], native[0]),
        native=native,
        reporter=reporter,
    )


def film(
    of: Recording, *, size: tuple[int, int], index: Tensor | None = None, name: str | None = None
) -> Film:
    """Some frames of a recording, resized.

    Args:
        of: the recording.
        size: (height, width) in pixels.
        index: (T,) int64, rising: which frames; by default all.
        name: for messages; by default the file's.
    """
    chosen = torch.arange(len(of.pts)) if index is None else index.contiguous()
    pts = of.pts[chosen]
    x0, y0, x1, y1 = of.crop

    def pictures() -> Iterator[Clip]:
        """The chosen frames of each chunk of the file."""
        before = 0
        for clip in clips_of(video.read_chunks(of.path, note=lambda _: None)):  # told before
            bounds = torch.tensor([before, before + len(clip)])
            first, end = torch.searchsorted(chosen, bounds).tolist()
            inside = chosen[first:end] - before
            before += len(clip)
            if len(inside):
                frames = clip.frames[inside][:, :, y0:y1, x0:x1]
                yield Clip(drawing.resize(frames, *size), clip.pts[inside])
            if before > chosen[-1]:
                return

    def seen_by(extractor: str) -> Conditioning:
        return of.tracking(extractor)[chosen].rescale(*size)

    return Film(
        name=name or of.path.name,
        spec=VideoSpec(height=size[0], width=size[1], fps=average_rate(pts)),
        pts=pts,
        read=lambda: _even(pictures()),
        track=seen_by,
    )


def _even(clips: Iterator[Clip]) -> Iterator[Clip]:
    """The same frames, CHUNK at a time: two films of one length then come in equal clips."""
    held: list[Clip] = []
    for clip in clips:
        joined = Clip.concat([*held, clip])
        whole = len(joined) - len(joined) % CHUNK
        for start in range(0, whole, CHUNK):
            yield joined[start : start + CHUNK]
        held = [joined[whole:]] if whole < len(joined) else []
    yield from held


def kept(of: Film) -> Film:
    """The same film, which keeps what it has decoded in memory where that is little."""
    if len(of) * 3 * of.spec.height * of.spec.width > IN_MEMORY_BYTES:
        return of
    clips: list[Clip] = []

    def read() -> Iterator[Clip]:
        if not clips:
            clips.extend(of.read())
        return iter(clips)

    return replace(of, read=read)


def halves(of: Recording, *, size: tuple[int, int], index: Tensor) -> tuple[Film, Film] | None:
    """The first and the second half of these frames; None when there are not two frames."""
    middle = len(index) // 2
    if not middle:
        return None
    first, second = index[:middle], index[middle:]
    return (
        film(of, size=size, index=first, name=f"the first half of {of.path.name}"),
        film(of, size=size, index=second, name=f"the second half of {of.path.name}"),
    )


def encoded(of: Film, folder: Path, *, reporter: Reporter) -> Recording:
    """A film written to a file in `folder` the way vidsynth writes its videos."""
    path = Path(mkdtemp(dir=folder)) / f"{Path(of.name).stem}, encoded.mp4"
    chunks = (Chunk(clip.pts, clip) for clip in of.read())
    video.write_video(path, chunks, fps=of.spec.fps)
    # An odd size gained a row or a column on the way.
    crop = (0, 0, of.spec.width, of.spec.height)
    return recording(path, crop=crop, reporter=reporter)
