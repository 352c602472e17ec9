"""Faces: the source's head pose, expression and gaze, on the target's face and in its place.

Everything is relative to a neutral face, since absolute transfer bends one face into the other's
shape: poses compose as in FOM and LivePortrait (`R = R_source R_neutral^-1 R_target`), and the
place in the picture is recentred, rescaled and held to the target's training range as head2head's
`reenact.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.conditioning import FaceSequence
from vidsynth.facemesh import load_face_mesh
from vidsynth.parametric import ParametricFace

# T frames; canonical coordinates are centimetres, free of head pose

_NATURAL_VERGENCE_CM = 0.05  # per eye, from person to person
NUM_MESH = 468  # the first of the 478 points; irises follow
_MOUTH = faces.LIPS_OUTER + faces.LIPS_INNER
_LIPS_GAP = (13, 14)
_LIDS_GAPS = ((159, 145), (386, 374))
_MOUTH_CORNERS = (61, 291)
_EYE_CORNERS = ((33, 133), (362, 263))  # of the right eye, of the left

AnyFace = TypeVar("AnyFace", bound=FaceSequence)
Mode = Literal["full", "expression", "pose", "gaze"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRetarget:
    """How a head's motion is brought to the target.

    Attributes:
        mode: what the source gives: "full" everything; "expression" the face only, for dubbing;
            "pose" the head's turns and its place only; "gaze" the eyes only. The rest is as in
            the target's own video where that is at hand, and else at rest.
        expression_strength: 1 keeps the source's expressions, 0 keeps the target's neutral face.
        gaze_strength: 1 keeps the source's eye movements, 0 keeps the target's neutral gaze.
        pose_strength: 1 keeps the source's head movements, 0 keeps the target's usual pose.
        adapt: fit the movements of eyes and mouth to the size of the target's.
        clip: hold pose, place and size softly within what the target's training saw.
        absolute: take pose, place and size as in the source's picture, fitted into the target's
            frame, and not relative to the source's usual ones.
    """

    mode: Mode = "full"
    expression_strength: float = 1.0
    gaze_strength: float = 1.0
    pose_strength: float = 1.0
    adapt: bool = True
    clip: bool = True
    absolute: bool = False

    def __post_init__(self) -> None:
        for name in ("expression_strength", "gaze_strength", "pose_strength"):
            if not 0 <= getattr(self, name) <= 3:
                raise ValueError(f"{name} must be in [0, 3]")


@dataclass(frozen=True, slots=True, eq=False)
class _Neutral:
    """A face at rest, and where its head usually is."""

    shape: Tensor
    """(478, 3) canonical."""
    rotation: Tensor
    """(3, 3) canonical -> picture axes."""
    translation: Tensor
    """(2,) pixels."""
    scale: Tensor
    """() pixels per centimetre."""

    @staticmethod
    def of(face: FaceSequence) -> _Neutral:
        """From frames that show the face.

        The shape is the median over the most neutral frames. Gaze, a median against glances, and
        turn, place and size, means as head2head's, are taken over all: a mouth at rest says
        nothing about where one looks and sits.
        """
        shapes = canonical(face)
        best = _most_neutral(shapes, face.rotation.double())
        shape = shapes[best].median(dim=0).values
        for (_, iris), corners in zip(faces.EYES, _EYE_CORNERS, strict=True):
            gaze = shapes[:, iris] - shapes[:, corners].mean(dim=1, keepdim=True)
            shape[list(iris)] = shape[list(corners)].mean(dim=0) + gaze.median(dim=0).values
        return _Neutral(
            shape,
            _mean_rotation(face.rotation.double()),
            face.translation.double().mean(dim=0),
            face.scale.double().mean(),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape": [[round(v, 5) for v in point] for point in self.shape.tolist()],
            "rotation": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "scale": float(self.scale),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> _Neutral:
        names = ("shape", "rotation", "translation", "scale")
        return _Neutral(*(torch.tensor(values[name], dtype=torch.float64) for name in names))


def _shown(face: FaceSequence) -> FaceSequence:
    return face[face.present().nonzero()[:, 0]]


def canonical(face: FaceSequence) -> Tensor:
    """Landmarks with head pose, place and size taken out: (T, 478, 3) float64 centimetres."""
    rotation, scale = face.rotation.double(), face.scale.double().clamp(min=1e-6)
    centred = face.landmarks.double()
    centred[..., :2] -= face.translation.double()[:, None]
    # Weak perspective leaves depth without an origin, and trackers measure z from about the middle
    # of the face: shift it until the mesh lies as deep about the canonical origin as the model.
    middle = torch.from_numpy(load_face_mesh().vertices.mean(axis=0)).double()
    depth = scale * (rotation[:, 2] @ middle)
    centred[..., 2] += (depth - centred[:, :NUM_MESH, 2].mean(dim=1))[:, None]
    # Row vectors: multiplying by R from the right applies its transpose.
    return centred @ rotation / scale[:, None, None]


def _most_neutral(shapes: Tensor, rotation: Tensor) -> Tensor:
    """Indices of the frames with mouth shut and not pulled, eyes open as usual and face to the
    camera.

    The best twentieth, at least 5. A centimetre of open mouth counts as much as lids, or corners
    of the mouth, half a centimetre from where they usually are, or a turn of 30 degrees.
    """
    lids = _openings(shapes)[1]
    turned = torch.acos(rotation[:, 2, 2].abs().clamp(max=1.0))
    corners = shapes[:, list(_MOUTH_CORNERS)]
    pulled = (corners - corners.median(dim=0).values).norm(dim=2).mean(dim=1)
    score = _openings(shapes)[0] + ((lids - lids.median()).abs() + pulled) / 0.5 + turned / 0.52
    return score.argsort(stable=True)[: max(5, len(score) // 20)]


def _openings(shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Gaps between the lips and between the lids, mean of both eyes: (..., ) centimetres."""
    lids = [_distance(shapes, *pair) for pair in _LIDS_GAPS]
    return _distance(shapes, *_LIPS_GAP), torch.stack(lids).mean(dim=0)


