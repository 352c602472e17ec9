"""`vidsynth bench`: what is fast, what is good, and against which yardstick, measured here and now.

A bench is a function that takes what was asked and yields Rows as it measures them. BENCHES names
where each one is; it is imported when it is run, so that listing them costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from vidsynth.errors import UnknownName
from vidsynth.report import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured number."""

    name: str
    value: float
    unit: str
    """"x" for a ratio, "ms", "fps", "MB", "dB", "" for a bare number."""
    spread: tuple[float, float] | None = None
    """The smallest and the largest over the rounds; None for a number that was taken once."""
    goal: float | None = None
    """None for a row that is only told."""
    at_most: bool = False
    """Whether the goal is a ceiling."""

    @property
    def ok(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON report; what is not finite becomes null."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "unit": self.unit,
            "spread": None if self.spread is None else [_finite(v) for v in self.spread],
            "goal": self.goal,
            "ok": self.ok,
        }


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user wants measured; a bench takes what concerns it."""

    device: str = "auto"
    full: bool = False
    """Take the time it takes, instead of ending within 20 minutes."""
    clip: Path | None = None
    """A video of the user's own."""
    world: str | None = None
    """A synthetic world instead of the bench's first."""
    subject: Path | None = None
    """A trained model, where a bench judges one (dvdgan)."""
    size: int | None = None
    """Shorter side of the frames in pixels, instead of the bench's own."""
    sheet: Path | None = None
    """A picture to write, for people to look at."""
    reporter: Reporter = field(default_factory=Reporter)


Bench = Callable[[Asked], Iterator[Row]]

# Name -> (where it is, what it measures).
BENCHES = {
    "train-step": (
        "vidsynth.bench.train_step:bench",
        "One training step against a plain schedule of the same networks: time, memory, maths.",
    ),
    "generate": (
        "vidsynth.bench.generate:bench",
        "Frames per second of each generator by precision, eager and compiled; what bf16 costs.",
    ),
    "pipeline": (
        "vidsynth.bench.pipeline:bench",
        "Decode, encode and tracking over the bare calls; the whole chain; memory over length.",
    ),
    "quality": (
        "vidsynth.bench.quality:bench",
        "Held-out likeness over minutes of training, against pix2pixHD as published.",
    ),
    "steadiness": (
        "vidsynth.bench.steadiness:bench",
        "Flow-warp error and flicker, frame by frame and in sequence; what --steadiness does.",
    ),
    "plugins": (
        "vidsynth.bench.plugins:bench",
        "Start-up with 30 plugins that nobody asked for; the plugin boundary in a render.",
    ),
    "dvdgan": (
        "vidsynth.bench.dvdgan:bench",
        "Clips from noise and a class: of that class, varied, at length; each discriminator.",
    ),
    "text": (
        "vidsynth.bench.text:bench",
        "Clips from words: colour, shape and motion as told, seen and held out; time; seams.",
    ),
    "face3d": (
        "vidsynth.bench.face3d:bench",
        "Pose, gaze, expression and light of a 3D face, before and after refinement by pixels.",
    ),
    "portrait": (
        "vidsynth.bench.portrait:bench",
        "Held-out faces with and without a 3D model; what its gaze and UV pictures are worth.",
    ),
    "scale": (
        "vidsynth.bench.scale:bench",
        "What more pixels, frames, samples and processes cost.",
    ),
}


def load(name: str) -> Bench:
    """The bench of this name, imported now. Raises UnknownName."""
    if name not in BENCHES:
        raise UnknownName.among("bench", name, BENCHES)
    module, _, attribute = BENCHES[name][0].partition(":")
    return getattr(import_module(module), attribute)
