"""Video files in and out, through PyAV; with `vidsynth.pictures`, all that touches a codec.

A folder of pictures is a video too (`vidsynth.pictures`), wherever one is read.

Every time is in seconds since the start of the file, as a player shows it: the presentation
timestamps of the file, less the container's start time where that is positive (MPEG-TS starts its
clock anywhere). Pictures are upright, with square pixels, in 8-bit RGB; what cannot be brought
there without inventing something (HDR, odd rotations) is refused by name.

Writing lives in `vidsynth.encode`; its public names are offered here too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import torch
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidsynth import pictures
from vidsynth.clip import Clip, VideoSpec
from vidsynth.encode import WrittenVideo, check_codec, check_output, write_video
from vidsynth.errors import UnsupportedVideo
from vidsynth.pixels import FrameReader, refuse_giant, size_changes
from vidsynth.sound import clock_start
from vidsynth.stream import Chunk

__all__ = [
    "VideoInfo",
    "WrittenVideo",
    "check_codec",
    "check_output",
    "content_hash",
    "probe",
    "read_chunks",
    "read_frames_at",
    "write_video",
]

# T frames, H height, W width

Note = Callable[[str], None]
"""Told each thing worth knowing about a reading: repairs, damage, a GPU that was not used."""

_warn = logging.getLogger(__name__).warning

_SECOND = 1.0
_SEEK_MARGIN = 0.5  # seconds; indexes are in decoding order, which runs ahead of presentation
_NOT_VIDEO = {"tty"}  # demuxers that turn any text file into pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a file holds, known without decoding more than one frame."""

    path: Path
    spec: VideoSpec
    """Size as delivered: upright, with square pixels."""
    num_frames: int | None
    """The container's own count, or an estimate from its duration; None when it has neither."""
    seconds: float | None
    has_audio: bool
    rotation: int
    """Degrees clockwise that the file asks players to turn its pictures; done on reading."""
    colour: tuple[str, bool]
    """Matrix ("bt601", "bt709", "fcc", "smpte240m" or "rgb") and whether the range is full. An
    unspecified matrix counts as BT.601 up to 576 lines and as BT.709 above."""
    pixel_format: str
    variable_rate: bool
    """A hint: the average and the nominal rate differ."""
    notes: tuple[str, ...]
    """Sentences on what reading this file changes or cannot know."""


def probe(path: Path | str, *, fps: Fraction | None = None) -> VideoInfo:
    """Look into a video file, or a folder of pictures, which has `fps` (by default 25).

    Raises:
        UnsupportedVideo: missing, empty, not a video, without pictures, undecodable, or of a form
            refused by name.
    """
    path = Path(path)
    if path.is_dir():
        return _probe_folder(path, fps or pictures.RATE)
    with _opened(path) as (container, stream):
        frame = next(_decoded(container, stream, _Damage()), None)
        if frame is None:
            raise _no_pictures(path)
        reader = FrameReader(path, frame, stream)
        fps, seconds = _fps(stream), _seconds(container, stream)
        count = stream.frames or (round(seconds * fps) if seconds else 0)
        return VideoInfo(
            path=path,
            spec=VideoSpec(height=reader.height, width=reader.width, fps=fps),
            num_frames=count or None,
            seconds=seconds,
            has_audio=bool(container.streams.audio),
            rotation=-frame.rotation % 360,
            colour=(reader.matrix, reader.full_range),
            pixel_format=frame.format.name,
            variable_rate=stream.base_rate not in (None, stream.average_rate),
            notes=reader.notes,
        )


def _probe_folder(folder: Path, fps: Fraction) -> VideoInfo:
    paths = pictures.list_pictures(folder)
    frame, stream = pictures.decode(paths[0])
    reader = FrameReader(paths[0], frame, stream)
    return VideoInfo(
        path=folder,
        spec=VideoSpec(height=reader.height, width=reader.width, fps=fps),
        num_frames=len(paths),
        seconds=float(len(paths) / fps),
        has_audio=False,
        rotation=-frame.rotation % 360,
        colour=(reader.matrix, reader.full_range),
        pixel_format=frame.format.name,
        variable_rate=False,
        notes=reader.notes,
    )


