"""How far the motion of a made video is from the one that was meant, as the trackers see it.

What is against "truth" compares places in the picture. What is against "motion" may hold one person
against another, so it compares only what people have in common: joints about the hips in the
person's own size, turns of the head, looks, changes of a face about its own mean.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vidsynth import bodies, faces
from vidsynth.conditioning import Conditioning, FaceSequence, PoseSequence
from vidsynth.errors import NotMeasurable
from vidsynth.facemesh import load_face_mesh
from vidsynth.kinds import Film
from vidsynth_plugins.metrics.common import FrameMetric, given, nowhere, tracked

# T frames, K points

_WELL_SEEN = 0.5  # visibility from which a joint's place is trusted
_BODY = (0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # nose, shoulders ... ankles
_TORSOS_PER_HEIGHT = 3.3
_OUTER_CORNERS = (33, 263)
_EYES = (((33, 133), (159, 145), 468), ((362, 263), (386, 374), 473))
"""Of both eyes, right then left: corners from left to right in the picture, lids, iris."""
_EXPRESSIVE = (
    *(faces.LIPS_OUTER + faces.LIPS_INNER),
    *(faces.LEFT_EYE + faces.RIGHT_EYE + faces.LEFT_BROW + faces.RIGHT_BROW),
)
_OPEN = 0.08  # height over width of an eye below which there is no gaze to speak of


class TrackedMetric(FrameMetric):
    """One number per frame from what one tracker sees in both films."""

    higher_is_better = False
    extractor: ClassVar[str]

    @abstractmethod
    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        """(T,) numbers; what they are in frames where a subject is absent does not matter."""

    def measure(self, made: Film, real: Film | None) -> Tensor:
        real = given(real)
        if len(made) != len(real):
            raise NotMeasurable(
                f"{made.name} has {len(made)} frames and {real.name} {len(real)}; compare as many"
            )
        ours, theirs = tracked(made, self.extractor), tracked(real, self.extractor)
        if ours is None or theirs is None:
            return nowhere(made)
        both = ours.present() & theirs.present()
        if not both.any():
            return nowhere(made)
        return torch.where(both, self.compare(ours, theirs).double(), torch.nan)

    def nothing(self) -> str:
        return (
            f"no frame shows the subject in both videos to the {self.extractor} tracker; give "
            "videos that show it"
        )


def _joints(pose: Conditioning) -> tuple[Tensor, Tensor, float]:
    """Body joints (T, 13, 2) and whether they are well seen (T, 13); the body's height in px."""
    assert isinstance(pose, PoseSequence)
    points = bodies.subject_points(pose, *pose.frame_size)
    torso = np.median(bodies.torso_lengths(points[pose.present().numpy()]))
    joints = torch.from_numpy(points[:, _BODY])
    return joints[..., :2], joints[..., 2] > _WELL_SEEN, float(torso) * _TORSOS_PER_HEIGHT


def _mean_where(values_TK: Tensor, known_TK: Tensor) -> Tensor:
    """(T,) means over the known ones; NaN where there are none."""
    total = torch.where(known_TK, values_TK, 0.0).sum(dim=1)
    return total / torch.where(known_TK.any(dim=1), known_TK.sum(dim=1), torch.nan)


class PoseDistancePx(TrackedMetric):
    """Mean distance of body joints that are well seen in both (average key-point distance)."""

    extractor = "pose"
    unit = "px"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        (ours, seen, _), (theirs, seen_too, _) = _joints(made), _joints(real)
        return _mean_where((ours - theirs).norm(dim=2), seen & seen_too)

    def protocol(self) -> str:
        return f"pose_distance_px 1: 13 joints of visibility above {_WELL_SEEN} in both"


class PoseDistance(PoseDistancePx):
    """The same in shares of the real person's height, so that sizes of video do not matter."""

    unit = "% of height"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        _, _, height_px = _joints(real)
        return super().compare(made, real) * 100 / height_px

    def protocol(self) -> str:
        return super().protocol().replace("_px", "") + f", height {_TORSOS_PER_HEIGHT} torsos"


class PoseMotion(TrackedMetric):
    """Distance of joints about the hips, each body in its own height.

    Two people who move the same differ by their proportions, so even a perfect transfer keeps a
    few percent; compare with the floor.
    """

    extractor = "pose"
    unit = "% of height"
    against = "motion"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        placed, known = [], torch.tensor(True)
        for pose in (made, real):
            joints, seen, height_px = _joints(pose)
            hips = joints[:, 7:9].mean(dim=1, keepdim=True)
            placed.append((joints - hips) * 100 / height_px)
            known = known & seen & seen[:, 7:9].all(dim=1, keepdim=True)
        return _mean_where((placed[0] - placed[1]).norm(dim=2), known)

    def protocol(self) -> str:
        return (
            f"pose_motion 1: 13 joints of visibility above {_WELL_SEEN} in both, about the hips, "
            f"height {_TORSOS_PER_HEIGHT} torsos of each"
        )

    def nothing(self) -> str:
        return "no frame shows both hips in both videos; give videos of a whole body"


