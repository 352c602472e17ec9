"""What a face mesh looks like: as maps, as a silhouette, as boxes, as a feature vector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth.drawing import as_maps, fill_convex, fill_disc, fill_polygon, stroke
from vidsynth.facemesh import load_face_mesh
from vidsynth.raster import rasterise
from vidsynth.smoothing import smoothed

if TYPE_CHECKING:
    from vidsynth.conditioning import FaceSequence

# T frames, N points. Left and right are the person's own.

# Loops and lines of the 478-point mesh of MediaPipe Face Mesh, by point number.
# fmt: off
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375,
              291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324,
              308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
LEFT_BROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4, 1)
NOSTRILS = (98, 97, 2, 326, 327)
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)
# fmt: on
"""Irises: the centre, then four points around it."""
EYES = ((RIGHT_EYE, RIGHT_IRIS), (LEFT_EYE, LEFT_IRIS))
"""Ring of lid points and iris points of the right and of the left eye."""

_CLOSED = (
    (OVAL, (96, 96, 96)),
    (LIPS_OUTER, (255, 0, 64)),
    (LIPS_INNER, (255, 128, 0)),
    (RIGHT_BROW, (255, 255, 0)),
    (LEFT_BROW, (0, 255, 255)),
)
_OPEN = ((NOSE_BRIDGE, (0, 160, 255)), (NOSTRILS, (160, 96, 255)))
_LID_COLOURS = ((255, 160, 0), (0, 255, 96))
_MOUTH_INSIDE = (96, 0, 24)
_EYE_WHITE = np.array((176, 176, 176), np.float32)
_IRIS = np.array((32, 64, 255), np.float32)

AGILITY = 30.0
"""Hz per face size a second: how much less a point in motion is smoothed; blinks are short."""
AXIS_CM = 10.0
"""Length of the axes by which a head's pose is smoothed."""

EYES_WEIGHT, MOUTH_WEIGHT, TURN_WEIGHT = 3.0, 3.0, 0.5
"""How much more than a cheek point the eyes and the mouth count in `features`, and how much the
head's rotation does (a half turn is worth 2 * sqrt(2) * TURN_WEIGHT face radii)."""
PART_TURN_WEIGHT = 0.15
"""The same in `part_features`: an eye is brought to another turn of the head by its warp."""


def _pixels(face: FaceSequence, height: int, width: int) -> np.ndarray:
    """Landmarks in pixels of a (height, width) picture: (T, 478, 3) float64."""
    zoom_x, zoom_y = width / face.frame_size[1], height / face.frame_size[0]
    # z has no axis of its own in the picture; it only orders, and keeps the scale of x.
    return face.landmarks.double().cpu().numpy() * np.array([zoom_x, zoom_y, zoom_x])


def steadied(face: FaceSequence, pts: Tensor, rest_seconds: float) -> FaceSequence:
    """`Conditioning.steadied` for faces: the mesh, and the head that carries it.

    The head's pose goes through the filter as four points in pixels, its origin and the ends of
    its axes, so that it stays with the mesh.
    """
    axes_T33 = face.scale[:, None, None] * face.rotation.mT  # rows: the ends of x, y and z
    origin_T13 = torch.nn.functional.pad(face.translation, (0, 1))[:, None]
    points_TN3 = torch.cat([face.landmarks, origin_T13, AXIS_CM * axes_T33], dim=1)
    spans = face.landmarks.amax(dim=1) - face.landmarks.amin(dim=1)
    steady_TN3 = torch.from_numpy(
        smoothed(
            points_TN3.numpy(),
            pts.tolist(),
            face.present().tolist(),
            spans[:, :2].amax(dim=1).clamp_min(1.0).tolist(),
            rest_seconds=rest_seconds,
            agility=AGILITY,
        )
    )
    axes_T33 = steady_TN3[:, -3:].mT / AXIS_CM
    left, values, right = torch.linalg.svd(axes_T33)
    proper = face.present() & (torch.linalg.det(left @ right) > 0)
    return replace(
        face,
        landmarks=steady_TN3[:, :-4],
        translation=steady_TN3[:, -4, :2].clone(),
        rotation=torch.where(proper[:, None, None], left @ right, face.rotation),
        scale=torch.where(proper, values.mean(dim=1), face.scale),
    )


