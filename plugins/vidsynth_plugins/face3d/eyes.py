"""Where someone looks, from the pixels between the lids.

Trackers find irises to about half a millimetre, which is three degrees of gaze, and hardly follow
them up and down. So each eye is cut out at the resolution it was filmed at and compared with a ball
whose brightness depends on the angle from where it looks only: dark within the iris, bright beyond
it. What it is like exactly is learnt from the person's own frames. It is the same all around, so
that it cannot draw the gaze to one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vidsynth import faces
from vidsynth_plugins.face3d.fitting import Performance, Person, project
from vidsynth_plugins.face3d.model import (
    EYEBALL_CM,
    IRIS_CM,
    eye_centres,
    gaze_directions,
)

# T frames, H, W pixels of a cut-out, M pixels, G gazes tried, K rings of a profile

EYE_PX = (28, 44)
"""Height and width of a cut-out."""
EYE_MARGIN = 1.3
"""Width of a cut-out against that of the eye."""
LIDS_KEPT = 0.88
"""Only so much of the opening is looked at: lashes and their shadow are not of the ball."""
LEAST_OPEN = 0.08
"""Area of the opening, in squares of its width, below which an eye counts as shut."""
RINGS = 28
REACH = float(np.deg2rad(70))
"""Angle from the gaze up to which a profile tells the brightness."""
COARSE, FINE = float(np.deg2rad(3)), float(np.deg2rad(1))
MOST = (float(np.deg2rad(42)), float(np.deg2rad(30)))
"""Largest yaw and pitch that are tried."""
COMPANION = 0.5
"""How much an eye believes the other one: they nearly always turn together."""
ANCHOR = 4.0
"""What a radian (squared) from where the tracker found the irises costs, in correlation."""


@dataclass(frozen=True, slots=True, eq=False)
class EyeCuts:
    """Both eyes of each frame, the right one first, in brightness."""

    images: Tensor
    """(T, 2, H, W) float32 in [0, 1]."""
    places: Tensor
    """(T, 2, H, W, 2) float32: each pixel's centre, in pixels of the frame."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: slice | Tensor) -> EyeCuts:
        return EyeCuts(self.images[key], self.places[key])

    @staticmethod
    def concat(parts: list[EyeCuts]) -> EyeCuts:
        return EyeCuts(*(torch.cat([getattr(p, n) for p in parts]) for n in EyeCuts.__slots__))


def cut_eyes(frames_T3HW: Tensor, landmarks_TV3: Tensor) -> EyeCuts:
    """Around the lids of each frame; beyond the frame its edge repeats.

    Args:
        frames_T3HW: uint8.
        landmarks_TV3: (T, 478, 3) pixels.
    """
    count, (height, width) = len(frames_T3HW), EYE_PX
    images = np.zeros((count, 2, height, width), np.uint8)
    places = np.zeros((count, 2, height, width, 2), np.float32)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + 0.5
    grid = (grid - (width / 2, height / 2)) / width
    for t, frame in enumerate(frames_T3HW):
        picture = frame.cpu().permute(1, 2, 0).numpy()
        for e, (ring, _) in enumerate(faces.EYES):
            lids = landmarks_TV3[t, list(ring), :2].cpu().numpy()
            low, high = lids.min(axis=0), lids.max(axis=0)
            wide = max(float(high[0] - low[0]) * EYE_MARGIN, 4.0)
            places[t, e] = (low + high) / 2 + wide * grid
            images[t, e] = _brightness(picture, places[t, e], wide / width)
    return EyeCuts(torch.from_numpy(images).float() / 255, torch.from_numpy(places))


