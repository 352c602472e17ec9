"""Published models of many files: where they lie on this machine, under which licence.

A model is a folder of settings and safetensors. It is looked for as a path, in the weights folder
(`weights.folder()`/OWNER/NAME), and in the cache of huggingface.co, from where it is fetched unless
that is forbidden. Importing this needs neither torch nor huggingface_hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vidsynth import weights
from vidsynth.errors import MissingWeights

SETTINGS = ("*.json", "*/*.json")
"""Patterns of the small files that say what a model is."""
EVERYTHING = (*SETTINGS, "*.safetensors", "*/*.safetensors", "*.txt", "*/*.txt", "*/*.model")
"""Patterns of all that a model consists of: nothing pickled, and no code."""
VARIANTS = ("*.fp16.*", "*.bf16.*", "*non_ema*", "onnx/*", "openvino/*")
"""Patterns of the same weights once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One that vidsynth knows by name; any other can be named too."""

    name: str
    """OWNER/NAME on huggingface.co."""
    licence: str
    size_gb: float
    """Of its files, in 10^9 bytes."""
    purpose: str

    def __str__(self) -> str:
        return f"{self.name} ({self.purpose}; {self.size_gb:.3g} GB, licence: {self.licence})"

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.name}"


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        m.name: m
        for m in (
            Model(
                name="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                licence="Apache-2.0",
                size_gb=28.9,
                purpose="Wan 2.1 for films from text",
            ),
            Model(
                name="Wan-AI/Wan2.2-Animate-14B-Diffusers",
                licence="Apache-2.0",
                size_gb=82.3,
                purpose="Wan-Animate for animating a picture",
            ),
            Model(
                name="openai/clip-vit-large-patch14",
                licence="MIT",
                size_gb=1.71,
                purpose="CLIP for prompts, and for how well films show them",
            ),
        )
    }
)


def available(name: str) -> bool:
    """Whether the model is on this machine already, so far as can be told without reading it."""
    try:
        locate(name, option="model", offline=True)
    except MissingWeights:
        return False
    return True


def locate(
    name: str, *, option: str, files: Sequence[str] = SETTINGS, offline: bool | None = None
) -> Path:
    """The folder of a model, with what of `files` there is.

    Args:
        name: a folder, or OWNER/NAME of a repository on huggingface.co.
        option: what the user set to name it, for the message.
        files: patterns of the files that are wanted.
        offline: fetch nothing; by default as the environment variable VIDSYNTH_OFFLINE says.

    Raises:
        MissingWeights: it is not here and cannot be had; says its size, licence and place.
    """
    for folder in (Path(name).expanduser(), weights.folder() / name):
        if folder.is_dir():
            return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise MissingWeights(
            f"{option} = {name!r} is no folder here and no OWNER/NAME of huggingface.co; correct it"
        )
    if weights.is_offline() if offline is None else offline:
        return _fetched(name, option, files, "it is not on this machine", local_files_only=True)
    return _fetched(name, option, files, "huggingface.co did not give it", local_files_only=False)


def _fetched(
    name: str, option: str, files: Sequence[str], why: str, *, local_files_only: bool
) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise missing(name, option, "huggingface_hub is not installed") from error
    try:
        found = snapshot_download(
            name,
            allow_patterns=list(files),
            ignore_patterns=list(VARIANTS),
            local_files_only=local_files_only,
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise missing(name, option, why) from error
    return Path(found)


def missing(name: str, option: str, why: str) -> MissingWeights:
    """What to say of a model that is not here: its size, its licence and where to put it."""
    model = MODELS.get(name)
    what = str(model) if model else f"{name} (its page states size and licence)"
    return MissingWeights(
        f"{option}: {what} is needed, but {why}; get it from https://huggingface.co/{name} and put "
        f"its files at {weights.folder() / name}, or give the folder where they are"
    )
