"""What an extractor sees in a whole video: computed once, and kept by the video's content.

A tracking that broke off goes on behind what its extractor has noted (`Extractor.notes`): the
frames are decoded again, and nothing that takes long is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidsynth import options, stream, video
from vidsynth.conditioning import Conditioning, FaceSequence
from vidsynth.errors import NoSubjectFound, VidsynthError
from vidsynth.files import cache_folder, cache_key, writing
from vidsynth.kept import forget, unfinished
from vidsynth.kinds import Extractor
from vidsynth.notes import Notes
from vidsynth.report import Reporter
from vidsynth.stages import extracting
from vidsynth.stream import Chunk
from vidsynth.subject import PluginRef, build_extractor

# N frames of the video

NOTES = "tracking notes"
"""Folder of the cache."""
TRACKING_PX = 720
"""Trackers get frames whose shorter side is at most this; they scale down to 256 themselves."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Tracked:
    """What an extractor saw in a whole video."""

    path: Path
    signal: Conditioning
    """N frames, in pixels of the tracking size."""
    pts: Tensor
    """(N,) float64 seconds."""

    def require_subject(self, *, at_least: int = 1, person: int | None = None) -> None:
        """Raises NoSubjectFound when the subject is in fewer than `at_least` frames.

        `person` is the number that was asked for, for the message.
        """
        usable = int(self.signal.present().sum())
        if usable >= at_least:
            return
        if self.signal.kind == "labels":
            raise NoSubjectFound(
                f"{self.path}: {usable} of its {len(self.pts)} frames show more than background, "
                f"and at least {at_least} are needed; use a longer or another sequence"
            )
        thing = {"pose": "person"}.get(self.signal.kind, "subject")
        if isinstance(self.signal, FaceSequence):
            thing = "face"
        if not usable and (person or 1) > 1:
            raise NoSubjectFound(
                f"{self.path}: no {thing} number {person} was found in it; give a lower --person "
                "(for another number in each video, use vidsynth train and vidsynth render)"
            )
        if not usable:
            raise NoSubjectFound(
                f"{self.path}: no {thing} was found in any of its {len(self.pts)} frames; use a "
                f"video in which one {thing} is well lit and large enough (vidsynth extract "
                "--preview shows what the tracker sees)"
            )
        raise NoSubjectFound(
            f"{self.path}: a {thing} was found in {usable} of {len(self.pts)} frames and at least "
            f"{at_least} are needed; use a longer video"
        )


def track(
    path: Path,
    extractor: Extractor,
    *,
    identity: Mapping[str, Any],
    start: float | None = None,
    end: float | None = None,
    fps: Fraction | None = None,
    reporter: Reporter | None = None,
) -> Tracked:
    """Run an extractor over a video, or read what it gave before for the same content.

    Args:
        path: the video.
        extractor: the plugin, built.
        identity: whatever names this extractor and its options, JSON-able: part of the cache key.
        start, end: seconds; the part of the video to look at.
        fps: of a folder of pictures.

    Raises:
        UnsupportedVideo: the file cannot be read.
    """
    info = video.probe(path, fps=fps)
    rate = {"fps": str(info.spec.fps)} if path.is_dir() else {}
    key = cache_key(video.content_hash(path), {**identity, **rate}, start, end, TRACKING_PX)
    stored = cache_folder("tracking") / f"{key}.safetensors"
    if stored.exists():
        try:
            with safe_open(stored, "pt") as file:
                pts = torch.tensor(json.loads(file.metadata()["pts"]), dtype=torch.float64)
            signal = extractor.produces.load(stored)
            if len(signal) == len(pts):
                forget(NOTES, key)
                return Tracked(path=path, signal=signal, pts=pts)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, VidsynthError):
            pass
        stored.unlink(missing_ok=True)  # damaged: the cache is made again, never believed

    shorter = min(info.spec.height, info.spec.width)
    scale = min(1.0, TRACKING_PX / shorter)
    size = (round(info.spec.height * scale), round(info.spec.width * scale))
    kept: list[Chunk] = []

    def collect(chunks: Iterator[Chunk]) -> None:
        kept.extend(chunk.with_clip(None) for chunk in chunks)

    reporter, warnings = reporter or Reporter(), list(info.notes)
    with unfinished(NOTES, key) as folder:
        extractor.notes = Notes(folder)
        if extractor.notes.begun:
            reporter.say(f"tracking {path.name}: going on with what was noted before")
        with reporter.step(f"tracking {path.name}", total=wanted_frames(info, start, end)) as step:
            chunks = video.read_chunks(
                path, size=size, start=start, end=end, fps=fps, note=warnings.append
            )
            stream.run(chunks, [extracting(extractor)], collect, progress=step.update)
        extractor.notes = Notes()
        for warning in warnings:
            reporter.warn(warning)
        signal = extractor.produces.concat([chunk.require(extractor.produces) for chunk in kept])
        pts = torch.cat([chunk.pts for chunk in kept])
        with writing(stored) as temporary:
            signal.save(temporary, pts=json.dumps(pts.tolist()))
    return Tracked(path=path, signal=signal, pts=pts)


def track_as(
    path: Path,
    ref: PluginRef,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: Fraction | None = None,
    reporter: Reporter | None = None,
) -> Tracked:
    """`track` with the extractor that a reference names.

    Raises NoSubjectFound when the subject is in no frame; PluginError; else as `track`.
    """
    tracked = track(
        path,
        build_extractor(ref),
        identity=options.to_dict(ref),
        start=start,
        end=end,
        fps=fps,
        reporter=reporter,
    )
    tracked.require_subject(person=ref.options.get("person"))
    return tracked


def wanted_frames(info: video.VideoInfo, start: float | None, end: float | None) -> int | None:
    """How many frames lie between `start` and `end`, about."""
    if info.num_frames is None or not info.seconds:
        return info.num_frames
    span = min(end or info.seconds, info.seconds) - (start or 0.0)
    return round(info.num_frames * max(0.0, span) / info.seconds)