def _distance(shapes: Tensor, first: int, second: int) -> Tensor:
    return (shapes[..., first, :] - shapes[..., second, :]).norm(dim=-1)


def _mean_rotation(rotations: Tensor) -> Tensor:
    """The rotation nearest to the mean of (N, 3, 3)."""
    u, _, vt = torch.linalg.svd(rotations.mean(dim=0))
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vt).sign())]).to(u))
    return u @ flip @ vt


def rotation_vectors(rotations: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) radians about the picture's x, y, z axes; below half a turn."""
    skew = rotations - rotations.mT
    twice_sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)
    norm = twice_sine.norm(dim=-1, keepdim=True)
    trace = rotations.diagonal(dim1=-2, dim2=-1).sum(dim=-1, keepdim=True)
    angle = torch.atan2(norm, trace - 1)
    return twice_sine * torch.where(norm > 1e-9, angle / norm.clamp(min=1e-9), 0.5)


def rotations_from(vectors: Tensor) -> Tensor:
    """The inverse of `rotation_vectors`: (..., 3) -> (..., 3, 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    return torch.linalg.matrix_exp(skew.unflatten(-1, (3, 3)))


def summarise_face(face: FaceSequence) -> dict[str, Any]:
    """The target's neutral face, and the ranges of its training frames; JSON-able."""
    seen = _shown(face)
    neutral = _Neutral.of(seen)
    mouth, eyes = _openings(canonical(seen))
    turns = rotation_vectors(seen.rotation.double() @ neutral.rotation.T)
    ranges = {
        "turn": _range(turns),
        "translation": _range(seen.translation.double()),
        "scale": _range(seen.scale.double()[:, None]),
        "mouth": _range(mouth[:, None]),
        "eyes": _range(eyes[:, None]),
    }
    return {"neutral": neutral.to_dict(), "ranges": ranges}


