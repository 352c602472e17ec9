"""Films from words: which model makes them, what it is told when, and the best of several."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import loading, options
from vidsynth.classes import Prompt
from vidsynth.clip import VideoSpec
from vidsynth.errors import BadOption, PluginError, UnknownName
from vidsynth.kinds import Conditions, Generator, PretrainedGenerator, TextEncoder
from vidsynth.making import Outputs, make_clip, making, showing, write_film, write_sheet
from vidsynth.pixels import MOST_PIXELS
from vidsynth.provenance import about, facts
from vidsynth.report import Reporter
from vidsynth.stream import Stage
from vidsynth.subject import PluginRef, Subject, SubjectCard, load_subject

# T frames, C channels, H, W pixels

SMALL, PRETRAINED, RANKING = "text2video-small", "text2video", "clip_text"
"""The generator that brings a model of its own, the one that runs models of others, and the encoder
that ranks films by a prompt."""
SMALLEST_SHOWN = 128
"""Pixels: what a model draws smaller is enlarged by a whole number to at least this, where no size
is asked for."""
SHEET_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A film that is asked for in words."""

    text: str | None = None
    schedule: Path | None = None
    changes: Mapping[str, Any]
    """Options of the generator by name; None for those that are not given."""
    settings: Mapping[str, Any]
    """Nested, of which "generator" is taken."""
    size: tuple[int, int] | None = None
    """Width and height in pixels."""
    fps: Fraction | None = None
    frames: int | None = None
    seed: int = 0
    candidates: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What makes films from words: a subject that was trained, or a pretrained plugin."""

    subject: Subject | None = None
    name: str = ""
    """Of the pretrained generator."""
    options: Mapping[str, Any]
    """Of it, before the user's."""

    @property
    def label(self) -> str:
        return self.subject.card.generator.name if self.subject else self.name


def opened(subject: Subject | None, model: str | None, device: str) -> Model:
    """The trained model, the pretrained one, or without either the one that comes with vidsynth.

    Raises PluginError: the plugin that runs pretrained models is not installed.
    """
    if subject is None and model is None:
        subject = embedded()
    if subject is not None:
        return Model(subject=subject, options=subject.card.generator.options)
    plugin = _installed(PRETRAINED)
    known = {field.name for field in fields(plugin.Options)}
    return Model(
        name=PRETRAINED,
        options={"model": model} | ({"device": device} if "device" in known else {}),
    )


def embedded() -> Subject:
    """The small model that comes with vidsynth. Raises PluginError, BadSubject."""
    return load_subject(_installed(SMALL).embedded)


def _installed(name: str) -> Any:
    try:
        return loading.load("generator", name)
    except UnknownName as error:
        raise PluginError(
            f"this needs the generator {name!r}, which is not installed; install a newer vidsynth "
            "with pip install -U vidsynth[text]"
        ) from error


def generate(
    asked: Asked, model: Model, outputs: Outputs, *, device: torch.device, reporter: Reporter
) -> list[Path]:
    """Make the film, and write what is to be written.

    Raises BadOption, and what the model's generator raises.
    """
    _check(asked)
    generator, spec, num_frames = _planned(asked, model, device, reporter)
    prompt = _prompt(asked, spec.fps, num_frames)
    if outputs.sheet is not None:
        seeds = range(asked.seed, asked.seed + SHEET_ROWS)
        clips = [make_clip(generator, [prompt], spec, seed=s, device=device) for s in seeds]
        write_sheet(outputs.sheet, clips, reporter)
    if outputs.film is not None:
        seed, line = _line(asked, generator, prompt, spec, device, reporter)
        card = model.subject.card if model.subject else None
        write_film(
            outputs,
            line,
            num_frames,
            spec.fps,
            device=device,
            said=_said(card, model, generator, prompt) if outputs.provenance else {},
            settings=_settings(card, model, generator, prompt, spec, seed),
            told=" / ".join(map(repr, prompt.texts)),
            reporter=reporter,
            generator=generator,
        )
    return outputs.written()


