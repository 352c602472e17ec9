"""A subject driven by what its own target did in the frames that were never trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from vidsynth import devices, options, retarget, stages, stream, video
from vidsynth.dataset import split
from vidsynth.errors import BadOption, BadSubject
from vidsynth.evaluation.films import Recording, recording
from vidsynth.filming import Studio
from vidsynth.given import target_with_maps
from vidsynth.kinds import Given
from vidsynth.report import Reporter
from vidsynth.stream import Chunk, Stage
from vidsynth.subject import load_subject
from vidsynth.tracking import track

# T frames


def rendered_tail(
    subject: Path,
    target: Path,
    folder: Path,
    *,
    given: Given | None,
    device: str,
    reporter: Reporter,
) -> tuple[Recording, Recording, Tensor]:
    """Render a subject's held-out frames, encoded as every render is.

    Args:
        subject: the subject's folder.
        target: the video that it was trained on.
        folder: where the rendered film goes.
        given: the label maps that it was trained on, if it was.
        device: where to compute.
        reporter: told of progress.

    Returns:
        The rendered film, the target as the subject shows it, and which frames of the target the
        rendered ones are: (T,) int64, rising.

    Raises:
        BadSubject: `target` is another video, or the folder is damaged.
        BadOption: the subject was trained on label maps, and none were given; or the reverse.
    """
    loaded = load_subject(subject)
    card = loaded.card
    if card.target_hash != video.content_hash(target):
        raise BadSubject(
            f"{subject} was trained on {card.target or 'no video'}, and {target} is another video "
            "(or was changed since): name the one that it was trained on"
        )
    where = devices.choose(device)
    # Opened first: what is wrong with the subject is said before any work.
    studio = Studio.of(loaded, where)
    extractor, identity = loaded.extractor(), options.to_dict(card.extractor)
    rate = Fraction(card.fps) if target.is_dir() else None
    if extractor.reads_files and given is None:
        raise BadOption(
            f"{subject} was trained on label maps: name the same ones with --labels (and "
            "--instances)"
        )
    if given is not None:
        size = card.settings["size"]
        tracked = target_with_maps(target, given, extractor, size=size, fps=rate, reporter=reporter)
        # As a source's maps would be: of the subject's sort.
        retarget.retarget(tracked.signal, card.summary)
    else:
        tracked = track(target, extractor, identity=identity, fps=rate, reporter=reporter)
    tracked.require_subject(person=card.extractor.options.get("person"))
    _, held_out = split(tracked.signal.present(), tracked.pts)
    index = torch.arange(held_out.start, held_out.stop)

    height, width = tracked.signal.size
    crop = card.crop or (0, 0, width, height)
    motion = tracked.signal.crop(crop).rescale(card.height, card.width)[index]
    path = folder / f"{subject.resolve().name}.mp4"
    _write(path, studio.painting(motion), tracked.pts[index], where, reporter)
    info = video.probe(target).spec
    sy, sx = info.height / height, info.width / width
    x0, y0, x1, y1 = crop
    shown = (round(x0 * sx), round(y0 * sy), round(x1 * sx), round(y1 * sy))
    return (
        recording(path, reporter=reporter),
        recording(target, crop=shown, reporter=reporter),
        index,
    )


def _write(
    path: Path, line: Sequence[Stage], pts: Tensor, device: torch.device, reporter: Reporter
) -> None:
    def write(chunks: Iterator[Chunk]) -> None:
        video.write_video(path, chunks, fps=stages.average_rate(pts), device=device)

    with reporter.step("rendering the held-out tail", total=len(pts)) as step:
        ahead = devices.prefetch_beside(device)
        stream.run(stages.timeline(pts), line, write, prefetch=ahead, progress=step.update)
