"""Video in and out. Clips are made here; colours are checked against the standards' formulas."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch

from vidsynth import encode, video
from vidsynth.clip import Clip
from vidsynth.errors import (
    BadOption,
    CannotWrite,
    Interrupted,
    OutputExists,
    UnsupportedVideo,
)
from vidsynth.sound import opened_sound
from vidsynth.stream import Chunk

# T frames, H height, W width

LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # Kr, Kb
MATRIX_CODE = {"bt601": 5, "bt709": 1, "unspecified": 2}
MEGA = 1_000_000


def moving_square(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(T, H, W, 3): a bright square over a colour ramp, elsewhere in every frame."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 180 // width, y * 180 // height, 90 + 0 * x], -1).astype(np.uint8)
    pictures = np.repeat(ground[None], count, 0)
    for i, picture in enumerate(pictures):
        left = 3 * i % (width - 12)
        picture[height // 3 : height // 3 + 12, left : left + 12] = (240, 220, 40)
    return pictures


def film(
    path: Path,
    pictures: np.ndarray | list[av.VideoFrame],
    *,
    times: list[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    turn: int | tuple[int, ...] = 0,
    sound: str | None = None,
    clicks: tuple[float, ...] = (),
    options: dict[str, str] | None = None,
    **context: object,
) -> Path:
    """Write (T, H, W, 3) pictures, or ready frames, at 25 fps or at `times`, with PyAV alone."""
    codec_options = {"libx264": {"crf": "4", "preset": "ultrafast"}}.get(codec, {})
    tick = 25 if times is None else MEGA
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=codec_options | (options or {}))
        first = pictures[0]
        stream.height, stream.width = (
            first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        )
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, tick)
        stream.codec_context.gop_size = 10
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if isinstance(turn, tuple):
            stream.set_display_matrix(turn)
        elif turn:
            stream.set_display_rotation(turn)
        track = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for i, picture in enumerate(pictures):
            frame = picture
            if isinstance(picture, np.ndarray):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                if pix_fmt != "rgb24":
                    frame = frame.reformat(format=pix_fmt, dst_colorspace=5)
            frame.pts = i if times is None else round(times[i] * MEGA)
            frame.time_base = Fraction(1, tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            for packet in _sound(track, len(pictures) / 25, clicks):
                container.mux(packet)
    return path


def _sound(track: av.AudioStream, seconds: float, clicks: tuple[float, ...]) -> Iterator[object]:
    wave = np.zeros((1, round(48000 * seconds)), np.float32)
    for second in clicks:
        at = round(48000 * second)
        wave[0, at : at + 96] = np.sin(np.arange(96) * 2 * np.pi * 2000 / 48000)
    for begin in range(0, wave.shape[1], 1024):
        piece = (wave[:, begin : begin + 1024] * 32000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        yield track.encode(frame)
    yield track.encode(None)


def loud_seconds(path: Path) -> list[float]:
    """When each click of a file begins, on the file's own clock."""
    loud: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            wave = frame.to_ndarray().astype(np.float64).reshape(-1)
            wave /= 32768 if frame.format.name.startswith("s16") else 1
            for at in np.flatnonzero(np.abs(wave) > 0.5):
                second = frame.time + at / frame.sample_rate
                if not loud or second > loud[-1] + 0.2:
                    loud.append(second)
    return loud


def bright_seconds(clip: Clip) -> list[float]:
    return clip.pts[clip.frames.flatten(1).float().mean(1) > 128].tolist()


def read(path: Path, **options: object) -> Clip:
    return Clip.concat([c.clip for c in video.read_chunks(path, **options)])  # pyright: ignore


def chunks_of(clip: Clip, chunk: int = 8) -> Iterator[Chunk]:
    for i in range(0, len(clip), chunk):
        part = clip[i : i + chunk]
        yield Chunk(part.pts, part)


def clip_of(pictures: np.ndarray, fps: float = 25, first: float = 0.0) -> Clip:
    pts = first + torch.arange(len(pictures), dtype=torch.float64) / fps
    return Clip(torch.from_numpy(pictures).permute(0, 3, 1, 2), pts)


def write(path: Path, clip: Clip, **options: object) -> video.WrittenVideo:
    return video.write_video(path, chunks_of(clip), **{"fps": Fraction(25), **options})  # pyright: ignore


