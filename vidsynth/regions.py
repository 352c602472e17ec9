"""The parts of a picture that a viewer looks at, as masks: face, mouth, eyes, limbs, hands.

Scores over whole frames hardly see them. The masks follow what was tracked in one video, so that
two videos of the same moments are compared inside the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import bodies, faces
from vidsynth.conditioning import Conditioning, FaceSequence, PoseSequence
from vidsynth.drawing import fill_convex, fill_disc, stroke

# T frames, H, W pixels

_ARMS = ((11, 13), (13, 15), (12, 14), (14, 16))
_LEGS = ((23, 25), (25, 27), (24, 26), (26, 28))
# Shares of the torso's length: a sleeve or a trouser leg is wider than the limb in it.
_ARM_WIDTH, _LEG_WIDTH, _HAND_RADIUS, _HEAD_RADIUS = 0.26, 0.34, 0.22, 0.38
# How far beyond the outline of its points a part reaches, in shares of the face's height.
_MOUTH_MARGIN, _EYES_MARGIN = 0.05, 0.03

Painter = Callable[[np.ndarray, int], None]
"""Fills one frame's part with 255 on a (H, W) uint8 canvas."""


def regions(signal: Conditioning, height: int, width: int) -> dict[str, Tensor]:
    """(T, height, width) bool masks by name; all False in frames without the subject.

    A face has "subject" (the whole head, generously), "face" (inside the oval of the mesh),
    "mouth" (lips and a little around them) and "eyes" (lids to brows of both). A body has
    "subject" (generously), "face" (a disc over the head), "limbs" (arms and legs) and "hands".
    Joints that were hardly seen leave their part out. Kinds without parts give nothing.

    Args:
        signal: what was tracked, (T,), in coordinates of its own `size`.
        height: of the masks, in pixels.
        width: of the masks, in pixels.
    """
    if isinstance(signal, FaceSequence):
        painters = _face_painters(signal, height, width)
    elif isinstance(signal, PoseSequence):
        painters = _body_painters(signal, height, width)
    else:
        painters = {}
    masks = {}
    silhouette = signal.silhouette(height, width)
    if silhouette is not None:
        masks["subject"] = silhouette[:, 0] > 127
    for name, paint in painters.items():
        canvases = np.zeros((len(signal), height, width), np.uint8)
        for t in np.flatnonzero(signal.present().numpy()).tolist():
            paint(canvases[t], t)
        masks[name] = torch.from_numpy(canvases > 127)
    return masks


def _face_painters(face: FaceSequence, height: int, width: int) -> dict[str, Painter]:
    zoom = np.array([width / face.frame_size[1], height / face.frame_size[0]])
    points = face.landmarks[..., :2].double().cpu().numpy() * zoom
    size = np.ptp(points[:, faces.OVAL], axis=1).max(axis=1)

    def hulls(groups: Iterable[tuple[int, ...]], margin: float) -> Painter:
        def paint(canvas: np.ndarray, t: int) -> None:
            for group in groups:
                _grown_hull(canvas, points[t, list(group)], margin * size[t])

        return paint

    eyes = (faces.LEFT_EYE + faces.LEFT_BROW, faces.RIGHT_EYE + faces.RIGHT_BROW)
    return {
        "face": hulls([faces.OVAL], 0.0),
        "mouth": hulls([faces.LIPS_OUTER], _MOUTH_MARGIN),
        "eyes": hulls(eyes, _EYES_MARGIN),
    }


def _grown_hull(canvas: np.ndarray, points: np.ndarray, margin: float) -> None:
    """Fill the convex hull of (N, 2) points and `margin` pixels around it."""
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    fill_convex(canvas, hull, 255)
    if margin > 0:
        stroke(canvas, hull, 255, thickness=2 * margin, closed=True)


def _body_painters(pose: PoseSequence, height: int, width: int) -> dict[str, Painter]:
    points = bodies.subject_points(pose, height, width)
    torso_px = bodies.torso_lengths(points)
    xy, seen = points[..., :2], points[..., 2] > bodies.VISIBLE

    def limbs(canvas: np.ndarray, t: int) -> None:
        for bones, share in ((_ARMS, _ARM_WIDTH), (_LEGS, _LEG_WIDTH)):
            for bone in bones:
                if seen[t, bone].all():
                    stroke(canvas, xy[t, bone], 255, thickness=share * torso_px[t])

    def hands(canvas: np.ndarray, t: int) -> None:
        for hand in bodies.HANDS.values():
            if seen[t, hand[0]]:
                centre = xy[t, list(hand)].mean(axis=0)
                fill_disc(canvas, centre, _HAND_RADIUS * torso_px[t], 255)

    def head(canvas: np.ndarray, t: int) -> None:
        if seen[t, bodies.NOSE]:
            centre = bodies.head_centre(points[t], torso_px[t])
            fill_disc(canvas, centre, _HEAD_RADIUS * torso_px[t], 255)

    return {"face": head, "limbs": limbs, "hands": hands}
