"""What a body skeleton looks like: as a map, as a silhouette, as boxes, as a feature vector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth.drawing import as_maps, fill_convex, fill_disc, stroke
from vidsynth.smoothing import smoothed

if TYPE_CHECKING:
    from vidsynth.conditioning import PoseSequence

# T frames, L limbs, K keypoints

# Joints by number in the 33-point layout of MediaPipe Pose; left and right are the person's own.
NOSE = 0
LEFT_EYE, RIGHT_EYE = 2, 5
LEFT_EAR, RIGHT_EAR = 7, 8
MOUTH_LEFT, MOUTH_RIGHT = 9, 10
LEFT_SHOULDER, RIGHT_SHOULDER = 11, 12
LEFT_ELBOW, RIGHT_ELBOW = 13, 14
LEFT_WRIST, RIGHT_WRIST = 15, 16
LEFT_HIP, RIGHT_HIP = 23, 24
LEFT_KNEE, RIGHT_KNEE = 25, 26
LEFT_ANKLE, RIGHT_ANKLE = 27, 28
NUM_KEYPOINTS = 33
HANDS = {"left_hand": (15, 17, 19, 21), "right_hand": (16, 18, 20, 22)}
HEAD = tuple(range(11))

# Joints that only the drawing knows: middles of two.
NECK, MID_HIP, MID_EAR, LEFT_PALM, RIGHT_PALM = range(33, 38)
_MIDDLES = ((11, 12), (23, 24), (7, 8), (17, 19), (18, 20))

VISIBLE = 0.3
"""Joints below this visibility are guesses: left out of boxes, dimmed in maps."""

# From, to, colour, widest part in torso lengths. Warm colours are the person's right side.
_LIMBS = (
    (RIGHT_SHOULDER, RIGHT_ELBOW, (255, 96, 0), 0.20),
    (RIGHT_ELBOW, RIGHT_WRIST, (255, 200, 0), 0.16),
    (RIGHT_WRIST, RIGHT_PALM, (255, 255, 128), 0.12),
    (RIGHT_WRIST, 22, (200, 160, 96), 0.07),
    (RIGHT_HIP, RIGHT_KNEE, (255, 0, 64), 0.26),
    (RIGHT_KNEE, RIGHT_ANKLE, (255, 0, 176), 0.20),
    (RIGHT_ANKLE, 30, (176, 96, 128), 0.10),
    (30, 32, (255, 144, 192), 0.12),
    (LEFT_SHOULDER, LEFT_ELBOW, (0, 255, 80), 0.20),
    (LEFT_ELBOW, LEFT_WRIST, (0, 255, 220), 0.16),
    (LEFT_WRIST, LEFT_PALM, (160, 255, 255), 0.12),
    (LEFT_WRIST, 21, (96, 180, 180), 0.07),
    (LEFT_HIP, LEFT_KNEE, (0, 112, 255), 0.26),
    (LEFT_KNEE, LEFT_ANKLE, (96, 0, 255), 0.20),
    (LEFT_ANKLE, 29, (112, 96, 176), 0.10),
    (29, 31, (176, 144, 255), 0.12),
    (NECK, MID_EAR, (192, 192, 192), 0.18),
    (NOSE, MID_EAR, (255, 255, 255), 0.05),
    (RIGHT_EYE, RIGHT_EAR, (255, 64, 64), 0.05),
    (LEFT_EYE, LEFT_EAR, (64, 64, 255), 0.05),
    (NOSE, RIGHT_EYE, (255, 160, 160), 0.05),
    (NOSE, LEFT_EYE, (160, 160, 255), 0.05),
    (MOUTH_LEFT, MOUTH_RIGHT, (255, 64, 255), 0.06),
)
_FROM = np.array([limb[0] for limb in _LIMBS])
_TO = np.array([limb[1] for limb in _LIMBS])
_COLOURS = np.array([limb[2] for limb in _LIMBS], np.float32)
_WIDTHS = np.array([limb[3] for limb in _LIMBS], np.float32)
_TORSO = (LEFT_SHOULDER, RIGHT_SHOULDER, RIGHT_HIP, LEFT_HIP)
_TORSO_COLOUR = np.array((112, 112, 112), np.float32)
_SKULL_COLOUR = np.array((80, 96, 64), np.float32)
_SKULL_RADIUS = 0.24  # torso lengths, around the middle of the ears

# Segments that say how large a person is, with their usual length in torso lengths.
_MEASURES = (
    (NECK, MID_HIP, 1.0),
    (LEFT_SHOULDER, RIGHT_SHOULDER, 0.75),
    (LEFT_HIP, LEFT_KNEE, 0.85),
    (RIGHT_HIP, RIGHT_KNEE, 0.85),
    (LEFT_KNEE, LEFT_ANKLE, 0.85),
    (RIGHT_KNEE, RIGHT_ANKLE, 0.85),
)
TORSO_METRES = 0.5
"""From the middle of the shoulders to that of the hips, of an adult, about."""
BODY_METRES = 1.7
AGILITY = 8.0
"""Hz per body size a second: how much less a joint in motion is smoothed."""
_FINGERS = tuple(
    (0, *range(first, first + 4)) for first in (1, 5, 9, 13, 17)
)  # the 21-point hand: wrist, then four points a finger


def _with_middles(points: np.ndarray) -> np.ndarray:
    """(T, 33, 3) joints, then the five middles: (T, 38, 3)."""
    first, second = np.array(_MIDDLES).T
    return np.concatenate([points, (points[:, first] + points[:, second]) / 2], axis=1)


def subject_points(pose: PoseSequence, height: int, width: int) -> np.ndarray:
    """Person 0's joints and middles in pixels of a (height, width) picture: (T, 38, 3)."""
    points = pose.keypoints[:, 0].double().cpu().numpy()
    zoom = np.array([width / pose.frame_size[1], height / pose.frame_size[0], 1.0])
    return _with_middles(points * zoom)


