"""Analysis by synthesis: pose and expression from every pixel of the face, not from points alone.

Each frame is rendered as the model has it, and Gauss-Newton moves the model until the picture
agrees: coarse to fine, with the landmarks as an anchor and each frame held near its neighbours in
time. The shape of the face is not refined: pixels of one texture pull it away from the average
face faster than towards the true one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.retarget_face import rotation_vectors
from vidsynth_plugins.face3d.appearance import (
    Appearance,
    Crops,
    camera_normals,
    estimate_appearance,
    frame_lights,
    read,
    skin_triangles,
    texture_coordinates,
)
from vidsynth_plugins.face3d.fitting import (
    NUM_POSE,
    Performance,
    Person,
    fit,
    jacobian_of,
    normal_equations,
    project,
    stepped,
)
from vidsynth_plugins.face3d.model import NUM_MESH
from vidsynth_plugins.face3d.rendering import harmonics, rasterise, sample

# T frames, M pixels of all frames, P parameters of a frame

PIXEL_WEIGHT = 12.0
"""How much the square of a difference of colours counts where that of a landmark's distance in
centimetres counts 1; times the share of the face that one pixel of a 64 px crop is."""
OUTLIER = 0.08
"""Difference of colours, in [0, 1], from which on a pixel is taken for something else."""
STEADY_TURN, STEADY_PLACE, STEADY_EXPRESSION = 300.0, 30.0, 0.2
"""How much a frame is held to the mean of its neighbours: per squared radian and centimetre of the
head, and squared centimetre of each vertex that an expression moves, so that lids stay quick."""
REST_POSE, REST_EXPRESSION = 30.0, 5.0
"""How many times more, besides, where the head is at rest."""
REST_SPEED = 0.06
"""Centimetres that skin moves from frame to frame with a head that is between rest and motion."""
HEAD_RADIUS = 8.0
"""Centimetres from the middle of a head to its skin, about."""


class Synthesis(NamedTuple):
    """How the model explains pictures, linearised about its parameters."""

    error: float
    """Root mean square difference of detail over the pixels that are taken for skin, in [0, 1]."""
    matrix: Tensor
    """(T, P, P)."""
    vector: Tensor
    """(T, P)."""


def refine(
    crops: Crops,
    landmarks_TV3: Tensor,
    person: Person,
    seen: Performance,
    appearance: Appearance,
    *,
    rounds: tuple[int, int] = (3, 3),
    before: Performance | None = None,
    steady: bool = True,
) -> Performance:
    """Pose and expression at which the rendering looks like the frames.

    Args:
        crops: of the frames.
        landmarks_TV3: (T, 478, 3) pixels of the crops.
        person, appearance: as learnt.
        seen: where to begin, in pixels of the crops.
        rounds: of Gauss-Newton at half and at full resolution.
        before: the last frame before these, in pixels of the frames, for steadiness.
        steady: whether the frames follow one another, and are held near their neighbours.
    """
    lights = frame_lights(read(crops, person, seen), appearance)
    for level, count in ((1, rounds[0]), (0, rounds[1])):
        pictures = _shrunk(crops, level)
        for _ in range(count):
            found = synthesise(pictures, person, _shrunk_by(seen, level), appearance, lights)
            matrix, vector = normal_equations(landmarks_TV3, person, seen)
            matrix, vector = matrix + found.matrix, vector + found.vector
            if steady:
                matrix, vector = _held(matrix, vector, crops.leave(seen), person, before)
            seen = stepped(seen, torch.linalg.solve(matrix, vector))
    eyes = fit(landmarks_TV3, person, rounds=0, start=seen)
    return replace(seen, gaze=eyes.gaze)


def learn_by_pixels(
    crops: Crops, landmarks_TV3: Tensor, person: Person, seen: Performance, *, rounds: int = 2
) -> tuple[Appearance, Performance]:
    """Texture and light of someone, sharper than landmarks leave them, and what is done in the
    frames: estimated and refined by in turns.

    Args:
        crops: of some frames, not necessarily one after the other.
        landmarks_TV3: (T, 478, 3) pixels of the crops.
        person: whose they are.
        seen: where to begin, in pixels of the crops.
        rounds: of refining, each followed by another estimate.
    """
    appearance = estimate_appearance(read(crops, person, seen))
    for _ in range(rounds):
        seen = refine(crops, landmarks_TV3, person, seen, appearance, rounds=(1, 1), steady=False)
        appearance = estimate_appearance(read(crops, person, seen))
    return appearance, seen


def synthesise(
    crops: Crops,
    person: Person,
    seen: Performance,
    appearance: Appearance,
    lights_T27: Tensor,
) -> Synthesis:
    """Render the frames, compare, and linearise the difference about the parameters.

    The rendering moves with its surface: what a pixel's colour changes by is the slope of the
    rendered picture times how far the surface moves there. That light changes as a face turns is
    seen by rendering again, and left out of the slope.
    """
    points = project(person, seen)[:, :NUM_MESH]
    side, count = crops.images.shape[-1], len(crops)
    triangles = skin_triangles()
    shown = rasterise(points.float(), triangles, side, side)
    uv = shown.interpolate(texture_coordinates(), triangles)
    normals = F.normalize(shown.interpolate(camera_normals(points.float()), triangles), dim=-1)
    albedo = sample(torch.cat([appearance.texture, appearance.certainty]), uv)
    light_M93 = lights_T27.unflatten(1, (9, 3))[shown.frame]
    shade = torch.einsum("mk,mkc->mc", harmonics(normals), light_M93)
    made = albedo[:, :3] * shade

    # In luminance, since colours tell little more at three times the work; and in fine detail only,
    # since highlights and shadows that the light cannot explain lie far from what moves with skin.
    bright, there = made @ LUMINANCE, torch.ones(len(made))
    flat = shown.frame * side * side + shown.pixel
    real = torch.einsum("tchw,c->thw", crops.images, LUMINANCE).flatten()[flat]
    image = shown.image(torch.stack([bright, real, there], dim=1), (count, side, side))
    detail = _detail(image[:, :2], image[:, 2:])
    slope_M2 = _slopes(detail[:, :1], image[:, 2:]).transpose(0, 1).reshape(2, -1)[:, flat].T
    seen_M, real_M = detail.transpose(0, 1).reshape(2, -1)[:, flat]
    difference = real_M - seen_M
    trust = 1 / (1 + (difference / OUTLIER).square()).square()
    trust = trust * albedo[:, 3] * (crops.inside.flatten()[flat] > 0.99)
    error = float((trust * difference.square()).sum() / trust.sum().clamp(min=1e-6)) ** 0.5

    moves = _picture_jacobian(person, seen)
    corners = shown.frame[:, None] * NUM_MESH + triangles[shown.triangle]
    rows = torch.zeros(len(flat), moves.shape[-1])
    for axis in (0, 1):
        table = moves[:, :, axis].flatten(0, 1)
        at = sum(shown.weights[:, k, None] * table[corners[:, k]] for k in range(3))
        # The surface carries its colours: where it moves to, the picture shows what was behind.
        rows -= slope_M2[:, axis, None] * at
    weight = PIXEL_WEIGHT * (64 / side) ** 2 * trust
    matrix, vector = _equations(rows, difference, weight, shown.frame, count)
    return Synthesis(error, matrix, vector)


LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
DETAIL = 0.12
"""What is finer than this share of a crop counts as detail."""


def _detail(images_TCHW: Tensor, there_T1HW: Tensor) -> Tensor:
    """Less the mean around each pixel, of those that are there."""
    width = 2 * round(DETAIL * images_TCHW.shape[-1] / 2) + 1

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, width, stride=1, padding=width // 2)

    mean = around(images_TCHW * there_T1HW) / around(there_T1HW).clamp(min=1e-6)
    return (images_TCHW - mean) * there_T1HW


def _equations(
    rows_MP: Tensor, difference_M: Tensor, weight_M: Tensor, frame_M: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """(T, P, P) and (T, P) float64: the normal equations of each frame's pixels."""
    width = rows_MP.shape[-1]
    matrix = torch.zeros(count, width, width, dtype=torch.float64)
    vector = torch.zeros(count, width, dtype=torch.float64)
    bounds = torch.searchsorted(frame_M, torch.arange(count + 1)).tolist()
    for t, span in enumerate(slice(*pair) for pair in pairwise(bounds)):
        weighed = rows_MP[span] * weight_M[span, None]
        matrix[t] = (weighed.T @ rows_MP[span]).double()
        vector[t] = (weighed.T @ difference_M[span]).double()
    return matrix, vector