def _range(values: Tensor) -> dict[str, list[float]]:
    """Of (T, N): the extremes, and the two standard deviations about the mean within them."""
    low, high = values.amin(dim=0), values.amax(dim=0)
    mean, spread = values.mean(dim=0), 2 * values.std(dim=0, correction=0)
    bounds = {"min": low, "low": (mean - spread).maximum(low)}
    bounds |= {"high": (mean + spread).minimum(high), "max": high}
    return {name: bound.tolist() for name, bound in bounds.items()}


def soften(values: Tensor, bounds: Mapping[str, list[float]]) -> Tensor:
    """(T, N) held within "min" and "max": unchanged from "low" to "high", squeezed beyond."""
    low, least, high, most = (
        torch.tensor(bounds[name], dtype=values.dtype) for name in ("low", "min", "high", "max")
    )
    room_above, room_below = (most - high).clamp(min=1e-9), (low - least).clamp(min=1e-9)
    above = high + room_above * torch.tanh((values - high) / room_above)
    below = low - room_below * torch.tanh((low - values) / room_below)
    return torch.where(values > high, above, torch.where(values < low, below, values))


def _beyond(values: Tensor, bounds: Mapping[str, list[float]], margin: float) -> Tensor:
    """(T,) bool: any of (T, N) farther than `margin` outside what was ever seen."""
    least, most = (torch.tensor(bounds[name], dtype=values.dtype) for name in ("min", "max"))
    return ((values < least - margin) | (values > most + margin)).any(dim=1)


def retarget_face(
    source: FaceSequence,
    summary: Mapping[str, Any],
    options: FaceRetarget,
    *,
    rest: FaceSequence | None = None,
) -> tuple[FaceSequence, dict[str, Tensor]]:
    """The source's performance by the target, and (T,) bool masks of what is new to the target.

    A frame counts when the head turns 3 degrees, moves 3 % of the frame's height, or grows 5 %
    beyond the training's extremes before it is held back, or the mouth opens 2 mm wider.

    Args:
        source: of which `options.mode` says what is taken.
        summary: of the target.
        options: how.
        rest: the target's own video, in pixels of its frame, which gives what the source does not.
            Where it is shorter than the source it is played back and forth.
    """
    target = _Neutral.from_dict(summary["neutral"])
    ranges, (height, width) = summary["ranges"], summary["size"]
    mode = options.mode
    own_part = None if rest is None else rest[_back_and_forth(len(rest), len(source))]
    turn, translation, scale = _pose(
        *_actor(source, own_part, target, options, mode in ("full", "pose")), (height, width)
    )
    moved, shapes = _acted(
        *_actor(source, own_part, target, options, mode in ("full", "expression")), summary
    )
    if (mode == "expression" and own_part is not None) or mode == "gaze":
        eyes = _actor(source, own_part, target, options, mode == "gaze")
        moved, shapes = _with_eyes_of(moved, shapes, *_acted(*eyes, summary))
    reasons = _unfamiliar(turn, translation, scale, shapes, summary)
    if options.clip:
        turn = soften(turn, ranges["turn"])
        translation = soften(translation, ranges["translation"])
        scale = soften(scale, ranges["scale"])
    rotation = rotations_from(turn) @ target.rotation
    moved = replace(moved, seen=source.seen)
    return posed(moved, shapes, rotation, translation, scale[:, 0], (height, width)), reasons


def resting(summary: Mapping[str, Any], count: int) -> FaceSequence:
    """So many frames of the target doing nothing, where it usually is."""
    target = _Neutral.from_dict(summary["neutral"])
    height, width = summary["size"]
    still = FaceSequence(
        landmarks=torch.zeros(count, 478, 3),
        rotation=torch.zeros(count, 3, 3),
        translation=torch.zeros(count, 2),
        scale=torch.zeros(count),
        seen=torch.ones(count, dtype=torch.bool),
        frame_size=(height, width),
    )
    shapes, rotation, translation, scale = (
        part.expand(count, *part.shape)
        for part in (target.shape, target.rotation, target.translation, target.scale)
    )
    return posed(still, shapes, rotation, translation, scale, (height, width))


