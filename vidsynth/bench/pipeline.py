"""`vidsynth bench pipeline`: video in and out against bare PyAV, tracking, the whole chain, memory.

Frames come from the puppet world (from the head world for the face tracker) at 640x360; the files
that are read and written are H.264.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vidsynth import devices, registry, stages, stream, video
from vidsynth.bench import Asked, Row
from vidsynth.bench.material import FPS, Study, film, study, workshop
from vidsynth.bench.measure import (
    Clock,
    Timings,
    cores,
    interleaved,
    milliseconds,
    peak_in_child,
    per_second,
    speed_up,
)
from vidsynth.clip import Clip
from vidsynth.errors import MissingWeights
from vidsynth.kinds import Extractor
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter
from vidsynth.stream import Chunk

# T frames, H, W pixels

CRF, PRESET = 18, "veryfast"
SERIAL, THREADS = "in turns", "in threads"
COLOURS = {
    "BT.601": (Colorspace.ITU601, 6, ColorRange.MPEG),
    "BT.601 full range": (Colorspace.ITU601, 6, ColorRange.JPEG),
    "BT.709": (Colorspace.ITU709, 1, ColorRange.MPEG),
    "BT.709 full range": (Colorspace.ITU709, 1, ColorRange.JPEG),
}
"""Matrix as swscale and as the file calls it, and range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured."""

    rounds: int = 7
    chain_rounds: int = 5
    warmup: int = 1
    height: int = 360
    width: int = 640
    frames: int = 250
    """Decoded and encoded in a round."""
    colour_frames: int = 8
    tracked_frames: Mapping[str, int] = field(default_factory=lambda: {"pose": 300, "face": 600})
    """By extractor: long enough that opening the models is not what is measured."""
    tracking_rounds: Mapping[str, int] = field(default_factory=lambda: {"pose": 7, "face": 21})
    chain_frames: int = 64
    chain_size: int = 256
    chain_options: tuple[tuple[str, Any], ...] = ()
    """Changes to the dance recipe's generator."""
    short_seconds: int = 30
    long_seconds: int = 600


def bench(asked: Asked) -> Iterator[Row]:
    """Decode, encode and tracking over the bare calls; the whole chain; memory over length."""
    settings = Settings(chain_size=asked.size or 256)
    if asked.full:
        settings = replace(settings, rounds=15, chain_rounds=9, chain_frames=160)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    with workshop() as folder:
        path = film(
            folder / "puppet.mp4",
            "puppet",
            settings.frames,
            height=settings.height,
            width=settings.width,
        )
        yield from _decode_rows(path, settings)
        for name in COLOURS:
            yield _colour_row(name, path, folder / "colours.mp4", settings.colour_frames)
        yield from _encode_rows(path, folder / "made.mp4", settings)
        yield from _tracking_rows(settings, reporter)
        yield from _chain_rows(folder, settings, device, reporter)
        yield from _memory_rows(path, folder, settings)


# Decoding


def _decode_rows(path: Path, settings: Settings) -> Iterator[Row]:
    def ours() -> None:
        for _ in video.read_chunks(path):
            pass

    def bare() -> None:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")

    def planes() -> None:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in container.decode(video=0):
                pass

    jobs = {"ours": ours, "PyAV to_ndarray": bare, "PyAV without colours": planes}
    timed = interleaved(jobs, rounds=settings.rounds, warmup=settings.warmup)
    for name, timings in timed.items():
        yield per_second(f"decode: {name}", timings, count=settings.frames)
    yield speed_up(
        "decode to RGB tensors over PyAV to_ndarray",
        timed["PyAV to_ndarray"],
        timed["ours"],
        goal=1.5,
    )


