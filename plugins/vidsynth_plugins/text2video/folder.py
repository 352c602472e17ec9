"""A model's folder, looked at without loading it: which pipeline, whether whole, how large."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from vidsynth import hub
from vidsynth.errors import BadOption, BadWeights, MissingWeights
from vidsynth_plugins.text2video.families import FAMILIES, Family, Limits

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
"""Whose classes a pipeline may consist of: a model's own code is never run."""
WEIGHTLESS = ("tokenizer", "tokenizer_2", "scheduler", "image_processor", "feature_extractor")
NOT_NEEDED = ("safety_checker",)
PICTURES = "StableDiffusionPipeline"
"""What AnimateDiff's motion adapter makes a pipeline of films of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A pipeline of diffusers, in files."""

    name: str
    """As the user named it."""
    path: Path
    family: Family
    index: Mapping[str, Any]
    limits: Limits
    adapter: Path | None = None
    """The folder of AnimateDiff's motion adapter, where the pipeline has none itself."""

    @property
    def parts(self) -> list[str]:
        """Folders of the parts that have weights."""
        return [p for p in _parts(self.index) if p not in (*WEIGHTLESS, *NOT_NEEDED)]

    def check_whole(self) -> None:
        """Raises MissingWeights where a file of the pipeline is not here, BadWeights for weights
        that are damaged or only here as pickles."""
        for part in _parts(self.index):
            folder = self.path / part
            if part not in NOT_NEEDED and not any(folder.glob("*.json")):
                raise MissingWeights(
                    f"{self.name} is incomplete: {folder} lacks its settings; copy or download the "
                    "whole folder again"
                )
        for part in self.parts:
            _weight_files(self.path / part)

    def parameters(self) -> dict[str, int]:
        """How many numbers each part with weights consists of, by what the files say of
        themselves. Raises as `check_whole`."""
        counted = {part: _count(_weight_files(self.path / part)) for part in self.parts}
        if self.adapter is not None:
            counted["motion_adapter"] = _count(_weight_files(self.adapter))
        return counted


def look(
    name: str,
    adapter: str = "",
    *,
    option: str = "generator.model",
    families: Mapping[str, Family] = FAMILIES,
) -> ModelFolder:
    """What the settings of a model say.

    Args:
        name: a folder, or OWNER/NAME on huggingface.co, of which only settings are fetched.
        adapter: the same of AnimateDiff's motion adapter; empty for none.
        option: what the user set to name it, for messages.
        families: those that will do.

    Raises:
        MissingWeights: it is not here and cannot be had.
        BadOption: it is no pipeline of these.
    """
    if not name.strip():
        raise BadOption(
            f"{option} is empty; name a folder, or a model like {next(iter(hub.MODELS))}"
        )
    path = hub.locate(name, option=option)
    index = _read_json(path / INDEX, name)
    called = str(index.get("_class_name", ""))
    _refuse_code(index, name)
    if called == PICTURES and adapter:
        called = "AnimateDiffPipeline"
    if called not in families:
        raise BadOption(_another_kind(name, called, option, families))
    family = families[called]
    beside = hub.locate(adapter, option="generator.motion") if adapter else None
    settings = {part: _settings(path / part) for part in _parts(index)}
    if beside is not None:
        settings["motion_adapter"] = _settings(beside)
    return ModelFolder(
        name=name,
        path=path,
        family=family,
        index=index,
        limits=family.limits(settings),
        adapter=beside,
    )


def fetch(model: ModelFolder, adapter: str = "", *, option: str = "generator.model") -> ModelFolder:
    """The same with all its files, fetched where they are not here and may be. Raises
    MissingWeights."""
    path = hub.locate(model.name, option=option, files=hub.EVERYTHING)
    beside = None
    if adapter:
        beside = hub.locate(adapter, option="generator.motion", files=hub.EVERYTHING)
    whole = ModelFolder(
        name=model.name,
        path=path,
        family=model.family,
        index=model.index,
        limits=model.limits,
        adapter=beside,
    )
    whole.check_whole()
    return whole


def _another_kind(name: str, called: str, option: str, families: Mapping[str, Family]) -> str:
    if called == PICTURES and families is FAMILIES:
        return (
            f"{option} = {name!r} makes pictures; with a motion adapter of AnimateDiff it makes "
            "films: name one with generator.motion"
        )
    what = f"is a {called}" if called else "names no pipeline"
    return f"{option} = {name!r} {what}, which will not do here; give one of: {', '.join(families)}"


def _parts(index: Mapping[str, Any]) -> list[str]:
    """The parts that the pipeline consists of: those that name a library and a class."""
    return [
        part
        for part, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None
    ]


def _refuse_code(index: Mapping[str, Any], name: str) -> None:
    for part in _parts(index):
        if index[part][0] not in LIBRARIES:
            raise BadOption(
                f"{name}: its part {part!r} is a class of {index[part][0]!r}, and code that comes "
                "with a model is not run; give a model whose parts are diffusers' own"
            )


def _read_json(path: Path, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadOption(
            f"{name} is no pipeline of diffusers: it has no {path.name}; give a folder that "
            "DiffusionPipeline.save_pretrained wrote (repositories called ...-Diffusers are such)"
        ) from error
    except ValueError as error:
        raise BadOption(f"{path} is damaged ({error}); copy or download it again") from error
    if not isinstance(value, dict):
        raise BadOption(f"{path} is damaged: it holds no settings; copy or download it again")
    return value


def _settings(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    return _read_json(path, str(folder)) if path.is_file() else {}


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of one part, all of them. Raises MissingWeights, BadWeights."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = set(_read_json(index, str(folder)).get("weight_map", {}).values())
        lacking = sorted(s for s in shards if not (folder / s).is_file())
        if lacking:
            raise MissingWeights(
                f"{folder} is incomplete: {len(lacking)} of its {len(shards)} files of weights are "
                f"not there, like {lacking[0]}; copy or download them"
            )
        return [folder / s for s in sorted(shards)]
    found = [p for p in sorted(folder.glob("*.safetensors")) if p.suffixes == [".safetensors"]]
    if found:
        return found
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise BadWeights(
            f"{folder} has its weights as pickles, which can run code and are not read; give "
            "safetensors (save_pretrained writes them)"
        )
    raise MissingWeights(
        f"{folder} is incomplete: it has no .safetensors; copy or download the weights"
    )


def _count(files: list[Path]) -> int:
    return sum(map(_count_one, files))


def _count_one(path: Path) -> int:
    """Numbers in a file, by its header."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(100_000_000, path.stat().st_size):
                raise ValueError("its header has no possible length")
            header = json.loads(file.read(length))
        tensors = [t for name, t in header.items() if name != "__metadata__"]
        end = max((t["data_offsets"][1] for t in tensors), default=0)
        if path.stat().st_size < 8 + length + end:
            raise ValueError("it is cut off")
        return sum(prod(t["shape"]) for t in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(f"{path} is damaged ({error}); copy or download it again") from error