def draw(face: FaceSequence, height: int, width: int) -> Tensor:
    """Six channels: contours in colour, then u, v and coverage of the face mesh.

    Channels 0-2: oval, lips (with the open mouth between them), brows, nose, lids, and irises as
    discs cut off by the lids, so that gaze and blinks show; anti-aliased. Channels 3-4: the
    canonical mesh's texture coordinates with hidden surfaces removed (255 is 1), the
    correspondence image of "Deep Video Portraits"; channel 5 is 255 on the mesh.
    Frames without the face stay black.

    Returns:
        (T, 6, height, width) uint8.
    """
    points = _pixels(face, height, width)
    canvases = np.zeros((len(points), height, width, 6), np.uint8)
    for t in np.flatnonzero(face.present().numpy()):
        canvases[t, :, :, :3] = _contours(points[t, :, :2], height, width)
        canvases[t, :, :, 3:] = _correspondence(points[t], height, width)
    return as_maps(canvases)


def _contours(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 from points (478, 2)."""
    canvas = np.zeros((height, width, 3), np.uint8)
    # By the picture, not by the face: whole pixels would jump with the size of the face.
    thickness = height / 200
    fill_polygon(canvas, points[list(LIPS_INNER)], _MOUTH_INSIDE)
    for loop, colour in _CLOSED:
        stroke(canvas, points[list(loop)], colour, thickness=thickness, closed=True)
    for line, colour in _OPEN:
        stroke(canvas, points[list(line)], colour, thickness=thickness)
    for (lids, iris), colour in zip(EYES, _LID_COLOURS, strict=True):
        _draw_iris(canvas, points[list(lids)], points[list(iris)])
        stroke(canvas, points[list(lids)], colour, thickness=thickness, closed=True)
    return canvas


def _draw_iris(canvas: np.ndarray, lids: np.ndarray, iris: np.ndarray) -> None:
    """Fill the opening of an eye and the part of the iris inside it."""
    height, width = canvas.shape[:2]
    x0, y0 = np.clip(np.floor(lids.min(axis=0)) - 2, 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(lids.max(axis=0)) + 2, 0, (width, height)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return
    opening, disc = np.zeros((2, y1 - y0, x1 - x0), np.uint8)
    corner = np.array([x0, y0])
    fill_polygon(opening, lids - corner, 255)
    radius = np.linalg.norm(iris[1:] - iris[0], axis=1).mean()
    fill_disc(disc, iris[0] - corner, radius, 255)
    window = canvas[y0:y1, x0:x1]
    between_lids = opening[..., None] / np.float32(255)
    on_iris = disc[..., None] / np.float32(255)
    eye = between_lids * (_EYE_WHITE + on_iris * (_IRIS - _EYE_WHITE))
    np.maximum(window, np.rint(eye).astype(np.uint8), out=window)


def _correspondence(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: u, v, coverage. `points`: (478, 3)."""
    mesh = load_face_mesh()
    drawn = rasterise(points[: len(mesh.vertices)], mesh.triangles, mesh.uv, height, width)
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., :2] = np.rint(np.clip(drawn.image, 0, 1) * 255)
    picture[..., 2] = drawn.mask * np.uint8(255)
    return picture


def _up(face: FaceSequence) -> np.ndarray:
    """(T, 2) unit vectors in the picture from chin to forehead."""
    up = face.rotation[:, :2, 1].double().cpu().numpy()
    return up / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)


