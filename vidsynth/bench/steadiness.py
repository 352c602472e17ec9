"""`vidsynth bench steadiness`: how much a generator's film trembles, frame by frame or in sequence.

A frame-wise network ("frames": pix2pixHD as in the plain recipe, but shown no other moment than the
frame's own) and a sequential one ("sequence": the steady recipe, vid2vid) train on the same film in
turns, each on a clock of its own, and make the held-out frames without further steadying. What
blurs is steady too, so sharpness stands beside the rest, and what real footage gets. Then the one
knob that every generator has, on the frame-wise one. The full bench also trains the sequential one
with parts of it taken out or put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices
from vidsynth.bench import Asked, Row
from vidsynth.bench.likeness import TREMBLE, sharpness, tremble
from vidsynth.bench.material import (
    RECIPE_OF,
    Filmed,
    Films,
    Study,
    parameters,
    study,
    subjects,
    workshop,
)
from vidsynth.bench.quality import train_pausing
from vidsynth.bench.turns import Pause, in_turns
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter
from vidsynth.scores import score
from vidsynth.subject import build_generator

# T frames, H, W pixels

FRAMES, SEQUENCE = "frames", "sequence"
RECIPES = {
    "dance": {FRAMES: "dance-plain", SEQUENCE: "dance-steady"},
    "face": {FRAMES: "face-plain", SEQUENCE: "face-steady"},
    "street": {FRAMES: "street", SEQUENCE: "street-steady"},
}
"""Of each kind of film, by the recipe that a user would get."""
FRAME_WISE: Mapping[str, Mapping[str, Any]] = {
    "dance": {"previous": False},
    "face": {"window": 1},
    "street": {"downsamplings": 2},
}
"""What makes a plain recipe's network see one moment only, on about as many weights as vid2vid."""
PARTS: Mapping[str, Mapping[str, Any]] = {
    "sequence without flow": {"flow": False, "flow_weight": 0.0},
    "sequence without warp losses": {"warp_weight": 0.0},
    "sequence from real frames": {"start": "given", "sequence": 1, "longest": 1, "learnt": 1},
    "sequence without least paint": {"least_paint": 0.0},
    "sequence with past noise": {"past_noise": 0.1},
    "sequence with a video discriminator": {"temporal_scales": 1, "sequence": 4, "longest": 8},
}
"""Changes to the sequential generator. "From real frames" is trained to go on from real ones only,
as a network that never meets its own mistakes."""
STEADIER = 0.25
"""Share by which the sequence's tremble is to be below the frames'."""
DRIFT = 0.02
"""Share of the first quarter's SSIM that the last one may lose."""
KNOB = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Films):
    """What is trained, and for how long."""

    minutes: float = 4.0
    """Of each."""
    slice_seconds: float = 15.0
    recipes: Mapping[str, str] = field(default_factory=lambda: RECIPE_OF | {"street": "street"})
    parts: bool = False
    """Also with parts of the sequential generator taken out or put in, on the first film."""


def bench(asked: Asked) -> Iterator[Row]:
    """Flow-warp error and flicker of frame-wise and sequential generators; drift; the knob."""
    settings = Settings().asked(asked)
    if asked.full:
        settings = replace(settings, minutes=8.0, parts=True)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    with workshop() as folder:
        for nth, filmed in enumerate(subjects(settings, folder, device, reporter)):
            parts = PARTS if settings.parts and not nth else {}
            yield from _contest(filmed, parts, settings, folder, device, reporter)


def _contest(
    filmed: Filmed,
    parts: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    folder: Path,
    device: torch.device,
    reporter: Reporter,
) -> Iterator[Row]:
    """All ways on one film."""
    path, names = filmed.path, RECIPES[filmed.recipe.name]
    changes = {FRAMES: FRAME_WISE[filmed.recipe.name], SEQUENCE: {}, **parts}
    studies: dict[str, Study] = {}
    for arm, changed in changes.items():
        recipe = load_recipe(names.get(arm, names[SEQUENCE]))
        recipe = recipe.with_overrides({"size": settings.size, "generator": changed})
        studies[arm] = study(path, recipe, reporter, given=filmed.given)
        network = studies[arm].generator().objective(studies[arm].footage.window_spec).generator
        name = f"{path.stem}: {arm}, weights of {studies[arm].generator_ref.name}"
        yield Row(name=name, value=parameters(network) / 1e6, unit="M")

    weights: dict[str, Mapping[str, Tensor]] = {}

    def training(arm: str) -> Callable[[Pause], None]:
        def keep(made: Mapping[str, Tensor], seconds: float, steps: int) -> None:
            weights[arm] = {name: value.detach().clone() for name, value in made.items()}

        def work(pause: Pause) -> None:
            own = folder / f"{path.stem}-{arm}"
            train_pausing(studies[arm], own, settings.minutes, keep, pause, device)

        return work

    in_turns((training(arm) for arm in studies), settings.slice_seconds, reporter)

    footage = studies[FRAMES].footage
    index = torch.arange(footage.held_out.start, footage.held_out.stop)
    truth = footage.pictures[index]
    found = {"real": judged(truth, truth)}
    for arm, seen in studies.items():
        made = render(seen, weights[arm], index, device, 0.0)
        found[arm] = judged(made, truth)
        found[arm]["drift"] = drift(made, truth)
    for steadiness in KNOB:
        made = render(studies[FRAMES], weights[FRAMES], index, device, steadiness)
        found[f"frames at --steadiness {steadiness:g}"] = judged(made, truth)
    units = {"PSNR": "dB", "sharpness": "x", **TREMBLE}
    for who, values in found.items():
        for what, value in values.items():
            if what == "drift" and who == SEQUENCE:  # told among the goals
                continue
            yield Row(name=f"{path.stem}: {who}, {what}", value=value, unit=units.get(what, ""))
    yield from _goals(path.stem, found)


def _goals(name: str, found: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    frames, sequence = found[FRAMES], found[SEQUENCE]
    for what in TREMBLE:
        yield Row(
            name=f"{name}: sequence below frames, {what}",
            value=1 - sequence[what] / frames[what],
            unit="share",
            goal=STEADIER,
        )
    yield Row(
        name=f"{name}: sequence above frames, SSIM",
        value=sequence["SSIM"] - frames["SSIM"],
        unit="",
        goal=0.0,
    )
    yield Row(name=f"{name}: sequence, drift", value=sequence["drift"], unit="share", goal=-DRIFT)


def render(
    seen: Study,
    weights: Mapping[str, Tensor],
    index: Tensor,
    device: torch.device,
    steadiness: float,
) -> Tensor:
    """(T, 3, H, W) uint8: held-out frames with these weights."""
    made = seen.generator_ref
    if "start" in made.options:  # whatever it was trained to go on from, nothing is given now
        made = replace(made, options={**made.options, "start": "none"})
    generator = build_generator(made, seen.conditions)
    generator.load_weights(weights)
    return seen.render(generator, index, device, steadiness=steadiness)


def judged(made: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR, SSIM, sharpness, flow-warp error and flicker of (T, 3, H, W) uint8 frames."""
    whole = score(made, truth)
    found = {"PSNR": whole.psnr, "SSIM": whole.ssim, "sharpness": sharpness(made, truth)}
    return found | tremble(made, truth)


def drift(made: Tensor, truth: Tensor) -> float:
    """By what share the last quarter's SSIM is above the first's; below 0 it got worse."""
    quarter = max(1, len(made) // 4)
    first, last = (
        score(made[part], truth[part]).ssim for part in (slice(quarter), slice(-quarter, None))
    )
    return last / first - 1
