"""Writing video files, with the sound of another; the other half of `vidsynth.video`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import av
import av.error
import torch
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from av.video.stream import VideoStream
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.errors import BadOption, CannotWrite, Interrupted
from vidsynth.files import check_free, writing
from vidsynth.pixels import FrameWriter
from vidsynth.sound import Sound, opened_sound
from vidsynth.stream import Chunk

# T frames, H height, W width

SUFFIXES = (".mp4", ".m4v", ".mov")
"""Containers written. Matroska and WebM round every timestamp to a millisecond."""

CODECS = {"h264": ("libx264", "h264_nvenc"), "hevc": ("libx265", "hevc_nvenc")}
"""Codec -> its encoder on the CPU and on the GPU."""

_BT709_MATRIX = 1  # its code point in ISO/IEC 23091-2, which FFmpeg uses


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenVideo:
    """What became of a `write_video`."""

    path: Path
    num_frames: int
    seconds: float
    """From the first frame to the end of the last one."""
    notes: tuple[str, ...]
    """Sentences on what is not as one might expect it."""


def check_output(path: Path | str, overwrite: bool) -> None:
    """Whether a video could be written there, found out before any work starts.

    Raises:
        OutputExists: something is there and `overwrite` is false.
        CannotWrite: the folder is missing or not writable, or the suffix is not one of SUFFIXES.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CannotWrite(
            f"{path}: {path.suffix or 'no suffix'} is not a container that vidsynth writes; "
            f"name the output with one of {', '.join(SUFFIXES)}"
        )
    check_free(path, overwrite)


def check_codec(codec: str) -> None:
    """Raises BadOption for a codec that is not written."""
    if codec not in CODECS:
        raise BadOption(f"codec {codec!r} is not one of {', '.join(CODECS)}; choose one of them")


