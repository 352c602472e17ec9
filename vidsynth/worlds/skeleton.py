"""The puppet's skeleton: proportions, and where its joints go in a dance.

Metres; x to the right of the picture, y up from the floor, z towards the viewer. Sides: 0 is the
puppet's left (+x at rest), 1 its right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidsynth.worlds.dance import Dance
from vidsynth.worlds.figure import Array, smoothstep, unit
from vidsynth.worlds.motion import shortest_arc, turns
from vidsynth.worlds.texture import floats

# T frames, N bones

PELVIS, CHEST, SKULL = 0, 1, 2
UPPER, FORE, HAND, THIGH, SHIN, FOOT = range(6)
NUM_BONES = 15
SIDES = (0, 1)


def limb(part: int, side: int) -> int:
    """Index of a limb's bone."""
    return 3 + 6 * side + part


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Proportions; ratios are relative to an average adult."""

    height: float
    """Metres."""
    legs: float = 1.0
    arms: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    girth: float = 1.0
    bust: float = 0.0
    """0 for a flat chest, 1 for a full one."""
    head: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """Where the joints are when standing straight, arms hanging."""

    joints: Array
    """(15, 3) pivot of each bone."""
    upper: float
    fore: float
    hand: float
    thigh: float
    shin: float
    ankle: float
    """Height of the ankle over the floor."""
    foot: float
    """Length, heel to toe."""


def rest(body: Body) -> Rest:
    h = body.height
    thigh, shin, ankle = 0.245 * h * body.legs, 0.240 * h * body.legs, 0.045 * h
    upper, fore, hand = 0.168 * h * body.arms, 0.142 * h * body.arms, 0.104 * h
    hip = ankle + thigh + shin
    joints = np.zeros((NUM_BONES, 3), np.float32)
    joints[PELVIS] = 0, hip, 0
    joints[CHEST] = 0, hip + 0.085 * h, 0
    joints[SKULL] = 0, hip + 0.345 * h, -0.005 * h
    for side in SIDES:
        out = 1 - 2 * side
        shoulder = np.array([out * 0.102 * h * body.shoulders, hip + 0.272 * h, -0.004 * h])
        socket = np.array([out * 0.052 * h * body.hips, hip, 0])
        down = np.array([0, -1, 0])
        joints[limb(UPPER, side)] = shoulder
        joints[limb(FORE, side)] = shoulder + down * upper
        joints[limb(HAND, side)] = shoulder + down * (upper + fore)
        joints[limb(THIGH, side)] = socket
        joints[limb(SHIN, side)] = socket + down * thigh
        joints[limb(FOOT, side)] = socket + down * (thigh + shin)
    return Rest(joints, upper, fore, hand, thigh, shin, ankle, 0.156 * h)


def pose(body: Body, dance: Dance) -> tuple[Array, Array]:
    """Forward kinematics of the trunk and arms, inverse of the legs.

    Returns:
        Rotations (T, 15, 3, 3) and positions (T, 15, 3) of the bones.
    """
    still, count = rest(body), len(dance)
    leg = still.thigh + still.shin
    rotation = np.tile(np.eye(3, dtype=np.float32), (count, NUM_BONES, 1, 1))
    place = np.zeros((count, NUM_BONES, 3), np.float32)
    rotation[:, PELVIS] = turns(*dance.pelvis.T)
    rotation[:, CHEST] = rotation[:, PELVIS] @ turns(*dance.chest.T)
    rotation[:, SKULL] = rotation[:, CHEST] @ turns(*dance.head.T)

    ankles = _ankles(still, dance, leg)
    place[:, PELVIS, 0], place[:, PELVIS, 2] = leg * dance.root.T
    sockets = np.stack([_carried(still, rotation, PELVIS, limb(THIGH, s)) for s in SIDES], axis=1)
    place[:, PELVIS, 1] = _pelvis_height(place[:, PELVIS], sockets, ankles, dance, leg)
    place[:, CHEST] = place[:, PELVIS] + _carried(still, rotation, PELVIS, CHEST)
    place[:, SKULL] = place[:, CHEST] + _carried(still, rotation, CHEST, SKULL)
    for side in SIDES:
        _place_arm(still, dance, rotation, place, side)
        place[:, limb(THIGH, side)] = place[:, PELVIS] + sockets[:, side]
        _place_leg(still, dance, rotation, place, ankles[:, side], side)
    return rotation, place


def _carried(still: Rest, rotation: Array, parent: int, child: int) -> Array:
    """(T, 3) from a bone's pivot to that of one it carries rigidly."""
    return rotation[:, parent] @ (still.joints[child] - still.joints[parent])


