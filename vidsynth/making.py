"""Films without a driving video, from signals to a file: made, shown, written with what is said of
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import __version__, devices, drawing, options, stages, stream, video
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption
from vidsynth.files import check_free, writing
from vidsynth.kinds import Generator
from vidsynth.outputs import settings_file
from vidsynth.provenance import as_metadata, sign_and_tell
from vidsynth.report import Reporter
from vidsynth.stream import Chunk, Stage
from vidsynth.subject import write_picture

# T frames, C channels, H, W pixels

SHEET_COLUMNS = 8
SHEET_PX = 64
"""Frames of a sheet are enlarged to at least this height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is to be written, and how."""

    film: Path | None = None
    sheet: Path | None = None
    codec: str = "h264"
    overwrite: bool = False
    provenance: bool = True
    certificate: str | Path | None = None

    def check(self) -> None:
        """Refuse now what could not be written after the work.

        Raises BadOption, OutputExists, CannotWrite.
        """
        if self.film is None and self.sheet is None:
            raise BadOption("nothing to write: name a video with -o, or a picture with --sheet")
        if self.film is not None:
            video.check_codec(self.codec)
            video.check_output(self.film, self.overwrite)
            check_free(settings_file(self.film), self.overwrite)
        if self.sheet is not None:
            check_free(self.sheet, self.overwrite)

    def written(self) -> list[Path]:
        """The files, in order."""
        return [path for path in (self.film, self.sheet) if path is not None]


def timeline(num_frames: int, fps: Fraction) -> Iterator[Chunk]:
    """Empty chunks of a film that begins at 0."""
    return stages.timeline(torch.arange(num_frames, dtype=torch.float64) / float(fps))


def making(
    generator: Generator,
    signals: Sequence[Conditioning],
    spec: VideoSpec,
    *,
    seed: int,
    device: torch.device,
) -> list[Stage]:
    """The stages that turn signals into frames."""
    line = [stages.conditioning_on(signal) for signal in signals]
    return [*line, stages.generating(generator, spec, seed=seed, device=device)]


def make_clip(
    generator: Generator,
    signals: Sequence[Conditioning],
    spec: VideoSpec,
    *,
    seed: int,
    device: torch.device,
) -> Tensor:
    """(T, 3, H, W) uint8: one clip, as long as the signals, which T frames each."""
    made: list[Clip] = []
    stream.run(
        timeline(len(signals[0]), spec.fps),
        making(generator, signals, spec, seed=seed, device=device),
        lambda chunks: made.extend(stages.clips_of(chunks)),
        prefetch=0,
    )
    return Clip.concat(made).frames


def showing(frames: Tensor) -> Stage:
    """Fills in frames (T, 3, H, W) uint8 that are made already."""

    def stage(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        start = 0
        for chunk in chunks:
            yield chunk.with_clip(Clip(frames[start : start + len(chunk)], chunk.pts))
            start += len(chunk)

    return stages.named("show", stage)


def write_film(
    outputs: Outputs,
    line: Sequence[Stage],
    num_frames: int,
    fps: Fraction,
    *,
    device: torch.device,
    said: Mapping[str, Any],
    settings: Mapping[str, Any],
    told: str,
    reporter: Reporter,
    generator: Generator | None = None,
) -> None:
    """Run the stages into the video file, with what is to be said of it inside and the settings
    that made it beside.

    Args:
        outputs: where to, and how; `film` must be there.
        line: stages that fill in `num_frames` frames.
        fps: of the film.
        device: where the stages compute.
        said: facts for the file (`provenance.facts`).
        settings: what made it, for the TOML beside it.
        told: "a cat", as in "wrote out.mp4: 24 frames of a cat".
        reporter: told of progress.
        generator: the one at work, which may tell of steps before its first frame.
    """
    film = outputs.film
    assert film is not None
    facts = dict(said) if outputs.provenance else None
    with reporter.step("generating", total=num_frames) as step:
        reached = 0.0

        def at_step(done: int, of: int) -> None:
            # Frames come when all steps are done: till then steps count for most of them.
            nonlocal reached
            reached = 0.95 * num_frames * done / of
            step.update(reached, step=f"{done}/{of}")

        if generator is not None:
            generator.watch(at_step)
        stream.run(
            timeline(num_frames, fps),
            list(line),
            lambda chunks: video.write_video(
                film,
                chunks,
                fps=fps,
                codec=outputs.codec,
                overwrite=outputs.overwrite,
                device=device,
                metadata=facts and as_metadata(facts),
            ),
            prefetch=devices.prefetch_beside(device),
            progress=lambda frames: step.update(max(frames, reached)),
        )
    sign_and_tell(film, facts, outputs.certificate, reporter)
    with writing(settings_file(film)) as temporary:
        temporary.write_text(options.to_toml({"vidsynth": __version__, **settings}))
    reporter.say(f"wrote {film}: {num_frames} frames of {told}")


def write_sheet(path: Path, clips: Sequence[Tensor], reporter: Reporter) -> None:
    """Write a PNG with moments of clips (T, 3, H, W), a row for each."""
    write_picture(path, contact_sheet(clips))
    reporter.say(f"wrote {path}: {len(clips)} clips")


def contact_sheet(clips: Sequence[Tensor]) -> Tensor:
    """(3, H', W') uint8: a row for each clip (T, 3, H, W), with moments spread over it."""
    rows = []
    for frames in clips:
        index = torch.linspace(0, len(frames) - 1, min(SHEET_COLUMNS, len(frames))).round().long()
        rows.append(torch.cat(list(frames[index]), dim=2))
    times = -(-SHEET_PX // clips[0].shape[2])
    sheet = torch.cat(rows, dim=1)
    return drawing.nearest(sheet, sheet.shape[1] * times, sheet.shape[2] * times)
