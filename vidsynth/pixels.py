"""Between a codec's frames and upright RGB: colour matrices and ranges, turns, pixel shapes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from vidsynth.errors import UnsupportedVideo

# H height, W width

# Code points of ISO/IEC 23091-2, which FFmpeg uses.
_MATRICES = {
    1: ("bt709", Colorspace.ITU709),
    4: ("fcc", Colorspace.FCC),
    5: ("bt601", Colorspace.ITU601),
    6: ("bt601", Colorspace.ITU601),
    7: ("smpte240m", Colorspace.SMPTE240M),
}
_UNSPECIFIED = {0, 2, 3}
_REFUSED_MATRICES = {9: "BT.2020", 10: "BT.2020", 14: "ICtCp"}
_REFUSED_TRANSFERS = {16: "HDR (PQ)", 18: "HDR (HLG)"}
_TO_SDR = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)
_FULL_UNLESS_TAGGED = ("yuvj", "gray", "ya8", "ya16", "mono")


MOST_PIXELS = 1 << 26
"""Of one picture, twice those of 8K: a file of a few bytes can declare, and decode to, any size."""


def refuse_giant(path: Path, width: int, height: int) -> None:
    """Raises UnsupportedVideo for pictures of more than MOST_PIXELS."""
    if width * height > MOST_PIXELS:
        raise UnsupportedVideo(
            f"{path}: its pictures are {width}x{height}, more than the {MOST_PIXELS / 1e6:.0f} "
            f"million pixels that are read; make them smaller with: ffmpeg -i {path.name} -vf "
            "scale=3840:-2 smaller.mp4"
        )


def size_changes(
    path: Path, before: tuple[int, int], now: tuple[int, int], *, second: float
) -> UnsupportedVideo:
    """The refusal of a video whose (height, width) changes on the way."""
    height, width = before
    return UnsupportedVideo(
        f"{path}: the frame size changes from {width}x{height} to {now[1]}x{now[0]} at "
        f"{second:.2f} s; convert it with: ffmpeg -i {path.name} -vf scale={width}:{height} "
        "converted.mp4"
    )


class FrameReader:
    """Turns the frames of one stream into upright RGB with square pixels.

    Raises UnsupportedVideo for what it refuses: HDR and BT.2020, turns by odd angles, a frame size
    that changes on the way.
    """

    def __init__(
        self,
        path: Path,
        first: VideoFrame,
        stream: VideoStream,
        size: tuple[int, int] | None = None,
    ) -> None:
        """`size` is (height, width) to scale to; by default the size of the file."""
        self._path = path
        self._stored = first.width, first.height
        self._turn, self._mirror_x, self._mirror_y = _orientation(path, first)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        shape = first.height, max(1, round(first.width * aspect))
        self.height, self.width = size or (shape[::-1] if self._turn else shape)
        refuse_giant(path, self.width, self.height)
        self._form = _form(first)
        self._has_alpha = _has_alpha(first)
        self.matrix, self._colourspace, self.full_range = _colour(path, first)
        self.notes = tuple(_notes(path, first, aspect))
        # Kept, since swscale takes longer to set itself up than to convert a frame.
        self._reformatter = VideoReformatter()

    def read(self, frame: VideoFrame, into: np.ndarray, *, second: float) -> None:
        """Write `frame`, shown at `second`, into (height, width, 3) uint8."""
        if _form(frame) != self._form:
            self._changed(frame, second)
        rgb = self._rgb(frame)
        if self._turn:
            rgb = cv2.transpose(rgb)
        if self._mirror_x:
            rgb = cv2.flip(rgb, 1)
        if self._mirror_y:
            rgb = cv2.flip(rgb, 0)
        if rgb.shape == into.shape:
            into[:] = rgb
        else:
            how = cv2.INTER_AREA if into.size < rgb.size else cv2.INTER_CUBIC
            cv2.resize(rgb, (into.shape[1], into.shape[0]), dst=into, interpolation=how)

    def _changed(self, frame: VideoFrame, second: float) -> None:
        """Follow a change of pixel format or colour; refuse one of size."""
        if (frame.width, frame.height) != self._stored:
            width, height = self._stored
            now = frame.height, frame.width
            raise size_changes(self._path, (height, width), now, second=second)
        self._form, self._has_alpha = _form(frame), _has_alpha(frame)
        _, self._colourspace, self.full_range = _colour(self._path, frame)

    def _rgb(self, frame: VideoFrame) -> np.ndarray:
        """(stored height, stored width, 3) uint8; what is transparent goes over black."""
        converted = self._reformatter.reformat(
            frame,
            format="rgba" if self._has_alpha else "rgb24",
            src_colorspace=self._colourspace,
            dst_colorspace=self._colourspace,
            src_color_range=ColorRange.JPEG if self.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,  # the decoder's own threads are busy beside it
        ).to_ndarray()
        if not self._has_alpha:
            return converted
        opacity = converted[..., 3:].astype(np.uint16)
        return ((converted[..., :3] * opacity + 127) // 255).astype(np.uint8)


class FrameWriter:
    """Turns RGB into the frames that are encoded: YUV 4:2:0, BT.709, limited range, even sizes."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def frame(self, picture: Tensor) -> VideoFrame:
        """From (3, H, W) uint8 on the CPU; an odd size gains a copy of its last row or column."""
        _, height, width = picture.shape
        if height % 2 or width % 2:
            rows = torch.arange(height + height % 2).clamp(max=height - 1)
            columns = torch.arange(width + width % 2).clamp(max=width - 1)
            picture = picture[:, rows[:, None], columns]
        return self._reformatter.reformat(
            _rgb_frame(picture),
            format="yuv420p",
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,  # the generator's threads are busy beside it
        )


