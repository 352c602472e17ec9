"""Pretrained weights: what there is, under which licence, and where it lies on this machine.

Nothing else in vidsynth fetches a file from the network. Importing this needs no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vidsynth.errors import BadWeights, MissingWeights, UnknownName
from vidsynth.files import cache_folder, writing

if TYPE_CHECKING:
    from torch import Tensor


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
        return f"{self.file} ({self.purpose}; {self.size_mb:.3g} MB, licence: {self.licence})"


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
                name="alexnet",
                file="alexnet-owt-7be5be79.pth",
                url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                licence="BSD-3-Clause, trained on ImageNet",
                size_mb=244.4,
                sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                purpose="AlexNet for LPIPS",
            ),
            Weights(
                name="lpips",
                file="alex.pth",
                url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
                "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/alex.pth",
                licence="BSD-2-Clause",
                size_mb=0.006,
                sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
                purpose="LPIPS v0.1, what each channel of AlexNet counts",
            ),
            Weights(
                name="inception",
                file="pt_inception-2015-12-05-6726825d.pth",
                url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                licence="Apache-2.0, trained on ImageNet",
                size_mb=95.6,
                sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                purpose="Inception v3 of 2015 for FID, KID and IS",
            ),
            Weights(
                name="i3d",
                file="i3d_pretrained_400.pt",
                url="https://huggingface.co/spaces/LanguageBind/Open-Sora-Plan-v1.0.0/resolve/"
                "810fa8c4bdb3a4c8eec9bd57375c29bde6fb46de/opensora/eval/fvd/videogpt/"
                "i3d_pretrained_400.pt",
                licence="Apache-2.0, trained on Kinetics-400",
                size_mb=50.9,
                sha256="55095f049e706479d48e221adcdb145b2b9dc930ba28b081ed72367ffaa32343",
                purpose="I3D of TF-Hub for FVD",
            ),
            Weights(
                name="raft_large",
                file="raft_large_C_T_SKHT_V2-ff5fadd5.pth",
                url="https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
                licence="BSD-3-Clause, trained on FlyingChairs, FlyingThings3D, Sintel, KITTI "
                "and HD1K",
                size_mb=21.1,
                sha256="ff5fadd5",
                purpose="RAFT for optical flow",
            ),
            Weights(
                name="sface",
                file="face_recognition_sface_2021dec.onnx",
                url="https://media.githubusercontent.com/media/opencv/opencv_zoo/"
                "47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_recognition_sface/"
                "face_recognition_sface_2021dec.onnx",
                licence="Apache-2.0",
                size_mb=38.7,
                sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                purpose="SFace for identity similarity",
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
            Weights(
                name="selfie_segmenter",
                file="selfie_segmenter.tflite",
                url=f"{_MEDIAPIPE}/image_segmenter/selfie_segmenter/float16/1/"
                "selfie_segmenter.tflite",
                licence="Apache-2.0",
                size_mb=0.25,
                sha256="191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
                purpose="person segmentation for MediaPipe 1.x",
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
        if is_offline() if offline is None else offline:
            raise _missing(weights, place, "it is not on this machine")
        _download(weights, place)
    return place


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch or safetensors, on the CPU; never any code.

    Raises BadWeights when it cannot be read or holds something other than tensors by name.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises many kinds for what it did not write
        raise BadWeights(
            f"{path} cannot be read as weights ({type(error).__name__}); give a state dict as "
            "torch.save or safetensors writes it; a file that vidsynth fetched is fetched again "
            "once it is deleted"
        ) from error
    tensors = isinstance(state, Mapping) and all(torch.is_tensor(w) for w in state.values())
    if not tensors:
        raise BadWeights(f"{path} holds something other than weights; give a plain state dict")
    return dict(state)


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


@contextmanager
def staying_offline() -> Iterator[None]:
    """Within the block, weights that are not here are missing: nothing is downloaded unasked."""
    global _staying_offline
    before, _staying_offline = _staying_offline, True
    try:
        yield
    finally:
        _staying_offline = before


_staying_offline = False


def is_offline() -> bool:
    """Whether nothing may be downloaded now."""
    return _staying_offline or os.environ.get("VIDSYNTH_OFFLINE", "").lower() not in (
        "",
        "0",
        "false",
        "no",
    )
