"""Bodies: the source's motion at the target's size and place in the picture.

Global pose normalisation after Chan et al. 2019, "Everybody Dance Now".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vidsynth import bodies
from vidsynth.conditioning import PoseSequence
from vidsynth.errors import NoSubjectFound

# T frames, K keypoints

_FEET = tuple(range(27, 33))  # ankles, heels, toes
_HEAD = (bodies.NOSE, bodies.LEFT_EAR, bodies.RIGHT_EAR)
_HIPS = (bodies.LEFT_HIP, bodies.RIGHT_HIP)
_SHOULDERS = (bodies.LEFT_SHOULDER, bodies.RIGHT_SHOULDER)
_YARDSTICKS = {
    "feet": (_FEET, _HEAD),
    "hips": (_HIPS, _SHOULDERS),
    "shoulders": (_SHOULDERS, _HEAD),
}
"""What a person is placed and measured by, best first: lower part, upper part."""
_CONFIDENT = 0.5  # visibility; feet below the picture's edge are guessed with less
_UPRIGHT = 0.95  # of the straightest postures' height
_ENOUGH = 0.3  # of the frames must show a yardstick in both videos
_SIZE_SLACK = 1.15  # how far measured heights stray, and generators still cope
_GROUND_FRAMES = 31  # longer than two jumps, shorter than a walk


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRetarget:
    """How a body's motion is brought to the target.

    Attributes:
        absolute: keep place and size as in the source's picture, fitted into the target's frame.
        limbs: also give each limb the target's length; good when the two are built differently.
        steady: frames over which distance to the camera is smoothed; 1 is not at all.
        keep_inside: slide a person who would leave the picture, or the part of it that the
            generator works in, back sideways.
    """

    absolute: bool = False
    limbs: bool = False
    steady: int = 31
    keep_inside: bool = False

    def __post_init__(self) -> None:
        if self.steady < 1:
            raise ValueError("steady must be at least 1 frame")


def steady(values: Tensor, frames: int) -> Tensor:
    """(T,) smoothed by a median and then a mean over `frames`, centred, reflected at the ends."""
    half = min(frames // 2, len(values) - 1)
    if half < 1:
        return values
    for middle in (lambda w: w.median(dim=1).values, lambda w: w.mean(dim=1)):
        padded = functional.pad(values[None, None], (half, half), mode="reflect")[0, 0]
        values = middle(padded.unfold(0, 2 * half + 1, 1))
    return values


def _fill_gaps(values: Tensor) -> Tensor:
    """NaNs of (T,) replaced by straight lines between known frames; the ends repeat."""
    known = (~values.isnan()).nonzero()[:, 0]
    after = torch.searchsorted(known, torch.arange(len(values)))
    left, right = known[(after - 1).clamp(min=0)], known[after.clamp(max=len(known) - 1)]
    span = (right - left).clamp(min=1)
    share = ((torch.arange(len(values)) - left) / span).clamp(0, 1)
    return values[left].lerp(values[right], share.to(values.dtype))


def _part(values_TKD: Tensor, sure_TK: Tensor, joints: tuple[int, ...]) -> Tensor:
    """Mean of the joints that are well seen: (T, D), NaN where none is."""
    weight = sure_TK[:, list(joints), None].to(values_TKD.dtype)
    return (values_TKD[:, list(joints)] * weight).sum(dim=1) / weight.sum(dim=1)


def _pixels_per_metre(points_TK2: Tensor, world_TK3: Tensor, sure_TK: Tensor) -> Tensor:
    """(T,) how large the person appears, whatever the posture: spread of the well-seen joints in
    the picture over their spread in the world. NaN where fewer than two are seen."""
    weight = sure_TK[..., None].to(points_TK2.dtype)

    def spread(values: Tensor) -> Tensor:
        centre = (values * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
        return ((values - centre).square() * weight).sum(dim=(1, 2)).sqrt()

    ratio = spread(points_TK2) / spread(world_TK3[..., :2])
    return ratio.masked_fill(ratio.isinf(), torch.nan)


@dataclass(frozen=True, slots=True, eq=False)
class _Stance:
    """Where a person stands in each frame, measured by one yardstick; NaN where it is hidden."""

    x: Tensor
    line: Tensor
    """(T,) pixels: y of the lowest foot, or of the hips or shoulders."""
    height: Tensor
    """(T,) pixels between the yardstick's two parts, were the person to stand straight there."""
    upright: Tensor
    """(T,) bool: about as straight as the person ever is."""

    @staticmethod
    def measure(pose: PoseSequence, yardstick: str) -> _Stance:
        points, world = pose.keypoints[:, 0, :, :2].double(), pose.world[:, 0].double()
        sure = (pose.keypoints[:, 0, :, 2] > _CONFIDENT) & pose.present()[:, None]
        lower, upper = _YARDSTICKS[yardstick]
        base = _part(points, sure, lower)
        line = base[:, 1]
        if yardstick == "feet":
            feet = points[:, list(lower), 1].masked_fill(~sure[:, list(lower)], -torch.inf)
            line = feet.amax(dim=1).masked_fill(line.isnan(), torch.nan)
        # Who crouches is no smaller: the straightest postures tell the body, its scale the size.
        metres = (_part(world, sure, upper) - _part(world, sure, lower)).norm(dim=1)
        straight = metres.nanquantile(0.9)
        height = straight * _pixels_per_metre(points, world, sure)
        return _Stance(base[:, 0], line, height, metres > _UPRIGHT * straight)

    @property
    def known(self) -> Tensor:
        return ~(self.x.isnan() | self.line.isnan() | self.height.isnan())

    def ground(self, frames: int) -> Tensor:
        """(T,) pixels: the line with jumps and gaps smoothed away."""
        return steady(_fill_gaps(self.line), frames)

    def stats(self, *, depth: bool) -> dict[str, float]:
        """Robust description over time, in pixels; `depth`: the line tells distance."""
        x, line = self.x[self.known], self.line[self.known]
        ground = self.ground(_GROUND_FRAMES)
        # Trackers judge the scale of who sits or crouches up to a fifth too small.
        upright = self.known & self.upright
        standing, height = ground[upright], self.height[upright]
        ground = ground[self.known]
        low, middle, high = ground.quantile(torch.tensor([0.05, 0.5, 0.95]).to(ground)).tolist()
        far, close = (low, high) if depth else (middle, middle)
        stats = {"x": float(x.median()), "line": middle, "height": float(height.median())}
        stats |= {"far": far, "close": close} | _heights_at_ends(standing, height, far, close)
        for axis, values in (("x", x), ("y", line)):
            ends = values.quantile(torch.tensor([0.01, 0.99]).to(values)).tolist()
            stats |= {f"{axis}_min": ends[0], f"{axis}_max": ends[1]}
        return stats


