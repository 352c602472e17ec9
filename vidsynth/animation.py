"""What pose-driven animators take: a skeleton video, a face video, and for replacing somebody in a
film its background and a mask.

Everything as Wan-Animate's own preparation makes it (Cheng et al. 2025, "Wan-Animate: Unified
Character Animation and Replacement with Holistic Replication"; the conventions are those of
`wan/modules/animate/preprocess` in the repository Wan-Video/Wan2.2, which diffusers'
WanAnimatePipeline leaves to its users): 20 joints in OpenPose's order with toes, drawn thin on
black; the face alone, stretched to a square; white where the new character goes.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import bodies, drawing
from vidsynth.conditioning import Conditioning, PoseSequence

# T frames, H, W pixels

FACE_PX = 512
"""Sides of the face video."""
AREA = 1280 * 720
"""Pixels of a frame at most, unless somebody says otherwise."""
MULTIPLE = 16
"""Width and height are multiples of this."""
SURE = 0.5
"""Joints below this visibility are not drawn."""
DIM = 0.6
"""Limbs are drawn in this share of their colour, joints in all of it."""
FACE_AREA = 1.3
"""The face's box grows to this many times its area, most of that upwards."""
GROWN_PX = 9
"""The mask reaches this much beyond the person: three times a dilation by 7 pixels."""

