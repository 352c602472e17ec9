"""Where the pixels of a body are found in another picture of it: limb by limb."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import bodies
from vidsynth.correspondence import (
    AROUND,
    SURE_SHRUNK,
    Warp,
    adjugate,
    centres,
    determinant,
    full_size,
)

# T frames, N points, L limbs, P pixels, H, W pixels; h, w those of a coarser grid; U, V places
# along and across a limb

_PARTS = (
    # From, to, half width in torso lengths
    (bodies.NECK, bodies.MID_EAR, 0.30),
    (bodies.RIGHT_SHOULDER, bodies.RIGHT_ELBOW, 0.14),
    (bodies.RIGHT_ELBOW, bodies.RIGHT_WRIST, 0.12),
    (bodies.RIGHT_WRIST, bodies.RIGHT_PALM, 0.14),
    (bodies.LEFT_SHOULDER, bodies.LEFT_ELBOW, 0.14),
    (bodies.LEFT_ELBOW, bodies.LEFT_WRIST, 0.12),
    (bodies.LEFT_WRIST, bodies.LEFT_PALM, 0.14),
    (bodies.RIGHT_HIP, bodies.RIGHT_KNEE, 0.18),
    (bodies.RIGHT_KNEE, bodies.RIGHT_ANKLE, 0.14),
    (30, 32, 0.14),
    (bodies.LEFT_HIP, bodies.LEFT_KNEE, 0.18),
    (bodies.LEFT_KNEE, bodies.LEFT_ANKLE, 0.14),
    (29, 31, 0.14),
)
_FROM, _TO, _HALF_WIDTHS = (list(column) for column in zip(*_PARTS, strict=True))
_TORSO_HALF_WIDTH = 0.12
_HALVES = [*_HALF_WIDTHS, 0.5]
"""Half widths in each limb's own axes: in torso lengths, and of the torso in its width."""
NEARER = 4.0
"""How much a torso length of depth decides between two limbs at one place."""
STIFFNESS = 6.0
"""How decidedly a pixel follows the limb that it is nearest to, in its half widths."""
BODY, PULLED = 1.0, 2.0
"""Half widths of a limb, from its middle: where the body ends, and how far its surroundings are
moved with it all the way."""
_CELLS = 64
"""Along the picture's shorter side: a flow is smooth."""

# Outlines: what of its surroundings a limb covers, in its own axes.
ALONG, ACROSS = 2.0, 2.2
"""How long a stretch of a limb's line is looked at, its middle in the middle, in its lengths; and
how far to either side, in half widths."""
UNSEEN_FRAMES = 3.0
"""So many frames count as much as the capsule that a limb is taken for without any."""
_PLACES = (16, 32)
_LOOKED_AT = 128
_TURNS = 3
_LEAST = 0.02
"""What lies beyond a limb's outline may still be it: a trace."""


