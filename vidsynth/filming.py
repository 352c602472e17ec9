"""From a motion that fits a subject to the finished file: painted, kept on the way, signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices, stages, stream, video
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.exemplars import Gallery
from vidsynth.kept import KeptFrames, kept_frames
from vidsynth.kinds import Generator
from vidsynth.provenance import as_metadata, sign_and_tell
from vidsynth.report import Reporter
from vidsynth.steady import STEADINESS, rest_seconds
from vidsynth.stream import Chunk, Stage, StageReport
from vidsynth.subject import WEIGHTS, Subject

# T frames, H, W pixels


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """A subject with everything open that painting it takes."""

    subject: Subject
    device: torch.device
    generator: Generator
    plate: Tensor | None
    gallery: Gallery | None

    @staticmethod
    def of(subject: Subject, device: torch.device) -> Studio:
        """Raises BadSubject, PluginError: before any work is what is wrong best said."""
        return Studio(
            subject, device, subject.generator(device), subject.plate(), subject.gallery()
        )

    def painting(
        self,
        motion: Conditioning,
        *,
        seed: int = 0,
        steadiness: float = STEADINESS,
        kept: KeptFrames | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> list[Stage]:
        """The stages that paint the subject in this motion: in its own proportions, in pixels of
        its output frame."""
        card = self.subject.card
        return stages.rendering(
            motion,
            self.generator,
            card.window_spec,
            card.window,
            self.plate,
            self.gallery,
            device=self.device,
            seed=seed,
            steadiness=steadiness,
            kept=kept,
            warn=warn,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """What the film is to be heard with."""

    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The file that is to be written, and how the frames are to be."""

    output: Path
    seed: int
    steadiness: float
    codec: str
    overwrite: bool
    told: Mapping[str, Any] | None
    """What it says of itself (`provenance.facts`); None for a file that is to say nothing."""
    certificate: str | Path | None = None
    sound: Sound | None = None
    start: float = 0.0
    """Seconds on the clock of what drives it, at which the file begins."""


def film(
    studio: Studio,
    motion: Conditioning,
    pts: Tensor,
    wanted: Wanted,
    *,
    follows_from: Any,
    beside: Iterator[Clip] | None = None,
    reporter: Reporter,
) -> list[StageReport]:
    """Write the subject in this motion, streaming; what broke off before is gone on with.

    Args:
        studio: who is painted.
        motion: T frames, in the subject's own proportions, in pixels of its output frame.
        pts: (T,) seconds.
        wanted: the file.
        follows_from: JSON-able: whatever the motion follows from, beside the subject.
        beside: pictures to show at the left.
        reporter: told of progress, and of what the file lacks.

    Raises:
        VidsynthError: see vidsynth.errors; what was made is kept.
    """
    card, device = studio.subject.card, studio.device
    seed, steadiness = wanted.seed, wanted.steadiness
    written: list[video.WrittenVideo] = []

    def write(chunks: Iterator[Chunk]) -> None:
        sound = wanted.sound
        written.append(
            video.write_video(
                wanted.output,
                chunks,
                fps=stages.average_rate(pts),
                start=wanted.start,
                audio=sound and sound.path,
                audio_start=sound.start if sound else 0.0,
                audio_end=sound and sound.end,
                codec=wanted.codec,
                overwrite=wanted.overwrite,
                device=device,
                metadata=wanted.told and as_metadata(wanted.told),
            )
        )

    with kept_frames(
        video.content_hash(studio.subject.folder / WEIGHTS),
        asdict(card),
        follows_from,
        [steadiness, seed, str(device), stages.CHUNK],
    ) as kept:
        steadied = motion.steadied(pts, rest_seconds(steadiness))
        line = studio.painting(
            steadied, seed=seed, steadiness=steadiness, kept=kept, warn=reporter.warn
        )
        if kept and kept.num_frames:
            reporter.say(f"{kept.num_frames} frames are made already; going on behind them")
        if beside is not None:
            line.append(stages.beside(beside, height=card.height))
        with reporter.step("rendering", total=len(pts), unit="frames") as step:
            reports = stream.run(
                stages.timeline(pts),
                line,
                write,
                prefetch=devices.prefetch_beside(device),
                progress=step.update,
            )
    sign_and_tell(wanted.output, wanted.told, wanted.certificate, reporter)
    for note in written[0].notes:
        reporter.say(note)
    reporter.say(f"wrote {wanted.output}: {len(pts)} frames")
    return reports