_RIGHT_TOE, _LEFT_TOE = 32, 31
# OpenPose's order, of BlazePose's joints: nose, neck, right and left arm, right and left leg, eyes,
# ears, toes.
_JOINTS = (
    bodies.NOSE,
    bodies.NECK,
    bodies.RIGHT_SHOULDER,
    bodies.RIGHT_ELBOW,
    bodies.RIGHT_WRIST,
    bodies.LEFT_SHOULDER,
    bodies.LEFT_ELBOW,
    bodies.LEFT_WRIST,
    bodies.RIGHT_HIP,
    bodies.RIGHT_KNEE,
    bodies.RIGHT_ANKLE,
    bodies.LEFT_HIP,
    bodies.LEFT_KNEE,
    bodies.LEFT_ANKLE,
    bodies.RIGHT_EYE,
    bodies.LEFT_EYE,
    bodies.RIGHT_EAR,
    bodies.LEFT_EAR,
    _LEFT_TOE,
    _RIGHT_TOE,
)
# Limbs by place in that order; the n-th has the n-th colour, as has the n-th joint.
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19),
)  # fmt: skip
_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
    (200, 200, 0), (100, 100, 0),
)  # fmt: skip
_FINGERS = tuple(
    (0 if joint == first else joint - 1, joint)
    for first in (1, 5, 9, 13, 17)
    for joint in range(first, first + 4)
)
_HEAD = (bodies.NOSE, bodies.LEFT_EYE, bodies.RIGHT_EYE, bodies.LEFT_EAR, bodies.RIGHT_EAR, 9, 10)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Animation(Conditioning):
    """All that an animator is told, frame by frame, and the picture that it animates."""

    kind: ClassVar[str] = "animation"
    drawable: ClassVar[bool] = False
    per_frame: ClassVar[tuple[str, ...]] = ("pose", "face", "background", "mask")

    pose: Tensor
    """(T, 3, H, W) uint8 RGB: the skeleton on black."""
    face: Tensor
    """(T, 3, FACE_PX, FACE_PX) uint8 RGB: the driving face; black where none is seen."""
    reference: Tensor
    """(3, H, W) uint8 RGB: who is to be seen."""
    background: Tensor | None = None
    """(T, 3, H, W) uint8 RGB, black where `mask` is white. Where there is one, somebody in a film
    is replaced; else the picture moves."""
    mask: Tensor | None = None
    """(T, 1, H, W) uint8: 255 where the new character goes, 0 on what stays."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.pose.shape[2], self.pose.shape[3])

    def draw(self, height: int, width: int) -> Tensor:
        return drawing.resize(self.pose, height, width)


def fitting_size(height: int, width: int, *, area: int = AREA) -> tuple[int, int]:
    """(height, width) of about this shape, multiples of MULTIPLE: no larger than `area` pixels, and
    no larger than the picture, but for what rounding adds."""
    scale = min(1.0, (area / (height * width)) ** 0.5)

    def rounded(side: float) -> int:
        return max(1, round(side / MULTIPLE)) * MULTIPLE

    high, wide = rounded(height * scale), rounded(width * scale)
    while high * wide > area:
        high, wide = (high - MULTIPLE, wide) if high > wide else (high, wide - MULTIPLE)
    return high, wide


def draw_skeletons(pose: PoseSequence, height: int, width: int) -> Tensor:
    """Person 0 as Wan-Animate is shown bodies: (T, 3, height, width) uint8 RGB.

    Limbs are ellipses in 0.6 of their colour, joints discs; half the width is min(H, W) / 200 - 1
    pixels, at least 1, and half of that for the fingers' lines of all colours.
    """
    canvases = np.zeros((len(pose), height, width, 3), np.uint8)
    points = bodies.subject_points(pose, height, width)[:, list(_JOINTS)]
    hands = _hands(pose, height, width)
    for t, canvas in enumerate(canvases):
        if pose.seen[t, 0]:
            _draw_body(canvas, points[t])
            for hand in () if hands is None else (hands[t, :21], hands[t, 21:]):
                _draw_hand(canvas, hand)
    return drawing.as_maps(canvases)


def _hands(pose: PoseSequence, height: int, width: int) -> NDArray[np.float64] | None:
    if pose.hands is None:
        return None
    zoom = np.array([width / pose.size[1], height / pose.size[0], 1.0])
    return pose.hands[:, 0].double().cpu().numpy() * zoom


def _thickness(canvas: NDArray[np.uint8]) -> int:
    return max(min(canvas.shape[:2]) // 200 - 1, 1)


def _draw_body(canvas: NDArray[np.uint8], points_K3: NDArray[np.float64]) -> None:
    thick = _thickness(canvas)
    for (start, end), colour in zip(_LIMBS, _COLOURS, strict=False):
        a, b = points_K3[start], points_K3[end]
        if min(a[2], b[2]) < SURE:
            continue
        middle, along = (a + b)[:2] / 2, (a - b)[:2]
        outline = cv2.ellipse2Poly(
            (int(middle[0]), int(middle[1])),
            (int(np.hypot(*along) / 2), thick),
            int(np.degrees(np.arctan2(along[1], along[0]))),
            0,
            360,
            1,
        )
        dimmed = [int(c * DIM) for c in colour]
        cv2.fillConvexPoly(canvas, np.array(outline), dimmed)
    for point, colour in zip(points_K3, _COLOURS, strict=True):
        if point[2] >= SURE:
            cv2.circle(canvas, (int(point[0]), int(point[1])), thick, colour, thickness=-1)


def _draw_hand(canvas: NDArray[np.uint8], points_K3: NDArray[np.float64]) -> None:
    thick = max(_thickness(canvas) // 2, 1)
    for number, (start, end) in enumerate(_FINGERS):
        a, b = points_K3[start], points_K3[end]
        if min(a[2], b[2]) >= SURE:
            colour = [255 * c for c in colorsys.hsv_to_rgb(number / len(_FINGERS), 1.0, 1.0)]
            cv2.line(canvas, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), colour, thick)
    for x, y, sure in points_K3:
        if sure >= SURE:
            cv2.circle(canvas, (int(x), int(y)), thick, (0, 0, 255), thickness=-1)


def face_boxes(pose: PoseSequence) -> Tensor:
    """(T, 4) int64 x0, y0, x1, y1 in pixels of the pose's frame, around the face; x1 <= x0 where
    none is seen.

    The box of the face's points, grown to FACE_AREA times its area: half of that to both sides,
    three quarters of the other half upwards. Where there is no mesh, that of the head's joints.
    """
    height, width = pose.size
    boxes = torch.zeros(len(pose), 4, dtype=torch.int64)
    for t in range(len(pose)):
        points = _face_points(pose, t)
        if len(points) < 3:
            continue
        low, high = points.amin(dim=0), points.amax(dim=0)
        w, h = (high - low).clamp(min=1.0).tolist()
        grow = FACE_AREA**0.5 - 1
        x0, x1 = float(low[0]) - w * grow / 2, float(high[0]) + w * grow / 2
        y0, y1 = float(low[1]) - 3 * h * grow / 4, float(high[1]) + h * grow / 4
        box = (max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))
        if box[2] - box[0] >= 2 and box[3] - box[1] >= 2:
            boxes[t] = torch.tensor(box)
    return boxes


def _face_points(pose: PoseSequence, t: int) -> Tensor:
    """(N, 2) of those that are seen."""
    if not pose.seen[t, 0]:
        return torch.zeros(0, 2)
    if pose.face is not None and bool((pose.face[t, 0, :, 2] >= SURE).any()):
        return pose.face[t, 0, :, :2][pose.face[t, 0, :, 2] >= SURE]
    head = pose.keypoints[t, 0, list(_HEAD)]
    head = head[head[:, 2] >= SURE, :2]
    if len(head) < 3:
        return head
    # Ears and mouth span a face's width, and about half its height.
    middle, reach = head.mean(dim=0), (head.amax(dim=0) - head.amin(dim=0)).amax() * 0.6
    return torch.cat([head, torch.stack([middle - reach, middle + reach])])


def crop_faces(frames_T3HW: Tensor, boxes_T4: Tensor) -> Tensor:
    """(T, 3, FACE_PX, FACE_PX) uint8: what is in each box, stretched to the square; black where a
    box is empty."""
    made = torch.zeros(len(frames_T3HW), 3, FACE_PX, FACE_PX, dtype=torch.uint8)
    for out, frame, (x0, y0, x1, y1) in zip(made, frames_T3HW, boxes_T4.tolist(), strict=True):
        if x1 > x0:
            out.copy_(drawing.resize(frame[None, :, y0:y1, x0:x1], FACE_PX, FACE_PX)[0])
    return made


def person_masks(
    pose: PoseSequence, height: int, width: int, people_THW: Tensor | None = None
) -> Tensor:
    """(T, 1, height, width) uint8: 255 on the person and GROWN_PX around, 0 elsewhere.

    Args:
        pose: whose limbs, of generous width, belong to the mask.
        height, width: of the masks.
        people_THW: of any size, above 0 on everybody in the picture: what of it hangs together
            with the limbs belongs to the mask too, like hair and clothes.
    """
    generous = pose.silhouette(height, width)
    kernel = np.ones((2 * GROWN_PX + 1, 2 * GROWN_PX + 1), np.uint8)
    grown = generous.new_zeros(generous.shape)
    for t, limbs in enumerate((generous[:, 0] > 0).numpy()):
        person = limbs
        if people_THW is not None:
            people = drawing.nearest(people_THW[t : t + 1], height, width)[0].numpy() > 0
            _, parts = cv2.connectedComponents((limbs | people).astype(np.uint8))
            person = np.isin(parts, np.unique(parts[limbs])) if limbs.any() else limbs
        grown[t, 0] = torch.from_numpy(cv2.dilate(person.astype(np.uint8) * 255, kernel))
    return grown


def padded(picture_3HW: Tensor, height: int, width: int) -> Tensor:
    """The whole picture in the middle of black: (3, height, width) uint8."""
    own = picture_3HW.shape[1:]
    scale = min(height / own[0], width / own[1])
    high, wide = (
        min(m, max(1, round(s * scale))) for s, m in zip(own, (height, width), strict=True)
    )
    out = torch.zeros(3, height, width, dtype=torch.uint8)
    top, left = (height - high) // 2, (width - wide) // 2
    out[:, top : top + high, left : left + wide] = drawing.resize(picture_3HW[None], high, wide)[0]
    return out
