"""Whether a made face is still the person: cosine similarity of SFace embeddings.

Zhong et al. 2021, "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", run by
OpenCV, on faces aligned by five points of our own face mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from vidsynth import faces
from vidsynth.conditioning import FaceSequence
from vidsynth.errors import MissingWeights
from vidsynth.kinds import Film
from vidsynth_plugins.metrics.common import (
    FrameMetric,
    blocks,
    fingerprint,
    given,
    nowhere,
    tracked,
    weights_file,
)

# T frames, D dimensions

_NOSE_TIP, _RIGHT_MOUTH, _LEFT_MOUTH = 4, 61, 291


@dataclass(frozen=True, kw_only=True)
class IdentityOptions:
    """How faces are compared.

    Attributes:
        weights: path of SFace's ONNX file; by default in the weights folder.
        stride: every so manieth frame is looked at.
    """

    weights: str = ""
    stride: int = 1


class IdentitySimilarity(FrameMetric):
    """Cosine between each made face and the mean of the real faces, in [-1, 1].

    Above 0.363 SFace's authors call two pictures one person.
    """

    Options = IdentityOptions
    options: IdentityOptions
    paper = (
        "Zhong et al. 2021, 'SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face "
        "Recognition'"
    )
    weights_licence = "Apache-2.0"
    unit = ""
    higher_is_better = True
    against = "looks"

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._recogniser: Any = None
        self._hash = ""

    def measure(self, made: Film, real: Film | None) -> Tensor:
        person = [e for e in self._embeddings(given(real)) if e is not None]
        if not person:
            return nowhere(made)
        mean = normalize(torch.stack(person).mean(dim=0), dim=0)
        cosines = [torch.nan if e is None else float(e @ mean) for e in self._embeddings(made)]
        return torch.tensor(cosines, dtype=torch.float64)

    def _embeddings(self, film: Film) -> list[Tensor | None]:
        """A unit vector (D,) per frame, None where no face is seen or the frame is passed over."""
        recogniser, signal = self._loaded(), tracked(film, "face")
        if signal is None:
            return [None] * len(film)
        assert isinstance(signal, FaceSequence)
        points, present = five_points(signal), signal.present()
        found: list[Tensor | None] = []
        for frames in blocks(film):
            for frame in frames.cpu():
                t = len(found)
                wanted = present[t] and t % self.options.stride == 0
                found.append(_embedding(recogniser, frame, points[t]) if wanted else None)
        return found

    def _loaded(self) -> Any:
        if self._recogniser is None:
            path = weights_file("sface", self.options.weights)
            try:
                self._recogniser = cv2.FaceRecognizerSF.create(str(path), "")
            except cv2.error as error:
                raise MissingWeights(
                    f"{path} cannot be read as an ONNX network; delete it to have it fetched again"
                ) from error
            self._hash = fingerprint(path)
        return self._recogniser

    def nothing(self) -> str:
        return "no face is seen in the made or in the real video; give videos that show one"

    def protocol(self) -> str:
        return (
            f"identity_similarity 1: SFace, five mesh points, 112x112, stride "
            f"{self.options.stride}, weights {self._hash}"
        )


def five_points(face: FaceSequence) -> Tensor:
    """(T, 5, 2) pixels: the person's right eye, left eye, nose tip, right and left mouth corner."""
    points = face.landmarks[..., :2]
    eyes = [points[:, list(eye)].mean(dim=1) for eye in (faces.RIGHT_EYE, faces.LEFT_EYE)]
    rest = [points[:, k] for k in (_NOSE_TIP, _RIGHT_MOUTH, _LEFT_MOUTH)]
    return torch.stack([*eyes, *rest], dim=1)


def _embedding(recogniser: Any, frame: Tensor, points: Tensor) -> Tensor:
    """(D,) float64 unit vector of a (3, H, W) uint8 picture's face at (5, 2) points."""
    picture = np.ascontiguousarray(frame.numpy()[::-1].transpose(1, 2, 0))  # OpenCV reads BGR
    detection = np.zeros((1, 15), np.float32)
    detection[0, 4:14] = (points.numpy() - 0.5).ravel()  # OpenCV counts from pixels' centres
    vector = recogniser.feature(recogniser.alignCrop(picture, detection))
    return normalize(torch.from_numpy(vector[0]).double(), dim=0)