def _brightness(
    picture: NDArray[np.uint8], places_HW2: NDArray[np.float32], step: float
) -> NDArray[np.uint8]:
    """(H, W) of a picture read at these places, first blurred where they lie far apart."""
    height, width = picture.shape[:2]
    least, most = places_HW2[0, 0] - 2 * step - 1, places_HW2[-1, -1] + 2 * step + 1
    x0, y0 = np.floor(least).astype(int).clip(0, (width - 1, height - 1)).tolist()
    x1, y1 = np.ceil(most).astype(int).clip((x0 + 1, y0 + 1), (width, height)).tolist()
    part = cv2.cvtColor(np.ascontiguousarray(picture[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY)
    if step > 1.2:
        part = cv2.GaussianBlur(part, (0, 0), 0.4 * step)
    x, y = (places_HW2[..., k] - np.float32(first + 0.5) for k, first in enumerate((x0, y0)))
    read = cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return read  # pyright: ignore[reportReturnType]


class _Balls(NamedTuple):
    """What each pixel between the lids shows of the eyeballs."""

    weight: Tensor
    """(T, 2, M): sums to 1 over an opening; 0 in a shut eye."""
    bright: Tensor
    """(T, 2, M): brightness less a slope across, with variance 1 over an opening."""
    slopes: Tensor
    """(T, 2, M, 2): orthonormal, evenness and a slope across: the light's, not the iris's."""
    away: Tensor
    """(T, 2, M, 3): unit vectors against the head, from the middle of the ball."""

    @staticmethod
    def of(cuts: EyeCuts, person: Person, seen: Performance, thin: int = 1) -> _Balls:
        """Of every `thin`th row and column; `seen` in pixels of the frames."""
        places = cuts.places[:, :, ::thin, ::thin]
        weight = _openings(places, project(person, seen)[..., :2].float())
        weight = weight / weight.sum(dim=2, keepdim=True).clamp(min=1)
        places, bright = places.flatten(2, 3), cuts.images[:, :, ::thin, ::thin].flatten(2)
        slopes = _slopes(places[..., 0], weight)
        bright = _standard(bright[:, :, None], weight[:, :, None], slopes)[:, :, 0]
        return _Balls(weight, bright, slopes, _sides(places, person, seen))

    def likeness(self, profile_K: Tensor, tried_T2G2: Tensor) -> Tensor:
        """(T, 2, G) in [-1, 1]: correlation of each eye with one that looks in a direction."""
        directions = gaze_directions(tried_T2G2.flatten(0, 2).repeat(1, 2))[:, 0]
        directions = directions.view(*tried_T2G2.shape[:3], 3)
        found = []
        for t, weight in enumerate(self.weight[:, :, None]):  # a frame at once bounds memory
            cosine = (directions[t] @ self.away[t].mT).clamp(-1, 1)  # (2, G, M)
            ring = (torch.acos(cosine) / REACH * (RINGS - 1)).clamp(max=RINGS - 1.001)
            low = ring.long()
            made = torch.lerp(profile_K[low], profile_K[low + 1], ring - low)
            made = _standard(made, weight, self.slopes[t])
            found.append((weight * made * self.bright[t, :, None]).sum(dim=-1))
        return torch.stack(found)


def _openings(places_T2HW2: Tensor, points_TV2: Tensor) -> Tensor:
    """(T, 2, M) 1 between the lids, 0 elsewhere and in an eye as good as shut."""
    count, _, height, width, _ = places_T2HW2.shape
    within = np.zeros((count, 2, height, width), np.uint8)
    for t, e in np.ndindex(count, 2):
        corner, step = places_T2HW2[t, e, 0, 0], places_T2HW2[t, e, 0, 1] - places_T2HW2[t, e, 0, 0]
        lids = points_TV2[t, list(faces.EYES[e][0])]
        wide = float((lids[:, 0].amax() - lids[:, 0].amin()).clamp(min=1e-3))
        if cv2.contourArea(lids.numpy()) < LEAST_OPEN * wide**2:
            continue
        lids = lids.mean(dim=0) + LIDS_KEPT * (lids - lids.mean(dim=0))
        corners = ((lids - corner) / step[0] * 16).round().int().numpy()
        cv2.fillPoly(within[t, e], [corners], (1,), cv2.LINE_8, 4)
    return torch.from_numpy(within).flatten(2).float()


def _slopes(across_T2M: Tensor, weight_T2M: Tensor) -> Tensor:
    """(T, 2, M, 2) orthonormal under the weights: constant and linear. An eye is too low for light
    to differ much from its top to its bottom."""
    mean = (weight_T2M * across_T2M).sum(dim=2, keepdim=True)
    centred = across_T2M - mean
    size = (weight_T2M * centred.square()).sum(dim=2, keepdim=True).sqrt().clamp(min=1e-6)
    return torch.stack([torch.ones_like(across_T2M), centred / size], dim=-1)


def _standard(values: Tensor, weight: Tensor, slopes: Tensor) -> Tensor:
    """(..., G, M) less its slope across, with variance 1 over the last axis."""
    rest = values - (weight * values) @ slopes @ slopes.mT
    return rest / (weight * rest.square()).sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-3)


def _sides(places_T2M2: Tensor, person: Person, seen: Performance) -> Tensor:
    """(T, 2, M, 3) unit vectors against the head: which side of the eyeball each pixel shows."""
    rotation, scale = seen.rotation.float(), seen.scale.float()[:, None, None]
    centres = eye_centres(person.shape).float() @ rotation.mT  # (T, 2, 3)
    middle = seen.translation.float()[:, None] + scale * centres[..., :2]
    across = (places_T2M2 - middle[:, :, None]) / (scale[..., None] * EYEBALL_CM)
    length = across.square().sum(dim=-1, keepdim=True)
    # Picture axes have z away from the viewer; beyond the ball its rim is taken.
    across = across / length.clamp(min=1).sqrt()
    away = torch.cat([across, -(1 - length).clamp(min=0).sqrt()], dim=-1)
    return away @ rotation[:, None]


def plain_profile() -> Tensor:
    """(K,) brightness at angles from the gaze up to REACH, before anything is known: an iris."""
    angle = torch.linspace(0, REACH, RINGS)
    edge = float(np.arcsin(IRIS_CM / EYEBALL_CM))
    return torch.sigmoid((angle - edge) / np.deg2rad(3.0))


def learn_profile(cuts: EyeCuts, person: Person, seen: Performance, *, rounds: int = 2) -> Tensor:
    """(K,): what this person's eyes are like, from some frames; see `plain_profile`.

    Args:
        cuts: of the frames.
        person: whose they are.
        seen: pose, expression and gaze, in pixels of the frames.
        rounds: of finding the gaze and then the profile.
    """
    plain = plain_profile()
    expected = 2 * (plain - plain.mean())  # about as high and low as brightness of variance 1
    balls, profile = _Balls.of(cuts, person, seen), plain
    for _ in range(rounds):
        looked = gaze_directions(refine_gaze(cuts, person, seen, profile, steady=False)).float()
        angle = torch.acos((balls.away * looked[:, :, None]).sum(dim=-1).clamp(-1, 1))
        ring = (angle / REACH * (RINGS - 1)).round().long().clamp(max=RINGS - 1).flatten()
        nothing = torch.zeros(RINGS)
        total = nothing.index_add(0, ring, (balls.weight * balls.bright).flatten())
        count = nothing.index_add(0, ring, balls.weight.flatten())
        few = 0.02 * count.mean() + 1e-3
        profile = (total + few * expected) / (count + few)
    return profile


def refine_gaze(
    cuts: EyeCuts, person: Person, seen: Performance, profile_K: Tensor, *, steady: bool = True
) -> Tensor:
    """(T, 4) radians, as of `model.gaze_directions`: where the eyes look like `profile_K` most.

    Args:
        cuts: of the frames.
        person: whose they are.
        seen: pose and expression, and a gaze to look about, in pixels of the frames.
        profile_K: as of `learn_profile`.
        steady: whether the frames follow one another. Then shut eyes look where they did before or
            do afterwards, and what a single frame says is not believed.
    """
    if not len(cuts):
        return seen.gaze
    yaw = torch.arange(-MOST[0], MOST[0] + 1e-6, COARSE)
    pitch = torch.arange(-MOST[1], MOST[1] + 1e-6, COARSE)
    wide = torch.cartesian_prod(yaw, pitch)  # (G, 2)
    begun = seen.gaze.float().unflatten(1, (2, 2))
    balls = _Balls.of(cuts, person, seen, thin=2)
    likeness = balls.likeness(profile_K, wide.expand(len(cuts), 2, -1, -1))
    likeness = likeness + COMPANION * likeness.flip(1)
    likeness = likeness - ANCHOR * (wide - begun[:, :, None]).square().sum(dim=-1)
    coarse = wide[likeness.argmax(dim=2)]  # (T, 2, 2)
    steps = torch.arange(-3, 4) * FINE
    near = coarse[:, :, None] + torch.cartesian_prod(steps, steps)
    balls = _Balls.of(cuts, person, seen)
    likeness = balls.likeness(profile_K, near)
    likeness = likeness - ANCHOR * (near - begun[:, :, None]).square().sum(dim=-1)
    found = coarse + _peak(likeness.unflatten(2, (7, 7)))
    opened = balls.weight.sum(dim=2) > 0.5
    otherwise = seen.gaze.unflatten(1, (2, 2))
    if steady:
        return _bridged(found.double(), opened, otherwise).flatten(1)
    return torch.where(opened[..., None], found.double(), otherwise).flatten(1)


def _peak(likeness_T277: Tensor) -> Tensor:
    """(T, 2, 2) radians from the middle to where a parabola about the best try is highest."""
    count = likeness_T277.shape[2]
    best = likeness_T277.flatten(2).argmax(dim=2)
    row = torch.div(best, count, rounding_mode="floor").clamp(1, count - 2)
    column = (best % count).clamp(1, count - 2)
    padded = F.unfold(likeness_T277.flatten(0, 1)[:, None], 3)  # (2 T, 9, 25)
    inner = ((row - 1) * (count - 2) + column - 1).flatten()
    around = padded[torch.arange(len(inner)), :, inner].view(*best.shape, 3, 3)

    def top(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
        bend = (2 * at - before - after).clamp(min=1e-6)
        return ((after - before) / (2 * bend)).clamp(-1, 1)

    yaw = top(around[..., 0, 1], around[..., 1, 1], around[..., 2, 1])
    pitch = top(around[..., 1, 0], around[..., 1, 1], around[..., 1, 2])
    middle = count // 2
    return FINE * torch.stack([row - middle + yaw, column - middle + pitch], dim=-1)


def _bridged(gaze_T22: Tensor, opened_T2: Tensor, otherwise_T22: Tensor) -> Tensor:
    """Shut eyes filled from the nearest open frames, and a single frame's error taken out."""
    filled = otherwise_T22.clone()
    at = np.arange(len(gaze_T22))
    for eye in (0, 1):
        known = opened_T2[:, eye].numpy()
        if not known.any():
            continue
        for angle in (0, 1):
            line = np.interp(at, at[known], gaze_T22[known, eye, angle].numpy())
            filled[:, eye, angle] = torch.from_numpy(line)
    if len(filled) > 2:  # the median of three keeps the jumps that eyes make
        windows = filled.unfold(0, 3, 1)
        filled = torch.cat([filled[:1], windows.median(dim=-1).values, filled[-1:]])
    return filled
