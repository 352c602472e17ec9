"""`vidsynth bench text`: does the model that comes with vidsynth show what it is told?

A network that learnt colours, shapes and motions from other clips of the world says what made clips
show, of combinations that the model has seen in training and of those held out. Then the default
command's time, whether a seed tells all, and how steady a long film is where its moments meet. No
CLIP is asked.

A model of one's own is judged by `--subject`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices, drawing, registry
from vidsynth.bench import Asked, Row
from vidsynth.bench.clip_judge import REAL_SEEDS, ClipNet, Subject, train_judge
from vidsynth.bench.likeness import film_of
from vidsynth.bench.material import workshop
from vidsynth.classes import Prompt
from vidsynth.errors import BadSubject
from vidsynth.kinds import Generator, Metric
from vidsynth.making import contact_sheet, make_clip
from vidsynth.prompting import embedded
from vidsynth.subject import Subject as Model
from vidsynth.subject import load_subject, write_picture
from vidsynth.worlds import shapes

# N clips, T frames, C channels, H, W pixels

PARTS = ("colour", "shape", "motion")
RIGHT, SECONDS, SEAM = 0.85, 60.0, 1.25
"""Goals: share of clips that show what was said; of the default command; error at seams over
elsewhere."""
DEFAULT = "a red circle moves left"
FLOW_PX = 128
"""Frames are enlarged to this before flow is looked for in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is made, and how the judge learns."""

    judge_steps: int = 1500
    judge_clips: int = 96
    """Of each class, that the judge learns from."""
    seen: int = 2
    """Clips of each combination that was seen in training."""
    held_out: int = 8
    """Clips of each that was not."""
    longer: int = 8
    """Times the training length: a long film."""
    films: int = 6
    command: bool = True
    """Time the command line."""


def bench(asked: Asked) -> Iterator[Row]:
    """What is shown, of what was seen and what was not; time; sameness; seams."""
    settings = Settings()
    if asked.full:
        settings = replace(settings, seen=8, held_out=32, films=24)
    model = embedded() if asked.subject is None else load_subject(asked.subject)
    yield from measured(model, settings, devices.choose(asked.device), asked.sheet)


def measured(
    model: Model, settings: Settings, device: torch.device, sheet: Path | None = None
) -> Iterator[Row]:
    """Every row of the bench. Raises BadSubject for a model of other clips."""
    names = shapes.class_names()
    unseen = shapes.held_out(names, int(model.card.settings.get("clips", {}).get("held_out", 0)))
    if model.card.target != "world:shapes":
        raise BadSubject(
            f"{model.folder} was not trained on world:shapes, which is all that this bench can "
            "judge; leave --subject out, or name another"
        )
    spec = model.card.spec
    judged = Subject(
        names=names,
        size=spec.height,
        num_frames=int(model.card.generator.options["num_frames"]),
        fps=float(spec.fps),
    )
    judge = train_judge(
        judged, steps=settings.judge_steps, per_class=settings.judge_clips, device=device
    )
    real = {name: judged.films(name, REAL_SEEDS, settings.seen) for name in names}
    yield from _right_rows("real clips", recognised(judge, real, names), has_goals=False)

    generator = model.generator(device)
    yield Row(name="steps of training", value=model.card.steps, unit="")
    yield Row(name="minutes of training", value=model.card.seconds / 60, unit="min")
    maker = _Maker(generator, model, device)
    began = perf_counter()
    seen = {n: maker.clips(n, settings.seen) for n in names if n not in unseen}
    took = perf_counter() - began
    yield from _right_rows("seen combinations", recognised(judge, seen, names), has_goals=True)
    if unseen:
        others = {n: maker.clips(n, settings.held_out) for n in unseen}
        found = recognised(judge, others, names)
        yield from _right_rows("held-out combinations", found, has_goals=True)
        if sheet is not None:
            shown = [clips[0] for clips in (*list(seen.values())[::10], *others.values())]
            write_picture(sheet, contact_sheet(shown))
    frames = sum(clips.shape[0] * clips.shape[1] for clips in seen.values())
    yield Row(name="a frame, one clip after the other", value=1000 * took / frames, unit="ms")
    if settings.command:
        yield _command_row()
    yield _sameness_row(maker)
    yield from _long_rows(maker, judge, judged, settings)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes clips at the model's own size."""

    generator: Generator
    model: Model
    device: torch.device

    def film(self, prompt: Prompt, seed: int) -> Tensor:
        """(T, 3, H, W) uint8"""
        spec = self.model.card.spec
        return make_clip(self.generator, [prompt], spec, seed=seed, device=self.device)

    def clips(self, name: str, count: int) -> Tensor:
        """(count, T, 3, H, W) uint8 of a class, by its usual caption."""
        length = int(self.model.card.generator.options["num_frames"])
        prompt = Prompt.of(shapes.captions(name)[0], length)
        return torch.stack([self.film(prompt, REAL_SEEDS + n) for n in range(count)])