def _heights_at_ends(ground: Tensor, height: Tensor, far: float, close: float) -> dict[str, float]:
    """Heights where the ground line is at its ends, on a straight line through what was measured.

    Who is nearer looks taller, and height changes with the line as many times as fast as the
    person is taller than the camera stands: at most 4 times.
    """
    usual, line = float(height.median()), float(ground.median())
    low, high = ground.quantile(torch.tensor([1 / 3, 2 / 3]).to(ground))
    back, front = ground <= low, ground >= high
    depth = float(ground[front].median() - ground[back].median())
    growth = float(height[front].median() - height[back].median())
    slope = min(max(growth / depth, 0.0), 4.0) if depth > 0.02 * usual else 0.0
    return {
        "height_far": max(usual + slope * (far - line), 0.25 * usual),
        "height_close": usual + slope * (close - line),
    }


def summarise_body(pose: PoseSequence) -> dict[str, Any]:
    """Where and how large the person is, by each yardstick that is seen often enough, with limb
    lengths; and how far the person usually reaches out of the picture. JSON-able."""
    stances: dict[str, Any] = {}
    for name in _YARDSTICKS:
        stance = _Stance.measure(pose, name)
        if stance.known.sum() >= _ENOUGH * pose.present().sum():
            stats = stance.stats(depth=name == "feet")
            nearness = _nearness(stance.ground(_GROUND_FRAMES), stats)
            limbs = _limb_lengths(pose, _perspective(stats, nearness)[1], stance.upright)
            stances[name] = stats | {"limbs": limbs}
    overhang = _overhang(pose)[pose.present()]
    return {"stances": stances, "overhang": float(overhang.quantile(0.95))}