def body_warp(
    known_TN4: Tensor,
    wanted_TN4: Tensor,
    height: int,
    width: int,
    *,
    outlines_LVU: Tensor | None = None,
) -> Warp:
    """From a skeleton in two pictures: each limb is a similarity, the torso an affine map, and a
    pixel follows the limbs that are near it, the nearer to the viewer the more. Beyond the body
    nothing moves.

    Args:
        known_TN4: joints and middles (38) of the picture that is there: x and y in its pixels,
            depth in torso lengths (smaller is nearer), visibility in [0, 1].
        wanted_TN4: those of the pose that is wanted.
        height, width: of both pictures.
        outlines_LVU: what `outlines` found. With them only the body is sure, as far as it reaches;
            without, limbs are capsules, and what is around them is shown as well.
    """
    cell = max(1, min(height, width) // _CELLS)
    h, w = -(-height // cell), -(-width // cell)
    wanted, known = _Body.of(wanted_TN4), _Body.of(known_TN4)
    rows, columns = slice(0, h), slice(0, w)
    if outlines_LVU is not None:  # nothing is shown beyond
        rows, columns = wanted.cells(h, w, height, width)
    place_hw2 = centres(h, w, height, width, wanted_TN4)[rows, columns]
    place_P2 = place_hw2.flatten(0, 1)
    at_TL2P = wanted.local(place_P2[None])
    near = wanted.near(place_P2[None], at_TL2P, outlines_LVU)
    share_TLP = near.share_TLP
    # Where each limb would take each pixel, and their mean.
    found_TP2 = (share_TLP[:, :, None] * known.place(at_TL2P)).sum(dim=1).mT
    # What another limb hides in the known picture is not found there.
    there = known.near(found_TP2, known.local(found_TP2), outlines_LVU)
    agreement_TP = (share_TLP * there.share_TLP).sum(dim=1) / (share_TLP**2).sum(dim=1)
    # Nor is what is seen end-on there, and is to be shown at full length.
    drawn_TL = (known.sizes() / wanted.sizes() / SURE_SHRUNK).clamp(0, 1)
    seen_TP = (share_TLP * (known.visible * drawn_TL)[..., None]).sum(dim=1)
    sure_TP = near.on_body_TP * there.on_body_TP * agreement_TP.clamp(0, 1) * seen_TP
    # Beyond the body the scene stays, and is seen where the body was not.
    flow_TP2 = _within(PULLED, near.beyond_TP)[..., None] * (found_TP2 - place_P2)
    if outlines_LVU is None:
        hidden_TP = _within(BODY, known.beyond(place_P2 + flow_TP2).amin(dim=1))
        sure_TP = sure_TP + (1 - near.on_body_TP) * (1 - hidden_TP) * AROUND
    found_T3hw = torch.cat([flow_TP2, sure_TP[..., None]], dim=2).mT.unflatten(
        2, place_hw2.shape[:2]
    )
    found_T3hw = F.pad(found_T3hw, (columns.start, w - columns.stop, rows.start, h - rows.stop))
    return full_size(found_T3hw[:, :2], found_T3hw[:, 2:], height, width)


def outlines(points_TN4: Tensor, cover_T1HW: Tensor) -> Tensor:
    """What each limb covers of its surroundings, in its own axes, (L, V, U) float32 in [0, 1].

    Sleeves, shoes and what a hand holds make a limb wider than its bone, and a waist narrower than
    a capsule. A picture that is told from its background shows how far one reaches wherever no
    other one is; where there always is one, it is taken for a capsule. Since where the others are
    depends on their outlines, all are found in turns.

    Args:
        points_TN4: as of `body_warp`.
        cover_T1HW: uint8, 255 where a picture surely shows the body (`plate.cut_out`).
    """
    some = torch.linspace(0, len(points_TN4) - 1, min(_LOOKED_AT, len(points_TN4))).long()
    points_TN4, cover_T1HW = points_TN4[some], cover_T1HW[some]
    body = _Body.of(points_TN4)
    across, along = (torch.arange(count) + 0.5 for count in _PLACES)
    along = 0.5 + ALONG * (along / _PLACES[1] - 0.5)
    across = ACROSS * (2 * across / _PLACES[0] - 1)
    places_2X = torch.stack(torch.broadcast_tensors(along, across[:, None])).flatten(1)
    own_L2X = torch.stack([places_2X * places_2X.new_tensor([[1.0], [half]]) for half in _HALVES])
    at_TLX2 = body.place(own_L2X.to(points_TN4).expand(len(points_TN4), -1, -1, -1)).mT
    height, width = cover_T1HW.shape[2:]
    of_picture = at_TLX2 / at_TLX2.new_tensor([width, height]) * 2 - 1
    seen_TLX = (of_picture.abs() < 1).all(dim=3) * body.visible[..., None]
    cover_T1HW = cover_T1HW.to(points_TN4) / 255
    cover_TLX = F.grid_sample(cover_T1HW, of_picture, align_corners=False)[:, 0]
    limbs = range(len(_HALVES))
    capsules = [_within(BODY, body.beyond(at_TLX2[:, limb])[:, limb]) for limb in limbs]
    capsule_LX = torch.stack([capsule.median(dim=0).values for capsule in capsules])
    found_LX = capsule_LX
    for _ in range(_TURNS):
        clear = []
        for limb in limbs:
            others_TLX = _looked_up(found_LX.unflatten(1, _PLACES), body.local(at_TLX2[:, limb]))
            others_TLX[:, limb] = 0
            clear.append(1 - others_TLX.amax(dim=1))
        clear_TLX = seen_TLX * torch.stack(clear, dim=1)
        told_LX = (clear_TLX * cover_TLX).sum(dim=0) + UNSEEN_FRAMES * capsule_LX
        found_LX = told_LX / (clear_TLX.sum(dim=0) + UNSEEN_FRAMES)
    return found_LX.unflatten(1, _PLACES)


def _looked_up(outlines_LVU: Tensor, at_TL2P: Tensor) -> Tensor:
    """What each limb covers, (T, L, P), at places in its own axes."""
    across = at_TL2P.new_tensor(_HALVES)[:, None] * ACROSS
    u = (at_TL2P[:, :, 0] - 0.5) * (2 / ALONG)
    grid_LTP2 = torch.stack([u, at_TL2P[:, :, 1] / across], dim=-1).transpose(0, 1)
    covers = F.grid_sample(outlines_LVU[:, None].to(at_TL2P), grid_LTP2, align_corners=False)
    return covers[:, 0].transpose(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Which limbs are at a place."""

    share_TLP: Tensor
    """To which limb it belongs; sums to 1 over limbs."""
    beyond_TP: Tensor
    """As `_Body.beyond` of the nearest limb."""
    on_body_TP: Tensor
    """In [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class _Body:
    """Frames of one skeleton as limbs, the torso last: origin, two axes, reach, depth."""

    origin: Tensor
    """(T, L, 2) pixels."""
    axes: Tensor
    """(T, L, 2, 2): columns are along the limb and across it, in pixels per unit."""
    reach: Tensor
    """(T, L) half width in pixels."""
    ends: Tensor
    """(T, L, 2, 2): from where to where, pixels."""
    depth: Tensor
    """(T, L) torso lengths."""
    visible: Tensor
    """(T, L) in [0, 1]."""

    @staticmethod
    def of(points_TN4: Tensor) -> _Body:
        unit_T = _torso_lengths(points_TN4)[:, None]
        start, end = points_TN4[:, _FROM], points_TN4[:, _TO]
        along = end[..., :2] - start[..., :2]
        # A limb seen end-on keeps a direction and some length.
        length = along.norm(dim=2, keepdim=True)
        least = 0.08 * unit_T[..., None]
        along = along * ((length + least) / (length + 1e-6))
        across = torch.stack([-along[..., 1], along[..., 0]], dim=-1)
        across = across / across.norm(dim=2, keepdim=True).clamp_min(1e-6) * unit_T[..., None]

        hips, neck = points_TN4[:, bodies.MID_HIP], points_TN4[:, bodies.NECK]
        shoulders = points_TN4[:, bodies.RIGHT_SHOULDER] - points_TN4[:, bodies.LEFT_SHOULDER]
        hip_line = points_TN4[:, bodies.RIGHT_HIP] - points_TN4[:, bodies.LEFT_HIP]
        spine = (neck - hips)[:, :2]
        side = (shoulders + hip_line)[:, :2] / 2
        # Seen from the side a chest keeps a fifth of its width.
        thin = (0.2 * unit_T - side.norm(dim=1, keepdim=True)).clamp_min(0)
        normal = torch.stack([-spine[:, 1], spine[:, 0]], dim=-1)
        normal = normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-6)
        facing = torch.where((normal * side).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
        side = side + thin * facing * normal

        widths = points_TN4.new_tensor(_HALF_WIDTHS)
        ends = torch.stack([start[..., :2], end[..., :2]], dim=2)
        trunk = torch.stack([hips[:, :2], neck[:, :2]], dim=1)[:, None]
        trunk_reach = 0.5 * side.norm(dim=1, keepdim=True) + _TORSO_HALF_WIDTH * unit_T
        seen = torch.minimum(start[..., 3], end[..., 3])
        return _Body(
            origin=torch.cat([start[..., :2], hips[:, None, :2]], dim=1),
            axes=torch.cat(
                [torch.stack([along, across], dim=-1), torch.stack([spine, side], dim=-1)[:, None]],
                dim=1,
            ),
            reach=torch.cat([widths * unit_T, trunk_reach], dim=1),
            ends=torch.cat([ends, trunk], dim=1),
            # A chest is thick: what crosses it lies in front.
            depth=torch.cat(
                [(start[..., 2] + end[..., 2]) / 2, (hips[:, 2] + neck[:, 2])[:, None] / 2 + 0.1],
                dim=1,
            ),
            visible=torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1).clamp(0, 1),
        )

    def sizes(self) -> Tensor:
        """(T, L): pixels of a limb's length, and for the torso the root of its area."""
        lengths = self.axes[:, :-1, :, 0].norm(dim=2)
        area = determinant(self.axes[:, -1:]).abs().clamp_min(1.0)
        return torch.cat([lengths, area.sqrt()], dim=1)

    def cells(self, h: int, w: int, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of an (h, w) grid over the picture beyond which nothing follows it."""
        reach = (PULLED + 1) * self.reach[..., None]
        low_2 = (self.ends.detach().amin(dim=2) - reach).amin(dim=(0, 1))
        high_2 = (self.ends.detach().amax(dim=2) + reach).amax(dim=(0, 1))
        sides = []
        for low, high, count, size in zip(
            low_2.tolist(), high_2.tolist(), (w, h), (width, height), strict=True
        ):
            first = min(max(math.floor(low / size * count), 0), count - 1)
            sides.append(slice(first, min(max(math.ceil(high / size * count), first + 1), count)))
        return sides[1], sides[0]

    def local(self, place_TP2: Tensor) -> Tensor:
        """Pixels in each limb's own axes: (T, L, 2, P)."""
        area = determinant(self.axes)
        area = torch.where(area.abs() < 1e-6, 1e-6, area)
        inverse = adjugate(self.axes) / area[..., None, None]
        return inverse @ (place_TP2.mT[:, None] - self.origin[..., None])

    def place(self, local_TL2P: Tensor) -> Tensor:
        """Back to pixels: (T, L, 2, P)."""
        return self.axes @ local_TL2P + self.origin[..., None]

    def beyond(self, place_TP2: Tensor) -> Tensor:
        """Squared distance of each pixel to each limb, in its half widths: (T, L, P)."""
        start, along = self.ends[:, :, 0], self.ends[:, :, 1] - self.ends[:, :, 0]
        length = (along**2).sum(dim=2, keepdim=True).clamp_min(1e-6)
        # x and y apart: sums over an axis of two are slow.
        along_x, along_y = along[..., None].unbind(2)
        start_x, start_y = start[..., None].unbind(2)
        x, y = place_TP2[:, None, :, 0] - start_x, place_TP2[:, None, :, 1] - start_y
        part = ((x * along_x + y * along_y) / length).clamp(0, 1)
        x, y = x - part * along_x, y - part * along_y
        return (x * x + y * y) / self.reach[..., None] ** 2

    def near(self, place_TP2: Tensor, at_TL2P: Tensor, outlines_LVU: Tensor | None) -> _Near:
        """Which limbs are there, at pixels that are `at_TL2P` in their own axes."""
        beyond_TLP = self.beyond(place_TP2)
        beyond_TP = beyond_TLP.amin(dim=1)
        beyond_TLP = beyond_TLP.clamp(max=20.0)
        on_it = torch.exp(-(beyond_TLP - 1).clamp_min(0))  # depth decides only where limbs are
        score = -STIFFNESS * beyond_TLP - NEARER * on_it * self.depth[..., None]
        if outlines_LVU is None:
            return _Near(score.softmax(dim=1), beyond_TP, _within(BODY, beyond_TP))
        covers_TLP = _looked_up(outlines_LVU, at_TL2P)
        share_TLP = (score + (covers_TLP + _LEAST).log()).softmax(dim=1)
        return _Near(share_TLP, beyond_TP, covers_TLP.amax(dim=1))


def _within(reach: float, beyond_TP: Tensor) -> Tensor:
    """(T, P): 1 up to so many half widths of the nearest limb, 0 from one more on."""
    return (reach + 1 - beyond_TP.sqrt()).clamp(0, 1)


def _torso_lengths(points_TN4: Tensor) -> Tensor:
    """(T,) pixels."""
    seen = points_TN4[..., [0, 1, 3]].detach().double().cpu().numpy()
    return torch.from_numpy(bodies.torso_lengths(seen)).to(points_TN4)
