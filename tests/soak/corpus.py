"""Hostile and broken media: sound little films in many forms, and what can go wrong with them.

Case number i of a seed is always the same file. The first cases of a corpus are crafted, one form
after the other; the rest are sound films with bytes cut, changed, moved or doubled, half of them
where the container's structure has its joints.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

HEIGHT, WIDTH, FPS = 48, 64, 25
RATE = 16_000  # samples per second of every soundtrack


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a user might hand over as a video."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a film is written."""

    suffix: str
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    sound: str | None = None
    frames: int = 12
    size: tuple[int, int] = (HEIGHT, WIDTH)
    times: tuple[int, ...] = ()
    """Of the frames, in ticks of 1/1000 s; by default 40 apart."""
    sound_seconds: float = 0.48
    turn: int = 0
    context: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)
    keep: Callable[[int, av.Packet], bool] = lambda number, packet: True
    """Which video packets reach the file."""
    stamp: Callable[[int], int | None] | None = None
    """What the n-th video packet's timestamps become, in frames."""
    form: str | None = None


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """(T, H, W, 3) uint8: a square over a ramp, elsewhere in every frame."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 255 // width, y * 255 // height, 90 + 0 * x], -1).astype(np.uint8)
    frames = np.repeat(ground[None], count, 0)
    for i, frame in enumerate(frames):
        left = 3 * i % max(1, width - 10)
        frame[height // 3 : height // 3 + 10, left : left + 10] = (240, 220, 40)
    return frames


def write(path: Path, recipe: Recipe) -> Path:
    """A film as its recipe says, by PyAV alone."""
    height, width = recipe.size
    with av.open(str(path), "w", format=recipe.form, container_options=recipe.container) as film:
        stream: Any = film.add_stream(recipe.codec, rate=FPS, options=_options(recipe))
        stream.height, stream.width, stream.pix_fmt = height, width, recipe.pix_fmt
        stream.codec_context.gop_size = 6
        if recipe.times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in recipe.context.items():
            setattr(stream.codec_context, name, value)
        if recipe.turn:
            stream.set_display_rotation(recipe.turn)
        track: Any = recipe.sound and film.add_stream(recipe.sound, rate=RATE * 3, layout="mono")
        packets = list(_encoded(stream, recipe))
        for number, packet in enumerate(packets):
            if not recipe.keep(number, packet):
                continue
            if recipe.stamp is not None:
                tick = recipe.stamp(number)
                packet.pts = packet.dts = tick
                packet.time_base = Fraction(1, FPS)
            film.mux(packet)
        if track:
            for packet in _heard(track, recipe.sound_seconds):
                film.mux(packet)
    return path


def _options(recipe: Recipe) -> dict[str, str]:
    usual = {"libx264": {"preset": "ultrafast", "crf": "20"}, "libx265": {"preset": "ultrafast"}}
    quiet = {"x265-params": "log-level=none"} if recipe.codec == "libx265" else {}
    return usual.get(recipe.codec, {}) | quiet | recipe.options


def _encoded(stream: Any, recipe: Recipe) -> Iterator[av.Packet]:
    for i, picture in enumerate(pictures(recipe.frames, *recipe.size)):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=recipe.pix_fmt)
        frame.pts = recipe.times[i] if recipe.times else i
        frame.time_base = Fraction(1, 1000 if recipe.times else FPS)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _heard(track: Any, seconds: float) -> Iterator[av.Packet]:
    wave = np.sin(np.arange(round(seconds * RATE * 3)) / 20)[None] * 9000
    for begin in range(0, wave.shape[1], 960):
        piece = wave[:, begin : begin + 960].astype(np.int16)
        frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE * 3, begin, Fraction(1, RATE * 3)
        yield from track.encode(frame)
    yield from track.encode(None)


PLAIN = Recipe(suffix=".mp4", sound="aac")

# Sound films, in the forms that people have.
FORMS: dict[str, Recipe] = {
    "h264 mp4": PLAIN,
    "h264 mp4 index first": Recipe(
        suffix=".mp4", sound="aac", container={"movflags": "+faststart"}
    ),
    "h264 fragmented mp4": Recipe(
        suffix=".mp4", sound="aac", container={"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264 mkv": Recipe(suffix=".mkv", sound="libopus"),
    "h264 mpeg-ts": Recipe(suffix=".ts", sound="mp2"),
    "hevc mp4": Recipe(suffix=".mp4", codec="libx265"),
    "av1 mp4": Recipe(suffix=".mp4", codec="libsvtav1", size=(64, 64), frames=4),
    "vp8 webm": Recipe(suffix=".webm", codec="libvpx", sound="libopus"),
    "vp9 webm": Recipe(suffix=".webm", codec="libvpx-vp9", options={"deadline": "realtime"}),
    "mpeg4 avi": Recipe(suffix=".avi", codec="mpeg4", sound="libmp3lame"),
    "motion jpeg avi": Recipe(suffix=".avi", codec="mjpeg", pix_fmt="yuvj420p", sound="pcm_s16le"),
    "mpeg2 program stream": Recipe(suffix=".mpg", codec="mpeg2video", sound="mp2"),
    "wmv asf": Recipe(suffix=".wmv", codec="wmv2"),
    "flv": Recipe(suffix=".flv", codec="flv"),
    "gif": Recipe(suffix=".gif", codec="gif", pix_fmt="rgb8"),
    "animated png": Recipe(suffix=".png", codec="apng", pix_fmt="rgb24", form="apng"),
    "prores mov 4:2:2": Recipe(suffix=".mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    "prores mov alpha": Recipe(suffix=".mov", codec="prores_ks", pix_fmt="yuva444p10le"),
    "animation mov alpha": Recipe(suffix=".mov", codec="qtrle", pix_fmt="argb"),
    "raw nut rgb": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="rgb24"),
    "raw nut 10 bit": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="yuv444p10le"),
    "raw nut grey": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="gray"),
    "raw nut grey 16": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="gray16le"),
    "y4m": Recipe(suffix=".y4m", codec="wrapped_avframe", form="yuv4mpegpipe"),
    "bare h264": Recipe(suffix=".h264", form="h264"),
    "ffv1 12 bit": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="yuv420p12le"),
    "ffv1 4:1:1": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="yuv411p"),
    "h264 10 bit": Recipe(suffix=".mp4", pix_fmt="yuv420p10le"),
    "h264 4:2:2": Recipe(suffix=".mp4", pix_fmt="yuv422p"),
    "h264 4:4:4": Recipe(suffix=".mp4", pix_fmt="yuv444p"),
    "interlaced mpeg2": Recipe(
        suffix=".mpg", codec="mpeg2video", options={"flags": "+ildct+ilme"}, context={"gop_size": 4}
    ),
}

# Sound films of an unusual shape.
SHAPES: dict[str, Recipe] = {
    "odd size": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="yuv444p", size=(47, 63)),
    "one pixel": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="yuv444p", size=(1, 1)),
    "one row": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="yuv444p", size=(1, 500)),
    "one column": Recipe(suffix=".nut", codec="rawvideo", pix_fmt="rgb24", size=(500, 1)),
    "one frame": Recipe(suffix=".mp4", frames=1, sound="aac"),
    "two frames": Recipe(suffix=".mp4", frames=2),
    "turned": Recipe(suffix=".mp4", turn=90, sound="aac"),
    "turned by 7 degrees": Recipe(suffix=".mp4", turn=7),
    "pq hdr": Recipe(suffix=".mp4", codec="libx265", context={"color_trc": 16, "colorspace": 9}),
    "hlg hdr": Recipe(suffix=".mp4", context={"color_trc": 18, "colorspace": 9}),
    "unknown matrix": Recipe(suffix=".mp4", context={"colorspace": 12}),
    "oblong pixels": Recipe(suffix=".mp4", context={"sample_aspect_ratio": Fraction(64, 45)}),
    "absurd pixels": Recipe(suffix=".mkv", context={"sample_aspect_ratio": Fraction(60_000, 1)}),
    "flat pixels": Recipe(suffix=".mkv", context={"sample_aspect_ratio": Fraction(1, 60_000)}),
    "variable rate": Recipe(
        suffix=".mp4", times=(0, 40, 55, 300, 301, 302, 800, 810, 1500, 1501, 1503, 9000)
    ),
    "days between frames": Recipe(
        suffix=".mkv", frames=3, times=(0, 86_400_000, 172_800_000), sound="libopus"
    ),
    "long sound": Recipe(suffix=".mp4", sound="aac", sound_seconds=6.0),
    "short sound": Recipe(suffix=".mp4", sound="aac", sound_seconds=0.05),
    "one sample of sound": Recipe(suffix=".mkv", sound="flac", sound_seconds=0.0001),
    "no keyframe at the start": Recipe(suffix=".mkv", keep=lambda n, _: n > 3),
    "no keyframe at all": Recipe(suffix=".mkv", keep=lambda n, p: not p.is_keyframe),
    "keyframes only": Recipe(suffix=".mp4", keep=lambda n, p: p.is_keyframe),
    "every third packet lost": Recipe(suffix=".mp4", keep=lambda n, _: n % 3 != 1),
    "negative timestamps": Recipe(suffix=".nut", stamp=lambda n: n - 8),
    "timestamps at the end of time": Recipe(suffix=".nut", stamp=lambda n: (1 << 40) + n),
    "gaps in time": Recipe(suffix=".mkv", stamp=lambda n: n * n * 50, sound="libopus"),
    "edit list": Recipe(suffix=".mp4", stamp=lambda n: n + 9, sound="aac"),
}


def crafted() -> dict[str, Callable[[Path, random.Random], Path]]:
    """Every crafted case by name: writes into a folder, returns what to hand over."""
    plain = {**FORMS, **SHAPES}
    return {
        **{name: _writer(name, recipe) for name, recipe in plain.items()},
        "repeated timestamps": _flat_clock,
        "falling timestamps": _falling_clock,
        "a thousand streams": _thousand_streams,
        "sound only": _sound_only,
        "cover picture only": _cover_only,
        "another size on the way": _changing_size,
        "another size on the way in mpeg-ts": _changing_stream,
        "png bomb": lambda folder, rng: _png(folder / "bomb.png", 30_000, 30_000),
        "png bomb that decodes": lambda folder, rng: _png(folder / "bomb.png", 15_000, 15_000),
        "png bomb in a folder": _bomb_folder,
        "giant png without pixels": lambda f, rng: _png(
            f / "a.png", 2**31 - 1, 2**31 - 1, data=b""
        ),
        "png of no size": lambda folder, rng: _png(folder / "a.png", 0, 0, data=b""),
        "gif bomb": _gif_bomb,
        "y4m of a giant": lambda f, rng: _bytes(
            f / "a.y4m", b"YUV4MPEG2 W65000 H65000 F25:1 C420\nFRAME\n"
        ),
        "y4m of nothing": lambda f, rng: _bytes(f / "a.y4m", b"YUV4MPEG2 W0 H0 F0:0\nFRAME\n"),
        "giant track": lambda f, rng: _declared(f, 0xFFFF, 0xFFFF),
        "track of no size": lambda f, rng: _declared(f, 0, 0),
        "wrong durations": _wrong_durations,
        "empty file": lambda f, rng: _bytes(f / "a.mp4", b""),
        "zeroes": lambda f, rng: _bytes(f / "a.mp4", bytes(5000)),
        "noise": lambda f, rng: _bytes(f / "a.mp4", rng.randbytes(5000)),
        "text": lambda f, rng: _bytes(f / "a.mp4", b"this is no film\n" * 90),
        "playlist of this machine": lambda f, rng: _bytes(
            f / "a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"
        ),
        "concat script": lambda f, rng: _bytes(
            f / "a.ffconcat", b"ffconcat version 1.0\nfile '/etc/passwd'\n"
        ),
        "html": lambda f, rng: _bytes(f / "a.mp4", b"<!DOCTYPE html><html><body>404</body></html>"),
        "zip": lambda f, rng: _bytes(f / "a.mp4", b"PK\x03\x04" + rng.randbytes(900)),
        "a folder of nothing": lambda f, rng: _folder(f / "pictures"),
        "a folder of pictures": lambda f, rng: _sequence(f / "pictures", 8),
        "a folder of sizes": _mixed_sizes,
        "a folder with a broken picture": _broken_picture,
        "a folder with a text for a picture": _text_picture,
        "a folder with a folder for a picture": _folder_picture,
        "a name with odd letters": _odd_name,
        "a name like an option": lambda f, rng: write(f / "-y.mp4", PLAIN),
        "a link to nothing": _dead_link,
        "a link to itself": _own_link,
    }


def _writer(name: str, recipe: Recipe) -> Callable[[Path, random.Random], Path]:
    return lambda folder, rng: write(folder / f"film{recipe.suffix}", recipe)


def _flat_clock(folder: Path, rng: random.Random) -> Path:
    return _ticks(folder, lambda n: 4)


def _falling_clock(folder: Path, rng: random.Random) -> Path:
    return _ticks(folder, lambda n: 90 - 7 * n)


def _ticks(folder: Path, tick: Callable[[int], int]) -> Path:
    """A Matroska file whose block timestamps are overwritten: muxers refuse to write such ones."""
    path = write(folder / "film.mkv", Recipe(suffix=".mkv", codec="mjpeg", pix_fmt="yuvj420p"))
    data = bytearray(path.read_bytes())
    place, number = data.find(b"\xff\xd8\xff"), 0
    while place > 0:
        data[place - 3 : place - 1] = struct.pack(">h", tick(number))  # before the block's flags
        place, number = data.find(b"\xff\xd8\xff", place + 1), number + 1
    return _bytes(path, bytes(data))


def _thousand_streams(folder: Path, rng: random.Random) -> Path:
    path = folder / "film.mkv"
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("mjpeg", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        tracks: list[Any] = [film.add_stream("pcm_s16le", rate=RATE) for _ in range(999)]
        for packet in _encoded(stream, Recipe(suffix="", pix_fmt="yuvj420p")):
            film.mux(packet)
        for track in tracks[:20]:
            for packet in _heard(track, 0.02):
                film.mux(packet)
    return path


def _sound_only(folder: Path, rng: random.Random) -> Path:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as film:
        track = film.add_stream("aac", rate=RATE * 3, layout="mono")
        for packet in _heard(track, 0.5):
            film.mux(packet)
    return path


def _cover_only(folder: Path, rng: random.Random) -> Path:
    """Sound, and a picture that is its cover: no video."""
    path = folder / "song.mkv"
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("mjpeg", rate=1)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        stream.disposition = 0x400  # attached picture
        track = film.add_stream("flac", rate=RATE * 3, layout="mono")
        for packet in _encoded(stream, Recipe(suffix="", pix_fmt="yuvj420p", frames=1)):
            film.mux(packet)
        for packet in _heard(track, 0.5):
            film.mux(packet)
    return path


def _changing_size(folder: Path, rng: random.Random) -> Path:
    """A motion JPEG whose later pictures are larger than it says."""
    small = write(folder / "small.avi", FORMS["motion jpeg avi"])
    path, wide = (
        folder / "film.mkv",
        Recipe(suffix="", codec="mjpeg", pix_fmt="yuvj420p", size=(96, 80)),
    )
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("mjpeg", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.height, context.width, context.pix_fmt = 96, 80, "yuvj420p"
        context.time_base = Fraction(1, FPS)
        first = list(_encoded(stream, Recipe(suffix="", pix_fmt="yuvj420p", frames=6)))
        later = list(_encoded(context, wide))[6:]
        for number, packet in enumerate(first + later):
            packet.stream = stream
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, FPS)
            film.mux(packet)
    small.unlink()
    return path


def _changing_stream(folder: Path, rng: random.Random) -> Path:
    parts = [Recipe(suffix=".ts", frames=8), Recipe(suffix=".ts", frames=8, size=(96, 96))]
    data = b""
    for recipe in parts:
        part = write(folder / "part.ts", recipe)
        data += part.read_bytes()
        part.unlink()
    return _bytes(folder / "film.ts", data)


def _png(path: Path, width: int, height: int, data: bytes | None = None) -> Path:
    """A PNG of one colour, of 1 bit per pixel; its declared size costs nothing to write."""
    if data is None:
        packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d))
        for kind, d in chunks
    )
    return _bytes(path, b"\x89PNG\r\n\x1a\n" + body)


def _bomb_folder(folder: Path, rng: random.Random) -> Path:
    pictures_folder = _sequence(folder / "pictures", 3)
    _png(pictures_folder / "2.png", 15_000, 15_000)
    return pictures_folder


def _gif_bomb(folder: Path, rng: random.Random) -> Path:
    data = bytearray(write(folder / "film.gif", FORMS["gif"]).read_bytes())
    data[6:10] = struct.pack("<HH", 65_000, 65_000)
    return _bytes(folder / "film.gif", bytes(data))


def _declared(folder: Path, width: int, height: int) -> Path:
    """An MP4 whose index declares another frame size, in both places that do."""
    data = bytearray(write(folder / "film.mp4", PLAIN).read_bytes())
    at = data.find(b"avc1", data.find(b"stsd"))
    data[at + 28 : at + 32] = struct.pack(">HH", width, height)
    at = data.find(b"tkhd")
    data[at + 80 : at + 88] = struct.pack(">II", width << 16, height << 16)
    return _bytes(folder / "film.mp4", bytes(data))


def _wrong_durations(folder: Path, rng: random.Random) -> Path:
    data = bytearray(write(folder / "film.mp4", PLAIN).read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = data.find(box)
        while at > 0:
            value = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
            data[at + offset : at + offset + 4] = struct.pack(">I", value)
            at = data.find(box, at + 4)
    return _bytes(folder / "film.mp4", bytes(data))


def _sequence(folder: Path, count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    _folder(folder)
    for i, picture in enumerate(pictures(count, *size)):
        save_picture(folder / f"{i}.png", picture)
    return folder


def save_picture(path: Path, picture: np.ndarray) -> None:
    """A PNG of (H, W, 3) uint8."""
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d))
        for kind, d in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _mixed_sizes(folder: Path, rng: random.Random) -> Path:
    mixed = _sequence(folder / "pictures", 6)
    save_picture(mixed / "4.png", pictures(1, 20, 30)[0])
    return mixed


def _broken_picture(folder: Path, rng: random.Random) -> Path:
    broken = _sequence(folder / "pictures", 6)
    data = (broken / "3.png").read_bytes()
    (broken / "3.png").write_bytes(data[: rng.randrange(len(data))])
    return broken


def _text_picture(folder: Path, rng: random.Random) -> Path:
    mixed = _sequence(folder / "pictures", 6)
    (mixed / "3.png").write_text("a note to myself\n" * 20)
    return mixed


def _folder_picture(folder: Path, rng: random.Random) -> Path:
    mixed = _sequence(folder / "pictures", 6)
    (mixed / "7.png").mkdir()
    return mixed


def _odd_name(folder: Path, rng: random.Random) -> Path:
    return write(folder / "a %d ö 中 'b' ?#[x].mp4", PLAIN)


def _dead_link(folder: Path, rng: random.Random) -> Path:
    (folder / "film.mp4").symlink_to(folder / "gone.mp4")
    return folder / "film.mp4"


def _own_link(folder: Path, rng: random.Random) -> Path:
    (folder / "film.mp4").symlink_to(folder / "film.mp4")
    return folder / "film.mp4"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Damage


def joints(data: bytes, suffix: str) -> list[int]:
    """Where the parts of a container meet: boxes, elements, packets, pages, chunks."""
    if suffix in (".mp4", ".mov"):
        return sorted(set(_boxes(data, 0, len(data))))
    if suffix == ".ts":
        return list(range(0, len(data), 188))
    marks = {
        ".mkv": (b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\x1c\x53\xbb\x6b", b"\xa3"),
        ".webm": (b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\xa3"),
        ".avi": (b"LIST", b"00dc", b"01wb", b"idx1", b"strh", b"strf"),
        ".mpg": (b"\0\0\x01",),
        ".gif": (b"\x21\xf9", b"\x2c", b"\x3b"),
        ".png": (b"fdAT", b"fcTL", b"IDAT", b"IEND"),
        ".h264": (b"\0\0\x01",),
    }.get(suffix, (b"\0\0",))
    found = []
    for mark in marks:
        place = data.find(mark)
        while place >= 0:
            found += [place, place + len(mark)]
            place = data.find(mark, place + 1)
    return sorted(set(found)) or [0]


_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"moof", b"traf", b"mvex"}


def _boxes(data: bytes, begin: int, end: int) -> Iterator[int]:
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        yield from (begin, begin + 8)
        if size < 8:
            return
        if kind in _NESTED:
            yield from _boxes(data, begin + 8, min(end, begin + size))
        begin += size
    yield end


def _cut(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    return bytes(data[: _place(data, at, rng)])


def _flip(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 3, 10, 60))):
        place = min(len(data) - 1, _place(data, at, rng) + rng.randrange(12))
        data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    """Numbers of the structure become extreme ones."""
    for _ in range(rng.choice((1, 2, 5))):
        place = max(0, min(len(data) - 4, _place(data, at, rng) + 4 * rng.randrange(-2, 5)))
        value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)))
        data[place : place + 4] = struct.pack(">I", value)
    return bytes(data)


def _blank(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    place, length = _place(data, at, rng), rng.choice((4, 60, 600, 4000))
    end = min(len(data), place + length)
    data[place:end] = bytes(end - place) if rng.random() < 0.5 else rng.randbytes(end - place)
    return bytes(data)


def _lose(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    one, other = sorted((_place(data, at, rng), _place(data, at, rng)))
    return bytes(data[:one] + data[other:])


def _double(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    one, other = sorted((_place(data, at, rng), _place(data, at, rng)))
    return bytes(data[:other] + data[one:other] * rng.choice((1, 2, 20)) + data[other:])


def _swap(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    a, b, c = sorted(_place(data, at, rng) for _ in range(3))
    return bytes(data[:a] + data[b:c] + data[a:b] + data[c:])


def _append(data: bytearray, at: list[int], rng: random.Random) -> bytes:
    return bytes(data) + rng.randbytes(rng.randrange(1, 3000))


def _place(data: bytearray, at: list[int], rng: random.Random) -> int:
    return rng.choice(at) if rng.random() < 0.5 else rng.randrange(len(data) + 1)


DAMAGE: dict[str, Callable[[bytearray, list[int], random.Random], bytes]] = {
    "cut": _cut,
    "flipped": _flip,
    "overwritten": _overwrite,
    "blanked": _blank,
    "lost": _lose,
    "doubled": _double,
    "swapped": _swap,
    "appended": _append,
}


class Corpus:
    """The cases of one seed; sound films are written once, into `store`."""

    def __init__(self, seed: int, store: Path) -> None:
        self._seed, self._store = seed, store
        self._crafted = crafted()

    def make(self, number: int, folder: Path) -> Case:
        """Write case `number` into `folder`, which is empty."""
        rng = random.Random(f"{self._seed}/{number}")
        names = list(self._crafted)
        if number < len(names):
            name = names[number]
            return Case(name, self._crafted[name](folder, rng))
        name = rng.choice(list(FORMS))
        how = rng.choice(list(DAMAGE))
        data = self._sound(name)
        path = folder / f"film{FORMS[name].suffix}"
        path.write_bytes(DAMAGE[how](bytearray(data), joints(data, path.suffix), rng))
        return Case(f"{name}, {how}", path)

    def _sound(self, name: str) -> bytes:
        path = self._store / (name.replace(" ", "-").replace(":", "") + FORMS[name].suffix)
        if not path.exists():
            write(path, FORMS[name])
        return path.read_bytes()