def points_in_space(pose: PoseSequence, height: int, width: int) -> Tensor:
    """Person 0's joints and middles (T, 38, 4) float32: x and y in pixels of a (height, width)
    picture, depth in torso lengths (smaller is nearer), visibility in [0, 1]."""
    points = subject_points(pose, height, width)
    depth = _with_middles(pose.world[:, 0].double().cpu().numpy())[..., 2] / TORSO_METRES
    found = np.concatenate([points[..., :2], depth[..., None], points[..., 2:]], axis=2)
    return torch.from_numpy(found).float()


def torso_lengths(points: np.ndarray) -> np.ndarray:
    """How large the person appears: (T,) pixels, from joints and middles (T, 38, 3).

    The torso itself shrinks to nothing in a bow, so the longest of a few segments counts, each
    divided by its usual share; segments with an unseen end do not.
    """
    candidates = []
    for start, end, share in _MEASURES:
        length = np.linalg.norm(points[:, start, :2] - points[:, end, :2], axis=-1) / share
        seen = np.minimum(points[:, start, 2], points[:, end, 2]) > VISIBLE
        candidates.append(np.where(seen | (share == 1.0), length, 0.0))
    return np.maximum(np.max(candidates, axis=0), 1e-3)


def steadied(pose: PoseSequence, pts: Tensor, rest_seconds: float) -> PoseSequence:
    """`Conditioning.steadied` for bodies: the subject's joints, in the picture and in space."""
    body_px = torso_lengths(subject_points(pose, *pose.size)) * BODY_METRES / TORSO_METRES
    present = pose.present().tolist()

    def steady(points: Tensor | None, units: np.ndarray) -> Tensor | None:
        if points is None:
            return None
        result = points.clone()
        result[:, 0] = torch.from_numpy(
            smoothed(
                points[:, 0].numpy(),
                pts.tolist(),
                present,
                units.tolist(),
                rest_seconds=rest_seconds,
                agility=AGILITY,
            )
        )
        return result

    return replace(
        pose,
        keypoints=steady(pose.keypoints, body_px),
        world=steady(pose.world, np.full(len(body_px), BODY_METRES)),
        hands=steady(pose.hands, body_px),
        face=steady(pose.face, body_px),
    )