def read_chunks(
    path: Path | str,
    *,
    chunk: int = 8,
    size: tuple[int, int] | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: Fraction | None = None,
    device: torch.device | str = "cpu",
    note: Note = _warn,
) -> Generator[Chunk, None, None]:
    """Decode a video, a few frames at a time, in memory that does not grow with its length.

    Frames without a timestamp follow the one before by 1/fps; a timestamp that does not increase
    is moved just behind the one before. Damaged packets are left out where the decoder can go on.
    Both are told to `note`, as is a GPU decoder that could not be used.

    Args:
        path: the video, or a folder of pictures.
        chunk: frames per chunk; the last one may hold fewer.
        size: (height, width) to scale to; by default the size in `probe(path).spec`.
        start: seconds; the first frame is the first at or after it.
        end: seconds; the last frame is the last before it.
        fps: frames per second of a folder of pictures, by default 25; a video has its own.
        device: where the frames go. On "cuda" they are decoded by the GPU where it can.
        note: told what was repaired; by default the log, at level WARNING.

    Yields:
        Chunks with a clip. The frames are a channels-last view: (H, W, 3) arrays come free.

    Raises:
        UnsupportedVideo: as `probe`, or no frame lies between `start` and `end`, or the frame
            size changes on the way.
    """
    path, device = Path(path), torch.device(device)
    if path.is_dir():
        yield from pictures.read_chunks(
            path,
            chunk=chunk,
            size=size,
            start=start,
            end=end,
            fps=fps or pictures.RATE,
            device=device,
        )
        return
    with _opened(path, device, note) as (container, stream):
        clock, damage = _Clock(stream, clock_start(container)), _Damage()
        if start is not None and start > _SEEK_MARGIN:
            _seek(container, stream, clock_start(container) + Fraction(start - _SEEK_MARGIN))
        reader, frames, pts, total = None, _NOTHING, [], 0
        for frame in _decoded(container, stream, damage):
            now = clock.seconds(frame)
            if start is not None and now < start:
                continue
            if end is not None and now >= end:
                break
            if reader is None:
                reader = FrameReader(path, frame, stream, size)
                if device.type == "cuda" and not stream.codec_context.is_hwaccel:
                    note(f"{path.name}: decoded by the CPU: the GPU cannot decode this format")
            if not pts:
                frames = np.empty((chunk, reader.height, reader.width, 3), np.uint8)
            damage.at(now, frame.is_corrupt)
            reader.read(frame, frames[len(pts)], second=now)
            pts.append(now)
            total += 1
            if len(pts) == chunk:
                yield pictures.chunk_of(frames, pts, device)
                pts = []
        if pts:
            yield pictures.chunk_of(frames, pts, device)
        if not total:
            raise _no_pictures(path, start, end)
        if end is None:
            damage.ended(clock.last, total, stream, _seconds(container, stream))
        for sentence in (clock.told(), damage.told()):
            if sentence:
                note(f"{path.name}: {sentence}")


def read_frames_at(
    path: Path | str, seconds: Sequence[float], *, size: tuple[int, int] | None = None
) -> Clip:
    """The first frame at or after each of these times, in order, each once.

    Meant for a few frames spread over a video: each costs a seek and part of a group of pictures.
    Times past the end are left out.

    Raises:
        UnsupportedVideo: as `read_chunks`; no time lies inside the video.
    """
    clips: list[Clip] = []
    for wanted in sorted(seconds):
        if clips and wanted <= clips[-1].pts[0]:
            continue
        chunks = read_chunks(path, chunk=1, size=size, start=wanted, note=lambda _: None)
        try:
            found = next(chunks).clip
        except UnsupportedVideo:
            if not clips:
                raise
            break
        finally:
            chunks.close()
        assert found is not None
        clips.append(found)
        sizes = [(clip.height, clip.width) for clip in (clips[0], found)]
        if sizes[0] != sizes[1]:
            raise size_changes(Path(path), *sizes, second=float(found.pts[0]))
    return Clip.concat(clips)


def content_hash(path: Path | str) -> str:
    """SHA-256 of the bytes of a file or of a folder's pictures: the first 32 hexadecimal digits."""
    path = Path(path)
    if path.is_dir():
        return pictures.content_hash(path)
    _check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


# Opening