def recognised(
    judge: ClipNet, clips: Mapping[str, Tensor], names: tuple[str, ...]
) -> dict[str, float]:
    """Shares of clips, (N, T, 3, H, W) uint8 by class, whose colour, shape, motion, and whose all
    are those of their class in the judge's eyes."""
    right = {part: 0 for part in (*PARTS, "all three")}
    total = 0
    for name, made in clips.items():
        with torch.no_grad():
            batch = made.to(judge.head.weight.device).float().div(127.5).sub(1)
            guesses: list[int] = judge(batch).argmax(dim=1).tolist()
        for guess in guesses:
            pairs = zip(names[guess].split("-"), name.split("-"), strict=True)
            same = [guessed == asked for guessed, asked in pairs]
            for part, hit in zip((*PARTS, "all three"), (*same, all(same)), strict=True):
                right[part] += hit
        total += len(guesses)
    return {part: count / total for part, count in right.items()}


def _right_rows(what: str, found: Mapping[str, float], *, has_goals: bool) -> Iterator[Row]:
    for part, share in found.items():
        goal = RIGHT if has_goals and part in PARTS else None
        yield Row(name=f"{what}: {part} right", value=share, unit="share", goal=goal)


def _command_row() -> Row:
    """From the shell to the written file."""
    with workshop() as folder:
        command = [sys.executable, "-m", "vidsynth.cli", "generate", DEFAULT]
        began = perf_counter()
        subprocess.run([*command, "-o", str(folder / "out.mp4")], check=True, capture_output=True)
        took = perf_counter() - began
    return Row(
        name=f'vidsynth generate "{DEFAULT}"', value=took, unit="s", goal=SECONDS, at_most=True
    )


def _sameness_row(maker: _Maker) -> Row:
    """Of the same seed, and that another seed is another film."""
    prompt = Prompt.of(DEFAULT, 5)
    first, again, other = (maker.film(prompt, seed) for seed in (1, 1, 2))
    same = torch.equal(first, again) and not torch.equal(first, other)
    return Row(name="the same film from the same seed alone", value=float(same), unit="", goal=1.0)


def _long_rows(maker: _Maker, judge: ClipNet, judged: Subject, settings: Settings) -> Iterator[Row]:
    """Long films: steady where moments meet, and following their prompts."""
    length = judged.num_frames
    frames = length * settings.longer
    names = judged.names[:: max(1, len(judged.names) // settings.films)][: settings.films]
    films = [maker.film(Prompt.of(shapes.captions(n)[0], frames), seed=7) for n in names]
    at_seams, elsewhere = [], []
    for film in films:
        errors = warp_errors(film)
        seams = seams_of(maker.model.card.generator.options, frames)
        at_seams += [errors[n] for n in seams]
        elsewhere += [e for n, e in enumerate(errors) if n and n not in seams]
    ratio = torch.tensor(at_seams).nanmean() / torch.tensor(elsewhere).nanmean()
    yield Row(
        name=f"{frames} frames: flow-warp error where moments meet over elsewhere",
        value=float(ratio),
        unit="x",
        goal=SEAM,
        at_most=True,
    )
    ends = {n: film[-length:][None] for n, film in zip(names, films, strict=True)}
    found = recognised(judge, ends, judged.names)
    yield from _right_rows(f"{frames} frames, last {length}", found, has_goals=False)
    yield from _schedule_rows(maker, judge, judged, settings)


def _schedule_rows(
    maker: _Maker, judge: ClipNet, judged: Subject, settings: Settings
) -> Iterator[Row]:
    """A prompt for the first half of a film, another for the second."""
    length = judged.num_frames
    index = torch.arange(4 * length) // (2 * length)
    begins, ends = {}, {}
    for n in range(settings.films):
        first, second = judged.names[(17 * n) % 72], judged.names[(17 * n + 40) % 72]
        texts = (shapes.captions(first)[0], shapes.captions(second)[0])
        film = maker.film(Prompt(index=index, texts=texts), seed=n)
        begins[first], ends[second] = film[None, :length], film[None, -length:]
    for when, clips in (("beginning", begins), ("end", ends)):
        found = recognised(judge, clips, judged.names)
        yield from _right_rows(f"two prompts, {when}", found, has_goals=False)


def seams_of(options: Mapping[str, Any], num_frames: int) -> list[int]:
    """Frames of a long film with which a moment begins, which is made behind the ones before."""
    stride = int(options["stride"])
    return list(range(stride, num_frames, stride))


def warp_errors(film: Tensor) -> list[float]:
    """Of each frame (T, 3, H, W) uint8, from the one before it; NaN for the first."""
    metric = registry.load("metric", "flow_warp")()
    assert isinstance(metric, Metric)
    metric.update(film_of("made", drawing.resize(film, FLOW_PX, FLOW_PX)), None)
    per_frame = metric.compute().per_frame
    assert per_frame is not None
    return per_frame.tolist()