def draw(pose: PoseSequence, height: int, width: int) -> Tensor:
    """Coloured limbs on black, the far ones drawn first: (T, 3, height, width) uint8.

    Depth comes from the world coordinates, so an arm before the chest covers it and one behind
    the back is covered. Limbs taper, their width follows the person's size, joints that were
    hardly seen fade to black, and everything is anti-aliased, so that maps move smoothly. Frames
    without the subject stay black.
    """
    points = subject_points(pose, height, width)
    depth = _with_middles(pose.world[:, 0].double().cpu().numpy())[..., 2]
    torso_px = torso_lengths(points)
    polygons = _tapered(points, torso_px)
    shades = _COLOURS * _fading(np.minimum(points[:, _FROM, 2], points[:, _TO, 2]))[..., None]
    order = np.argsort(-_layers(depth), axis=1, kind="stable")
    canvases = np.zeros((len(points), height, width, 3), np.uint8)
    for t in np.flatnonzero(pose.present().numpy()):
        for layer in order[t]:
            if layer < len(_LIMBS):
                _fill(canvases[t], polygons[t, layer], shades[t, layer])
            elif layer == len(_LIMBS):
                alpha = _fading(points[t, _TORSO, 2].min())
                hull = cv2.convexHull(points[t, _TORSO, :2].astype(np.float32))[:, 0]
                _fill(canvases[t], hull, _TORSO_COLOUR * alpha)
            else:
                colour = _SKULL_COLOUR * _fading(points[t, MID_EAR, 2])
                radius = _SKULL_RADIUS * torso_px[t]
                fill_disc(canvases[t], points[t, MID_EAR, :2], radius, _rgb(colour))
    _draw_fingers(canvases, pose)
    return as_maps(canvases)


def _layers(depth: np.ndarray) -> np.ndarray:
    """Depth of each limb, then of torso and skull: (T, L + 2) metres, larger is farther."""
    limbs = (depth[:, _FROM] + depth[:, _TO]) / 2
    # Chest and skull are thick: what crosses their middle is drawn on top of them.
    torso = depth[:, _TORSO].mean(axis=1, keepdims=True) + 0.05
    skull = depth[:, MID_EAR, None]
    return np.concatenate([limbs, torso, skull], axis=1)


def _tapered(points: np.ndarray, torso_px: np.ndarray) -> np.ndarray:
    """An ellipse from joint to joint for each limb: (T, L, 20, 2) pixels."""
    start, end = points[:, _FROM, :2], points[:, _TO, :2]
    along = (end - start) / 2
    length = np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    normal = np.stack([-along[..., 1], along[..., 0]], -1) / length
    half_width = np.maximum(_WIDTHS * torso_px[:, None], 1.0)[..., None] / 2
    # A limb seen end-on is a disc, not a dot: joints reach half a width beyond their points.
    along = along / length * (length + half_width / 2)
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)[:, None]
    middle = ((start + end) / 2)[:, :, None]
    sideways = (normal * half_width)[:, :, None]
    return middle + np.cos(angle) * along[:, :, None] + np.sin(angle) * sideways


def _fading(visibility: np.ndarray) -> np.ndarray:
    """Brightness in [0, 1]: none below visibility 0.1, full from 0.5."""
    return np.clip((visibility - 0.1) / 0.4, 0.0, 1.0)


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = colour.tolist()
    return round(red), round(green), round(blue)


def _fill(canvas: np.ndarray, polygon: np.ndarray, colour: np.ndarray) -> None:
    if colour.max() >= 1:
        fill_convex(canvas, polygon, _rgb(colour))


def _draw_fingers(canvases: np.ndarray, pose: PoseSequence) -> None:
    """Finger bones, where the pose carries hand points."""
    if pose.hands is None:
        return
    height, width = canvases.shape[1:3]
    zoom = np.array([width / pose.frame_size[1], height / pose.frame_size[0]])
    points = pose.hands[:, 0].double().cpu().numpy()
    for t in np.flatnonzero(pose.present().numpy()):
        for first, tint in ((0, (0, 255, 255)), (21, (255, 255, 0))):
            hand = points[t, first : first + 21]
            if hand[:, 2].min() < VISIBLE:
                continue
            for number, finger in enumerate(_FINGERS):
                colour = tuple(round(c * (0.6 + 0.1 * number)) for c in tint)
                bones = hand[list(finger), :2] * zoom
                stroke(canvases[t], bones, colour, thickness=height / 200)


