"""A folder of pictures as a video: every picture a frame, in the natural order of their names.

Natural order counts: `frame2.png` comes before `frame10.png`. What a folder does not know is its
frame rate; it is 25 per second unless somebody says otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vidsynth.clip import Clip
from vidsynth.errors import BadOption, UnsupportedVideo
from vidsynth.pixels import FrameReader, refuse_giant
from vidsynth.report import Reporter
from vidsynth.stream import Chunk

# T frames, H height, W width

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
RATE = Fraction(25)
"""Frames per second of a folder that nobody gave another rate."""


def list_pictures(folder: Path, *, endings: tuple[str, ...] = ()) -> list[Path]:
    """The pictures of a folder in natural order; other files are passed over.

    Args:
        folder: looked at, without the folders inside it.
        endings: of names, like "_labelIds": only the pictures of the first ending that some have
            count, since data sets keep several kinds side by side; all where none has any.

    Raises:
        UnsupportedVideo: there is not one picture in it.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
    found = [p for p in found if not p.is_dir()]
    if not found:
        raise UnsupportedVideo(
            f"{folder}: holds no pictures ({', '.join(SUFFIXES)}); name a video, or a folder of "
            "pictures that are its frames"
        )
    kinds = ([p for p in found if p.stem.endswith(ending)] for ending in endings)
    return sorted(next(filter(None, kinds), found), key=lambda p: natural(p.name))


def rate_of(
    fps: float | None,
    paths: Iterable[Path],
    reporter: Reporter,
    *,
    default: Fraction = RATE,
) -> Fraction | None:
    """The frame rate of the folders of pictures among the videos, told to the user.

    Raises BadOption when a rate was given and all are videos, or it is none.
    """
    folders = [path for path in paths if path.is_dir()]
    if fps is not None and not folders:
        raise BadOption("--fps is for folders of pictures; a video has its own, leave it out")
    if fps is not None and not 0 < fps <= 1000:
        raise BadOption(f"--fps {fps:g} is no frame rate; choose one above 0 and up to 1000")
    if not folders:
        return None
    rate = default if fps is None else Fraction(fps).limit_denominator(1001)
    for folder in folders:
        count = len(list_pictures(folder))
        hint = "" if fps else " (--fps changes it)"
        reporter.say(f"{folder}: {count} pictures at {float(rate):.4g} frames per second{hint}")
    return rate


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which names are sorted as people count: numbers by value, text without case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def decode(path: Path) -> tuple[VideoFrame, VideoStream]:
    """One picture as it is stored, and the stream that it came from.

    Raises UnsupportedVideo when it is none.
    """
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            stream = container.streams.video[0]
            refuse_giant(path, stream.width, stream.height)
            return next(container.decode(stream)), stream
    except (av.error.FFmpegError, IndexError, StopIteration) as error:
        raise UnsupportedVideo(
            f"{path}: not a picture that can be read; save it again, or take it out of the folder"
        ) from error


def stored(path: Path) -> NDArray[Any]:
    """A picture's numbers as they are stored, for pictures that are not to be looked at.

    Returns:
        (H, W) of one number per pixel: grey levels, also of 16 bits, or places in a colour table;
        or (H, W, 3) RGB of 8 bits.

    Raises:
        UnsupportedVideo: no picture, or compressed in a way that changes numbers (JPEG).
    """
    frame, stream = decode(path)
    form = frame.format.name
    if stream.codec_context.name == "mjpeg" or form.startswith("yuv"):
        raise UnsupportedVideo(
            f"{path}: is a {path.suffix[1:].upper()} picture, whose compression changes the "
            "numbers that labels are; save such maps as PNG"
        )
    if form == "pal8":
        return frame.to_ndarray()[0]
    if form.startswith("mono"):
        return (frame.to_ndarray(format="gray") > 0).astype(np.uint8)
    if form.startswith(("gray", "ya")):
        deep = "16" in form
        return frame.to_ndarray(format="gray16le" if deep else "gray")
    return frame.to_ndarray(format="rgb24")


def read_chunks(
    folder: Path,
    *,
    chunk: int,
    size: tuple[int, int] | None,
    start: float | None,
    end: float | None,
    fps: Fraction,
    device: torch.device,
) -> Iterator[Chunk]:
    """The pictures of a folder; arguments and what it yields as of `video.read_chunks`.

    Raises:
        UnsupportedVideo: a picture cannot be read, has another size than the first, or none lies
            between `start` and `end`.
    """
    every = [(path, float(n / fps)) for n, path in enumerate(list_pictures(folder))]
    wanted = [(p, t) for p, t in every if t >= (start or 0) and (end is None or t < end)]
    if not wanted:
        until = "its end" if end is None else f"{end:g} s"
        raise UnsupportedVideo(
            f"{folder}: has no pictures between {start or 0:g} s and {until} at {float(fps):g} "
            "frames per second; choose another --start or --end"
        )
    first = every[0][0]
    frame, stream = decode(first)
    reader = FrameReader(first, frame, stream)
    height_width = reader.height, reader.width
    for begin in range(0, len(wanted), chunk):
        part = wanted[begin : begin + chunk]
        frames = np.empty((len(part), *(size or height_width), 3), np.uint8)
        for (path, second), into in zip(part, frames, strict=True):
            frame, stream = decode(path)
            own = FrameReader(path, frame, stream)
            refuse_another_size(path, (own.height, own.width), first, height_width)
            own.read(frame, into, second=second)
        yield chunk_of(frames, [second for _, second in part], device)


def refuse_another_size(
    path: Path, size: tuple[int, int], first: Path, firsts: tuple[int, int]
) -> None:
    """Raises UnsupportedVideo when a picture's (height, width) is not the first picture's."""
    if size != firsts:
        raise UnsupportedVideo(
            f"{path}: is {size[1]}x{size[0]}, and {first.name} is {firsts[1]}x{firsts[0]}; all "
            "pictures of a sequence have one size"
        )


def content_hash(folder: Path) -> str:
    """SHA-256 of the pictures' names and bytes: the first 32 hexadecimal digits."""
    whole = hashlib.sha256()
    for path in list_pictures(folder):
        whole.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()[:32]


def chunk_of(frames: np.ndarray, pts: list[float], device: torch.device) -> Chunk:
    """(>=T, H, W, 3) uint8 and T seconds as a Chunk."""
    pictures = torch.from_numpy(frames[: len(pts)]).permute(0, 3, 1, 2).to(device)
    clip = Clip(pictures, torch.tensor(pts, dtype=torch.float64))
    return Chunk(clip.pts, clip)