def retarget_body(
    source: PoseSequence, summary: Mapping[str, Any], options: BodyRetarget
) -> tuple[PoseSequence, dict[str, Tensor]]:
    """Chan et al.'s global pose normalisation, in the person's own terms.

    The ground line (lowest foot) tells the distance to the camera. Between its far end and its
    near end, robust percentiles over time, both the line and the standing height of source and
    target are matched; what lies above the line, jumps included, is scaled by the ratio of the
    two heights. Heights are not read off nose and feet, as published, but from pixels per metre
    times the person's straightest posture, so that sitting and crouching change no scale.

    Sideways, the source's median place goes to the target's, and travel is scaled by the same
    ratio. Where feet are hidden in either video, hips and torso length serve, then shoulders and
    head; those say nothing about distance, so scale is then constant.
    """
    ours = summarise_body(source)["stances"]
    size, stances = tuple(summary["size"]), summary["stances"]
    yardstick = next((name for name in _YARDSTICKS if name in ours and name in stances), None)
    if yardstick is None:
        raise NoSubjectFound(
            "source and target never show the same part of a body (feet and head, torso, or "
            "shoulders and head); use clips framed more alike"
        )
    own, theirs = ours[yardstick], stances[yardstick]
    if options.absolute:
        moved = _move(source, *_fit(source.size, size), size)
    else:
        stance = _Stance.measure(source, yardstick)
        nearness = _nearness(stance.ground(options.steady), own)
        line, height = _perspective(own, nearness)
        new_line, new_height = _perspective(_within_reach(theirs, own), nearness)
        # Who comes nearer than the ground line tells, feet out of the picture, would grow beyond
        # any size that the generator has seen.
        tall = steady(_fill_gaps(stance.height), options.steady)
        smallest, largest = theirs["height_far"] / _SIZE_SLACK, theirs["height_close"] * _SIZE_SLACK
        scale = (new_height / height).clamp(smallest / tall, largest / tall)
        offset = torch.stack([theirs["x"] - scale * own["x"], new_line - scale * line], dim=1)
        moved = _move(source, scale, offset, size)
    if options.limbs:
        moved = _relimb(moved, _limb_ratios(own["limbs"], theirs["limbs"]), yardstick == "feet")
    if options.keep_inside:
        moved = _slide_inside(moved, options.steady, tuple(summary.get("room", (0, size[1]))))
    return moved, {"places": _new_places(moved, yardstick, theirs, summary["overhang"])}


def _nearness(ground: Tensor, stats: Mapping[str, float]) -> Tensor:
    """(T,) from 0 at the far end of the ground line to 1 at the near end; 0.5 without depth."""
    reach = stats["close"] - stats["far"]
    if reach <= 1e-6 * stats["height"]:
        return torch.full_like(ground, 0.5)
    return ((ground - stats["far"]) / reach).clamp(0, 1)


def _perspective(stats: Mapping[str, float], nearness: Tensor) -> tuple[Tensor, Tensor]:
    """Ground line and standing height (T,) in pixels: in perspective one is linear in the other."""
    line = stats["far"] + nearness * (stats["close"] - stats["far"])
    height = stats["height_far"] + nearness * (stats["height_close"] - stats["height_far"])
    return line, height