def level_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().mean())


# Time


def test_frames_come_in_order_whatever_the_chunk(tmp_path: Path) -> None:
    pictures = moving_square(21)
    path = film(tmp_path / "a.mp4", pictures)
    whole = read(path, chunk=21)
    assert level_error(whole.frames, clip_of(pictures).frames) < 3
    assert torch.allclose(whole.pts, torch.arange(21, dtype=torch.float64) / 25, atol=1e-12)
    for chunk in (1, 4, 16):
        lengths = [len(c) for c in video.read_chunks(path, chunk=chunk)]
        assert set(lengths[:-1]) <= {chunk} and sum(lengths) == 21
        assert torch.equal(read(path, chunk=chunk).frames, whole.frames)


def test_arrays_of_a_read_clip_come_without_a_copy(tmp_path: Path) -> None:
    clip = read(film(tmp_path / "a.mp4", moving_square(3)))
    assert clip.frames[1].permute(1, 2, 0).is_contiguous()


def test_pts_survive_variable_frame_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = [0.0, *np.cumsum(rng.uniform(0.003, 0.4, 29)).round(6)]
    source = film(tmp_path / "vfr.mp4", moving_square(30), times=times, max_b_frames=2)
    clip = read(source)
    assert video.probe(source).variable_rate
    assert float((clip.pts - torch.tensor(times, dtype=torch.float64)).abs().max()) < 1e-9
    write(tmp_path / "out.mp4", clip, fps=video.probe(source).spec.fps)
    again = read(tmp_path / "out.mp4")
    assert len(again) == 30
    assert float((again.pts - clip.pts).abs().max()) <= 0.5e-6


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(25), Fraction(60), Fraction(23, 3)]
)
def test_constant_rates_are_written_exactly(tmp_path: Path, fps: Fraction) -> None:
    pts = torch.tensor([float(i / fps) for i in range(40)], dtype=torch.float64)
    clip = Clip(clip_of(moving_square(40)).frames, pts)
    written = write(tmp_path / "out.mp4", clip, fps=fps)
    assert float((read(tmp_path / "out.mp4").pts - pts).abs().max()) < 1e-12
    info = video.probe(tmp_path / "out.mp4")
    assert (info.spec.fps, info.num_frames, written.num_frames) == (fps, 40, 40)
    assert info.seconds == pytest.approx(float(40 / fps), abs=2e-6)
    assert written.seconds == pytest.approx(float(40 / fps), abs=2e-6)


def test_a_span_is_the_same_as_a_slice_of_the_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(60), max_b_frames=2)
    whole = read(path)
    for start, end in ((0.5, 1.5), (1.21, None), (None, 0.4), (2.36, 2.4)):
        inside = torch.ones(60, dtype=torch.bool)
        inside &= whole.pts >= (start or 0.0)
        inside &= whole.pts < (end or 99.0)
        span = read(path, start=start, end=end)
        assert torch.equal(span.pts, whole.pts[inside])
        assert torch.equal(span.frames, whole.frames[inside])


def test_an_empty_span_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(5))
    with pytest.raises(UnsupportedVideo, match="no frames between 3 s and its end"):
        read(path, start=3.0)


def test_the_clock_starts_where_the_container_does(tmp_path: Path) -> None:
    times = [1.4 + i / 25 for i in range(10)]  # as broadcasts do
    path = film(tmp_path / "a.ts", moving_square(10), times=times)
    with av.open(str(path)) as container:
        assert container.start_time == 1.4e6
    assert read(path).pts.tolist() == pytest.approx([i / 25 for i in range(10)], abs=1e-9)


def test_pictures_that_begin_after_the_sound_still_do_in_the_output(tmp_path: Path) -> None:
    times = [0.3 + i / 25 for i in range(25)]
    path = film(tmp_path / "a.mp4", moving_square(25), times=times, sound="aac")
    clip = read(path)
    assert clip.pts[0] == pytest.approx(0.3, abs=1e-6)
    write(tmp_path / "sound.mp4", clip, audio=path)
    assert float((read(tmp_path / "sound.mp4").pts - clip.pts).abs().max()) < 1e-6
    write(tmp_path / "silent.mp4", clip)
    assert float(read(tmp_path / "silent.mp4").pts[0]) == 0.0