def unfamiliar(face: FaceSequence, summary: Mapping[str, Any]) -> dict[str, Tensor]:
    """(T,) bool masks of what is new to the target in a sequence that is the target's already, as
    of `retarget_face`."""
    turn = rotation_vectors(
        face.rotation.double() @ _Neutral.from_dict(summary["neutral"]).rotation.T
    )
    place, scale = face.translation.double(), face.scale.double()[:, None]
    return _unfamiliar(turn, place, scale, canonical(face), summary)


def _unfamiliar(
    turn: Tensor, translation: Tensor, scale: Tensor, shapes: Tensor, summary: Mapping[str, Any]
) -> dict[str, Tensor]:
    ranges, height = summary["ranges"], summary["size"][0]
    usual = float(summary["neutral"]["scale"])
    return {
        "head turns": _beyond(turn, ranges["turn"], 0.05),
        "places": _beyond(translation, ranges["translation"], 0.03 * height),
        "sizes": _beyond(scale, ranges["scale"], 0.05 * usual),
        "expressions": _beyond(_openings(shapes)[0][:, None], ranges["mouth"], 0.2),
    }


def posed(
    face: AnyFace,
    shapes: Tensor,
    rotation: Tensor,
    translation: Tensor,
    scale: Tensor,
    frame_size: tuple[int, int],
) -> AnyFace:
    """The face with these points in its own axes (T, 478, 3), in this pose and place."""
    landmarks = scale[:, None, None] * (shapes @ rotation.mT)
    landmarks[..., :2] += translation[:, None]
    return replace(
        face,
        landmarks=landmarks.float(),
        rotation=rotation.float(),
        translation=translation.float(),
        scale=scale.float(),
        frame_size=tuple(frame_size),
    )


_Actor = tuple[FaceSequence, _Neutral, _Neutral, FaceRetarget]
"""Who acts, what they look like at rest, whom they act, and how."""


def _actor(
    source: FaceSequence,
    rest: FaceSequence | None,
    target: _Neutral,
    options: FaceRetarget,
    by_source: bool,
) -> _Actor:
    """Who gives a part: the source, else the target's own video, else nobody: a face at rest."""
    if by_source:
        return source, _Neutral.of(_shown(source)), target, options
    still = {name: 0.0 for name in ("expression_strength", "gaze_strength", "pose_strength")}
    if rest is None:
        changed = replace(options, absolute=False, **still)
        return source, _Neutral.of(_shown(source)), target, changed
    lively = dict.fromkeys(still, 1.0)
    return rest, target, target, replace(options, absolute=False, **lively)


def _acted(
    source: FaceSequence,
    own: _Neutral,
    target: _Neutral,
    options: FaceRetarget,
    summary: Mapping[str, Any],
) -> tuple[FaceSequence, Tensor]:
    """The source as the target's face, and its points in the face's axes (T, 478, 3)."""
    if isinstance(source, ParametricFace):
        return source.acted_by(
            summary, expression=options.expression_strength, gaze=options.gaze_strength
        )
    return source, _reshape(canonical(source), own.shape, target.shape, options)


def _with_eyes_of(
    face: FaceSequence, shapes: Tensor, other: FaceSequence, other_shapes: Tensor
) -> tuple[FaceSequence, Tensor]:
    """With the other's irises, between one's own lids."""
    shapes = shapes.clone()
    for (_, iris), corners in zip(faces.EYES, _EYE_CORNERS, strict=True):
        moved = (shapes - other_shapes)[:, corners].mean(dim=1, keepdim=True)
        shapes[:, iris] = other_shapes[:, iris] + moved
    if "gaze" in face.parameters and "gaze" in other.parameters:
        parameters = {**face.parameters, "gaze": other.parameters["gaze"]}
        face = replace(face, parameters=parameters)
    return face, shapes