def _within_reach(theirs: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """The part of the target's ground line that a source of less depth is spread over: as long
    as the source's own, counted in body heights, and about the target's usual place."""
    reach = theirs["close"] - theirs["far"]
    wanted = (own["close"] - own["far"]) * theirs["height"] / own["height"]
    half = min(reach, wanted) / 2
    middle = max(min(theirs["line"], theirs["close"] - half), theirs["far"] + half)
    ends = torch.tensor([middle - half, middle + half], dtype=torch.float64)
    lines, heights = _perspective(theirs, _nearness(ends, theirs))
    if reach <= 1e-6 * theirs["height"]:
        lines = ends
    return {
        "far": float(lines[0]),
        "close": float(lines[1]),
        "height_far": float(heights[0]),
        "height_close": float(heights[1]),
    }


def _fit(size: tuple[int, int], frame: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scale () and offset (2,) that centre a picture of `size`, whole, in a frame."""
    scale = min(frame[0] / size[0], frame[1] / size[1])
    offset = [(frame[axis] - scale * size[axis]) / 2 for axis in (1, 0)]
    return torch.tensor(scale).double(), torch.tensor(offset).double()


def _move(pose: PoseSequence, scale: Tensor, offset: Tensor, size: tuple[int, int]) -> PoseSequence:
    """Person 0 alone, each frame scaled by `scale` (T,) and then shifted by `offset` (T, 2)."""

    def moved(points: Tensor | None) -> Tensor | None:
        if points is None:
            return None
        xy = points[:, :1, :, :2] * scale.reshape(-1, 1, 1, 1) + offset.reshape(-1, 1, 1, 2)
        return torch.cat([xy.to(points.dtype), points[:, :1, :, 2:]], dim=-1)

    keypoints = moved(pose.keypoints)
    assert keypoints is not None
    return PoseSequence(
        keypoints=keypoints,
        world=pose.world[:, :1],
        seen=pose.seen[:, :1],
        frame_size=size,
        hands=moved(pose.hands),
        face=moved(pose.face),
    )


def _confident_x(pose: PoseSequence) -> tuple[Tensor, Tensor]:
    """Leftmost and rightmost well-seen joint: (T,) pixels; the middle of the frame if none is."""
    x, _, visibility = pose.keypoints[:, 0].unbind(-1)
    x = torch.where((visibility > _CONFIDENT) & pose.seen[:, :1], x, pose.size[1] / 2)
    return x.amin(dim=1), x.amax(dim=1)


def _overhang(pose: PoseSequence) -> Tensor:
    """(T,) how far well-seen joints reach past the sides or the top, in frame heights."""
    left, right = _confident_x(pose)
    _, y, visibility = pose.keypoints[:, 0].unbind(-1)
    above = (-y * (visibility > _CONFIDENT)).amax(dim=1)
    over = torch.stack([-left, right - pose.size[1], above]).amax(dim=0)
    return over.clamp(min=0) / pose.size[0]


def _slide_inside(pose: PoseSequence, frames: int, room: tuple[float, float]) -> PoseSequence:
    """Slide sideways, smoothly in time, so that well-seen joints stay between two x, in pixels."""

    def held(values: Tensor) -> Tensor:
        # The mean of a running maximum over the same window never falls below the values.
        half = min(frames // 2, len(values) - 1)
        highest = functional.max_pool1d(values[None, None], 2 * half + 1, 1, half)
        padded = functional.pad(highest, (half, half), mode="reflect")
        return functional.avg_pool1d(padded, 2 * half + 1, 1)[0, 0]

    left, right = _confident_x(pose)
    left, right = left - room[0], room[1] - right
    # A quick run from edge to edge asks for both at once: staying inside wins over smoothness.
    shift = (held((-left).clamp(min=0)) - held((-right).clamp(min=0))).clamp(-left, right)
    offset = torch.stack([shift, torch.zeros_like(shift)], dim=1)
    return _move(pose, torch.ones_like(shift), offset, pose.frame_size)


def _new_places(
    pose: PoseSequence, yardstick: str, seen: Mapping[str, float], overhang: float
) -> Tensor:
    """(T,) bool: a tenth of the body height beyond where the target ever was, or out of frame."""
    stance, margin = _Stance.measure(pose, yardstick), 0.1 * seen["height"]
    sideways = (stance.x < seen["x_min"] - margin) | (stance.x > seen["x_max"] + margin)
    upwards = (stance.line < seen["y_min"] - margin) | (stance.line > seen["y_max"] + margin)
    return sideways | upwards | (_overhang(pose) > overhang + 0.02)


# Limb lengths. A chain from the hips outwards: joint, the joint it hangs from, the limb between.

_NECK, _MID_HIP, _MID_EAR = bodies.NECK, bodies.MID_HIP, bodies.MID_EAR  # 33, 34, 35
_CHAIN = (
    *((joint, _MID_HIP, "hips") for joint in _HIPS),
    (_NECK, _MID_HIP, "torso"),
    *((joint, _NECK, "shoulders") for joint in _SHOULDERS),
    (_MID_EAR, _NECK, "neck"),
    *((joint, _MID_EAR, "head") for joint in bodies.HEAD),
    *((side + 13, side + 11, "upper arm") for side in (0, 1)),
    *((side + 15, side + 13, "forearm") for side in (0, 1)),
    *((side + tip, side + 15, "hand") for side in (0, 1) for tip in (17, 19, 21)),
    *((side + 25, side + 23, "thigh") for side in (0, 1)),
    *((side + 27, side + 25, "shin") for side in (0, 1)),
    *((side + tip, side + 27, "foot") for side in (0, 1) for tip in (29, 31)),
)
NUM_LIMBS = len(_CHAIN)


def _with_middles(points_TK3: Tensor) -> Tensor:
    """(T, 33, 3) joints, then neck, middle of the hips, middle of the ears: (T, 36, 3)."""
    pairs = (_SHOULDERS, _HIPS, _HEAD[1:])
    middles = [points_TK3[:, list(pair)].mean(dim=1, keepdim=True) for pair in pairs]
    return torch.cat([points_TK3, *middles], dim=1)


def _limb_lengths(pose: PoseSequence, standing: Tensor, upright: Tensor) -> list[float | None]:
    """Median length of each limb of `_CHAIN`, in standing heights; None where never measured.

    World coordinates say how much a limb is foreshortened in the picture; limbs that point at the
    camera (less than half their length shows) are left out. Upright postures come first, since
    the scale of the others is less sure.
    """
    flat = _with_middles(pose.keypoints[:, 0].double())
    world = _with_middles(pose.world[:, 0].double())
    lengths: list[float | None] = []
    for joint, parent, _ in _CHAIN:
        bone = world[:, joint] - world[:, parent]
        shows = bone[:, :2].norm(dim=1) / bone.norm(dim=1)
        sure = torch.minimum(flat[:, joint, 2], flat[:, parent, 2]) > _CONFIDENT
        picture = (flat[:, joint, :2] - flat[:, parent, :2]).norm(dim=1)
        usable = pose.present() & sure & (shows > 0.5)
        best = usable & upright if (usable & upright).any() else usable
        length = (picture / shows / standing)[best]
        lengths.append(float(length.median()) if len(length) else None)
    return lengths


def _limb_ratios(own: list[float | None], theirs: list[float | None]) -> dict[str, float]:
    """Target / source by limb, left and right together, within [0.5, 2]; 1 where unknown."""
    by_name: dict[str, list[float]] = {name: [] for _, _, name in _CHAIN}
    for (_, _, name), ours, target in zip(_CHAIN, own, theirs, strict=True):
        if ours and target:
            by_name[name].append(target / ours)
    return {n: min(max(sum(v) / len(v), 0.5), 2.0) if v else 1.0 for n, v in by_name.items()}


def _relimb(pose: PoseSequence, ratios: Mapping[str, float], on_feet: bool) -> PoseSequence:
    """Each limb `ratios` times as long and of the same direction, in picture and world."""

    def lengthened(points_TK3: Tensor) -> Tensor:
        old = _with_middles(points_TK3)
        new = old.clone()
        for joint, parent, name in _CHAIN:
            new[:, joint] = new[:, parent] + ratios[name] * (old[:, joint] - old[:, parent])
        return new

    old = _with_middles(pose.keypoints[:, 0])
    new = torch.cat([lengthened(pose.keypoints[:, 0])[..., :2], old[..., 2:]], dim=-1)
    if on_feet:  # longer legs lift the hips; they do not sink into the floor
        feet = list(_FEET)
        new[..., 1] += (old[:, feet, 1].amax(1) - new[:, feet, 1].amax(1))[:, None]

    def carried(points: Tensor | None, joints: tuple[int, ...], name: str) -> Tensor | None:
        """Detail points (T, 1, N, 3), in equal shares for `joints`, about their joint."""
        if points is None:
            return None
        shares = torch.tensor(joints).repeat_interleave(points.shape[2] // len(joints))
        about = points[:, 0, :, :2] - old[:, shares, :2]
        xy = new[:, shares, :2] + ratios[name] * about
        return torch.cat([xy, points[:, 0, :, 2:]], dim=-1)[:, None]

    return replace(
        pose,
        keypoints=new[:, None, :33],
        world=lengthened(pose.world[:, 0])[:, None, :33],
        hands=carried(pose.hands, (bodies.LEFT_WRIST, bodies.RIGHT_WRIST), "hand"),
        face=carried(pose.face, (_MID_EAR,), "head"),
    )
