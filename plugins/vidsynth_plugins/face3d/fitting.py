"""Head pose, expression and gaze from landmarks, and the face at rest that they belong to.

Gauss-Newton on all frames at once; every step is a few matrix products. The camera is weak
perspective: a point X of the face appears at scale * (rotation @ X) + translation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.facemesh import load_face_mesh
from vidsynth.retarget_face import rotations_from
from vidsynth_plugins.face import fit_head_pose
from vidsynth_plugins.face3d.model import (
    EXPRESSIONS,
    IRIS_POINTS_CM,
    LIMITS,
    NUM_MESH,
    expression_basis,
    eye_centres,
    face_points,
    gaze_angles,
)

# T frames, E expressions, V vertices, P parameters: turn 3, log scale, translation 2, depth, E

NUM_POSE = 7
SKIN, OUTLINE, NOSE_TRUST = 0.02, 0.002, 0.3
"""How much a landmark on plain skin, on the outline and on the nose counts, where one of the lids
and lips counts 1."""
NOSE = (*faces.NOSE_BRIDGE, *faces.NOSTRILS, 19, 94, 44, 274, 45, 275, 220, 440, 48, 278, 64, 294)
DEPTH_WEIGHT = 0.1
"""How much the trackers' z counts against x and y. It is a guess of a network: how a head points
as a whole is learnt without it, and then it helps to tell how the head turns from frame to frame,
less what is the same in all frames (`Person.depth`)."""
DEPTH_CALM = 8.0
"""How much no such correction of z counts, where a frame that shows it counts 1."""
CALM = 0.4
"""Weight of the square of a coefficient, where that of a point's distance in centimetres is 1."""
STIFF, LOOSE = 0.1, 0.02
"""How much the canonical face counts against what the frames say of the shape, per frame: while it
is found how the head is turned, and after that."""
LEAST_TRUST = 0.1
"""The least that a landmark counts for the shape in the end: where all frames agree, even the
outline is believed."""
GAZE_REACH = 0.75
"""Largest sine of an eye's angle against the head."""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Who someone is: the same in all frames."""

    shape: Tensor
    """(468, 3) float64 centimetres: the face at rest."""
    basis: Tensor
    """(E, 478, 3) float64 centimetres: how EXPRESSIONS move it."""
    depth: Tensor | None = None
    """(468, 3) float64 centimetres: what the trackers' z, and z alone, shows of each point beyond
    where it is; None for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """What someone does, frame by frame; float64."""

    rotation: Tensor
    """(T, 3, 3) canonical axes -> picture axes, as in `FaceSequence`."""
    scale: Tensor
    """(T,) pixels per centimetre."""
    translation: Tensor
    """(T, 2) pixels."""
    expression: Tensor
    """(T, E)."""
    gaze: Tensor
    """(T, 4) radians, as of `model.gaze_directions`."""

    def __getitem__(self, key: slice | Tensor) -> Performance:
        return Performance(
            self.rotation[key],
            self.scale[key],
            self.translation[key],
            self.expression[key],
            self.gaze[key],
        )

    def tensors(self) -> dict[str, Tensor]:
        """By name, as the constructor takes them."""
        return {name: getattr(self, name) for name in self.__slots__}

    @staticmethod
    def concat(parts: list[Performance]) -> Performance:
        names = Performance.__slots__
        return Performance(*(torch.cat([getattr(part, n) for part in parts]) for n in names))


def project(person: Person, seen: Performance) -> Tensor:
    """(T, 478, 3) where the points appear: x and y in pixels, z in the same scale from the face's
    origin, smaller is nearer."""
    points = face_points(person.shape, person.basis, seen.expression, seen.gaze)
    turned = seen.scale[:, None, None] * (points @ seen.rotation.mT)
    turned[..., :2] += seen.translation[:, None]
    return turned


def learn(landmarks_TV3: Tensor, *, rounds: int = 5) -> Person:
    """The face at rest, and how it moves, from frames of one person.

    Pose and expression given the shape, then each point of the shape given those, in turns. What
    a coefficient's rest is cannot be seen; it is where the coefficient hardly ever is below.

    Args:
        landmarks_TV3: (T, 478, 3) as of `FaceSequence`, of frames that show the face.
    """
    canonical = _canonical(landmarks_TV3)
    person = Person(canonical, expression_basis(canonical))
    landmarks = landmarks_TV3.double()
    for n in range(rounds):
        seen = fit(landmarks, person, rounds=4 if n == 0 else 2, depth_weight=0.0)
        shape, *_ = upright(_reshaped(landmarks, person, seen, canonical, stiffness=STIFF))
        person = Person(shape, expression_basis(shape))
    # Axes and size are those of the stiff shape, which the trackers' errors have bent less.
    seen = fit(landmarks, person, depth_weight=0.0)
    shape = _reshaped(landmarks, person, seen, canonical, stiffness=LOOSE, least_trust=LEAST_TRUST)
    person = Person(shape, expression_basis(shape))
    seen = fit(landmarks, person, depth_weight=0.0)
    depth = _depth_beyond(landmarks, person, seen)
    rest = seen.expression.quantile(0.05, dim=0).clamp(min=0)
    for index, name in enumerate(EXPRESSIONS):
        if name.endswith("_side") or name.startswith("blink"):
            rest[index] = seen.expression[:, index].median()
    shape = person.shape + torch.einsum("e,evc->vc", rest, person.basis[:, :NUM_MESH])
    return Person(shape, expression_basis(shape), depth)


