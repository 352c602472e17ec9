"""Faces with MediaPipe Face Mesh: 478 points with irises, and the pose of the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vidsynth import faces
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.facemesh import load_face_mesh
from vidsynth.kinds import Extractor
from vidsynth.smoothing import Points
from vidsynth_plugins.mediapipe_models import Tracker, open_face
from vidsynth_plugins.sighting import Sighting
from vidsynth_plugins.tracking import Frame, TrackingOptions, follow

# T frames, N points


# fmt: off
_RIGID = (4, 6, 10, 33, 54, 67, 117, 119, 121, 127, 129, 132, 133, 136, 143, 147, 198, 205,
          263, 284, 297, 346, 348, 350, 356, 358, 361, 362, 365, 372, 376, 420, 425)
_RIGID_WEIGHTS = (
    .0709, .0321, .0084, .0587, .0077, .0091, .0098, .0146, .0186, .0052, .1206, .0056, .0533,
    .0669, .0148, .0143, .0255, .0473, .0587, .0077, .0091, .0098, .0146, .0186, .0052, .1206,
    .0056, .0533, .0669, .0148, .0143, .0255, .0473)
# fmt: on
"""Points that hardly move with the expression and how much each counts: the Procrustes basis in
the metadata of MediaPipe's official face landmarker bundle (Apache-2.0)."""


@dataclass(frozen=True, kw_only=True)
class FaceOptions(TrackingOptions):
    """How faces are tracked.

    Attributes:
        person: which face by size at the first sighting, where there are several: 1 (or none
            given) is the largest, 2 the next.
        min_confidence: smallest score, in [0, 1], of a detection or of a track that goes on.
        smoothing: seconds; time constant of the filter for a point at rest, less in motion;
            0 switches it off.
        max_gap_seconds: seconds; shorter absences are interpolated, longer ones are marked.
        model_bundle: a face landmarker bundle (.task) to use through MediaPipe's Tasks API, which
            mediapipe 1.x needs; none given: the models inside mediapipe 0.10.x, or the bundle in
            the folder VIDSYNTH_MODELS or among vidsynth's weights.
    """

    smoothing: float = 0.03


class FaceExtractor(Extractor):
    """Tracks one face. Where it is not seen, the last known face is kept."""

    Options = FaceOptions
    produces: ClassVar = FaceSequence
    weights_licence = "Apache-2.0 (MediaPipe's own models)"
    checked: ClassVar = {"world": "head", "height": 128, "width": 128}

    options: FaceOptions

    def extract(self, clips: Iterator[Clip]) -> Iterator[FaceSequence]:
        """One FaceSequence per clip.

        Raises:
            MissingWeights: this mediapipe has no models of its own and there is no bundle.
        """
        tracks = follow(
            clips,
            self._open,
            _measure,
            self.options,
            margin=1.0,
            agility=faces.AGILITY,
            parts=(2, 4),
        )
        for frames, size in tracks:
            yield _sequence(frames, size)

    def _open(self) -> Tracker:
        return open_face(
            bundle=self.options.model_bundle,
            confidence=self.options.min_confidence,
            notes=self.notes,
        )


def _measure(sighting: Sighting) -> Mapping[str, Points]:
    return {"landmarks": sighting.clouds.points[:, :3]}


def _sequence(frames: list[Frame], size: tuple[int, int]) -> FaceSequence:
    landmarks = np.zeros((len(frames), 478, 3), np.float32)
    for row, frame in zip(landmarks, frames, strict=True):
        row[:] = frame.parts.get("landmarks", 0)
    pose = fit_head_pose(landmarks)
    return FaceSequence(
        landmarks=torch.from_numpy(landmarks),
        rotation=torch.from_numpy(pose.rotation),
        translation=torch.from_numpy(pose.translation),
        scale=torch.from_numpy(pose.scale),
        seen=torch.tensor([frame.seen for frame in frames], dtype=torch.bool),
        frame_size=size,
    )


class HeadPose(NamedTuple):
    """Weak perspective: a canonical point X appears at scale * (rotation @ X) + translation."""

    rotation: NDArray[np.float32]
    """(T, 3, 3) proper rotations: canonical axes (x right, y up, z to the viewer) -> picture axes
    (x right, y down, z away)."""
    translation: NDArray[np.float32]
    """(T, 2) pixels: where the canonical origin, inside the head, appears."""
    scale: NDArray[np.float32]
    """(T,) pixels per canonical centimetre."""


def fit_head_pose(landmarks: NDArray[np.floating]) -> HeadPose:
    """The similarity that takes the canonical face nearest to each frame's rigid points.

    Weighted least squares in closed form. Frames of all zeros get an upright face of scale 0.

    Args:
        landmarks: (T, 478 or 468, 3) x, y in pixels, z in the same scale, smaller is nearer.
    """
    weight = np.array(_RIGID_WEIGHTS) / np.sum(_RIGID_WEIGHTS)
    model = load_face_mesh().vertices[list(_RIGID)].astype(np.float64)
    points = landmarks[:, list(_RIGID)].astype(np.float64)
    model_centre, centre = weight @ model, np.tensordot(points, weight, (1, 0))
    model, points = model - model_centre, points - centre[:, None]

    covariance = np.tensordot(points, weight[:, None] * model, (1, 0))
    left, values, right = np.linalg.svd(covariance)
    # A mirrored face is no rotation: turn the least certain axis round.
    values[:, 2] *= np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    rotation = left @ right
    scale = values.sum(axis=1) / np.einsum("n,nc->", weight, model**2)
    blank = ~covariance.any(axis=(1, 2))
    rotation[blank], scale[blank] = np.diag([1.0, -1.0, -1.0]), 0.0
    origin = centre - scale[:, None] * np.einsum("tij,j->ti", rotation, model_centre)
    return HeadPose(
        rotation.astype(np.float32), origin[:, :2].astype(np.float32), scale.astype(np.float32)
    )