def _slopes(bright_T1HW: Tensor, there_T1HW: Tensor) -> Tensor:
    """(T, 2, H, W): how the brightness changes per pixel right and down; 0 beside the outline."""
    slopes = []
    for axis in (3, 2):
        both = there_T1HW.roll(-1, axis) * there_T1HW.roll(1, axis) * there_T1HW
        slopes.append((bright_T1HW.roll(-1, axis) - bright_T1HW.roll(1, axis)) / 2 * both)
    return torch.cat(slopes, dim=1)


def _picture_jacobian(person: Person, seen: Performance) -> Tensor:
    """(T, 468, 2, P) float32 pixels per unit of each parameter."""
    _, jacobian = jacobian_of(person, seen)
    return (seen.scale[:, None, None, None] * jacobian[:, :, :2]).float()


def _held(
    matrix: Tensor,
    vector: Tensor,
    seen: Performance,
    person: Person,
    before: Performance | None,
) -> tuple[Tensor, Tensor]:
    """With each frame drawn towards the mean of those before and after it, in pixels of frames."""
    if len(seen.scale) < 2 and before is None:
        return matrix, vector
    behind, ahead = (_step_to(seen, _neighbours(seen, before, k)) for k in (-1, 1))
    weight = torch.full((matrix.shape[1],), STEADY_PLACE, dtype=matrix.dtype)
    weight[:3] = STEADY_TURN
    weight[NUM_POSE:] = STEADY_EXPRESSION * person.basis.square().sum(dim=(1, 2))
    rest_T1 = _rest((ahead - behind) / 2)[:, None]
    more = torch.full_like(weight, REST_POSE)
    more[NUM_POSE:] = REST_EXPRESSION
    weight_TP = weight * (1 + more * rest_T1)
    return matrix + torch.diag_embed(weight_TP), vector + weight_TP * (behind + ahead) / 2