def _rgb_frame(picture: Tensor) -> VideoFrame:
    """(3, H, W) uint8 of either memory layout, without turning one into the other."""
    if not picture.is_contiguous():
        array = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        return VideoFrame.from_numpy_buffer(array, "rgb24")
    _, height, width = picture.shape
    frame = VideoFrame(width, height, "gbrp")
    for plane, channel in zip(frame.planes, (1, 2, 0), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        rows[:, :width] = picture[channel].numpy()
    return frame


def _form(frame: VideoFrame) -> tuple[object, ...]:
    """What the conversion of a frame depends on."""
    return (
        frame.width,
        frame.height,
        frame.format.name,
        frame.colorspace,
        frame.color_range,
        frame.color_trc,
    )


def _orientation(path: Path, frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether to transpose, then mirror left-right, then top-bottom, to stand upright."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if data is None:
        return False, False, False
    # x' = a x + c y and y' = b x + d y, in 16.16 fixed point
    a, b, _, c, d = np.sign(np.frombuffer(bytes(data), np.int32))[:5].tolist()
    if (a, d) == (0, 0) and b and c:
        return True, c < 0, b < 0
    if (b, c) == (0, 0) and a and d:
        return False, a < 0, d < 0
    raise UnsupportedVideo(
        f"{path}: asks to be turned by about {frame.rotation} degrees, and only right angles can "
        f"be done; turn it with: ffmpeg -i {path.name} -c:v libx264 turned.mp4"
    )


def _colour(path: Path, frame: VideoFrame) -> tuple[str, Colorspace, bool]:
    """The YUV matrix, by name and by swscale's code, and whether the range is full."""
    refused = _REFUSED_TRANSFERS.get(frame.color_trc) or _REFUSED_MATRICES.get(frame.colorspace)
    if refused:
        raise UnsupportedVideo(
            f"{path}: {refused} colour is not supported; convert it with: "
            f"ffmpeg -i {path.name} -vf {_TO_SDR} -c:v libx264 sdr.mp4"
        )
    if frame.format.is_rgb or frame.format.has_palette:
        return "rgb", Colorspace.ITU709, True
    full_range = frame.color_range == ColorRange.JPEG or (
        frame.color_range != ColorRange.MPEG and frame.format.name.startswith(_FULL_UNLESS_TAGGED)
    )
    code = frame.colorspace
    if code in _UNSPECIFIED:
        code = 1 if frame.height > 576 else 5
    if code not in _MATRICES:
        raise UnsupportedVideo(
            f"{path}: YUV matrix number {code} is not supported; convert it with: "
            f"ffmpeg -i {path.name} -vf scale=out_color_matrix=bt709 -c:v libx264 converted.mp4"
        )
    return *_MATRICES[code], full_range


def _has_alpha(frame: VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _notes(path: Path, frame: VideoFrame, aspect: Fraction) -> Iterator[str]:
    if _has_alpha(frame):
        yield f"{path.name}: transparent parts are shown over black"
    if frame.interlaced_frame:
        yield (
            f"{path.name}: is interlaced, so fast motion shows combs; for a better result: "
            f"ffmpeg -i {path.name} -vf bwdif -c:v libx264 progressive.mp4"
        )
    if aspect != 1:
        yield f"{path.name}: its pixels are {aspect} as wide as high; they are made square"