def silhouettes(pose: PoseSequence, height: int, width: int) -> Tensor:
    """(T, 1, height, width) uint8: 255 generously over the body, hair and skirt included.

    The hull of trunk and legs, thick arms and a disc for the head that reaches above the crown,
    all wider than the limbs by a fraction of the torso length.
    """
    points = subject_points(pose, height, width)
    torso_px = torso_lengths(points)
    masks = np.zeros((len(points), height, width, 1), np.uint8)
    for t in np.flatnonzero(pose.present().numpy()):
        known = points[t, :, 2] > 0.1
        unit, xy, mask = torso_px[t], points[t, :, :2], masks[t, :, :, 0]
        trunk = [k for k in (11, 12, *range(23, NUM_KEYPOINTS)) if known[k]]
        if len(trunk) >= 3:
            hull = cv2.convexHull(xy[trunk].astype(np.float32))[:, 0]
            fill_convex(mask, hull, 255)
            stroke(mask, hull, 255, thickness=0.5 * unit, closed=True)
        for chain in ((11, 13, 15), (12, 14, 16)):
            arm = [k for k in chain if known[k]]
            if len(arm) >= 2:
                stroke(mask, xy[arm], 255, thickness=0.42 * unit)
        for hand in HANDS.values():
            if known[hand[0]]:
                fill_disc(mask, xy[list(hand)].mean(axis=0), 0.3 * unit, 255)
        if known[MID_EAR]:
            stroke(mask, xy[[NECK, MID_EAR]], 255, thickness=0.5 * unit)
            fill_disc(mask, head_centre(points[t], unit), 0.48 * unit, 255)
    return as_maps(masks)


def head_centre(points: np.ndarray, unit: float) -> np.ndarray:
    """Middle of the whole head in pixels: the ears sit below it. `points`: (38, 3)."""
    upward = points[MID_EAR, :2] - points[NECK, :2]
    norm = np.linalg.norm(upward)
    upward = upward / norm if norm > 1e-6 else np.array([0.0, -1.0])
    face = points[list(HEAD), :2].mean(axis=0)
    return (face + points[MID_EAR, :2]) / 2 + 0.08 * unit * upward


def regions(pose: PoseSequence) -> dict[str, Tensor]:
    """Boxes "subject", "face", "left_hand", "right_hand": (T, 4) float32 in frame pixels.

    Clipped to the frame; all zeros where the part is absent or outside. Face and hands are square
    before clipping.
    """
    height, width = pose.frame_size
    points = subject_points(pose, height, width)
    torso_px = torso_lengths(points)
    names = ("subject", "face", *HANDS)
    boxes = np.zeros((len(names), len(points), 4), np.float32)
    for t in np.flatnonzero(pose.present().numpy()):
        unit = torso_px[t]
        seen = points[t, :NUM_KEYPOINTS, 2] > VISIBLE
        centres = {"face": (head_centre(points[t], unit), 0.42 * unit)} if seen[NOSE] else {}
        for name, hand in HANDS.items():
            if seen[hand[0]]:
                centres[name] = (points[t, list(hand), :2].mean(axis=0), 0.25 * unit)
        squares = {n: np.concatenate([c - r, c + r]) for n, (c, r) in centres.items()}
        body = points[t, :NUM_KEYPOINTS, :2][seen]
        if len(body):
            margin = 0.2 * unit
            corners = [body.min(axis=0) - margin, body.max(axis=0) + margin]
            corners += [s.reshape(2, 2) for s in squares.values()]
            around = np.concatenate([np.atleast_2d(c) for c in corners])
            squares["subject"] = np.concatenate([around.min(axis=0), around.max(axis=0)])
        for name, box in squares.items():
            boxes[names.index(name), t] = _clipped(box, height, width)
    return {name: torch.from_numpy(boxes[i]) for i, name in enumerate(names)}


def _clipped(box: np.ndarray, height: int, width: int) -> np.ndarray:
    inside = np.clip(box, 0, (width, height, width, height))
    empty = inside[2] <= inside[0] or inside[3] <= inside[1]
    return np.zeros(4) if empty else inside


def features(pose: PoseSequence) -> Tensor:
    """(T, 132) float32: joints about the hips in torso lengths, weighted by visibility.

    66 numbers say where the joints appear, 66 how they lie in space (half weight: depth tells a
    turned back from a front), so that a nearest neighbour looks alike and faces the same way.
    """
    points = subject_points(pose, *pose.frame_size)
    unit = torso_lengths(points)[:, None, None]
    placed = (points[:, :NUM_KEYPOINTS, :2] - points[:, MID_HIP, None, :2]) / unit
    turned = pose.world[:, 0, :, ::2].double().cpu().numpy()
    weight = np.clip(points[:, :NUM_KEYPOINTS, 2:], 0, 1)
    rows = np.concatenate([placed * weight, 0.5 * turned * weight], axis=1)
    return torch.from_numpy(rows).float().flatten(1)