def _back_and_forth(count: int, wanted: int) -> Tensor:
    """(wanted,) int64: 0, 1, ..., count - 1, count - 2, ..., 0, 1, ..."""
    period = max(1, 2 * count - 2)
    index = torch.arange(wanted) % period
    return torch.where(index < count, index, period - index)


def _pose(
    source: FaceSequence,
    own: _Neutral,
    target: _Neutral,
    options: FaceRetarget,
    frame: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn from the target's neutral rotation (T, 3) radians, translation (T, 2) pixels and scale
    (T, 1) pixels per centimetre, before they are held to the target's range."""
    rotation, translation = source.rotation.double(), source.translation.double()
    scale, strength = source.scale.double()[:, None], options.pose_strength
    if options.absolute:
        fit = min(frame[0] / source.size[0], frame[1] / source.size[1])
        corner = [(frame[axis] - fit * source.size[axis]) / 2 for axis in (1, 0)]
        turn = rotation_vectors(rotation @ target.rotation.T)
        return turn, translation * fit + torch.tensor(corner).double(), scale * fit
    ratio = target.scale / own.scale
    turn = strength * rotation_vectors(rotation @ own.rotation.T)
    place = target.translation + strength * ratio * (translation - own.translation)
    return turn, place, target.scale * (scale / own.scale) ** strength


def _reshape(shapes: Tensor, own: Tensor, target: Tensor, options: FaceRetarget) -> Tensor:
    """The target's canonical face (T, 478, 3) doing what the source's does.

    Each point moves from its neutral place as the source's does, times how much larger the
    target's face, mouth or eye opening is; irises move with, and within, their eye's corners.
    """
    moves = shapes - own
    points = moves * options.expression_strength
    if options.adapt:
        points = points * _size_ratios(own, target)[:, None]
    target = _with_eyes_level(target, own)
    points = target + points
    for (_, iris), corners in zip(faces.EYES, _EYE_CORNERS, strict=True):
        gaze = moves[:, iris] - moves[:, corners].mean(dim=1, keepdim=True)
        if options.adapt:
            gaze = gaze * (_distance(target, *corners) / _distance(own, *corners))
        socket = (points[:, corners] - target[list(corners)]).mean(dim=1, keepdim=True)
        points[:, iris] = target[list(iris)] + socket + options.gaze_strength * gaze
    return points


def _with_eyes_level(target: Tensor, own: Tensor) -> Tensor:
    """The target's neutral face without the squint of one who played cross-eyed when filmed.

    How far two irises stand towards the nose differs little between people; beyond that, the
    source's is taken.
    """

    def vergence(shape: Tensor) -> Tensor:
        right, left = (
            shape[list(iris), 0].mean() - shape[list(corners), 0].mean()
            for (_, iris), corners in zip(faces.EYES, _EYE_CORNERS, strict=True)
        )
        return (right - left) / 2

    excess = vergence(target) - vergence(own)
    excess = excess - excess.clamp(-_NATURAL_VERGENCE_CM, _NATURAL_VERGENCE_CM)
    level = target.clone()
    for (_, iris), side in zip(faces.EYES, (1, -1), strict=True):
        level[list(iris), 0] -= side * excess
    return level


def _size_ratios(own: Tensor, target: Tensor) -> Tensor:
    """(478,) how much farther each point of the target moves, within [0.5, 2]."""
    sizes = [(shape[:NUM_MESH] - shape[:NUM_MESH].mean(dim=0)).norm() for shape in (target, own)]
    ratios = (sizes[0] / sizes[1]).expand(len(own)).clone()
    ratios[list(_MOUTH)] = _distance(target, *_MOUTH_CORNERS) / _distance(own, *_MOUTH_CORNERS)
    for (lids, _), gap in zip(faces.EYES, _LIDS_GAPS, strict=True):
        ratios[list(lids)] = _distance(target, *gap) / _distance(own, *gap)
    return ratios.nan_to_num(1.0).clamp(0.5, 2.0)
