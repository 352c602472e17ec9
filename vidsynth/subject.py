"""Subject: the folder that holds one person's trained model and all that rendering needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidsynth import loading, options, registry, summaries
from vidsynth.classes import ClassLabel, Prompt
from vidsynth.clip import VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadSubject, PluginError, UnknownName
from vidsynth.exemplars import Gallery
from vidsynth.files import writing
from vidsynth.kinds import Conditions, Discriminator, Extractor, Generator
from vidsynth.pixels import MOST_PIXELS

FORMAT = 1
SECTIONS = ("training", "retarget")
"""Of the recipe, in a card's settings."""
MOST_CHANNELS = 4096
"""Of a card that is believed: a number in a text must not fill the memory."""
CARD, WEIGHTS, PLATE, TRAINING = (
    "subject.json",
    "generator.safetensors",
    "background.png",
    "training",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRef:
    """A plugin by name, with its options and where it came from."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    distribution: str = ""
    version: str = ""

    @staticmethod
    def of(kind: registry.Kind, name: str, values: object) -> PluginRef:
        """The installed plugin `name` with resolved options (an Options value)."""
        info = registry.describe(kind, name)
        return PluginRef(
            name=name,
            options=options.to_dict(values),
            distribution=info.distribution,
            version=info.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectCard:
    """Everything in subject.json."""

    recipe: str
    extractor: PluginRef
    generator: PluginRef
    channels: int
    """Of the conditioning maps."""
    background: bool
    """Whether there is a still background plate."""
    height: int
    width: int
    """Of the output frame, pixels."""
    fps: str
    """Of the target, as a fraction: "30000/1001"."""
    window: tuple[int, int, int, int]
    """x0, y0, x1, y1 in the output frame: where the generator works."""
    summary: Mapping[str, Any]
    """Of the target's conditioning, for retargeting."""
    classes: tuple[str, ...] = ()
    """Of a model of clips: what it can show. It has no extractor, and nothing drives it."""
    words: tuple[str, ...] = ()
    """Of a model of captioned clips: the words that it knows; () where its encoder does."""
    exemplars: int = 0
    """How many frames of the target's own each frame is painted from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's other resolved sections: training, retarget."""
    target: str = ""
    """File name of the target video."""
    target_hash: str = ""
    crop: tuple[int, int, int, int] | None = None
    """The part of the target's picture that is shown, in tracking pixels."""
    steps: int = 0
    seconds: float = 0.0
    """Trained so far."""
    trained: str = ""
    """When it was last trained: date and time of the world's clock, "2026-03-01T12:30:00Z"."""
    consent: str = ""
    """What the person shown agreed to, in the words of who trained it; empty where nothing was
    said."""
    scores: tuple[Mapping[str, float], ...] = ()
    """Scores while training: seconds, step, then psnr, ssim, l1 of held-out frames, or what else
    its kind of model is judged by."""
    format: int = FORMAT

    @property
    def spec(self) -> VideoSpec:
        return VideoSpec(height=self.height, width=self.width, fps=Fraction(self.fps))

    @property
    def window_spec(self) -> VideoSpec:
        x0, y0, x1, y1 = self.window
        return VideoSpec(height=y1 - y0, width=x1 - x0, fps=Fraction(self.fps))


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A trained person: what `load_subject` gives and `render` takes."""

    folder: Path
    card: SubjectCard

    def extractor(self) -> Extractor:
        """The extractor that the target was tracked with.

        Raises BadSubject for a model of clips.
        """
        if self.card.classes or self.takes_prompts:
            kind, how = (
                ("captioned clips", '"A PROMPT"')
                if self.takes_prompts
                else ("clips by class", "--class NAME")
            )
            raise BadSubject(
                f"{self.folder} is a model of {kind}, which no video drives; use "
                f"vidsynth generate --subject {self.folder} {how}"
            )
        return build_extractor(self.card.extractor)

    def conditions(self) -> Conditions:
        return Conditions(
            kinds=(self._kind(),),
            channels=self.card.channels,
            background=self.card.background,
            exemplars=self.card.exemplars,
            carry=bool(self.card.generator.options.get("carry", False)),
            words=self.card.words,
        )

    def _kind(self) -> type[Conditioning]:
        if self.card.classes:
            return ClassLabel
        return Prompt if self.takes_prompts else self.extractor().produces

    @property
    def takes_prompts(self) -> bool:
        """Whether it is a model of captioned clips."""
        return self.card.extractor.name == "" and not self.card.classes

    def generator(self, device: torch.device) -> Generator:
        """The generator with its trained weights on `device`. Raises BadSubject."""
        generator = build_generator(self.card.generator, self.conditions())
        path = self.folder / WEIGHTS
        try:
            weights = load_file(path, device=str(device))
        except FileNotFoundError as error:
            raise BadSubject(
                f"{self.folder} has no {WEIGHTS}: its training never reached a first checkpoint; "
                "train it (vidsynth train TARGET -o FOLDER)"
            ) from error
        except (SafetensorError, OSError) as error:
            raise BadSubject(f"{path} is damaged ({error}); train the subject again") from error
        unsound = [n for n, w in weights.items() if not bool(torch.isfinite(w).all())]
        if unsound or not weights:
            what = f"{unsound[0]} is no number in places" if unsound else "it holds no weights"
            raise BadSubject(f"{path} is damaged ({what}); train the subject again")
        generator.load_weights(weights)
        return generator

    def plate(self) -> Tensor | None:
        """The still background (3, height, width) uint8, or None."""
        if not self.card.background:
            return None
        picture = cv2.imread(str(self.folder / PLATE), cv2.IMREAD_COLOR)
        if picture is None or picture.shape[:2] != (self.card.height, self.card.width):
            raise BadSubject(
                f"{self.folder / PLATE} is missing, damaged or of another size than "
                f"{self.card.width}x{self.card.height}; train the subject again"
            )
        return torch.from_numpy(np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1)))

    def gallery(self) -> Gallery | None:
        """The frames that the generator paints from, or None. Raises BadSubject."""
        if not self.card.exemplars:
            return None
        return Gallery.load(self.folder, self.extractor().produces)


def build_extractor(ref: PluginRef) -> Extractor:
    """Raises PluginError when it is not installed, or no extractor."""
    plugin = _installed("extractor", ref)
    return plugin(options.build(plugin.Options, ref.options, where="extractor"))


def build_generator(ref: PluginRef, conditions: Conditions) -> Generator:
    """Raises PluginError when it is not installed, or no generator."""
    plugin = _installed("generator", ref)
    values = options.build(plugin.Options, ref.options, where="generator")
    return plugin(values, conditions=conditions)


def build_discriminator(
    name: str, settings: Mapping[str, Any], *, condition_channels: int, num_frames: int
) -> Discriminator:
    """The one of that name, told those of the settings that it has options for.

    Raises UnknownName, PluginError.
    """
    plugin: Any = loading.load("discriminator", name)
    known = {field.name for field in fields(plugin.Options)}
    chosen = plugin.Options(**{key: v for key, v in settings.items() if key in known})
    return plugin(chosen, condition_channels=condition_channels, num_frames=num_frames)


def _installed(kind: registry.Kind, ref: PluginRef) -> Any:
    try:
        return loading.load(kind, ref.name)
    except UnknownName as error:
        if not ref.distribution:
            raise
        raise PluginError(
            f"this subject needs the {kind} {ref.name!r} of {ref.distribution} {ref.version}, "
            f"which is not installed; pip install {ref.distribution}"
        ) from error


def load_subject(folder: str | Path) -> Subject:
    """Open a subject folder. Raises BadSubject, saying what is wrong with it."""
    folder = Path(folder)
    path = folder / CARD
    if not path.exists():
        raise BadSubject(
            f"{folder} is no subject folder: it has no {CARD}; make one with "
            "vidsynth train TARGET -o FOLDER"
        )
    try:
        values = json.loads(path.read_text())
        found = int(values["format"])
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, OSError) as error:
        raise BadSubject(f"{path} is damaged ({error}); train the subject again") from error
    if found > FORMAT:
        raise BadSubject(
            f"{folder} was made by a newer vidsynth (format {found}; this one reads up to "
            f"{FORMAT}); upgrade with pip install -U vidsynth"
        )
    try:
        for name in ("extractor", "generator"):
            values[name] = PluginRef(**values[name])
        lists = ("window", "scores", "classes", "words")
        values |= {name: tuple(values[name]) for name in lists if name in values}
        values["crop"] = None if values["crop"] is None else tuple(values["crop"])
        card = SubjectCard(**values)
        _check(card)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise BadSubject(f"{path} is damaged ({error}); train the subject again") from error
    return Subject(folder, card)


def _check(card: SubjectCard) -> None:
    """Raises ValueError, TypeError or ArithmeticError for what no training wrote."""

    def need(what: str, holds: bool) -> None:
        if not holds:
            raise ValueError(f"{what} cannot be right")

    texts = (card.recipe, card.fps, card.target, card.target_hash, card.trained, card.consent)
    for ref in (card.extractor, card.generator):
        texts += (ref.name, ref.distribution, ref.version)
        need("options", isinstance(ref.options, dict))
    need("a name", all(isinstance(text, str) for text in texts))
    counts = (card.height, card.width, card.channels, card.exemplars, card.steps, *card.window)
    need("a number", all(type(count) is int for count in counts) and len(card.window) == 4)
    x0, y0, x1, y1 = card.window
    need("size", 0 < card.height * card.width <= MOST_PIXELS and card.height > 0)
    need("window", 0 <= x0 < x1 <= card.width and 0 <= y0 < y1 <= card.height)
    need("channels", 0 < card.channels <= MOST_CHANNELS and 0 <= card.exemplars <= MOST_CHANNELS)
    need("fps", 0 < Fraction(card.fps) <= 1000)
    need("a section", isinstance(card.summary, dict) and isinstance(card.settings, dict))
    need("settings", all(isinstance(card.settings.get(n, {}), dict) for n in SECTIONS))
    summaries.check(card.summary)
    need("background", isinstance(card.background, bool))
    need("steps", card.steps >= 0 and 0 <= float(card.seconds) < float("inf"))
    need("scores", all(isinstance(row, dict) for row in card.scores))


def save_card(folder: Path, card: SubjectCard) -> None:
    with writing(folder / CARD) as temporary:
        temporary.write_text(json.dumps(asdict(card), indent=2) + "\n")


def with_consent(subject: Subject, statement: str) -> Subject:
    """The subject with this statement in its card, and as it is where there is none."""
    if statement in ("", subject.card.consent):
        return subject
    card = replace(subject.card, consent=statement)
    save_card(subject.folder, card)
    return Subject(subject.folder, card)


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write generator.safetensors from a module's (EMA) state."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with writing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)


def save_plate(folder: Path, plate: Tensor) -> None:
    """Write background.png from (3, height, width) uint8."""
    write_picture(folder / PLATE, plate)


def write_picture(path: Path, picture: Tensor) -> None:
    """Write a PNG from (3, H, W) uint8 RGB."""
    bgr = np.ascontiguousarray(picture.permute(1, 2, 0).numpy()[:, :, ::-1])
    with writing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