def test_frames_without_timestamps_are_spaced_by_the_rate_and_said(tmp_path: Path) -> None:
    path = film(tmp_path / "raw.h264", moving_square(12))
    said: list[str] = []
    pts = read(path, note=said.append).pts
    assert len(pts) == 12
    assert pts.diff().tolist() == pytest.approx([0.04] * 11, abs=1e-3)
    assert "12 frames had no timestamp" in said[0]


def test_timestamps_that_do_not_increase_are_moved_and_said() -> None:
    stream = SimpleNamespace(
        time_base=Fraction(1, 100), average_rate=25, guessed_rate=25, base_rate=25
    )
    clock = video._Clock(stream, Fraction(0))  # pyright: ignore[reportArgumentType]
    stamps = [0, 4, 4, 12, 1000, 0, 4, None]
    seconds = [clock.seconds(SimpleNamespace(pts=s, dts=None)) for s in stamps]  # pyright: ignore
    assert seconds == pytest.approx([0, 0.04, 0.05, 0.12, 10, 10.04, 10.08, 10.12])
    assert clock.told() == (
        "1 frames had no timestamp and 2 one that did not increase; "
        "they were spaced by the frame rate"
    )


def test_frames_at_given_seconds(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(50))
    whole = read(path)
    few = video.read_frames_at(path, [1.0, 0.0, 1.001, 0.501, 99.0], size=(24, 32))
    assert few.pts.tolist() == pytest.approx([0.0, 0.52, 1.0, 1.04])
    small = cv2.resize(
        whole.frames[13].permute(1, 2, 0).numpy(), (32, 24), interpolation=cv2.INTER_AREA
    )
    assert np.array_equal(few.frames[1].permute(1, 2, 0).numpy(), small)