def _ankles(still: Rest, dance: Dance, leg: float) -> Array:
    """(T, 2, 3) where the dance wants the ankles."""
    ankles = leg * dance.feet
    ankles[..., 0] = ankles[..., 0] * (1, -1) + still.joints[[limb(THIGH, s) for s in SIDES], 0]
    ankles[..., 1] += still.ankle
    return ankles.astype(np.float32)


def _pelvis_height(pelvis: Array, sockets: Array, ankles: Array, dance: Dance, leg: float) -> Array:
    """(T,) as high as both legs reach, lower by the squat."""
    apart = (pelvis[:, None] + sockets - ankles)[..., [0, 2]]
    reach = 0.985 * leg
    rise = np.sqrt(np.maximum(reach**2 - (apart**2).sum(-1), (0.3 * leg) ** 2))
    return (ankles[..., 1] + rise - sockets[..., 1]).min(axis=1) - leg * dance.squat


def _place_arm(still: Rest, dance: Dance, rotation: Array, place: Array, side: int) -> None:
    out = 1 - 2 * side
    mirror = floats([out, 1, 1])
    upper, fore = dance.upper_arms[:, side] * mirror, dance.forearms[:, side] * mirror
    chest = rotation[:, CHEST]
    # From hanging to straight out is a turn about z; from there the shortest way to the direction.
    sideways = turns(*floats((0, 0, out * np.pi / 2)))
    swing = shortest_arc(np.broadcast_to(floats([out, 0, 0]), upper.shape), upper)
    rotation[:, limb(UPPER, side)] = chest @ swing @ sideways
    rotation[:, limb(FORE, side)] = chest @ shortest_arc(upper, fore) @ swing @ sideways
    rotation[:, limb(HAND, side)] = rotation[:, limb(FORE, side)]
    shoulder = still.joints[limb(UPPER, side)] - still.joints[CHEST]
    # A raised arm lifts its shoulder and draws it in.
    raised = smoothstep(0.0, 1.0, upper[:, 1])[:, None]
    shoulder = shoulder + raised * floats([-0.10 * still.upper * out, 0.14 * still.upper, 0])
    place[:, limb(UPPER, side)] = place[:, CHEST] + np.einsum("tij,tj->ti", chest, shoulder)
    down = floats([0, -1, 0])
    elbow = place[:, limb(UPPER, side)] + rotation[:, limb(UPPER, side)] @ (down * still.upper)
    place[:, limb(FORE, side)] = elbow
    place[:, limb(HAND, side)] = elbow + rotation[:, limb(FORE, side)] @ (down * still.fore)


def _place_leg(
    still: Rest, dance: Dance, rotation: Array, place: Array, ankle: Array, side: int
) -> None:
    """Two-bone inverse kinematics; the knee points where the toes do."""
    out = 1 - 2 * side
    hip = place[:, limb(THIGH, side)]
    reach = ankle - hip
    distance = np.linalg.norm(reach, axis=1, keepdims=True)
    longest = 0.998 * (still.thigh + still.shin)
    distance = np.clip(distance, 0.35 * longest, longest)
    along = unit(reach)
    yaw = out * dance.toes[:, side] + 0.5 * dance.pelvis[:, 0]
    forwards = np.stack([np.sin(yaw), 0 * yaw, np.cos(yaw)], axis=1).astype(np.float32)
    across = unit(forwards - (forwards * along).sum(1, keepdims=True) * along)
    near = (still.thigh**2 - still.shin**2 + distance**2) / (2 * distance)
    bulge = np.sqrt(np.maximum(still.thigh**2 - near**2, 0))
    knee = hip + along * near + across * bulge
    ankle = hip + along * distance
    # The leg's axes: down the bone, and sideways as the knee's hinge.
    for part, (start, end) in ((THIGH, (hip, knee)), (SHIN, (knee, ankle))):
        up = unit(start - end)
        hinge = unit(np.cross(up, forwards))
        rotation[:, limb(part, side)] = np.stack([hinge, up, np.cross(hinge, up)], axis=-1)
    lifted = np.clip(dance.feet[:, side, 1] * 2.2, 0, 0.6)
    rotation[:, limb(FOOT, side)] = turns(yaw, lifted, 0 * yaw)
    place[:, limb(SHIN, side)] = knee
    place[:, limb(FOOT, side)] = ankle