def fit(
    landmarks_TV3: Tensor,
    person: Person,
    *,
    rounds: int = 4,
    start: Performance | None = None,
    depth_weight: float = DEPTH_WEIGHT,
) -> Performance:
    """Pose, expression and gaze of each frame, from its landmarks alone.

    Args:
        landmarks_TV3: (T, 478, 3) as of `FaceSequence`.
        person: whose face it is.
        rounds: of Gauss-Newton.
        start: where to begin, by default from the rigid pose and the face at rest.
        depth_weight: how much z counts against x and y.
    """
    landmarks = landmarks_TV3.double()
    seen = start or _at_rest(landmarks)
    for _ in range(rounds):
        matrix, vector = normal_equations(landmarks, person, seen, depth_weight=depth_weight)
        seen = stepped(seen, torch.linalg.solve(matrix, vector))
    return replace(seen, gaze=_gaze(landmarks, person, seen))


def normal_equations(
    landmarks_TV3: Tensor,
    person: Person,
    seen: Performance,
    *,
    depth_weight: float = DEPTH_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """(T, P, P) and (T, P) of one Gauss-Newton step on the landmarks and the calm of expressions.

    Distances are centimetres of the face, so that large and small faces weigh the same.
    """
    turned, jacobian = jacobian_of(person, seen)
    shown = turned
    if person.depth is not None:
        beyond = person.depth @ seen.rotation.mT
        shown = turned + torch.nn.functional.pad(beyond[..., 2:], (2, 0))
    residual = _residual(landmarks_TV3[:, :NUM_MESH], seen, shown)
    weight = _trust(depth_weight).sqrt()
    rows = (jacobian * weight[..., None]).flatten(1, 2)
    matrix = rows.mT @ rows
    vector = (rows.mT @ (residual * weight).flatten(1, 2)[..., None])[..., 0]
    calm = torch.full((matrix.shape[1],), CALM, dtype=matrix.dtype)
    calm[:NUM_POSE] = 1e-6
    vector[:, NUM_POSE:] -= CALM * seen.expression
    return matrix + torch.diag(calm), vector


def jacobian_of(person: Person, seen: Performance) -> tuple[Tensor, Tensor]:
    """The turned face (T, 468, 3) in centimetres, and how its picture moves with each parameter,
    (T, 468, 3, P), in centimetres too."""
    moves = torch.einsum("te,evc->tvc", seen.expression, person.basis[:, :NUM_MESH])
    turned = (person.shape + moves) @ seen.rotation.mT
    x, y, z = turned.unbind(-1)
    zero = torch.zeros_like(x)
    turn = torch.stack(
        [
            torch.stack([zero, z, -y], -1),
            torch.stack([-z, zero, x], -1),
            torch.stack([y, -x, zero], -1),
        ],
        dim=-2,
    )
    place = torch.eye(3, dtype=turned.dtype).expand(*x.shape, 3, 3)
    basis = torch.einsum("tij,evj->tvie", seen.rotation, person.basis[:, :NUM_MESH])
    return turned, torch.cat([turn, turned[..., None], place, basis], dim=-1)


def stepped(seen: Performance, step_TP: Tensor) -> Performance:
    """After a step of the pose and the expression."""
    grown = step_TP[:, 3].clamp(-0.5, 0.5).exp()
    low, high = (seen.scale.new_tensor(bound) for bound in zip(*LIMITS, strict=True))
    return replace(
        seen,
        rotation=rotations_from(step_TP[:, :3]) @ seen.rotation,
        scale=seen.scale * grown,
        translation=seen.translation + seen.scale[:, None] * step_TP[:, 4:6],
        expression=(seen.expression + step_TP[:, NUM_POSE:]).maximum(low).minimum(high),
    )


@cache
def _trust(depth_weight: float) -> Tensor:
    """(468, 3): how much x, y and z of each landmark count. Lids and lips are found by networks of
    their own, looking closely; the rest is one network's guess, and least sure on plain skin."""
    trust = torch.full((NUM_MESH, 3), SKIN, dtype=torch.float64)
    trust[list(faces.OVAL)] = OUTLINE
    trust[list(NOSE)] = NOSE_TRUST
    sharp = [*faces.RIGHT_EYE, *faces.LEFT_EYE, *faces.LIPS_OUTER, *faces.LIPS_INNER]
    trust[sharp] = 1.0
    trust[:, 2] *= depth_weight
    return trust


def canonical_sight(height: int, width: int) -> Tensor:
    """(1, 478, 3) pixels: the average face, upright in the middle of a picture."""
    shape = torch.from_numpy(load_face_mesh().vertices.copy()).double()
    scale = min(height, width) / 24.0  # the face is about 18 cm high
    average = Person(shape, expression_basis(shape))
    resting = Performance(
        rotation=torch.diag(shape.new_tensor([1.0, -1.0, -1.0]))[None],
        scale=shape.new_tensor([scale]),
        translation=shape.new_tensor([[width / 2, height / 2]]),
        expression=shape.new_zeros(1, len(EXPRESSIONS)),
        gaze=shape.new_zeros(1, 4),
    )
    return project(average, resting)


def _canonical(like: Tensor) -> Tensor:
    return torch.from_numpy(load_face_mesh().vertices.copy()).double().to(like.device)


def _at_rest(landmarks: Tensor) -> Performance:
    pose = fit_head_pose(landmarks.numpy())
    count = len(landmarks)
    return Performance(
        rotation=torch.from_numpy(pose.rotation).double(),
        scale=torch.from_numpy(pose.scale).double().clamp(min=1e-3),
        translation=torch.from_numpy(pose.translation).double(),
        expression=torch.zeros(count, len(EXPRESSIONS), dtype=torch.float64),
        gaze=torch.zeros(count, 4, dtype=torch.float64),
    )


def _residual(landmarks: Tensor, seen: Performance, turned: Tensor) -> Tensor:
    """(T, V, 3) centimetres from the turned model to the landmarks, in picture axes. Depth has no
    origin in weak perspective: its mean is taken out."""
    place = torch.nn.functional.pad(seen.translation, (0, 1))[:, None]
    residual = (landmarks.double() - place) / seen.scale[:, None, None] - turned
    residual[..., 2] -= residual[..., 2].mean(dim=1, keepdim=True)
    return residual


def _reshaped(
    landmarks: Tensor,
    person: Person,
    seen: Performance,
    canonical: Tensor,
    *,
    stiffness: float,
    least_trust: float = 0.0,
) -> Tensor:
    """(468, 3): each point by least squares of x and y in all frames, about the canonical face."""
    moves = torch.einsum("te,evc->tvc", seen.expression, person.basis[:, :NUM_MESH])
    wanted = _residual(landmarks[:, :NUM_MESH], seen, moves @ seen.rotation.mT)
    trust = _trust(0.0)
    weight = trust.maximum(least_trust * trust.new_tensor([1.0, 1.0, 0.0]))
    matrix = torch.einsum("tji,vj,tjk->vik", seen.rotation, weight, seen.rotation)
    vector = torch.einsum("tji,vj,tvj->vi", seen.rotation, weight, wanted)
    stiff = stiffness * len(landmarks)
    matrix = matrix + stiff * torch.eye(3, dtype=matrix.dtype)
    return torch.linalg.solve(matrix, vector + stiff * canonical)


def _depth_beyond(landmarks: Tensor, person: Person, seen: Performance) -> Tensor:
    """(468, 3) as of `Person.depth`: by least squares over all frames, about nothing."""
    turned, _ = jacobian_of(person, seen)
    residual = _residual(landmarks[:, :NUM_MESH], seen, turned)[..., 2]
    towards = seen.rotation[:, 2]
    matrix = towards.mT @ towards + DEPTH_CALM * torch.eye(3, dtype=towards.dtype)
    return torch.linalg.solve(matrix, towards.mT @ residual).mT


def upright(shape: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """A shape turned, moved and scaled so that its rigid points lie on the canonical ones, which is
    what rotation, translation and scale mean.

    Returns:
        The new shape (468, 3); and rotation (3, 3), place (3,) and size, with which
        old = size * rotation @ new + place.
    """
    flip = shape.new_tensor([1.0, -1.0, -1.0])
    pose = fit_head_pose((shape * flip)[None].numpy())
    rotation = flip[:, None] * torch.from_numpy(pose.rotation[0]).double()
    size = float(pose.scale[0])
    place = torch.cat([torch.from_numpy(pose.translation[0]).double(), shape.new_zeros(1)]) * flip
    turned = (shape - place) @ rotation / size
    # Weak perspective has no depth: shape and canonical face get the same mean.
    depth = (_canonical(shape) - turned)[:, 2].mean()
    turned[:, 2] += depth
    return turned, rotation, place - size * depth * rotation[:, 2], size


def _gaze(landmarks: Tensor, person: Person, seen: Performance) -> Tensor:
    """(T, 4): where each iris must look to appear where it was found."""
    centres = eye_centres(person.shape) @ seen.rotation.mT  # (T, 2, 3) centimetres
    irises = torch.stack(
        [landmarks[:, list(iris), :2].mean(dim=1) for _, iris in faces.EYES], dim=1
    )
    away = (irises - seen.translation[:, None]) / seen.scale[:, None, None] - centres[..., :2]
    sine = away / IRIS_POINTS_CM
    length = sine.norm(dim=-1, keepdim=True)
    sine = sine * (GAZE_REACH / length.clamp(min=1e-9)).clamp(max=1.0)
    ahead = (1 - sine.square().sum(dim=-1, keepdim=True)).sqrt()
    # Picture axes have z away from the viewer.
    return gaze_angles(torch.cat([sine, -ahead], dim=-1) @ seen.rotation)
