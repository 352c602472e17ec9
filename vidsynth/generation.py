"""Making clips that no video drives: of a class, from noise, or from words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from vidsynth import devices, options, prompting
from vidsynth.choosing import Settings, nested
from vidsynth.classes import ClassLabel, Noise
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, BadSubject
from vidsynth.kinds import Generator
from vidsynth.making import Outputs, contact_sheet, make_clip, making, write_film, write_sheet
from vidsynth.provenance import about
from vidsynth.report import Reporter
from vidsynth.subject import Subject, load_subject

__all__ = ["Wish", "classes_of", "contact_sheet", "generate", "make_clip"]

LEAST_TRUNCATION = 0.01
"""Below this nearly every number would be drawn again."""
SHEET_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One clip of a class that is asked for."""

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
    subject: Subject | str | Path | None = None,
    output: str | Path | None = None,
    *,
    prompt: str | None = None,
    schedule: str | Path | None = None,
    model: str | None = None,
    negative: str | None = None,
    denoising: int | None = None,
    guidance: float | None = None,
    image: str | Path | None = None,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    candidates: int = 1,
    class_name: str | None = None,
    to_class: str | None = None,
    to_seed: int | None = None,
    truncation: float | None = None,
    frames: int | None = None,
    sheet: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    settings: Settings = (),
    reporter: Reporter | None = None,
) -> list[Path]:
    """Make a clip of a class, or one that words describe, and write the video.

    Args:
        subject: folder of a model that was trained here; None for the small one that comes with
            vidsynth, or for `model`.
        output: the video to write; None where only a sheet is wanted.
        prompt: what to show, in words.
        schedule: a TOML file of prompts and the times from which they hold, instead.
        model: a pretrained text-to-video model, a folder or OWNER/NAME, for the plugin text2video.
        negative: what not to show, in words.
        denoising: steps of a diffusion.
        guidance: how much the prompt counts.
        image: a picture that the film starts from, where the model takes one.
        size: width and height in pixels; by default the model's.
        fps: by default the model's.
        candidates: make so many and keep the one that shows the prompt best.
        class_name: what to show, of a model of classes; may be left out where there is one.
        to_class: a class that the clip changes into on its way.
        to_seed: a seed whose noise the clip arrives at.
        truncation: noise further from 0 than this is drawn again: the lower, the more usual, and
            the more alike, are the clips.
        frames: length; by default that of the clips which the model has learnt.
        sheet: a PNG to write: moments of clips of the class or prompt, seed by seed, or without
            either of every class.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        seed: of the noise.
        codec: "h264" or another that the container takes.
        overwrite: replace outputs that exist.
        provenance, certificate: as in `transfer`.
        settings: further options of the generator, like "generator.overlap=0.25".
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
    outputs = Outputs(
        film=film,
        sheet=picture,
        codec=codec,
        overwrite=overwrite,
        provenance=provenance,
        certificate=certificate,
    )
    outputs.check()
    if frames is not None and frames < 1:
        raise BadOption(f"a clip has at least 1 frame; got {frames}")
    if subject is not None and model is not None:
        raise BadOption("--subject and --model name two models; give one")
    opened = None if subject is None else _opened(subject)
    where = devices.choose(device)
    of_words = {
        "--schedule": schedule,
        "--negative": negative,
        "--steps": denoising,
        "--guidance": guidance,
        "--image": image,
        "--size": size,
        "--fps": fps,
    }
    of_classes = {
        "--class": class_name,
        "--to-class": to_class,
        "--to-seed": to_seed,
        "--truncation": truncation,
    }
    if opened is not None and not opened.takes_prompts:
        if prompt is not None:
            raise BadOption(
                f"{opened.folder} was trained on classes and knows no words; name one with "
                "--class, or leave --subject out"
            )
        _refuse(of_words, "a model of classes")
        if candidates != 1:
            raise BadOption("--candidates is for prompts; leave it out of a model of classes")
        asked = _Classes(class_name, to_class, to_seed, truncation, frames, seed)
        return _of_classes(opened, asked, outputs, where, reporter)
    _refuse(of_classes, "a prompt")
    changes = {"negative": negative, "steps": denoising, "guidance": guidance, "image": image}
    return prompting.generate(
        prompting.Asked(
            text=prompt,
            schedule=None if schedule is None else Path(schedule),
            changes=changes,
            settings=nested(settings),
            size=size,
            fps=None if fps is None else Fraction(fps).limit_denominator(1001),
            frames=frames,
            seed=seed,
            candidates=candidates,
        ),
        prompting.opened(opened, model, device),
        outputs,
        device=where,
        reporter=reporter,
    )


def _opened(subject: Subject | str | Path) -> Subject:
    model = subject if isinstance(subject, Subject) else load_subject(subject)
    if not model.takes_prompts:
        classes_of(model)
    return model


def _refuse(given: Mapping[str, Any], what: str) -> None:
    """Raise BadOption where one of the options is given, which `what` has no use for."""
    for name, value in given.items():
        if value is not None:
            raise BadOption(f"{name} means nothing to {what}; leave it out")


def classes_of(model: Subject) -> tuple[str, ...]:
    """What a model of clips can show. Raises BadSubject for a subject that a video drives."""
    if model.takes_prompts:
        raise BadSubject(
            f"{model.folder} is a model of captioned clips and has no classes; say what to show: "
            f'vidsynth generate --subject {model.folder} "A PROMPT"'
        )
    if not model.card.classes:
        raise BadSubject(
            f"{model.folder} is driven by a video and makes nothing without one; use vidsynth "
            f"render {model.folder} SOURCE"
        )
    return model.card.classes


# Classes


@dataclass(frozen=True, slots=True)
class _Classes:
    """What is asked of a model of classes, as of `generate`."""

    name: str | None
    to_name: str | None
    to_seed: int | None
    truncation: float | None
    frames: int | None
    seed: int


def _of_classes(
    model: Subject, asked: _Classes, outputs: Outputs, device: torch.device, reporter: Reporter
) -> list[Path]:
    if asked.truncation is not None and asked.truncation < LEAST_TRUNCATION:
        raise BadOption(f"truncation must be at least {LEAST_TRUNCATION}; got {asked.truncation:g}")
    names, spec = classes_of(model), model.card.spec
    num_frames = asked.frames or int(model.card.generator.options.get("num_frames", 24))

    def wish(name: str, seed: int) -> Wish:
        return Wish(
            name=name,
            num_frames=num_frames,
            seed=seed,
            to_name=asked.to_name,
            to_seed=asked.to_seed,
            truncation=asked.truncation,
        )

    of_film = None if outputs.film is None else wish(_one_of(names, asked.name), asked.seed)
    of_sheet = [(name, asked.seed) for name in names]
    if asked.name is not None:
        of_sheet = [(asked.name, asked.seed + n) for n in range(SHEET_ROWS)]
    wishes = [] if outputs.sheet is None else [wish(*row) for row in of_sheet]
    generator = model.generator(device)
    told = {w: w.signals(generator, names) for w in [of_film, *wishes] if w is not None}
    if outputs.sheet is not None:
        clips = [make_clip(generator, told[w], spec, seed=w.seed, device=device) for w in wishes]
        write_sheet(outputs.sheet, clips, reporter)
    if of_film is not None:
        write_film(
            outputs,
            making(generator, told[of_film], spec, seed=of_film.seed, device=device),
            num_frames,
            spec.fps,
            device=device,
            said=about(model.card, None) if outputs.provenance else {},
            settings=prompting.of_card(model.card) | {"clip": options.to_dict(of_film)},
            told=of_film.name,
            reporter=reporter,
            generator=generator,
        )
    return outputs.written()


def _one_of(names: Sequence[str], name: str | None) -> str:
    if name is not None:
        return name
    if len(names) > 1:
        raise BadOption(f"say what to show with --class; there are: {', '.join(names)}")
    return names[0]