def _rest(moved_TP: Tensor) -> Tensor:
    """(T,): 1 for a head at rest, towards 0 for one in motion, by the step it makes in a frame.

    A tremble is seen on a still head only, and a head that moves does not go straight from frame to
    frame, so that holding it hard would lag.
    """
    turned, placed = HEAD_RADIUS * moved_TP[:, :3], moved_TP[:, 4:6]
    squared = turned.square().sum(dim=1) + placed.square().sum(dim=1)
    return 1 / (1 + squared / REST_SPEED**2).square()


def _neighbours(seen: Performance, before: Performance | None, offset: int) -> Performance:
    """The frame before (-1) or after (1) each; at an end without one, the frame itself."""
    count = len(seen.scale)
    index = (torch.arange(count) + offset).clamp(0, count - 1)
    moved = seen[index]
    if offset < 0 and before is not None:
        moved = Performance.concat([before, moved[1:]])
    return moved


def _step_to(seen: Performance, other: Performance) -> Tensor:
    """(T, P): the step that would make each frame the other's."""
    turn = rotation_vectors(other.rotation @ seen.rotation.mT)
    grown = (other.scale / seen.scale).log()[:, None]
    place = (other.translation - seen.translation) / seen.scale[:, None]
    depth = torch.zeros_like(grown)
    return torch.cat([turn, grown, place, depth, other.expression - seen.expression], dim=1)


def _shrunk(crops: Crops, level: int) -> Crops:
    for _ in range(level):
        crops = crops.halved()
    return crops


def _shrunk_by(seen: Performance, level: int) -> Performance:
    factor = 0.5**level
    return replace(seen, scale=seen.scale * factor, translation=seen.translation * factor)