# Shape


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int) -> None:
    pictures = moving_square(2)
    upright = read(film(tmp_path / "flat.mp4", pictures)).frames
    path = film(tmp_path / "turned.mp4", pictures, turn=degrees)
    info = video.probe(path)
    assert info.rotation == (-degrees) % 360  # the metadata counts counter-clockwise
    assert torch.equal(read(path).frames, upright.rot90(degrees // 90, (2, 3)))
    turned = degrees % 180 != 0
    assert (info.spec.height, info.spec.width) == ((64, 48) if turned else (48, 64))


def test_mirrored_metadata_is_applied(tmp_path: Path) -> None:
    pictures, one = moving_square(2), 1 << 16
    upright = read(film(tmp_path / "flat.mp4", pictures)).frames
    mirror = film(tmp_path / "m.mp4", pictures, turn=(-one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    assert torch.equal(read(mirror).frames, upright.flip(3))
    transpose = film(tmp_path / "t.mp4", pictures, turn=(0, one, 0, one, 0, 0, 0, 0, 1 << 30))
    assert torch.equal(read(transpose).frames, upright.transpose(2, 3))


def test_other_angles_are_refused_by_name(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(1), turn=30)
    with pytest.raises(
        UnsupportedVideo, match=r"turned by about (29|30) degrees.*ffmpeg -i a\.mp4"
    ):
        video.probe(path)


def test_pixels_become_square(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(2), sample_aspect_ratio=Fraction(4, 3))
    info = video.probe(path)
    assert (info.spec.height, info.spec.width) == (48, 85)
    assert "pixels are 4/3 as wide as high" in info.notes[0]
    assert read(path).frames.shape == (2, 3, 48, 85)


def test_interlacing_is_said(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(2), options={"x264-params": "tff=1"})
    assert "a.mp4: is interlaced" in video.probe(path).notes[0]


def test_shrinking_averages_areas(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(2))
    whole, half = read(path), read(path, size=(24, 32))
    areas = whole.frames.double().unflatten(2, (24, 2)).unflatten(4, (32, 2)).mean((3, 5))
    assert float((half.frames - areas).abs().max()) <= 0.5


def test_odd_sizes_are_read_as_they_are(tmp_path: Path) -> None:
    pictures = moving_square(2, 47, 63)
    path = film(tmp_path / "a.mkv", pictures, codec="ffv1", pix_fmt="yuv444p")
    assert level_error(read(path).frames, clip_of(pictures).frames) < 2


def test_odd_sizes_gain_a_row_and_a_column_when_written(tmp_path: Path) -> None:
    clip = clip_of(moving_square(3, 47, 63))
    written = write(tmp_path / "out.mp4", clip, crf=1)
    assert written.notes == (
        "the pictures are 64x48 instead of 63x47, since players need even sizes; "
        "the last row or column is repeated",
    )
    frames = read(tmp_path / "out.mp4").frames
    padded = torch.nn.functional.pad(clip.frames.float(), (0, 1, 0, 1), mode="replicate")
    assert frames.shape == padded.shape
    assert level_error(frames, padded) < 4


def test_a_single_pixel_and_a_single_picture_are_videos(tmp_path: Path) -> None:
    pixel = np.full((1, 1, 1, 3), 77, np.uint8)
    path = film(tmp_path / "pixel.mkv", pixel, codec="ffv1", pix_fmt="yuv444p")
    clip = read(path)
    assert clip.frames.shape == (1, 3, 1, 1) and level_error(clip.frames, torch.tensor(77)) < 2
    assert write(tmp_path / "out.mp4", clip).num_frames == 1
    assert read(tmp_path / "out.mp4").frames.shape == (1, 3, 2, 2)
    picture = moving_square(1)[0]
    assert cv2.imwrite(str(tmp_path / "still.png"), picture[..., ::-1])
    still = read(tmp_path / "still.png")
    assert np.array_equal(still.frames[0].permute(1, 2, 0).numpy(), picture)


def test_8k_is_read(tmp_path: Path) -> None:
    frame = av.VideoFrame(7680, 4320, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    path = film(tmp_path / "a.mp4", [frame])
    assert (video.probe(path).spec.width, video.probe(path).spec.height) == (7680, 4320)
    assert read(path, size=(9, 16)).frames.shape == (1, 3, 9, 16)


def test_a_size_that_the_encoder_cannot_hold_is_named(tmp_path: Path) -> None:
    clip = Clip(torch.zeros(1, 3, 2, 20000, dtype=torch.uint8), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(CannotWrite, match=r"h264 cannot hold pictures of 20000x2 .*--size"):
        write(tmp_path / "out.mp4", clip)
    assert not list(tmp_path.iterdir())


def test_a_change_of_size_on_the_way_is_named(tmp_path: Path) -> None:
    first = film(tmp_path / "a.h264", moving_square(10))
    second = film(tmp_path / "b.h264", moving_square(10, 96, 128))
    both = tmp_path / "both.h264"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(UnsupportedVideo, match=r"from 64x48 to 128x96 at 0\.40 s.*scale=64:48"):
        read(both, note=lambda _: None)


# Colour


def to_yuv(rgb: np.ndarray, matrix: str, full: bool) -> np.ndarray:
    """(..., 3) RGB to YUV levels, by the definition of BT.601 and BT.709."""
    kr, kb = LUMA[matrix]
    r, g, b = np.moveaxis(rgb.astype(np.float64), -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    if not full:
        y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    return np.stack([y, u + 128, v + 128], -1)


def patches(height: int = 48, width: int = 64) -> np.ndarray:
    """(1, H, W, 3): flat patches of well spread colours."""
    colours = np.random.default_rng(1).integers(20, 236, (3, 4, 3), dtype=np.uint8)
    return colours.repeat(height // 3, 0).repeat(width // 4, 1)[None]


def yuv_frame(picture: np.ndarray, matrix: str, full: bool) -> av.VideoFrame:
    yuv = to_yuv(picture, matrix, full).round().clip(0, 255).astype(np.uint8)
    planes = [yuv[..., 0], yuv[::2, ::2, 1], yuv[::2, ::2, 2]]
    packed = np.concatenate([p.reshape(-1, picture.shape[1]) for p in planes])
    return av.VideoFrame.from_ndarray(packed, "yuv420p")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_tagged_colours_are_read_right(tmp_path: Path, matrix: str, full: bool) -> None:
    picture = patches()
    path = film(
        tmp_path / "a.mp4",
        [yuv_frame(picture[0], matrix, full)],
        colorspace=MATRIX_CODE[matrix],
        color_range=2 if full else 1,
    )
    assert video.probe(path).colour == (matrix, full)
    assert level_error(read(path).frames, clip_of(picture).frames) < 2


@pytest.mark.parametrize(("height", "matrix"), [(576, "bt601"), (720, "bt709")])
def test_untagged_colours_go_by_the_number_of_lines(
    tmp_path: Path, height: int, matrix: str
) -> None:
    picture = patches(height, 64)
    path = film(tmp_path / "a.mp4", [yuv_frame(picture[0], matrix, False)])
    assert video.probe(path).colour == (matrix, False)
    assert level_error(read(path).frames, clip_of(picture).frames) < 2


def test_written_colours_are_bt709_limited_and_tagged_so(tmp_path: Path) -> None:
    picture = patches()
    write(tmp_path / "out.mp4", clip_of(picture), crf=1)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
        assert tags == (1, 1, 1, 1)
        luma = np.frombuffer(frame.planes[0], np.uint8).reshape(48, -1)[:, :64]
    assert np.abs(luma - to_yuv(picture[0], "bt709", False)[..., 0]).mean() < 2


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p10le", "yuv422p", "yuv422p10le", "yuv444p", "yuv444p12le", "bgr0"]
)
def test_other_pixel_formats_are_read(tmp_path: Path, pix_fmt: str) -> None:
    pictures = patches()
    path = film(tmp_path / "a.mkv", pictures, codec="ffv1", pix_fmt=pix_fmt)
    assert video.probe(path).pixel_format == pix_fmt
    # Inside the patches: some formats interpolate colour across their edges.
    inside = slice(6, None, 16)
    difference = read(path).frames.double() - clip_of(pictures).frames
    assert float(difference[:, :, inside, inside].abs().mean()) < 2


def test_grey_is_full_range_unless_it_says_otherwise(tmp_path: Path) -> None:
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    frame = av.VideoFrame.from_ndarray(grey, "gray")
    path = film(tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt="gray")
    assert level_error(read(path).frames, torch.from_numpy(grey).expand(1, 3, -1, -1)) < 1


def test_what_is_transparent_goes_over_black_and_is_said(tmp_path: Path) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:, :32] = (200, 100, 50, 255)
    rgba[:, 32:] = (200, 100, 50, 128)
    frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="bgra")
    path = film(tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt="bgra")
    frames = read(path).frames
    assert frames[0, :, 10, 10].tolist() == [200, 100, 50]
    assert frames[0, :, 10, 50].tolist() == [100, 50, 25]
    assert video.probe(path).notes == ("a.mkv: transparent parts are shown over black",)


@pytest.mark.parametrize(
    ("tag", "code", "name"),
    [("color_trc", 16, "PQ"), ("color_trc", 18, "HLG"), ("colorspace", 9, "BT.2020")],
)
def test_hdr_is_refused_by_name(tmp_path: Path, tag: str, code: int, name: str) -> None:
    path = film(tmp_path / "a.mp4", moving_square(1), **{tag: code})
    with pytest.raises(UnsupportedVideo, match=rf"{name}.*ffmpeg -i a\.mp4 -vf .*tonemap"):
        video.probe(path)


# Sound


def test_sound_is_copied_bit_for_bit(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(50), sound="aac", clicks=(0.5, 1.5))
    written = write(tmp_path / "out.mp4", read(path), audio=path)
    assert written.notes == ()
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(path)
    assert loud_seconds(tmp_path / "out.mp4") == pytest.approx(loud_seconds(path), abs=1e-6)
    assert video.probe(tmp_path / "out.mp4").has_audio


def audio_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize(("sound", "suffix"), [("aac", "mp4"), ("aac", "ts"), ("pcm_s16le", "mkv")])
@pytest.mark.parametrize("start", [0.0, 0.31, 2.013])
def test_sound_stays_in_step_with_a_span(
    tmp_path: Path, sound: str, suffix: str, start: float
) -> None:
    pictures = np.zeros((100, 48, 64, 3), np.uint8)
    pictures[[12, 37, 62, 87]] = 255  # a flash at every click
    clicks = (0.48, 1.48, 2.48, 3.48)
    path = film(tmp_path / f"a.{suffix}", pictures, sound=sound, clicks=clicks)
    clip = read(path, start=start, end=3.7)
    write(tmp_path / "out.mp4", clip, audio=path, audio_start=start, audio_end=3.7)
    again = read(tmp_path / "out.mp4")
    flashes = bright_seconds(again)
    assert len(flashes) == sum(c >= start for c in clicks)
    assert flashes == pytest.approx([s - start for s in bright_seconds(clip)], abs=1e-6)
    assert loud_seconds(tmp_path / "out.mp4") == pytest.approx(flashes, abs=0.003)


def test_sound_ends_with_the_pictures(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(100), sound="aac")
    write(tmp_path / "out.mp4", read(path, end=1.0), audio=path)
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert float(track.duration * track.time_base) == pytest.approx(1.0, abs=0.03)


def test_sound_of_another_file_starts_where_it_is_told(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", moving_square(75))
    other = film(tmp_path / "b.mp4", moving_square(75), sound="aac", clicks=(0.7,))
    clip = read(source, start=2.0)
    write(tmp_path / "out.mp4", clip, start=2.0, audio=other, audio_start=0.5)
    assert float(read(tmp_path / "out.mp4").pts[0]) == 0.0
    assert loud_seconds(tmp_path / "out.mp4") == pytest.approx([0.2], abs=0.003)


def test_sound_that_players_do_not_take_is_encoded_and_said(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", moving_square(25), sound="pcm_s16le")
    written = write(tmp_path / "out.mp4", read(path), audio=path)
    assert "the sound of a.mkv was encoded to AAC" in written.notes[0]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_sound_that_changes_its_form_on_the_way_reaches_the_encoder_in_one(tmp_path: Path) -> None:
    def piece(begin: int, rate: int, layout: str) -> av.AudioFrame:
        wave = np.full((1 + (layout == "stereo"), rate // 10), 9000, np.int16)
        frame = av.AudioFrame.from_ndarray(wave, "s16p", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
        return frame

    forms = [(48000, "mono")] * 3 + [(44100, "stereo")] * 3 + [(48000, "mono")] * 3
    frames = [piece(n * rate // 10, rate, layout) for n, (rate, layout) in enumerate(forms)]
    path = film(tmp_path / "a.mp4", moving_square(5), sound="aac")
    with opened_sound(path, 0.0, None) as sound:
        assert sound is not None
        made = [one for frame in frames for one in sound._alike(frame)]
    assert {(f.format.name, f.layout.name, f.sample_rate) for f in made} == {
        ("s16p", "mono", 48000)
    }
    assert sum(f.samples for f in made) == pytest.approx(9 * 4800, abs=200)


def test_damaged_sound_does_not_spoil_the_video(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", moving_square(50), sound="flac", clicks=(1.5,))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[4:6]:
        data[position + 4 : position + size + 4] = b"\xff" * size
    path.write_bytes(data)
    written = write(tmp_path / "out.mp4", read(path), audio=path)
    assert written.num_frames == 50
    assert any("damaged packets of the sound were left out" in note for note in written.notes)
    assert loud_seconds(tmp_path / "out.mp4") == pytest.approx([1.5], abs=0.003)


def test_a_silent_source_gives_a_silent_video_and_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(5))
    written = write(tmp_path / "out.mp4", read(path), audio=path)
    assert written.notes == ("a.mp4 has no sound that can be read; the output is silent",)
    assert not video.probe(tmp_path / "out.mp4").has_audio


# Bad input


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        for packets in _sound(track, 0.5, ()):
            container.mux(packets)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("none.mp4", lambda p: None, "no such file; check the path"),
        ("folder.mp4", Path.mkdir, "holds no pictures"),
        ("empty.mp4", Path.touch, "is empty; copy or download it again"),
        ("text.mp4", lambda p: p.write_text("not a video\n" * 99), "not a video"),
        ("notes.txt", lambda p: p.write_text("not a video\n" * 99), "is a text, not a video"),
        ("sound.mp4", audio_only, "holds sound but no pictures"),
    ],
)
def test_what_is_not_a_video_gets_one_sentence(
    tmp_path: Path, name: str, make: object, words: str
) -> None:
    path = tmp_path / name
    make(path)  # pyright: ignore[reportCallIssue]
    for look in (video.probe, read):
        with pytest.raises(UnsupportedVideo, match=words) as caught:
            look(path)
        assert str(path) in str(caught.value) and caught.value.exit_code == 2


def test_a_file_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnsupportedVideo, match="not a video that can be read"):
        video.probe(path)


def test_a_file_cut_off_after_its_index_gives_the_frames_it_has(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (75, 48, 64, 3), dtype=np.uint8)
    write(tmp_path / "whole.mp4", clip_of(noise))
    path = tmp_path / "cut.mp4"
    path.write_bytes(
        (tmp_path / "whole.mp4").read_bytes()[: (tmp_path / "whole.mp4").stat().st_size // 2]
    )
    whole, said = read(tmp_path / "whole.mp4"), []
    cut = read(path, note=said.append)
    assert 10 < len(cut) < 70
    assert torch.equal(cut.pts, whole.pts[: len(cut)])
    assert len(said) == 1 and "cut.mp4: is cut off at" in said[0] and "of 3.00 s" in said[0]


def test_damage_in_the_middle_is_passed_over_and_said(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(100))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[40:44]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    said: list[str] = []
    clip = read(path, note=said.append)
    assert 90 <= len(clip) <= 100
    assert clip.pts[-1] == pytest.approx(99 / 25)
    assert len(said) == 1 and "a.mp4: is damaged from 1." in said[0]


def test_names_inside_a_file_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(5), sound="aac")
    data = path.read_bytes()
    assert b"VideoHandler" in data
    path.write_bytes(data.replace(b"VideoHandler", b"\xff\xfe\x80eoHandler"))
    assert len(read(path)) == 5
    assert write(tmp_path / "out.mp4", read(path), audio=path).num_frames == 5


@pytest.mark.parametrize("look", [video.probe, read], ids=["probe", "read"])
def test_a_picture_larger_than_any_film_is_refused_before_it_is_decoded(
    tmp_path: Path, look: object
) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "folder" / "a.png"):
        cv2.imwrite(str(path), np.zeros((8200, 8200), np.uint8))
        where = path.parent if path.parent.name == "folder" else path
        with pytest.raises(UnsupportedVideo, match=r"8200x8200, more than the 67 million pixels"):
            look(where)  # pyright: ignore[reportCallIssue]


def test_a_file_of_which_nothing_decodes_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", moving_square(5))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in packets:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(UnsupportedVideo, match="not one picture of it can be decoded"):
        read(path)


# Where it is written


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_text("precious")
    video.check_output(tmp_path / "new.mp4", overwrite=False)
    video.check_output(tmp_path / "there.mp4", overwrite=True)
    with pytest.raises(OutputExists, match=r"there\.mp4 exists already.*--overwrite"):
        video.check_output(tmp_path / "there.mp4", overwrite=False)
    with pytest.raises(CannotWrite, match=r"none does not exist; make it first"):
        video.check_output(tmp_path / "none" / "out.mp4", overwrite=False)
    with pytest.raises(CannotWrite, match=r"\.webm is not a container .*\.mp4"):
        video.check_output(tmp_path / "out.webm", overwrite=False)
    with pytest.raises(CannotWrite, match="is a folder"):
        (tmp_path / "folder.mp4").mkdir()
        video.check_output(tmp_path / "folder.mp4", overwrite=True)
    assert (tmp_path / "there.mp4").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.mp4", "there.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where nobody can make a file")
def test_a_folder_that_is_not_writable_is_named() -> None:
    with pytest.raises(CannotWrite, match=r"/proc/out\.mp4"):
        video.check_output("/proc/out.mp4", overwrite=False)


def test_an_unknown_codec_and_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="codec 'h266' is not one of h264, hevc"):
        write(tmp_path / "out.mp4", clip_of(moving_square(1)), codec="h266")
    with pytest.raises(CannotWrite, match="no frames to write"):
        video.write_video(tmp_path / "out.mp4", [], fps=Fraction(25))
    assert not list(tmp_path.iterdir())


def test_hevc_is_written_under_the_name_that_players_know(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out.mp4", clip_of(moving_square(3)), codec="hevc")
    assert capfd.readouterr().err == ""
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    assert len(read(tmp_path / "out.mp4")) == 3


def test_the_same_pictures_always_become_the_same_file(tmp_path: Path) -> None:
    """Whatever lies in the memory that an encoder is given."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.normal(128, 50, (18, 26, 3)), None, fx=8, fy=8).clip(0, 255)
    pan = np.stack([coarse[t : t + 80, 2 * t : 2 * t + 64] for t in range(60)]).astype(np.uint8)
    written: set[bytes] = set()
    for trial in range(10):
        left_over = [rng.bytes(size) for size in rng.integers(500, 30_000, 1000).tolist()]
        del left_over
        write(tmp_path / f"{trial}.mp4", clip_of(pan))
        written.add((tmp_path / f"{trial}.mp4").read_bytes())
    assert len(written) == 1


def test_the_index_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", clip_of(moving_square(10)))
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("precious")

    def breaking() -> Iterator[Chunk]:
        yield from chunks_of(clip_of(moving_square(20)))
        raise UnsupportedVideo("the source broke; mend it")

    with pytest.raises(UnsupportedVideo, match="the source broke"):
        video.write_video(path, breaking(), fps=Fraction(25), overwrite=True)
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_disk_that_takes_no_more_is_said_and_left_clean(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CannotWrite, match=r"out\.mp4: could not be written \(File too large\)"):
            write(tmp_path / "out.mp4", clip_of(noise))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", moving_square(50), sound="aac")

    def stopped() -> Iterator[Chunk]:
        yield from list(video.read_chunks(source))[:3]
        os.kill(os.getpid(), signal.SIGINT)
        yield from ()

    with pytest.raises(Interrupted, match=r"after 24 frames \(0\.96 s\).*out\.partial\.mp4"):
        video.write_video(tmp_path / "out.mp4", stopped(), fps=Fraction(25), audio=source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "out.partial.mp4"]
    kept = read(tmp_path / "out.partial.mp4")
    assert len(kept) == 24
    assert level_error(kept.frames, read(source, end=0.96).frames) < 4
    assert video.probe(tmp_path / "out.partial.mp4").has_audio


def test_ctrl_c_while_encoding_waits_for_the_chunk(tmp_path: Path) -> None:
    clip = clip_of(moving_square(16))

    class Pressing(Clip):
        def __len__(self) -> int:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__len__()

    with encode._holding_back_interrupts() as came:
        len(Pressing(clip.frames, clip.pts))
    assert came == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> Iterator[Chunk]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(Interrupted, match="stopped before its first frame"):
        video.write_video(tmp_path / "out.mp4", stopped(), fps=Fraction(25))
    assert not list(tmp_path.iterdir())


# The rest


def test_a_missing_gpu_is_reported_by_encoder_and_decoder(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; see tests/gpu")
    path = tmp_path / "out.mp4"
    written = write(path, clip_of(moving_square(5)), device="cuda")
    assert written.num_frames == 5
    assert "encoded by the CPU (libx264), since the GPU's h264_nvenc failed" in written.notes[0]
    said: list[str] = []
    with video._opened(path, torch.device("cuda"), said.append) as (container, _):
        assert len(list(container.decode(video=0))) == 5
    assert "out.mp4: decoded by the CPU, since the GPU decoder failed" in said[0]


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"vidsynth" * 1000)
    assert video.content_hash(path) == hashlib.sha256(b"vidsynth" * 1000).hexdigest()[:32]
    with pytest.raises(UnsupportedVideo, match="no such file"):
        video.content_hash(tmp_path / "none")


_COPY_AND_PRINT_PEAKS = """
import resource, sys
from fractions import Fraction
from vidsynth import video
for name in sys.argv[1:]:
    chunks = video.read_chunks(name)
    video.write_video(name + ".copy.mp4", chunks, fps=Fraction(25), preset="ultrafast")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    frames = clip_of(moving_square(20)).frames

    def lasting(count: int) -> Iterator[Chunk]:
        for i in range(0, count, 20):
            pts = torch.arange(i, i + 20, dtype=torch.float64) / 25
            yield Chunk(pts, Clip(frames, pts))

    paths = [tmp_path / f"{count}.mp4" for count in (100, 2000)]
    for path in paths:
        chunks = lasting(int(path.stem))
        video.write_video(path, chunks, fps=Fraction(25), preset="ultrafast")
    command = [sys.executable, "-c", _COPY_AND_PRINT_PEAKS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    assert long <= 1.05 * short
