"""`vidsynth bench portrait`: what a 3D model of a face is worth to the picture that is made of it.

Recipes learn the same film in turns, each on a clock of its own, and make its held-out frames: how
the default paints (from exemplars) and how its yardstick does (pix2pixHD) on tracked landmarks; the
`portrait` recipe, the network of Deep Video Portraits on renderings of the 3D face; both others on
those renderings too; and `portrait` without one of the pictures that it is conditioned on.
Beside the scores stands how far the face's landmarks are from where they should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices, registry
from vidsynth.bench import Asked, Row
from vidsynth.bench.likeness import film_of
from vidsynth.bench.material import Filmed, Films, Study, study, subjects, workshop
from vidsynth.bench.quality import Exam, train_pausing, write_sheet
from vidsynth.bench.turns import Pause, in_turns
from vidsynth.errors import BadOption, NotMeasurable
from vidsynth.kinds import Metric
from vidsynth.recipes import load_recipe
from vidsynth.report import Reporter

# T frames, H, W pixels

PORTRAIT = "portrait"
FACE3D: Mapping[str, Any] = {"extractor": {"plugin": "face3d"}}
ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "face": ("face", {}),
    "face-plain": ("face-plain", {}),
    PORTRAIT: (PORTRAIT, {}),
    "portrait without gaze": (PORTRAIT, {"generator": {"leave_out": ["gaze"]}}),
    "portrait without uv": (PORTRAIT, {"generator": {"leave_out": ["uv"]}}),
    "face-plain on face3d": ("face-plain", FACE3D),
    "face on face3d": ("face", FACE3D),
}
"""Recipe, and what is changed in it."""
METRICS = ("landmark_distance", "gaze_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Films):
    """What is trained, and for how long."""

    worlds: tuple[str, ...] = ("head",)
    arms: tuple[str, ...] = (*ARMS,)
    minutes: float = 2.0
    """Of each."""
    slice_seconds: float = 15.0
    sheet: Path | None = None


def bench(asked: Asked) -> Iterator[Row]:
    """Held-out frames by recipes for faces, with and without a 3D model of the face."""
    if asked.world not in (None, "head"):
        raise BadOption(f"portraits are of faces: the world head, or a clip; got {asked.world}")
    settings = replace(Settings(sheet=asked.sheet).asked(asked), worlds=("head",))
    if asked.full:
        settings = replace(settings, minutes=8.0)
    yield from measured(settings, devices.choose(asked.device), asked.reporter)


def measured(settings: Settings, device: torch.device, reporter: Reporter) -> Iterator[Row]:
    """Every row of the bench."""
    with workshop() as folder:
        for filmed in subjects(settings, folder, device, reporter):
            yield from _contest(filmed, settings, folder, device, reporter)


def _contest(
    filmed: Filmed, settings: Settings, folder: Path, device: torch.device, reporter: Reporter
) -> Iterator[Row]:
    """All arms on one film."""
    name = filmed.path.stem
    studies: dict[str, Study] = {}
    for arm in settings.arms:
        recipe, changed = ARMS[arm]
        wanted = load_recipe(recipe).with_overrides({"size": settings.size, **changed})
        studies[arm] = study(filmed.path, wanted, reporter)
    weights: dict[str, dict[str, Tensor]] = {}

    def training(arm: str) -> Callable[[Pause], None]:
        def keep(made: Mapping[str, Tensor], seconds: float, steps: int) -> None:
            weights[arm] = {name: value.detach().clone() for name, value in made.items()}

        own = folder / f"{name}-{arm}"
        return lambda pause: train_pausing(studies[arm], own, settings.minutes, keep, pause, device)

    in_turns((training(arm) for arm in studies), settings.slice_seconds, reporter)
    exam = Exam.of(name, next(iter(studies.values())))
    for arm, seen in studies.items():
        if Exam.of(name, seen).truth.shape != exam.truth.shape:
            raise NotMeasurable(f"{arm} would crop {filmed.path} otherwise; give a larger face")
    made = {arm: exam.sit(seen, weights[arm], device) for arm, seen in studies.items()}
    for arm, frames in made.items():
        yield from exam.rows(arm, frames, settings.minutes)
        yield from _tracked_rows(f"{name}: {arm}", frames, exam.truth)
    if settings.sheet is not None:
        write_sheet(settings.sheet, {"truth": exam.truth, **made})
        reporter.say(f"wrote {settings.sheet}")


def _tracked_rows(name: str, made: Tensor, truth: Tensor) -> Iterator[Row]:
    """How far the face is from the true one, as a tracker sees both."""
    films = film_of(name, made), film_of("real", truth)
    for what in METRICS:
        metric = registry.load("metric", what)()
        assert isinstance(metric, Metric)
        try:
            metric.update(*films)
            yield Row(name=f"{name}, {what}", value=metric.compute().value, unit=metric.unit)
        except NotMeasurable:  # a blur that no tracker takes for a face
            yield Row(name=f"{name}, {what}", value=float("nan"), unit=metric.unit)