def write_video(
    path: Path | str,
    chunks: Iterable[Chunk],
    *,
    fps: Fraction,
    start: float | None = None,
    audio: Path | str | None = None,
    audio_start: float = 0.0,
    audio_end: float | None = None,
    codec: str = "h264",
    crf: int = 18,
    preset: str = "veryfast",
    overwrite: bool = False,
    threads: int | None = None,
    device: torch.device | str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> WrittenVideo:
    """Encode chunks of frames, as they come, into a file that plays everywhere.

    YUV 4:2:0, BT.709, limited range, tagged so; index first. Each frame keeps its own timestamp
    to within half a microsecond, counted from `start`. The file appears under its name only when
    it is complete. On Ctrl-C the frames so far become `<stem>.partial<suffix>`.

    Args:
        path: where to; see SUFFIXES.
        chunks: in order of time, each with a clip; all clips of one size. An odd width or height
            gains a copy of its last column or row.
        fps: average rate, for the players' information and the length of the last frame.
        start: seconds; the moment of the chunks' clock that becomes 0 in the file. By default
            `audio_start` when there is `audio` (a source's own sound), else the first frame.
        audio: a file whose sound is carried over: copied as it is where players take it in this
            container, else encoded to AAC.
        audio_start: seconds in `audio` of the sound that is heard at 0.
        audio_end: seconds in `audio` at which it stops; by default, and at the latest, where the
            pictures end.
        codec: a key of CODECS.
        crf: 0 (largest) to 51; constant quality of x264 and x265, "cq" of NVENC.
        preset: of x264 or x265; NVENC uses its own.
        overwrite: whether a file that is already there is replaced.
        threads: of the CPU encoder; by default 1 on one or two cores, which the generator needs
            more, and as many as the encoder likes above.
        device: "cuda" tries the GPU's encoder first; by default where the first clip is.
        metadata: of the file: "title", "comment", "description"...

    Raises:
        OutputExists, CannotWrite: as `check_output`; the disk is full; the encoder does not take
            this size; there were no frames.
        BadOption: unknown codec.
        UnsupportedVideo: `audio` cannot be read.
        Interrupted: after Ctrl-C; says what was kept.
    """
    path = Path(path)
    check_codec(codec)
    check_output(path, overwrite)
    quality = _Quality(codec, crf, preset, _default_threads() if threads is None else threads)
    zero = audio_start if start is None and audio is not None else start
    with writing(path) as temporary, _av_errors(path):
        with opened_sound(audio, audio_start, audio_end) as sound:
            film = _Film(temporary, fps, zero, quality, device, sound)
            film.container.metadata.update(metadata or {})
            with film.container:
                complete = _fill(film, chunks)
                with _holding_back_interrupts():
                    film.finish()
        written = film.report(path)
        if not complete:
            raise _interrupted(path, temporary, written)
        if not written.num_frames:
            raise CannotWrite(f"{path}: there are no frames to write; check --start and --end")
    return written


def _fill(film: _Film, chunks: Iterable[Chunk]) -> bool:
    """Encode every chunk; False when Ctrl-C came before the last one."""
    try:
        for chunk in chunks:
            assert chunk.clip is not None, "write_video needs pictures"
            with _holding_back_interrupts() as came:
                film.add(chunk.clip)
            if came:
                return False
    except KeyboardInterrupt:
        return False
    return True


def _interrupted(path: Path, temporary: Path, written: WrittenVideo) -> Interrupted:
    if not written.num_frames:
        return Interrupted(f"{path}: stopped before its first frame; run this again to make it")
    partial = path.with_suffix(f".partial{path.suffix}")
    with writing(partial) as kept:
        os.replace(temporary, kept)
    return Interrupted(
        f"{path}: stopped after {written.num_frames} frames ({written.seconds:.2f} s), which are "
        f"kept in {partial.name}; run this again for the whole"
    )


@contextmanager
def _holding_back_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C instead of raising: a packet lost on its way from the encoder to the file
    would spoil the frames after it."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came  # only the main thread is ever interrupted
        return
    usual = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def _av_errors(path: Path) -> Iterator[None]:
    """The one place that translates av's errors on writing."""
    try:
        yield
    except OSError:  # some of av's are: `writing` knows them by their errno
        raise
    except av.error.FFmpegError as error:
        raise CannotWrite(
            f"{path}: encoding failed ({error.strerror}); try another --codec or --size"
        ) from error


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if (cores or 1) <= 2 else 0


@dataclass(frozen=True, slots=True)
class _Quality:
    """How pictures are encoded."""

    codec: str
    crf: int
    preset: str
    threads: int

    def options(self, encoder: str) -> dict[str, str]:
        if encoder.endswith("_nvenc"):
            return {"preset": "p4", "rc": "vbr", "cq": str(self.crf), "b": "0"}
        options = {"preset": self.preset, "crf": str(self.crf)}
        if encoder == "libx264" and "AVX512" in torch.backends.cpu.get_cpu_capability():
            # At many widths x264's AVX-512 code for "mbtree" reads beyond its tables, and the file
            # depends on what lay in memory there. AVX2 is as fast, and always gives one file.
            options["x264-params"] = "asm=AVX2"
        if encoder == "libx265":
            options["x265-params"] = "log-level=error"  # it writes to the terminal by itself
        return options


class _Film:
    """A file being written. The first frame, whose size and device decide, begins it."""

    def __init__(
        self,
        temporary: Path,
        fps: Fraction,
        zero: float | None,
        quality: _Quality,
        device: torch.device | str | None,
        sound: Sound | None,
    ) -> None:
        self._fps = fps.limit_denominator(100_000)
        # A multiple of the rate's numerator, so that a constant rate is exact, and at least a
        # million per second, so that no other timestamp is off by more than half a microsecond.
        self._ticks = self._fps.numerator * ceil(1_000_000 / self._fps.numerator)
        self._zero = zero
        self._quality = quality
        self._device = device
        self._sound = sound
        self._writer = FrameWriter()
        self._stream: VideoStream | None = None
        self._size: tuple[int, ...] = 0, 0
        self._stamps: tuple[int, int] | None = None
        self._count = 0
        self._notes: list[str] = []
        # Edit lists, which hold the offset between sound and pictures, count in the movie's ticks.
        options = {"movflags": "+faststart", "movie_timescale": str(self._ticks)}
        self.container = av.open(f"file:{temporary}", "w", container_options=options)

    def add(self, clip: Clip) -> None:
        """Encode the next frames."""
        for picture, second in zip(clip.frames.cpu(), clip.pts.tolist(), strict=True):
            if self._stream is None:
                self._begin(picture, second, torch.device(self._device or clip.frames.device))
            self._encode(picture, second)

    def finish(self) -> None:
        """Write what the encoders still hold and the sound of the last frame; close the file."""
        if self._stream is not None:
            self.container.mux(self._stream.encode(None))
            if self._sound and self._stamps:
                self.container.mux(self._sound.rest(self._stamps[1] / self._ticks + 1 / self._fps))
        self.container.close()

    def report(self, path: Path) -> WrittenVideo:
        seconds = Fraction(0)
        if self._stamps:
            seconds = Fraction(self._stamps[1] - self._stamps[0], self._ticks) + 1 / self._fps
        notes = (*self._notes, *(self._sound.notes if self._sound else ()))
        return WrittenVideo(path=path, num_frames=self._count, seconds=float(seconds), notes=notes)

    def _begin(self, picture: Tensor, second: float, device: torch.device) -> None:
        height, width = self._size = tuple(picture.shape[1:])
        even = height + height % 2, width + width % 2
        if even != self._size:
            self._notes.append(
                f"the pictures are {even[1]}x{even[0]} instead of {width}x{height}, since players "
                "need even sizes; the last row or column is repeated"
            )
        self._zero = second if self._zero is None else min(self._zero, second)
        self._stream = self._opened_stream(even, device)
        if self._sound:
            self._sound.join(self.container)

    def _encode(self, picture: Tensor, second: float) -> None:
        """Encode (3, H, W) uint8, shown at `second` on the chunks' clock."""
        assert self._stream is not None and self._zero is not None
        if picture.shape[1:] != self._size:
            raise ValueError(f"frames change size from {self._size} to {tuple(picture.shape[1:])}")
        if self._sound:
            self.container.mux(self._sound.until(second - self._zero))
        first, last = self._stamps or (None, -1)
        stamp = max(round((second - self._zero) * self._ticks), last + 1)
        self._stamps = stamp if first is None else first, stamp
        frame = self._writer.frame(picture)
        frame.pts, frame.time_base = stamp, Fraction(1, self._ticks)
        frame.duration = round(self._ticks / self._fps)
        self.container.mux(self._stream.encode(frame))
        self._count += 1

    def _opened_stream(self, size: tuple[int, int], device: torch.device) -> VideoStream:
        encoder, gpu_encoder = CODECS[self._quality.codec]
        if device.type == "cuda":
            try:
                # A trial of its own: a stream cannot be taken out of a container again.
                trial = CodecContext.create(gpu_encoder, "w")
                assert isinstance(trial, VideoCodecContext)
                self._configure(trial, size)
                trial.open()
                encoder = gpu_encoder
            except av.error.FFmpegError as error:
                self._notes.append(
                    f"encoded by the CPU ({encoder}), since the GPU's {gpu_encoder} failed "
                    f"({error.strerror})"
                )
        stream = self.container.add_stream(encoder, rate=self._fps)
        assert isinstance(stream, VideoStream)
        self._configure(stream.codec_context, size)
        try:
            stream.codec_context.open()
        except av.error.FFmpegError as error:
            raise CannotWrite(
                f"{self._quality.codec} cannot hold pictures of {size[1]}x{size[0]} "
                f"({error.strerror}); ask for another --size"
            ) from error
        return stream

    def _configure(self, context: VideoCodecContext, size: tuple[int, int]) -> None:
        context.height, context.width = size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, self._ticks)
        context.framerate = self._fps
        context.colorspace = _BT709_MATRIX
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        context.color_range = ColorRange.MPEG
        context.thread_count = self._quality.threads
        context.options = self._quality.options(context.name)
        if self._quality.codec == "hevc":
            context.codec_tag = "hvc1"  # Apple's players know HEVC by this name alone
