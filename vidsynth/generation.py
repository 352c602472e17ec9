"""Making clips that no video drives: of a class, from noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidsynth import __version__, devices, drawing, options, stages, stream, video
from vidsynth.classes import ClassLabel, Noise
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, BadSubject
from vidsynth.files import check_free, writing
from vidsynth.kinds import Generator
from vidsynth.outputs import settings_file
from vidsynth.provenance import about, as_metadata, sign_and_tell
from vidsynth.report import Reporter
from vidsynth.stream import Chunk, Stage
from vidsynth.subject import Subject, load_subject, write_picture

# T frames, C channels, H, W pixels

LEAST_TRUNCATION = 0.01
"""Below this nearly every number would be drawn again."""
SHEET_ROWS, SHEET_COLUMNS = 8, 8
SHEET_PX = 64
"""Frames of a sheet are enlarged to at least this height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One clip that is asked for."""

    name: str
    """Of the class."""
    num_frames: int
    seed: int
    to_name: str | None = None
    """A class that it changes into on its way."""
    to_seed: int | None = None
    """Whose noise it arrives at."""
    truncation: float | None = None

    def signals(self, generator: Generator, names: Sequence[str]) -> list[Conditioning]:
        """What the generator is told, frame by frame. Raises UnknownName, BadOption."""
        label = ClassLabel.of(self.name, names, self.num_frames)
        if self.to_name is not None:
            label = label.towards(ClassLabel.of(self.to_name, names, self.num_frames))
        noise = self._noise(generator, self.seed)
        if noise is None:
            return [label]
        if self.to_seed is not None:
            end = self._noise(generator, self.to_seed)
            assert end is not None
            noise = noise.towards(end)
        return [label, noise]

    def _noise(self, generator: Generator, seed: int) -> Noise | None:
        rng = torch.Generator().manual_seed(seed)
        noise = generator.noise(self.num_frames, rng=rng, truncation=self.truncation)
        if noise is None and (self.truncation is not None or self.to_seed is not None):
            raise BadOption(
                f"{type(generator).__name__} takes no noise that could be truncated or mixed; "
                "leave --truncation and --to-seed out"
            )
        return noise


def generate(
    subject: Subject | str | Path,
    output: str | Path | None = None,
    *,
    class_name: str | None = None,
    to_class: str | None = None,
    to_seed: int | None = None,
    frames: int | None = None,
    truncation: float | None = None,
    sheet: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Make a clip of a class with a model of clips, and write the video.

    Args:
        subject: folder of the model.
        output: the video to write; None where only a sheet is wanted.
        class_name: what to show; may be left out of a model of one class.
        to_class: a class that the clip changes into on its way.
        to_seed: a seed whose noise the clip arrives at.
        frames: length; by default that of the clips which the model has learnt.
        truncation: noise further from 0 than this is drawn again: the lower, the more usual, and
            the more alike, are the clips.
        sheet: a PNG to write: moments of clips of the class, seed by seed, or without a class of
            every class.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: of the noise.
        codec: "h264" or another that the container takes.
        overwrite: replace outputs that exist.
        provenance, certificate: as in `transfer`.
        reporter: told of progress.

    Returns:
        What was written.

    Raises:
        BadSubject: the folder holds no model of clips.
        UnknownName: a class that it has not learnt.
        BadOption: nothing to write, or options that cannot be used.
    """
    reporter = reporter or Reporter()
    film, picture = (None if path is None else Path(path) for path in (output, sheet))
    _check(film, picture, codec, overwrite, truncation, frames)
    model = subject if isinstance(subject, Subject) else load_subject(subject)
    names = classes_of(model)
    num_frames = frames or int(model.card.generator.options.get("num_frames", 24))
    where = devices.choose(device)

    def wish(name: str, seed: int) -> Wish:
        return Wish(
            name=name,
            num_frames=num_frames,
            seed=seed,
            to_name=to_class,
            to_seed=to_seed,
            truncation=truncation,
        )

    asked = wish(_one_of(names, class_name), seed) if film is not None else None
    of_sheet = [(name, seed) for name in names]
    if class_name is not None:
        of_sheet = [(class_name, seed + n) for n in range(SHEET_ROWS)]
    wishes = [wish(*row) for row in of_sheet] if picture is not None else []
    generator = model.generator(where)
    told = {w: w.signals(generator, names) for w in [asked, *wishes] if w is not None}
    spec = model.card.spec
    if picture is not None:
        clips = [make_clip(generator, told[w], spec, seed=w.seed, device=where) for w in wishes]
        write_picture(picture, contact_sheet(clips))
        reporter.say(f"wrote {picture}: {len(clips)} clips")
    if film is not None and asked is not None:
        said = about(model.card, None) if provenance else None
        with reporter.step("generating", total=num_frames) as step:
            stream.run(
                _timeline(num_frames, spec),
                _making(generator, told[asked], spec, seed=seed, device=where),
                lambda chunks: video.write_video(
                    film,
                    chunks,
                    fps=spec.fps,
                    codec=codec,
                    overwrite=overwrite,
                    device=where,
                    metadata=said and as_metadata(said),
                ),
                prefetch=devices.prefetch_beside(where),
                progress=step.update,
            )
        sign_and_tell(film, said, certificate, reporter)
        with writing(settings_file(film)) as temporary:
            temporary.write_text(_resolved(model, asked))
        reporter.say(f"wrote {film}: {num_frames} frames of {asked.name}")
    return [path for path in (film, picture) if path is not None]


