"""Body poses with MediaPipe Pose (BlazePose): 33 points, also in metres, with visibility."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vidsynth import bodies
from vidsynth.clip import Clip
from vidsynth.conditioning import PoseSequence
from vidsynth.kinds import Extractor
from vidsynth.smoothing import Points
from vidsynth_plugins.mediapipe_models import Tracker, open_pose
from vidsynth_plugins.sighting import Sighting
from vidsynth_plugins.tracking import Frame, TrackingOptions, follow


@dataclass(frozen=True, kw_only=True)
class PoseOptions(TrackingOptions):
    """How bodies are tracked.

    Attributes:
        person: which person by size at the first sighting, where there are several: 1 (or none
            given) is the largest, 2 the next.
        min_confidence: smallest score, in [0, 1], of a detection or of a track that goes on.
        smoothing: seconds; time constant of the filter for a joint at rest, less in motion;
            0 switches it off.
        max_gap_seconds: seconds; shorter absences are interpolated, longer ones are marked.
        model_bundle: a pose landmarker bundle (.task) to use through MediaPipe's Tasks API, which
            mediapipe 1.x needs; none given: the models inside mediapipe 0.10.x, or the bundle in
            the folder VIDSYNTH_MODELS or among vidsynth's weights.
        hands: find 21 points on each hand too (mediapipe 0.10.x without a bundle only).
        face: find the 478-point face mesh too (mediapipe 0.10.x without a bundle only).
    """

    hands: bool = False
    face: bool = False


class PoseExtractor(Extractor):
    """Tracks one person. Where it is not seen, visibility is 0 and the last known pose is kept."""

    Options = PoseOptions
    produces: ClassVar = PoseSequence
    weights_licence = "Apache-2.0 (MediaPipe's own models)"
    checked: ClassVar = {"world": "puppet", "height": 160, "width": 160}

    options: PoseOptions

    def extract(self, clips: Iterator[Clip]) -> Iterator[PoseSequence]:
        """One PoseSequence of one person per clip.

        Raises:
            MissingWeights: this mediapipe has no models of its own and there is no bundle.
            BadOption: hand or face points are asked of a mediapipe that cannot find them.
        """
        tracks = follow(
            clips, self._open, self._measure, self.options, margin=0.35, agility=bodies.AGILITY
        )
        for frames, size in tracks:
            yield self._sequence(frames, size)

    def _open(self) -> Tracker:
        return open_pose(
            bundle=self.options.model_bundle,
            confidence=self.options.min_confidence,
            details=self.options.hands or self.options.face,
            notes=self.notes,
        )

    def _parts(self) -> dict[str, int]:
        """Number of points of each cloud that is kept."""
        wanted = {"keypoints": 33, "world": 33}
        wanted |= {"hands": 42} if self.options.hands else {}
        return wanted | ({"face": 478} if self.options.face else {})

    def _measure(self, sighting: Sighting) -> Mapping[str, Points]:
        seen = sighting.clouds
        assert seen.world is not None
        clouds = {"keypoints": seen.points, "hands": seen.hands, "face": seen.face}
        parts = {"world": seen.world}
        for name in self._parts().keys() - parts:
            cloud = clouds[name]
            if cloud is None:  # a search of the whole picture finds bodies only
                cloud = _hidden(seen.points[0], self._parts()[name])
            parts[name] = cloud[:, [0, 1, 3]]
        return parts

    def _sequence(self, frames: list[Frame], size: tuple[int, int]) -> PoseSequence:
        tensors = {}
        for name, count in self._parts().items():
            cloud = np.zeros((len(frames), 1, count, 3), np.float32)
            for row, frame in zip(cloud, frames, strict=True):
                row[0] = frame.parts.get(name, 0)
                if not frame.seen and name != "world":
                    row[..., 2] = 0
            tensors[name] = torch.from_numpy(cloud)
        seen = torch.tensor([[frame.seen] for frame in frames], dtype=torch.bool).reshape(-1, 1)
        return PoseSequence(**tensors, seen=seen, frame_size=size)


def _hidden(nose: Points, count: int) -> Points:
    """(count, 4) invisible points on the nose."""
    return np.tile(nose * np.array([1, 1, 1, 0], np.float32), (count, 1))