def _colour_row(name: str, source: Path, path: Path, frames: int) -> Row:
    """How far our colours are from swscale's, on a film of this matrix and range."""
    matrix, code, colour_range = COLOURS[name]
    pictures = next(video.read_chunks(source, chunk=frames)).clip
    assert pictures is not None
    _write_coloured(path, pictures, matrix, code, colour_range)
    ours = torch.cat([c.clip.frames for c in video.read_chunks(path) if c.clip is not None])
    scaler, wanted = VideoReformatter(), []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rgb = scaler.reformat(
                frame,
                format="rgb24",
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=colour_range,
                dst_color_range=ColorRange.JPEG,
            )
            wanted.append(rgb.to_ndarray())
    theirs = torch.from_numpy(np.stack(wanted)).permute(0, 3, 1, 2)
    return Row(
        name=f"decode: mean difference from swscale, {name}",
        value=float((ours.float() - theirs.float()).abs().mean()),
        unit="levels",
        goal=2.0,
        at_most=True,
    )


def _write_coloured(
    path: Path, clip: Clip, matrix: Colorspace, code: int, colour_range: ColorRange
) -> None:
    """An H.264 file that says of itself which matrix and range it has."""
    scaler = VideoReformatter()
    with av.open(str(path), "w") as container:
        out: Any = container.add_stream("libx264", rate=FPS)
        out.height, out.width, out.pix_fmt = clip.height, clip.width, "yuv420p"
        out.codec_context.colorspace = code
        out.codec_context.color_range = colour_range
        for array in _arrays(clip):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            yuv = scaler.reformat(
                frame,
                format="yuv420p",
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=ColorRange.JPEG,
                dst_color_range=colour_range,
            )
            container.mux(out.encode(yuv))
        container.mux(out.encode(None))


def _arrays(clip: Clip) -> list[np.ndarray]:
    """The frames as PyAV likes them: (H, W, 3), contiguous."""
    return [np.ascontiguousarray(f.permute(1, 2, 0).numpy()) for f in clip.frames]


# Encoding