def _check(asked: Asked) -> None:
    if (asked.text is None) == (asked.schedule is None):
        raise BadOption(
            "say what to show: a PROMPT in quotes, or --schedule FILE with several"
            if asked.text is None
            else "a PROMPT and --schedule exclude each other; give one"
        )
    if asked.text is not None and not asked.text.strip():
        raise BadOption('the prompt is empty; say what to show, like "a red circle moves left"')
    if asked.candidates < 1:
        raise BadOption(f"--candidates must be at least 1; got {asked.candidates}")
    if asked.size is not None and not 16 <= min(asked.size) <= max(asked.size) <= MOST_PIXELS // 16:
        raise BadOption(
            f"--size {asked.size[0]}x{asked.size[1]} is no size of a film; give another"
        )
    if asked.fps is not None and not 0 < asked.fps <= 1000:
        raise BadOption(f"--fps must be above 0 and at most 1000; got {float(asked.fps):g}")
    for section in asked.settings:
        if section != "generator":
            raise UnknownName.among("section of generate", section, ["generator"])


def _planned(
    asked: Asked, model: Model, device: torch.device, reporter: Reporter
) -> tuple[Generator, VideoSpec, int]:
    """The generator as it is asked for, and the film that it is to make."""
    plugin: Any = loading.load("generator", model.label)
    given = {name: value for name, value in asked.changes.items() if value is not None}
    known = [field.name for field in fields(plugin.Options)]
    for name in given:
        if name not in known:
            raise BadOption(f"{model.label} takes no --{name}; leave it out, or choose a --model")
    chosen = {**model.options, **given, **asked.settings.get("generator", {})}
    values = options.build(plugin.Options, chosen, where="generator")
    if model.subject is not None:
        return _trained(asked, model.subject, options.to_dict(values), device, reporter)
    if not issubclass(plugin, PretrainedGenerator):
        raise PluginError(f"{model.label} brings no weights; choose another --model")
    conditions = Conditions(kinds=(Prompt,), channels=1)
    generator = plugin(values, conditions=conditions)
    width, height = asked.size or (None, None)
    spec, most = generator.film(width=width, height=height, fps=asked.fps)
    frames = _frames(asked, spec.fps)
    if asked.schedule is not None and getattr(values, "window", None) == 0:
        # A film of several prompts is made in parts: no part is longer than what it was made for.
        generator = plugin(replace(values, window=most), conditions=conditions)
    film = generator.film(width=width, height=height, fps=asked.fps, num_frames=frames)
    return generator, *film