@contextmanager
def _opened(
    path: Path, device: torch.device | None = None, note: Note = _warn
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first real video stream; the one place that translates av's errors."""
    _check_file(path)
    try:
        with _container(path, device, note) as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            yield container, stream
    except av.error.FFmpegError as error:
        raise UnsupportedVideo(
            f"{path}: not a video that can be read ({error.strerror}); if a player shows it, "
            f"convert it with: ffmpeg -i {path.name} -c:v libx264 converted.mp4"
        ) from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UnsupportedVideo(f"{path}: no such file; check the path")
    if not path.stat().st_size:
        raise UnsupportedVideo(f"{path}: is empty; copy or download it again")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UnsupportedVideo(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _container(path: Path, device: torch.device | None, note: Note) -> InputContainer:
    if device is not None and device.type == "cuda":
        try:
            gpu = HWAccel("cuda", device.index, allow_software_fallback=True)
            return av.open(f"file:{path}", hwaccel=gpu, metadata_errors="replace")
        except av.error.FFmpegError as error:
            note(
                f"{path.name}: decoded by the CPU, since the GPU decoder failed ({error.strerror})"
            )
    return av.open(f"file:{path}", metadata_errors="replace")


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    pictures = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
    if container.format.name in _NOT_VIDEO:
        raise UnsupportedVideo(f"{path}: is a text, not a video; name a video file")
    if not pictures:
        what = "sound but no pictures" if container.streams.audio else "no pictures"
        raise UnsupportedVideo(f"{path}: holds {what}; name a file with a video track")
    if pictures[0].codec_context is None:
        raise UnsupportedVideo(
            f"{path}: its codec is unknown here; convert it with: "
            f"ffmpeg -i {path.name} -c:v libx264 converted.mp4"
        )
    refuse_giant(path, pictures[0].width, pictures[0].height)
    return pictures[0]


def _no_pictures(
    path: Path, start: float | None = None, end: float | None = None
) -> UnsupportedVideo:
    if start is None and end is None:
        return UnsupportedVideo(
            f"{path}: not one picture of it can be decoded; it is damaged or cut off, copy it again"
        )
    until = "its end" if end is None else f"{end:g} s"
    return UnsupportedVideo(
        f"{path}: has no frames between {start or 0:g} s and {until}; choose another --start or "
        "--end"
    )


def _fps(stream: VideoStream) -> Fraction:
    """Average rate; 25 where the file (a single picture, a raw stream) does not know."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((Fraction(rate) for rate in rates if rate and rate <= 1000), Fraction(25))


def _seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _seek(container: InputContainer, stream: VideoStream, second: Fraction) -> None:
    assert stream.time_base is not None
    try:
        container.seek(int(second / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        container.seek(0)  # no index: decode from the start and drop


# Decoding


class _Clock:
    """Seconds of each frame since the start of the file, strictly increasing."""

    def __init__(self, stream: VideoStream, start: Fraction) -> None:
        assert stream.time_base is not None
        self._tick = stream.time_base
        self._start = start / self._tick
        self._step = float(1 / _fps(stream))
        self.last = float("-inf")
        self._shift = 0.0
        self._missing = self._repaired = 0

    def seconds(self, frame: VideoFrame) -> float:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            self._missing += 1
            self.last = max(self.last, -self._step) + self._step
            return self.last
        now = self._exact(stamp) + self._shift
        if now <= self.last:
            self._repaired += 1
            if self.last - now > _SECOND:  # the file's clock was set back: go on from here
                self._shift += self.last + self._step - now
                now = self.last + self._step
            else:  # a small step, so that the next good timestamp is still ahead
                now = self.last + self._step / 4
        self.last = now
        return now

    def _exact(self, stamp: int) -> float:
        """The nearest float to (stamp - start) ticks, in integers: fractions are slow."""
        start, tick = self._start, self._tick
        above = (stamp * start.denominator - start.numerator) * tick.numerator
        return above / (start.denominator * tick.denominator)

    def told(self) -> str | None:
        if not self._missing and not self._repaired:
            return None
        return (
            f"{self._missing} frames had no timestamp and {self._repaired} one that did not "
            "increase; they were spaced by the frame rate"
        )


class _Damage:
    """What could not be decoded, and where it begins."""

    def __init__(self) -> None:
        self._lost = self._patched = 0
        self._now = 0.0
        self._first: float | None = None
        self._cut: str | None = None

    def at(self, now: float, corrupt: bool) -> None:
        self._now = now
        if corrupt:
            self._patched += 1
            self._first = now if self._first is None else self._first

    def lost(self) -> None:
        self._lost += 1
        self._first = self._now if self._first is None else self._first

    def ended(self, last: float, total: int, stream: VideoStream, seconds: float | None) -> None:
        if seconds and total < stream.frames and last < seconds - _SECOND / 2:
            self._cut = f"is cut off at {last:.2f} s of {seconds:.2f} s"

    def told(self) -> str | None:
        facts = [self._cut] if self._cut else []
        if self._first is not None:
            facts.append(
                f"is damaged from {self._first:.2f} s on: {self._lost} packets were left out and "
                f"{self._patched} frames patched by the decoder"
            )
        if not facts:
            return None
        return f"{' and '.join(facts)}; copy it again, or go on with what there is"


def _decoded(
    container: InputContainer, stream: VideoStream, damage: _Damage
) -> Iterator[VideoFrame]:
    """Every frame that the decoder can give, in order of presentation."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, IndexError):
            # The container itself breaks off here, or a stream appears that it did not announce,
            # which PyAV does not count.
            damage.lost()
            packet = None
        try:
            yield from stream.decode(packet)
        except av.error.InvalidDataError:
            damage.lost()
        except av.error.EOFError:  # the end was already said
            return
        if packet is None:
            return


_NOTHING = np.empty((0, 0, 0, 3), np.uint8)
