"""Pretrained weights: what there is, under which licence, and where it lies on this machine.

Nothing else in vidsynth fetches a file from the network. Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType

from vidsynth.errors import MissingWeights, UnknownName
from vidsynth.files import cache_folder, writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One published file of weights."""

    name: str
    file: str
    """Its name in the weights folder."""
    url: str
    licence: str
    size_mb: float
    """Download size in 10^6 bytes."""
    sha256: str
    """Hexadecimal; only the first digits where the publisher gives no more."""
    purpose: str = ""

    def __str__(self) -> str:
        return f"{self.file} ({self.purpose}; {self.size_mb:.0f} MB, licence: {self.licence})"


_MEDIAPIPE = "https://storage.googleapis.com/mediapipe-models"

WEIGHTS: Mapping[str, Weights] = MappingProxyType(
    {
        w.name: w
        for w in (
            Weights(
                name="vgg19",
                file="vgg19-dcbb9e9d.pth",
                url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
                licence="BSD-3-Clause, trained on ImageNet",
                size_mb=574.7,
                sha256="dcbb9e9d",
                purpose="VGG19 for the perceptual loss",
            ),
            Weights(
                name="face_landmarker",
                file="face_landmarker.task",
                url=f"{_MEDIAPIPE}/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
                licence="Apache-2.0",
                size_mb=3.8,
                sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
                purpose="face mesh for MediaPipe 1.x",
            ),
            Weights(
                name="pose_landmarker_full",
                file="pose_landmarker_full.task",
                url=f"{_MEDIAPIPE}/pose_landmarker/pose_landmarker_full/float16/1/"
                "pose_landmarker_full.task",
                licence="Apache-2.0",
                size_mb=9.4,
                sha256="4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
                purpose="body pose for MediaPipe 1.x",
            ),
        )
    }
)


def folder() -> Path:
    """Where weights are kept: `VIDSYNTH_WEIGHTS` when set, else in vidsynth's cache."""
    chosen = os.environ.get("VIDSYNTH_WEIGHTS")
    return Path(chosen).expanduser() if chosen else cache_folder("weights")


def available(name: str) -> bool:
    """Whether the weights are on this machine already."""
    return (folder() / _known(name).file).is_file()


def locate(name: str, *, path: Path | None = None, offline: bool | None = None) -> Path:
    """The file of these weights, downloaded and checked if it is not here yet.

    Args:
        name: as in `WEIGHTS`.
        path: the user's own copy, used as it is.
        offline: never download; by default as the environment variable VIDSYNTH_OFFLINE says.

    Raises:
        UnknownName: no such weights.
        MissingWeights: they are not here and cannot be had; says their size, licence and place.
        CannotWrite: the weights folder is not writable.
    """
    weights = _known(name)
    if path is not None:
        if not path.is_file():
            raise MissingWeights(f"{path} is no file; it was given as {weights}")
        return path
    place = folder() / weights.file
    if not place.is_file():
        if _offline() if offline is None else offline:
            raise _missing(weights, place, "it is not on this machine")
        _download(weights, place)
    return place


def _download(weights: Weights, place: Path) -> None:
    with writing(place) as temporary:
        try:
            with (
                urllib.request.urlopen(weights.url, timeout=30) as answer,
                temporary.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file, length=1 << 20)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise _missing(weights, place, f"{weights.url} could not be read ({reason})") from error
        with temporary.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(weights.sha256):
            raise _missing(
                weights, place, f"what {weights.url} sent is not that file (sha256 {found[:16]}...)"
            )


def _missing(weights: Weights, place: Path, why: str) -> MissingWeights:
    return MissingWeights(
        f"{weights} is needed, but {why}; get it from {weights.url} and put it at {place}"
    )


def _known(name: str) -> Weights:
    if name not in WEIGHTS:
        raise UnknownName.among("weights", name, list(WEIGHTS))
    return WEIGHTS[name]


def _offline() -> bool:
    return os.environ.get("VIDSYNTH_OFFLINE", "").lower() not in ("", "0", "false", "no")