def _trained(
    asked: Asked,
    subject: Subject,
    chosen: Mapping[str, Any],
    device: torch.device,
    reporter: Reporter,
) -> tuple[Generator, VideoSpec, int]:
    card = subject.card
    if asked.fps is not None and asked.fps != card.spec.fps:
        raise BadOption(
            f"this model makes {float(card.spec.fps):g} frames per second, as the clips had that "
            "it learnt from; leave --fps out"
        )
    width, height = asked.size or (card.width, card.height)
    if asked.size is None:
        times = -(-SMALLEST_SHOWN // min(card.width, card.height))
        width, height = times * card.width, times * card.height
    if (width, height) != (card.width, card.height):
        reporter.say(f"drawn at {card.width}x{card.height}, scaled to {width}x{height}")
    spec = replace(card.spec, width=width, height=height)
    changed = replace(card, generator=replace(card.generator, options=chosen))
    frames = _frames(asked, card.spec.fps) or int(card.generator.options.get("num_frames", 24))
    return Subject(subject.folder, changed).generator(device), spec, frames


def _frames(asked: Asked, fps: Fraction | None = None) -> int | None:
    """The length that is asked for; of a schedule, till as long after the last change as there is
    between the last two."""
    if asked.frames is not None or asked.schedule is None or (fps or asked.fps) is None:
        return asked.frames
    times = [seconds for seconds, _ in read_schedule(asked.schedule)]
    last = times[-1] - times[-2] if len(times) > 1 else 1.0
    return max(1, round((times[-1] + last) * float(fps or asked.fps or 0)))


def _prompt(asked: Asked, fps: Fraction, num_frames: int) -> Prompt:
    if asked.schedule is None:
        assert asked.text is not None
        return Prompt.of(asked.text.strip(), num_frames)
    return scheduled(read_schedule(asked.schedule), fps, num_frames, where=str(asked.schedule))


def read_schedule(path: Path) -> list[tuple[float, str]]:
    """Prompts with the seconds from which they hold, in order, from a TOML file:

        [[prompt]]
        at = "0s"
        text = "a red circle moves left"

    Raises BadOption.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["prompt"]
        found = [(options.parse_duration(str(e["at"])), str(e["text"]).strip()) for e in entries]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOption(f"{path}: cannot be read as a schedule ({error}); correct it") from error
    except (KeyError, TypeError) as error:
        raise BadOption(
            f'{path}: a schedule is made of [[prompt]] with at = "2s" and text = "..."; '
            f"{error} is missing or wrong"
        ) from error
    times = [seconds for seconds, _ in found]
    if not found or times[0] != 0 or sorted(set(times)) != times:
        raise BadOption(f"{path}: the first prompt is at 0s, and each later one after the last")
    if not all(text for _, text in found):
        raise BadOption(f"{path}: a prompt is empty; say what to show, or leave it out")
    return found


def scheduled(
    entries: list[tuple[float, str]], fps: Fraction, num_frames: int, *, where: str = "schedule"
) -> Prompt:
    """What is said at each frame. Raises BadOption for a prompt that would never be said."""
    seconds = torch.tensor([at for at, _ in entries], dtype=torch.float64)
    if round(entries[-1][0] * float(fps)) >= num_frames:
        raise BadOption(
            f"{where}: the prompt at {entries[-1][0]:g} s comes after the film's end at "
            f"{num_frames / float(fps):g} s; raise --frames"
        )
    starts = (seconds * float(fps)).round().long()
    index = torch.searchsorted(starts, torch.arange(num_frames), right=True) - 1
    return Prompt(index=index, texts=tuple(text for _, text in entries))


def _line(
    asked: Asked,
    generator: Generator,
    prompt: Prompt,
    spec: VideoSpec,
    device: torch.device,
    reporter: Reporter,
) -> tuple[int, list[Stage]]:
    """The seed that was chosen, and the stages that make its film or show it."""
    if asked.candidates == 1:
        return asked.seed, making(generator, [prompt], spec, seed=asked.seed, device=device)
    ranked = _ranking(prompt)
    seeds = range(asked.seed, asked.seed + asked.candidates)
    clips: list[Tensor] = []
    with reporter.step("making candidates", total=len(seeds), unit="films") as step:
        for seed in seeds:
            clips.append(make_clip(generator, [prompt], spec, seed=seed, device=device))
            step.update(len(clips))
    best = ranked(clips)[0]
    reporter.say(f"of {len(clips)} films the one of seed {seeds[best]} shows the prompt best")
    return seeds[best], [showing(clips[best])]


def _ranking(prompt: Prompt) -> Callable[[list[Tensor]], list[int]]:
    """Puts films in order, the best first. Raises BadOption, PluginError."""
    if len(prompt.texts) > 1:
        raise BadOption("--candidates is for one prompt; leave it or --schedule out")
    try:
        plugin: Any = loading.load("encoder", RANKING)
    except UnknownName as error:
        raise PluginError(
            f"--candidates needs the encoder {RANKING!r}, which is not installed; install a newer "
            "vidsynth with pip install -U vidsynth[text]"
        ) from error
    encoder: TextEncoder = plugin()
    return lambda clips: list(encoder.rank(clips, prompt.texts[0]))


# What is said of the film


def of_card(card: SubjectCard) -> dict[str, Any]:
    """A trained model, for the settings beside a film."""
    return {
        "recipe": card.recipe,
        "steps": card.steps,
        "size": [card.width, card.height],
        "generator": options.to_dict(card.generator),
        "training": dict(card.settings.get("training", {})),
    }


def _said(
    card: SubjectCard | None, model: Model, generator: Generator, prompt: Prompt
) -> dict[str, Any]:
    words = {"prompts": list(prompt.texts)}
    if card is not None:
        return about(card, None) | words
    ref = _ref(model, generator)
    said = f"{ref.name} ({ref.version}): {ref.options.get('model', '')}"
    return facts(recipe="", generator=said, source=None, target=None) | words


def _settings(
    card: SubjectCard | None,
    model: Model,
    generator: Generator,
    prompt: Prompt,
    spec: VideoSpec,
    seed: int,
) -> dict[str, Any]:
    starts = [int((prompt.index == n).nonzero()[0]) for n in range(len(prompt.texts))]
    said = [{"frame": at, "text": text} for at, text in zip(starts, prompt.texts, strict=True)]
    film = {"frames": len(prompt), "fps": str(spec.fps), "size": [spec.width, spec.height]}
    made = {} if card is None else of_card(card)
    return made | {
        "generator": options.to_dict(_ref(model, generator)),
        "film": film | {"seed": seed, "prompts": said},
    }


def _ref(model: Model, generator: Generator) -> PluginRef:
    return PluginRef.of("generator", model.label, generator.options)
