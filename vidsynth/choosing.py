"""Which recipe a job runs with, and what its plugins' options resolve to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidsynth import options, registry, retarget, video
from vidsynth.clips import ClipOptions
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, NoSubjectFound
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.subject import PluginRef
from vidsynth.training import TrainOptions

Settings = Mapping[str, Any] | Sequence[str]
"""Nested, or "generator.filters=48" strings."""

FACE_SHARE = 0.2
"""A face at least this share of the picture's height makes it a face video."""


def choose_recipe(
    name: str | None,
    preset: str | None,
    generator: str | None,
    size: int | None,
    person: int | None,
    settings: Settings,
    target: Path,
    device: str,
    reporter: Reporter,
) -> Recipe:
    """The recipe asked for, or the one that the target asks for, with the user's changes."""
    if name is None:
        name = _suitable_recipe(target)
        reporter.say(f"{target.name}: using the {name} recipe (--recipe chooses another)")
    recipe = load_recipe(name).at_preset(preset or "standard")
    changes = nested(settings)
    if generator is not None:
        changes = options.merge(changes, {"generator": {"plugin": generator}})
    if person is not None:
        changes = options.merge(changes, {"extractor": {"person": person}})
    if size is not None:
        changes = options.merge(changes, {"size": size})
    recipe = recipe.with_overrides(changes)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    """Whether every option exists and can be used: found out before any work."""
    options.build(TrainOptions, recipe.training, where="training")
    if recipe.clips is not None:
        resolved_generator(recipe)
        options.build(ClipOptions, recipe.clips, where="clips")
        return
    resolved_plugins(recipe)
    extractor: Any = registry.load("extractor", recipe.extractor)
    retarget.check_options(extractor.produces, recipe.retarget)


def _suitable_recipe(target: Path) -> str:
    """ "face" for a close-up, "dance" for a body, from a dozen frames spread over the video."""
    seconds = video.probe(target).seconds or 0.0
    clip = video.read_frames_at(target, [seconds * (i + 0.5) / 12 for i in range(12)] + [0.0])

    def seen_by(name: str) -> Conditioning:
        plugin: Any = registry.load("extractor", name)
        return plugin().extract(iter([clip])).__next__()

    face = seen_by("face")
    if (share := face.present().float().mean()) >= 0.5:
        boxes = face.regions()["face"][face.present()]
        if float((boxes[:, 3] - boxes[:, 1]).median()) >= FACE_SHARE * clip.height:
            return "face"
    if seen_by("pose").present().float().mean() >= 0.25:
        return "dance"
    if share > 0:
        return "face"
    raise NoSubjectFound(
        f"{target}: neither a face nor a body was found in {len(clip)} frames spread over it; "
        "choose with --recipe dance or --recipe face if there is one all the same"
    )


def resolved_plugins(recipe: Recipe) -> tuple[PluginRef, PluginRef]:
    """The recipe's extractor and generator with every option resolved and checked.

    Raises BadOption for a recipe that learns from clips.
    """
    if recipe.clips is not None:
        raise BadOption(
            f"the recipe {recipe.name!r} learns from clips by class, and no video drives what it "
            f"makes; use vidsynth train CLIPS --recipe {recipe.name}, then vidsynth generate"
        )
    extractor = _resolved("extractor", recipe.extractor, recipe.extractor_options)
    return extractor, resolved_generator(recipe)


def resolved_generator(recipe: Recipe) -> PluginRef:
    """The recipe's generator alone."""
    return _resolved("generator", recipe.generator, recipe.generator_options)


def _resolved(kind: registry.Kind, name: str, values: Mapping[str, Any]) -> PluginRef:
    plugin: Any = registry.load(kind, name)
    return PluginRef.of(kind, name, options.build(plugin.Options, values, where=kind))


def nested(settings: Settings) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    return options.parse_assignments(settings)
