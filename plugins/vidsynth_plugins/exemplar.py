"""Frames painted from the subject's own pixels: warp, blend, and invent only what was never seen.

A generator that paints from nothing spends its training on learning a texture that the target's
video already is. Here training frames are brought to the wanted pose by the conditioning's own
correspondence (`Conditioning.warp_to`), and the network of pix2pixHD says where to take which of
them, by how much to correct the warp, and what to paint where none of them helps: inside of the
mouth, eyelids, hands, whatever was hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.blocks import warp
from vidsynth.conditioning import FaceSequence, PoseSequence
from vidsynth.kinds import Conditions
from vidsynth.losses import weighted_l1
from vidsynth.objectives import Objective, Recalled
from vidsynth_plugins.pix2pixhd.generator import Pix2PixHD
from vidsynth_plugins.pix2pixhd.objective import Pass, Pix2PixHDObjective
from vidsynth_plugins.pix2pixhd.options import Pix2PixHDOptions, Stem, Upsampling
from vidsynth_plugins.pix2pixhd.painter import Painter

# B batch, K exemplars, N = K + 1 with what is painted new, H, W pixels

COPY_LOGITS = 0.5
"""How sure the blend starts out of an exemplar that surely shows what is wanted."""
FIRST_LOGITS = 0.5
"""How much more it trusts the first one, which is most alike."""
DETAIL_PX = 8
"""What is smaller than this is detail, which is chosen; what is larger is mixed."""
STIFF_PX = 4
"""Pixels are moved together in cells of this size: neighbours moved apart show as a comb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemplarOptions(Pix2PixHDOptions):
    """The network of pix2pixHD, small, since it has little left to invent.

    Attributes:
        exemplars: training frames that each frame is painted from.
        carry: the frame made before, brought along by the conditioning, is one more exemplar.
        gallery: training frames that the subject keeps to choose them from.
        correction: the farthest that the network may move an exemplar's pixels beyond its warp,
            as a share of the picture's height.
        detail: how much more decidedly fine detail is taken from one picture than colours are: 1
            averages it, which is smooth and near the truth on the mean, more is sharp.
        raw: how much the L1 of the paint counts, before exemplars are blended in; that of the
            finished frame counts 1. What is better painted is truer on the mean, and less sharp.
    """

    exemplars: int = 2
    carry: bool = False
    gallery: int = 256
    correction: float = 0.05
    detail: float = 6.0
    raw: float = 0.0
    filters: int = 32
    downsamplings: int = 2
    blocks: int = 4
    stem: Stem = "shuffle"
    upsampling: Upsampling = "smooth"
    skips: bool = True
    l1: float = 20.0
    d_filters: int = 32
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        Pix2PixHDOptions.__post_init__(self)
        for name in ("exemplars", "gallery"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.carry and not self.previous:
            raise ValueError("to carry the frame before on, set previous to true")
        if self.local_enhancers:
            raise ValueError("exemplar has no local enhancers; raise the size instead")


class Exemplar(Pix2PixHD):
    """Frames from conditioning and from frames of the target that were chosen for each of them."""

    Options = ExemplarOptions
    paper = ""
    accepts = (PoseSequence, FaceSequence)
    checked: ClassVar = {
        "options": {**Pix2PixHD.checked["options"], "previous": True, "carry": True}
    }
    options: ExemplarOptions  # pyright: ignore[reportIncompatibleVariableOverride] - a narrower one

    def _new_painter(self) -> Painter:
        return ExemplarPainter(self.options, self.conditions)

    def _new_objective(self) -> Objective:
        return ExemplarObjective(self.options, self._new_painter())


class ExemplarObjective(Pix2PixHDObjective):
    """That of pix2pixHD, which holds the paint to the truth as well.

    In the blend alone it would hardly learn where exemplars are about as good, and has to be there
    where they are not.
    """

    options: ExemplarOptions

    def painter_losses(self, seen: Pass) -> dict[str, Tensor]:
        losses = super().painter_losses(seen)
        if self.options.raw and self.options.l1:
            unlike = weighted_l1(seen.raw, seen.real.frames, self.importance(seen))
            losses["raw"] = self.options.raw * self.options.l1 * unlike
        return losses


class ExemplarPainter(Painter):
    """Blends K exemplars, each moved a little further, with what it paints itself."""

    def __init__(self, options: ExemplarOptions, conditions: Conditions) -> None:
        self.carry = options.carry
        self.slots = options.exemplars + options.carry
        plated = options.background and conditions.background
        super().__init__(
            replace(options, previous=False, carry=False) if options.carry else options,
            channels=conditions.channels,
            background=plated,
            more_in=(5 if plated else 4) * self.slots,
            more_out=3 * self.slots,
        )
        self.correction = options.correction
        self.detail = options.detail

    def looked_at(
        self, recalled: Recalled | None, previous_B3HW: Tensor | None
    ) -> tuple[Recalled | None, Tensor | None]:
        if self.carry and recalled is not None and previous_B3HW is not None:
            return _with_one_more(recalled, previous_B3HW), None
        return recalled, previous_B3HW

    def also_seen(self, recalled: Recalled | None) -> list[Tensor]:
        recalled = self._given(recalled)
        return [
            _warped(recalled, recalled.flow, "bilinear").flatten(1, 2),
            recalled.valid.flatten(1, 2),
        ]

    def coloured(
        self,
        raw_B3HW: Tensor,
        painted_BCHW: Tensor,
        recalled: Recalled | None,
        plate_3HW: Tensor | None,
    ) -> Tensor:
        recalled = self._given(recalled)
        logits_BKHW, moves_BCHW = painted_BCHW[:, -3 * self.slots :].tensor_split([self.slots], 1)
        reach = self.correction * painted_BCHW.shape[2]
        moves_BCHW = reach * _coarse(moves_BCHW.tanh(), STIFF_PX)
        moves_BK2HW = moves_BCHW.unflatten(1, (self.slots, 2))
        copies_BKCHW = _warped(recalled, recalled.flow + moves_BK2HW, "bicubic")
        copies_BK3HW = copies_BKCHW[:, :, :3]
        if self.background and plate_3HW is not None:  # only the subject moved
            cover_BK1HW = recalled.cover(copies_BKCHW[:, :, 3:])
            copies_BK3HW = plate_3HW.lerp(copies_BK3HW, cover_BK1HW)

        first_K = torch.arange(self.slots, device=painted_BCHW.device) == 0
        sure_BKHW = (COPY_LOGITS + FIRST_LOGITS * first_K[:, None, None]) * recalled.valid[:, :, 0]
        logits_BNHW = F.pad(logits_BKHW + sure_BKHW, (0, 0, 0, 0, 0, 1))
        pictures_BN3HW = torch.cat([copies_BK3HW, raw_B3HW[:, None]], dim=1)
        return blended(pictures_BN3HW, logits_BNHW, detail=self.detail)

    def _given(self, recalled: Recalled | None) -> Recalled:
        if recalled is None or recalled.images.shape[1] != self.slots:
            raise ValueError(f"this painter looks at {self.slots} exemplars of each frame")
        return recalled


def _with_one_more(recalled: Recalled, previous_B3HW: Tensor) -> Recalled:
    """The frame before as the last exemplar, which shows the subject wherever it is brought to."""
    images = recalled.images
    cover = images.shape[2] - 3
    last_BCHW = F.pad(previous_B3HW.to(images), (0, 0, 0, 0, 0, cover), value=1.0)
    return replace(recalled, images=torch.cat([images, last_BCHW[:, None]], dim=1))


def blended(pictures_BN3HW: Tensor, logits_BNHW: Tensor, *, detail: float) -> Tensor:
    """N pictures as one, (B, 3, H, W): colours are mixed, detail is chosen.

    The mean of pictures that are not exactly aligned is blurred. So, after Burt and Adelson 1983
    ("A multiresolution spline with application to image mosaics"), what is coarse is mixed softly,
    and what is fine is taken the more from one picture at each place, the higher `detail` is.
    """
    soft_BNHW = logits_BNHW.softmax(dim=1)
    if detail == 1:
        return (soft_BNHW[:, :, None] * pictures_BN3HW).sum(dim=1)
    coarse_BN3HW = _coarse(pictures_BN3HW.flatten(0, 1), DETAIL_PX).view_as(pictures_BN3HW)
    decided_BNHW = (detail * logits_BNHW).softmax(dim=1)
    rest_BNHW = soft_BNHW - decided_BNHW  # products, since a sum of products by einsum is slow
    made_BN3HW = decided_BNHW[:, :, None] * pictures_BN3HW + rest_BNHW[:, :, None] * coarse_BN3HW
    return made_BN3HW.sum(dim=1)


def _coarse(images_BCHW: Tensor, factor: int) -> Tensor:
    """What is left of them at a lower resolution, at their own."""
    shrunk = F.avg_pool2d(images_BCHW, factor, ceil_mode=True, count_include_pad=False)
    return F.interpolate(shrunk, images_BCHW.shape[2:], mode="bilinear")


def _warped(recalled: Recalled, flow_BK2HW: Tensor, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """(B, K, C, H, W)"""
    images, flow = recalled.images.flatten(0, 1).float(), flow_BK2HW.flatten(0, 1).float()
    return warp(images, flow, mode=mode).unflatten(0, flow_BK2HW.shape[:2])