def _encode_rows(path: Path, output: Path, settings: Settings) -> Iterator[Row]:
    chunks = [_as_generated(chunk) for chunk in video.read_chunks(path)]
    arrays = [a for c in chunks if c.clip is not None for a in _arrays(c.clip)]
    threads = 1 if cores() <= 2 else 0  # as ours chooses

    def ours() -> None:
        video.write_video(output, chunks, fps=FPS, crf=CRF, preset=PRESET, overwrite=True)

    def bare() -> None:
        with av.open(str(output), "w", options={"movflags": "+faststart"}) as container:
            out: Any = container.add_stream("libx264", rate=FPS)
            out.height, out.width, out.pix_fmt = settings.height, settings.width, "yuv420p"
            out.codec_context.thread_count = threads
            out.codec_context.options = {"preset": PRESET, "crf": str(CRF)}
            for array in arrays:
                container.mux(out.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(out.encode(None))

    timed = interleaved(
        {"ours": ours, "PyAV": bare}, rounds=settings.rounds, warmup=settings.warmup
    )
    for name, timings in timed.items():
        yield per_second(f"encode: {name}", timings, count=settings.frames)
    yield speed_up("encode over PyAV", timed["PyAV"], timed["ours"], goal=0.95)


def _as_generated(chunk: Chunk) -> Chunk:
    """With frames laid out as a generator leaves them."""
    assert chunk.clip is not None
    return chunk.with_clip(Clip(chunk.clip.frames.contiguous(), chunk.pts))


# Tracking


def _tracking_rows(settings: Settings, reporter: Reporter) -> Iterator[Row]:
    for name, world in (("pose", "puppet"), ("face", "head")):
        with workshop() as folder:
            path = film(
                folder / f"{world}.mp4",
                world,
                settings.tracked_frames[name],
                height=settings.height,
                width=settings.width,
            )
            chunks = list(video.read_chunks(path))
        pictures = [a for c in chunks if c.clip is not None for a in _arrays(c.clip)]
        bare = _bare_mediapipe(name, pictures)
        if bare is None:
            reporter.warn("this mediapipe has no `solutions`: tracking is not held against it")
            continue
        try:
            ours = _tracking(registry.load("extractor", name)(), chunks)
        except MissingWeights as error:
            reporter.warn(f"{name} is not measured: {error}")
            continue
        timed = interleaved(
            {"ours": ours, "mediapipe": bare},
            rounds=settings.tracking_rounds[name],
            warmup=settings.warmup,
        )
        for who, timings in timed.items():
            yield milliseconds(f"tracking {name}: {who}, a frame", timings, per=len(pictures))
        yield speed_up(
            f"tracking {name} over mediapipe", timed["mediapipe"], timed["ours"], goal=0.95
        )


def _tracking(extractor: Extractor, chunks: list[Chunk]) -> Callable[[], None]:
    return lambda: _drain(extractor.extract(stages.clips_of(iter(chunks))))


def _bare_mediapipe(name: str, pictures: list[np.ndarray]) -> Callable[[], None] | None:
    """The same model, called as its documentation says; opened anew for each video, as ours is."""
    import mediapipe

    solutions = getattr(mediapipe, "solutions", None)
    if solutions is None:
        return None

    def run() -> None:
        if name == "pose":
            opened = solutions.pose.Pose(model_complexity=1, smooth_landmarks=False)
        else:
            opened = solutions.face_mesh.FaceMesh(refine_landmarks=True, max_num_faces=1)
        with opened as tracker:
            for picture in pictures:
                tracker.process(picture)

    return run


def _drain(things: Iterator[object]) -> None:
    for _ in things:
        pass


# The whole chain


def _chain_rows(
    folder: Path, settings: Settings, device: torch.device, reporter: Reporter
) -> Iterator[Row]:
    """Decode, generate, encode; and the same with tracking, as if no tracking were kept."""
    size, frames = settings.chain_size, settings.chain_frames
    changes = {"size": size, "generator": dict(settings.chain_options)}
    recipe = load_recipe("dance").with_overrides(changes)
    pixels = max(size, 128)
    path = film(folder / "target.mp4", "puppet", frames, height=pixels, width=pixels)
    seen = study(path, recipe, reporter)
    jobs = _chain_jobs(path, seen, folder / "rendered.mp4", device)
    clock, rounds = Clock.of(device), settings.chain_rounds
    timed = interleaved(jobs, rounds=rounds, warmup=settings.warmup, clock=clock)
    for name, timings in timed.items():
        yield per_second(f"chain: {name}", timings, count=frames)
    alone = {name: timed[f"{name} alone"] for name in ("decode", "track", "generate", "encode")}

    rendering = {name: alone[name] for name in ("decode", "generate", "encode")}
    shipped = THREADS if devices.prefetch_beside(device) else SERIAL  # how they run here
    goal = 0.95 if device.type == "cuda" else 0.9
    yield from _chain_ratios("rendering", shipped, timed, rendering, frames, over_slowest=goal)
    chain = "tracking and rendering"
    yield from _chain_ratios(chain, shipped, timed, alone, frames, over_bound=goal)


def _chain_ratios(
    chain: str,
    how: str,
    timed: dict[str, Timings],
    alone: dict[str, Timings],
    frames: int,
    *,
    over_slowest: float | None = None,
    over_bound: float | None = None,
) -> Iterator[Row]:
    slowest = max(alone.values(), key=lambda t: t.seconds)
    whole, serial = timed[f"{chain}, {how}"], timed[f"{chain}, {SERIAL}"]
    used = f"{chain}, {how} as shipped"
    yield speed_up(f"{used}: over its slowest stage alone", slowest, whole, goal=over_slowest)
    # What no schedule can beat: every core busy with the stages' own work, or the slowest stage.
    work = sum(t.cpu_seconds for t in alone.values()) / frames
    bound = min(cores() / work, frames / slowest.seconds)
    yield Row(name=f"{chain}: bound by the cores and the slowest stage", value=bound, unit="fps")
    share = frames / whole.seconds / bound
    yield Row(name=f"{used}: over that bound", value=share, unit="x", goal=over_bound)
    threads = timed[f"{chain}, {THREADS}"]
    never_below = 1.0 if how == THREADS else None
    yield speed_up(f"{chain}: threads over serial", serial, threads, goal=never_below)


def _chain_jobs(
    path: Path, seen: Study, output: Path, device: torch.device
) -> dict[str, Callable[[], object]]:
    footage = seen.footage
    generator = seen.generator()
    torch.manual_seed(0)
    weights = generator.objective(footage.window_spec).generator.state_dict()
    generator.load_weights({name: value.to(device) for name, value in weights.items()})
    extractor: Any = registry.load("extractor", seen.recipe.extractor)
    decoded = list(video.read_chunks(path))
    size = (footage.spec.height, footage.spec.width)
    made: list[Chunk] = []

    def line() -> list[stream.Stage]:
        return stages.rendering(
            footage.signal,
            generator,
            footage.window_spec,
            footage.window,
            footage.plate,
            footage.gallery,
            device=device,
        )

    def write(chunks: Iterator[Chunk]) -> None:
        video.write_video(output, chunks, fps=FPS, overwrite=True, device=device)

    def read() -> Iterator[Chunk]:
        return video.read_chunks(path, size=size)

    def track() -> stream.Stage:
        return stages.extracting(extractor())

    stream.run(stages.timeline(footage.pts), line(), made.extend, prefetch=0)
    jobs: dict[str, Callable[[], object]] = {
        "decode alone": lambda: _drain(read()),
        "track alone": lambda: stream.run(decoded, [track()], prefetch=0),
        "generate alone": lambda: stream.run(stages.timeline(footage.pts), line(), prefetch=0),
        "encode alone": lambda: write(iter(made)),
    }
    for chain, first in (("rendering", list), ("tracking and rendering", lambda: [track()])):
        for how, ahead in ((SERIAL, 0), (THREADS, 2)):
            jobs[f"{chain}, {how}"] = lambda first=first, ahead=ahead: stream.run(
                read(), [*first(), *line()], write, prefetch=ahead
            )
    return jobs


# Memory


def _memory_rows(path: Path, folder: Path, settings: Settings) -> Iterator[Row]:
    peaks = {}
    for seconds in (settings.short_seconds, settings.long_seconds):
        long = repeated(path, folder / f"{seconds}.mp4", round(seconds * FPS))
        peaks[seconds] = peak_in_child(_copy_film, long, folder / "copy.mp4")
        name = f"memory: decode and encode {seconds} s of {settings.width}x{settings.height}"
        yield Row(name=name, value=peaks[seconds] / 1e6, unit="MB")
    short, long = settings.short_seconds, settings.long_seconds
    yield Row(
        name=f"memory: {long} s over {short} s",
        value=peaks[long] / peaks[short],
        unit="x",
        goal=1.05,
        at_most=True,
    )


def _copy_film(source: Path, output: Path) -> None:
    """What the process runs whose memory is measured."""

    def write(chunks: Iterator[Chunk]) -> None:
        video.write_video(output, chunks, fps=FPS, preset="ultrafast", overwrite=True)

    stream.run(video.read_chunks(source), [], write)


def repeated(source: Path, output: Path, num_frames: int) -> Path:
    """The film over and over until it has so many frames; its packets are copied."""
    with av.open(str(source)) as first, av.open(str(output), "w") as container:
        stored = first.streams.video[0]
        out = container.add_stream_from_template(stored)
        packets = [p for p in first.demux(stored) if p.dts is not None]
        assert stored.time_base is not None
        span = round(len(packets) / FPS / stored.time_base)
        stamps = [(p.pts, p.dts) for p in packets]
        for turn in range(-(-num_frames // len(packets))):
            # Whole films only: to cut one would leave pictures without those they refer to.
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.stream = out
                packet.time_base = stored.time_base
                packet.pts, packet.dts = pts + turn * span, dts + turn * span  # pyright: ignore
                container.mux(packet)
    return output
