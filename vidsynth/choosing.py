"""Which recipe a job runs with, and what its plugins' options resolve to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vidsynth import loading, options, registry, retarget, video
from vidsynth.clips import ClipOptions
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, IncompatibleStages, NoSubjectFound, PluginError
from vidsynth.kinds import words_for
from vidsynth.recipes import Recipe, load_recipe
from vidsynth.report import Reporter
from vidsynth.subject import PluginRef, build_extractor
from vidsynth.training import TrainOptions

Settings = Mapping[str, Any] | Sequence[str]
"""Nested, or "generator.filters=48" strings."""

Kinds = tuple[type[Conditioning], ...]
Need = type[Conditioning] | Kinds
"""A kind of signal, or several of which one is enough; `Conditioning` is any that can be drawn."""

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
    extractor = build_extractor(resolved_plugins(recipe)[0])
    retarget.check_options(extractor.produces, recipe.retarget)
    _check_pair(recipe, extractor.produces, loading.load("generator", recipe.generator))


def _check_pair(recipe: Recipe, kind: type[Conditioning], generator: Any) -> None:
    """Whether the generator can be trained on what the extractor gives."""
    if generator.pretrained:
        raise IncompatibleStages(
            f"the generator {recipe.generator!r} has weights of its own and is not trained; use it "
            "in a pipeline (vidsynth run), or choose another generator"
        )
    if generator.takes(kind):
        return
    offers = [
        f"{name!r} (of {package})"
        for key, name, package in offering(tuple(generator.accepts))
        if key == "extract"
    ]
    raise IncompatibleStages(
        f"the generator {recipe.generator!r} cannot be conditioned on {kind.kind!r}, which the "
        f"extractor {recipe.extractor!r} gives; it accepts: {words_for(generator.accepts)}; "
        + (f"choose the extractor {' or '.join(offers)}" if offers else "no extractor gives that")
    )


def _suitable_recipe(target: Path) -> str:
    """ "face" for a close-up, "dance" for a body, from a dozen frames spread over the video."""
    seconds = video.probe(target).seconds or 0.0
    clip = video.read_frames_at(target, [seconds * (i + 0.5) / 12 for i in range(12)] + [0.0])

    def seen_by(name: str) -> Conditioning:
        plugin: Any = loading.load("extractor", name)
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
    extractor = resolved("extractor", recipe.extractor, recipe.extractor_options)
    return extractor, resolved_generator(recipe)


def resolved_generator(recipe: Recipe) -> PluginRef:
    """The recipe's generator alone."""
    return resolved("generator", recipe.generator, recipe.generator_options)


def resolved(kind: registry.Kind, name: str, values: Mapping[str, Any]) -> PluginRef:
    """A plugin with every option resolved and checked; `values` are those that were given.

    Raises UnknownName, BadOption, PluginError.
    """
    plugin: Any = loading.load(kind, name)
    return PluginRef.of(kind, name, options.build(plugin.Options, values, where=kind))


def nested(settings: Settings) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    return options.parse_assignments(settings)


def meets(carried: Kinds, need: Need) -> bool:
    """Whether one of the kinds that are carried is what is needed."""
    if isinstance(need, tuple):
        return any(meets(carried, kind) for kind in need)
    if need is Conditioning:
        return any(kind.drawable for kind in carried)
    return need in carried


def offering(need: Need) -> list[tuple[Literal["extract", "stage"], str, str]]:
    """Plugins that give what is needed: how to write them in a pipeline, name, package."""
    found: list[tuple[Literal["extract", "stage"], str, str]] = []
    keys: tuple[tuple[Literal["extract", "stage"], registry.Kind], ...] = (
        ("extract", "extractor"),
        ("stage", "stage"),
    )
    for key, part in keys:
        for name in registry.names(part):
            try:
                plugin: Any = loading.load(part, name)
            except PluginError:  # one that cannot be imported cannot help
                continue
            gives = (plugin.produces,) if key == "extract" else plugin.gives
            if meets(gives, need):
                found.append((key, name, registry.describe(part, name).distribution))
    return found
