"""Recipes load by name or from a file, and take overrides in their own language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidsynth import registry
from vidsynth.animation import Animation
from vidsynth.classes import ClassLabel, Prompt
from vidsynth.clips import ClipOptions
from vidsynth.conditioning import PoseSequence
from vidsynth.errors import BadOption, UnknownName
from vidsynth.options import build, to_toml
from vidsynth.recipes import Recipe, load_recipe, recipe_names
from vidsynth.training import TrainOptions

RECIPE = Recipe(
    name="mine",
    summary="A test.",
    extractor="pose",
    generator="pix2pixhd",
    size=96,
    generator_options={"filters": 8, "blocks": 2},
    training={"batch": 1},
)


def test_the_main_jobs_have_recipes() -> None:
    assert {"dance", "face", "reference"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_its_plugins(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.summary.endswith(".")
    generator: Any = registry.load("generator", recipe.generator)
    for preset in ("standard", *recipe.presets):
        chosen = recipe.at_preset(preset)
        build(generator.Options, chosen.generator_options, where="generator")
        build(TrainOptions, chosen.training, where="training")
    if recipe.clips is not None:
        build(ClipOptions, recipe.clips, where="clips")
        assert generator.takes(ClassLabel) or generator.takes(Prompt)
        return
    extractor: Any = registry.load("extractor", recipe.extractor)
    build(extractor.Options, recipe.extractor_options, where="extractor")
    if generator.pretrained:  # what it takes is made of a body (vidsynth.animating)
        assert generator.accepts == (Animation,) and extractor.produces is PoseSequence
        return
    assert issubclass(extractor.produces, generator.accepts)


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(RECIPE.to_dict()))
    assert load_recipe(file) == RECIPE


def test_a_recipe_of_clips_survives_its_file_and_has_no_extractor(tmp_path: Path) -> None:
    recipe = replace(RECIPE, extractor="", clips={"fps": 8.0})
    file = tmp_path / "mine.toml"
    file.write_text(to_toml(recipe.to_dict()))
    assert "extractor" not in recipe.to_dict() and load_recipe(file) == recipe


def test_a_recipe_learns_from_clips_or_from_a_target_but_not_from_both() -> None:
    with pytest.raises(BadOption, match=r"has \[clips\] and \[extractor\]"):
        RECIPE.with_overrides({"clips": {"fps": 8.0}})


def test_overrides_change_what_they_name_and_no_more() -> None:
    changed = RECIPE.with_overrides({"size": 64, "generator": {"filters": 16}})
    assert changed.size == 64
    assert changed.generator_options == {"filters": 16, "blocks": 2}
    assert changed.training == RECIPE.training
    assert RECIPE.generator_options == {"filters": 8, "blocks": 2}


def test_another_generator_does_not_inherit_options() -> None:
    changed = RECIPE.with_overrides({"generator": {"plugin": "other", "depth": 3}})
    assert (changed.generator, changed.generator_options) == ("other", {"depth": 3})
    same = RECIPE.with_overrides({"generator": {"plugin": "pix2pixhd"}})
    assert same == RECIPE


@pytest.mark.parametrize("name", ["dance", "face"])
def test_presets_set_size_and_time_and_standard_is_the_recipe_itself(name: str) -> None:
    recipe = load_recipe(name)
    draft, studio = recipe.at_preset("draft"), recipe.at_preset("studio")
    assert recipe.at_preset("standard") == replace(recipe, presets={})
    assert draft.training["minutes"] == 1.0 and draft.size < recipe.size < studio.size
    assert studio.training["minutes"] > 10
    for preset in (draft, studio):
        assert preset.generator == recipe.generator and not preset.presets
        plugin: Any = registry.load("generator", preset.generator)
        build(plugin.Options, preset.generator_options, where="generator")
    with pytest.raises(UnknownName, match=r"no preset of recipe '(dance|face)'"):
        recipe.at_preset("studioo")


def test_an_unknown_recipe_proposes_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no recipe 'danse'; did you mean 'dance'\?"):
        load_recipe("danse")


def test_an_unknown_section_proposes_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"'trainig'; did you mean 'training'\?"):
        RECIPE.with_overrides({"trainig": {"batch": 2}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"size": "big"}, "size = 'big'"),
        ({"size": 0}, "size = 0"),
        ({"size": True}, "size = True"),
        ({"generator": 3}, "generator in recipe 'mine' is a section"),
        ({"generator": {"plugin": 3}}, "generator.plugin"),
    ],
)
def test_a_bad_override_says_what_is_wanted(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        RECIPE.with_overrides(overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [("size = ", "is no TOML file"), ('[extractor]\nplugin = "pose"', "names no generator")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(BadOption, match=f"bad.toml.*{message}"):
        load_recipe(file)


def test_a_missing_file_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"gone\.toml cannot be read.*dance"):
        load_recipe(tmp_path / "gone.toml")
