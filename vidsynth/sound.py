"""The sound that a written video carries over from another file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from vidsynth.errors import UnsupportedVideo

_COPIED = {"aac", "ac3", "alac", "eac3", "mp3", "opus"}
"""What players expect in an MP4 or QuickTime file; the container itself would take more."""

_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}


def clock_start(container: InputContainer) -> Fraction:
    """What the clock shared by a file's pictures and sound reads where players begin.

    Never negative: sound may come before 0, for a decoder that needs a run-up.
    """
    streams = (*container.streams.video, *container.streams.audio)
    starts = [
        stream.start_time * stream.time_base
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
    ]
    return max(min(starts, default=Fraction(0)), Fraction(0))


@contextmanager
def opened_sound(
    path: Path | str | None, start: float, end: float | None
) -> Iterator[Sound | None]:
    """The sound of a file from `start` to `end` seconds; None for no file.

    Raises UnsupportedVideo when the file cannot be opened.
    """
    if path is None:
        yield None
        return
    try:
        source = av.open(f"file:{path}", metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise UnsupportedVideo(
            f"{path}: its sound cannot be read ({error.strerror}); use --audio none"
        ) from error
    with source:
        yield Sound(source, Path(path).name, start, end)


class Sound:
    """Packets of a file's first sound track, in order, timed from `start`."""

    def __init__(self, source: InputContainer, name: str, start: float, end: float | None) -> None:
        self.notes: list[str] = []
        self._container, self._name, self._start = source, name, start
        self._limit = float("inf") if end is None else end - start
        self._out: AudioStream | None = None
        self._copied = False
        self._form: tuple[str, str, int] | None = None
        self._form_now: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None
        self._pieces: Iterator[tuple[float, Packet | AudioFrame]] = iter(())
        self._ahead: tuple[float, Packet | AudioFrame] | None = None

    def join(self, film: OutputContainer) -> None:
        """Add a track to `film`: a copy where players take the codec there, else AAC."""
        track = next((s for s in self._container.streams.audio if s.codec_context), None)
        if track is None:
            self.notes.append(f"{self._name} has no sound that can be read; the output is silent")
            return
        codec = track.codec_context.codec.canonical_name
        self._copied = codec in _COPIED and codec in film.supported_codecs
        if self._copied:
            self._out = film.add_stream_from_template(track)
        else:
            rate = track.codec_context.sample_rate
            self._out = film.add_stream("aac", rate=rate if rate in _AAC_RATES else 48_000)
            mono = track.codec_context.channels == 1
            self._out.codec_context.layout = "mono" if mono else "stereo"
            self.notes.append(
                f"the sound of {self._name} was encoded to AAC, since players do not take {codec} "
                f"from {Path(film.name).suffix} files"
            )
        self._pieces = self._timed(track)
        self._ahead = next(self._pieces, None)

    def until(self, seconds: float) -> list[Packet]:
        """The packets that begin before `seconds` and were not given yet."""
        packets: list[Packet] = []
        while self._ahead is not None and self._ahead[0] < min(seconds, self._limit):
            packets += self._packets(self._ahead[1])
            self._ahead = next(self._pieces, None)
        return packets

    def rest(self, seconds: float) -> list[Packet]:
        """As `until`, and what the encoder still holds: the end."""
        packets = self.until(seconds)
        if self._out is not None and not self._copied:
            packets += self._out.encode(None)
        return packets

    def _packets(self, piece: Packet | AudioFrame) -> list[Packet]:
        assert self._out is not None
        if isinstance(piece, AudioFrame):
            return [packet for frame in self._alike(piece) for packet in self._out.encode(frame)]
        piece.stream = self._out
        return [piece]

    def _alike(self, frame: AudioFrame) -> list[AudioFrame]:
        """In the form of the first frame: a track may change its own on the way, an encoder not."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        self._form = self._form or form
        if form == self._form:
            return [frame]
        if form != self._form_now:
            self._form_now, (name, layout, rate) = form, self._form
            self._resampler = AudioResampler(name, layout, rate)
        assert self._resampler is not None
        return self._resampler.resample(frame)

    def _timed(self, track: AudioStream) -> Iterator[tuple[float, Packet | AudioFrame]]:
        """What is copied or encoded, each with the second at which it begins.

        The first piece that is heard and the one before it begin before 0, and the file tells
        players to start inside: a decoder needs that run-up to get the first samples right.
        """
        zero = clock_start(self._container) + Fraction(self._start)
        if self._start > 1 and track.time_base:
            self._container.seek(int((zero - 1) / track.time_base), stream=track)
        for piece in self._read(track):
            if piece.pts is None or piece.time_base is None:
                continue
            begins = float(piece.pts * piece.time_base - zero)
            if begins + 2 * _seconds(piece) <= 0:
                continue
            shift = round(zero / piece.time_base)
            piece.pts -= shift
            if piece.dts is not None:
                piece.dts -= shift
            yield begins, piece

    def _read(self, track: AudioStream) -> Iterator[Packet | AudioFrame]:
        damaged = 0
        try:
            for packet in self._container.demux(track):
                try:
                    yield from [packet] if self._copied else packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
        except (av.error.FFmpegError, IndexError):  # the file breaks off here, as for pictures
            damaged += 1
        if damaged:
            self.notes.append(f"{damaged} damaged packets of the sound were left out")


def _seconds(piece: Packet | AudioFrame) -> float:
    """How long it sounds."""
    if isinstance(piece, AudioFrame):
        return piece.samples / piece.sample_rate
    return float((piece.duration or 0) * piece.time_base)