def silhouettes(face: FaceSequence, height: int, width: int) -> Tensor:
    """(T, 1, height, width) uint8: 255 generously over the head, hair, ears and neck included."""
    points = _pixels(face, height, width)[:, :468, :2].astype(np.float32)
    up = _up(face).astype(np.float32)
    masks = np.zeros((len(points), height, width, 1), np.uint8)
    for t in np.flatnonzero(face.present().numpy()):
        size = np.ptp(points[t], axis=0).max()
        # Hair rises above the forehead and falls beside the cheeks; the neck is below the chin.
        crown = points[t, list(OVAL)] + 0.35 * size * up[t]
        hull = cv2.convexHull(np.concatenate([points[t], crown]))[:, 0]
        fill_convex(masks[t, :, :, 0], hull, 255)
        stroke(masks[t, :, :, 0], hull, 255, thickness=0.4 * size, closed=True)
    return as_maps(masks)


def regions(face: FaceSequence) -> dict[str, Tensor]:
    """Boxes "subject" (the head), "face", "mouth", "eyes": (T, 4) float32 in frame pixels.

    Clipped to the frame; all zeros where the face is absent or outside.
    """
    height, width = face.frame_size
    points = _pixels(face, height, width)[..., :2]
    size = np.ptp(points[:, :468], axis=1).max(axis=1)[:, None]
    head = np.concatenate(
        [points[:, :468], points[:, OVAL] + 0.35 * (size * _up(face))[:, None]], 1
    )
    parts = {
        "subject": (head, 0.2),
        "face": (points[:, :468], 0.05),
        "mouth": (points[:, LIPS_OUTER], 0.08),
        "eyes": (points[:, LEFT_EYE + RIGHT_EYE], 0.08),
    }
    limit = np.array([width, height])
    boxes = {}
    for name, (cloud, margin) in parts.items():
        low = np.clip(cloud.min(axis=1) - margin * size, 0, limit)
        high = np.clip(cloud.max(axis=1) + margin * size, 0, limit)
        there = face.present().numpy() & (high > low).all(axis=1)
        box = np.where(there[:, None], np.concatenate([low, high], axis=1), 0)
        boxes[name] = torch.from_numpy(box.astype(np.float32))
    return boxes


def features(face: FaceSequence) -> Tensor:
    """(T, 965) float32: the face made upright, centred and of unit size; then how the head turns.

    Eyes (with irises) and mouth count more than cheeks; the rotation keeps a profile apart from a
    frontal face with the same expression.
    """
    return _features(face, cheeks=1.0, turn=TURN_WEIGHT)


def part_features(face: FaceSequence) -> Tensor:
    """(T, 965) float32: as `features`, of eyes, irises and mouth alone."""
    return _features(face, cheeks=0.0, turn=PART_TURN_WEIGHT)


def _features(face: FaceSequence, *, cheeks: float, turn: float) -> Tensor:
    points = face.landmarks[..., :2].double().cpu().numpy()
    centred = points - points[:, :468].mean(axis=1, keepdims=True)
    up_x, up_y = _up(face).T
    # Rows of the rotation that takes `up` to the picture's (0, -1).
    upright = np.stack([np.stack([-up_y, up_x], -1), np.stack([-up_x, -up_y], -1)], -2)
    turned = np.einsum("tij,tnj->tni", upright, centred)
    radius = np.sqrt((centred[:, :468] ** 2).sum(axis=-1).mean(axis=1))
    weight = np.full(points.shape[1], cheeks)
    weight[list(LEFT_EYE + RIGHT_EYE + LEFT_IRIS + RIGHT_IRIS)] = EYES_WEIGHT
    weight[list(LIPS_OUTER + LIPS_INNER)] = MOUTH_WEIGHT
    scale = weight[:, None] / np.sqrt(len(weight)) / np.maximum(radius, 1e-6)[:, None, None]
    shape = torch.from_numpy(turned * scale).flatten(1)
    rotation = turn * face.rotation.cpu().flatten(1)
    return torch.cat([shape.float(), rotation], dim=1)