def classes_of(model: Subject) -> tuple[str, ...]:
    """What a model of clips can show. Raises BadSubject for a subject that a video drives."""
    if not model.card.classes:
        raise BadSubject(
            f"{model.folder} is driven by a video and makes nothing without one; use vidsynth "
            f"render {model.folder} SOURCE"
        )
    return model.card.classes


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
        _timeline(len(signals[0]), spec),
        _making(generator, signals, spec, seed=seed, device=device),
        lambda chunks: made.extend(stages.clips_of(chunks)),
        prefetch=0,
    )
    return Clip.concat(made).frames


def contact_sheet(clips: Sequence[Tensor]) -> Tensor:
    """(3, H', W') uint8: a row for each clip (T, 3, H, W), with moments spread over it."""
    rows = []
    for frames in clips:
        index = torch.linspace(0, len(frames) - 1, min(SHEET_COLUMNS, len(frames))).round().long()
        rows.append(torch.cat(list(frames[index]), dim=2))
    times = -(-SHEET_PX // clips[0].shape[2])
    sheet = torch.cat(rows, dim=1)
    return drawing.nearest(sheet, sheet.shape[1] * times, sheet.shape[2] * times)


def _timeline(num_frames: int, spec: VideoSpec) -> Iterator[Chunk]:
    return stages.timeline(torch.arange(num_frames, dtype=torch.float64) / float(spec.fps))


def _making(
    generator: Generator,
    signals: Sequence[Conditioning],
    spec: VideoSpec,
    *,
    seed: int,
    device: torch.device,
) -> list[Stage]:
    line = [stages.conditioning_on(signal) for signal in signals]
    return [*line, stages.generating(generator, spec, seed=seed, device=device)]


def _check(
    film: Path | None,
    picture: Path | None,
    codec: str,
    overwrite: bool,
    truncation: float | None,
    frames: int | None,
) -> None:
    """What can be wrong with the outputs and the numbers, before any work."""
    if film is None and picture is None:
        raise BadOption("nothing to write: name a video with -o, or a picture with --sheet")
    if film is not None:
        video.check_codec(codec)
        video.check_output(film, overwrite)
        check_free(settings_file(film), overwrite)
    if picture is not None:
        check_free(picture, overwrite)
    if truncation is not None and truncation < LEAST_TRUNCATION:
        raise BadOption(f"truncation must be at least {LEAST_TRUNCATION}; got {truncation:g}")
    if frames is not None and frames < 1:
        raise BadOption(f"a clip has at least 1 frame; got {frames}")


def _one_of(names: Sequence[str], name: str | None) -> str:
    if name is not None:
        return name
    if len(names) > 1:
        raise BadOption(f"say what to show with --class; there are: {', '.join(names)}")
    return names[0]


def _resolved(model: Subject, wish: Wish) -> str:
    """The settings that made a clip, as TOML."""
    card = model.card
    facts = {
        "vidsynth": __version__,
        "recipe": card.recipe,
        "steps": card.steps,
        "size": [card.width, card.height],
        "clip": options.to_dict(wish),
        "generator": options.to_dict(card.generator),
        "training": dict(card.settings.get("training", {})),
    }
    return options.to_toml(facts)