class MissingRate(FrameMetric):
    """Share of the frames with a subject in the real film where the made one shows none."""

    unit = "%"
    higher_is_better = False
    against = "motion"
    extractor: ClassVar[str] = "pose"

    def measure(self, made: Film, real: Film | None) -> Tensor:
        theirs = tracked(given(real), self.extractor)
        if theirs is None:
            return nowhere(made)
        ours = tracked(made, self.extractor)
        here = torch.zeros(len(made), dtype=torch.bool) if ours is None else ours.present()
        return torch.where(theirs.present(), 100.0 * (~here).double(), torch.nan)

    def nothing(self) -> str:
        return f"the {self.extractor} tracker sees nobody in the real video; give one with a person"

    def protocol(self) -> str:
        return f"missing_rate 1: {self.extractor} tracker"


class MissingFaceRate(MissingRate):
    """The same for the face mesh."""

    extractor = "face"

    def protocol(self) -> str:
        return "missing_face_rate 1: face tracker"


def _face(signal: Conditioning) -> FaceSequence:
    assert isinstance(signal, FaceSequence)
    return signal


def _between_eyes_cm() -> float:
    """From outer corner to outer corner of the canonical face."""
    right, left = load_face_mesh().vertices[list(_OUTER_CORNERS)]
    return float(np.linalg.norm(right - left))


class LandmarkDistance(TrackedMetric):
    """Mean distance of the 468 mesh points, in shares of the distance between the eyes' corners.

    That distance is the canonical face's at the tracked scale, since it would shrink in profile.
    """

    extractor = "face"
    unit = "% between eyes"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        ours, theirs = (_face(s).landmarks[:, :468, :2].double() for s in (made, real))
        between_px = _face(real).scale.double() * _between_eyes_cm()
        return (ours - theirs).norm(dim=2).mean(dim=1) * 100 / between_px

    def protocol(self) -> str:
        return "landmark_distance 1: 468 points in the picture, over the distance between eyes"


class ExpressionDistance(TrackedMetric):
    """How differently mouths, lids and brows move about their own means, turns of the head taken
    out: faces of other shapes can be compared, a lasting smile is not seen."""

    extractor = "face"
    unit = "% between eyes"
    against = "motion"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        ours, theirs = (_changes(_face(s)) for s in (made, real))
        both = made.present() & real.present()
        ours, theirs = ours - ours[both].mean(dim=0), theirs - theirs[both].mean(dim=0)
        return (ours - theirs).norm(dim=2).mean(dim=1) * 100 / _between_eyes_cm()

    def protocol(self) -> str:
        points = len(_EXPRESSIVE)
        return f"expression_distance 1: {points} points in the head's axes, about their means"


def _changes(face: FaceSequence) -> Tensor:
    """(T, K, 2): x and y of mouth, lids and brows in the head's own axes, in centimetres.

    Depth is left out: trackers guess it."""
    points = face.landmarks[:, :468].double()
    centred = points[:, list(_EXPRESSIVE)] - points.mean(dim=1, keepdim=True)
    upright = centred @ face.rotation.double()  # rows: R' p
    return (upright / face.scale.double().clamp_min(1e-6)[:, None, None])[..., :2]


class HeadPoseError(TrackedMetric):
    """Angle between the two heads' rotations."""

    extractor = "face"
    unit = "degrees"
    against = "motion"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        between = _face(made).rotation.double().transpose(1, 2) @ _face(real).rotation.double()
        return rotation_angle(between)

    def protocol(self) -> str:
        return "head_pose_error 1: angle of the rotation between the heads"


def rotation_angle(rotations_T33: Tensor) -> Tensor:
    """(T,) degrees of rotation matrices, accurate for small ones too."""
    skew = rotations_T33 - rotations_T33.transpose(1, 2)
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1).norm(dim=1) / 2
    cosine = (rotations_T33.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


class GazeError(TrackedMetric):
    """How differently the irises stand between the corners of the eyes, mean of both eyes.

    The mean cancels a squint, which belongs to the person. Frames where either blinks are left out.
    """

    extractor = "face"
    unit = "% of eye width"
    against = "motion"

    def compare(self, made: Conditioning, real: Conditioning) -> Tensor:
        return (_gaze(_face(made)) - _gaze(_face(real))).norm(dim=1) * 100

    def protocol(self) -> str:
        return f"gaze_error 1: irises from the middles of the eyes, openings above {_OPEN}"

    def nothing(self) -> str:
        return "no frame shows open eyes in both videos; give videos with a larger face"


def _gaze(face: FaceSequence) -> Tensor:
    """(T, 2): the irises' place along and across the eyes, in eye widths; NaN when closed."""
    points = face.landmarks[..., :2].double()
    found = []
    for (left, right), (top, bottom), iris in _EYES:
        along = points[:, right] - points[:, left]
        width = along.norm(dim=1, keepdim=True).clamp_min(1e-6)
        axis = along / width
        across = torch.stack([-axis[:, 1], axis[:, 0]], dim=1)
        offset = (points[:, iris] - (points[:, left] + points[:, right]) / 2) / width
        opening = ((points[:, bottom] - points[:, top]) * across).sum(dim=1, keepdim=True) / width
        place = torch.stack([(offset * axis).sum(dim=1), (offset * across).sum(dim=1)], dim=1)
        found.append(torch.where(opening > _OPEN, place, torch.nan))
    return (found[0] + found[1]) / 2
