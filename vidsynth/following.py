"""How hair, collar and room follow a face, learnt from the subject's own film.

A correspondence (`Conditioning.warp_to`) is exact where there are landmarks, and a guess where
there are none. But the film shows how far this subject's hair goes along with its head, and that
its wall does not. So what a dense flow (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse
Search") finds left over between training frames, one brought to the other, is put down to how their
postures differ: a principal component regression (Hastie et al. 2009, section 3.5), with one
response for each cell of a coarse grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.blocks import warp
from vidsynth.conditioning import Conditioning
from vidsynth.correspondence import AROUND, Warp
from vidsynth.report import Reporter
from vidsynth.steady import dis_flow

# N known frames, T wanted frames, P pairs of them, D numbers of a posture, K components, h, w cells

COMPONENTS = 32
"""Ways in which postures differ, at most; fewer where that tells unseen frames better."""
FOLDS = 4
"""Parts of the film, each of which is told by the others to find that out."""
LEAST_PAIRS = 200
"""From fewer nothing is learnt."""
FARTHEST = 2.0
"""Standard deviations of a component beyond which nothing was learnt."""
WORKING_PX = 128
"""The shorter side of the pictures in which flow is looked for."""
CELL_PX = 4
"""Cells of the grid are about so large in those."""
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """What to add to a warp, by the difference of two postures."""

    components_DK: Tensor
    """Take a difference of postures to components of unit variance."""
    response_K2hw: Tensor
    """What each of them moves: x then y, in picture heights."""

    def corrected(self, warp: Warp, known: Conditioning, wanted: Conditioning) -> Warp:
        """`known.warp_to(wanted)`, moved further where it is not sure."""
        height, width = warp.flow_T2HW.shape[2:]
        response_K2hw = self.response_K2hw.to(warp.flow_T2HW)
        change_TK = (_posture(wanted) - _posture(known)) @ self.components_DK
        change_TK = change_TK.clamp(-FARTHEST, FARTHEST).to(response_K2hw)
        moves_TX = height * (change_TK @ response_K2hw.flatten(1))
        _, _, rows, columns = response_K2hw.shape
        moves_T2hw = moves_TX.unflatten(1, (2, rows, columns))
        unsure_T1HW = ((1 - warp.valid_T1HW) / (1 - AROUND)).clamp(max=1)
        unsure_T1hw = F.adaptive_avg_pool2d(unsure_T1HW, (rows, columns))
        moves_T2HW = F.interpolate(moves_T2hw * unsure_T1hw, (height, width), mode="bilinear")
        return replace(warp, flow_T2HW=warp.flow_T2HW + moves_T2HW)

    def tensors(self) -> dict[str, Tensor]:
        """All it holds, by name."""
        return {
            "following.components": self.components_DK.contiguous(),
            "following.response": self.response_K2hw.contiguous(),
        }

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Following | None:
        """From what `tensors` gave; None where that is not among them."""
        if "following.components" not in tensors:
            return None
        return Following(tensors["following.components"], tensors["following.response"])


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Frames, and what they show."""

    images: Tensor
    """(N, at least 3, H, W) uint8: RGB first."""
    signal: Conditioning


def learn(
    known: Seen, wanted: Seen, pairs_P2: Tensor, *, reporter: Reporter | None = None
) -> Following | None:
    """From pairs of frames, each a row of indices into `known` and `wanted`.

    None where the kind of conditioning tells no posture, or there are too few pairs.
    """
    if known.signal.posture() is None or len(pairs_P2) < LEAST_PAIRS:
        return None
    here, there = _small(known.images), _small(wanted.images)
    index_P, onto_P = pairs_P2.unbind(1)
    reporter = reporter or Reporter()
    left: list[Tensor] = []
    with reporter.step("learning what follows the face", len(pairs_P2), "pairs") as step:
        for i, j in zip(index_P.split(_AT_ONCE), onto_P.split(_AT_ONCE), strict=True):
            left.append(_left_over(here[i], known.signal[i], there[j], wanted.signal[j]))
            step.update(sum(map(len, left)))
    left_P2hw = torch.cat(left)
    change_PD = _posture(wanted.signal)[onto_P] - _posture(known.signal)[index_P]
    components = _how_many(change_PD, left_P2hw, onto_P)
    if not components:
        return None
    components_DK, response_KX = _regression(change_PD, left_P2hw, components)
    return Following(components_DK, response_KX.unflatten(1, left_P2hw.shape[1:]))


def _regression(change_PD: Tensor, left_P2hw: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Components (D, K) and what each moves, (K, 2 * h * w); K is smaller where there are fewer."""
    parts_PK, sizes_K, axes_KD = torch.linalg.svd(change_PD, full_matrices=False)
    sizes_K = sizes_K[: min(components, int((sizes_K > 1e-4 * sizes_K[0]).sum()))]
    root, count = len(change_PD) ** 0.5, len(sizes_K)
    response_KX = parts_PK[:, :count].mT @ left_P2hw.flatten(1) / root
    return axes_KD[:count].mT * (root / sizes_K), response_KX


def _how_many(change_PD: Tensor, left_P2hw: Tensor, frame_P: Tensor) -> int:
    """Components that tell best what is left over in parts of the film not learnt from; 0 where
    nothing is better than none."""
    fold_P = frame_P * FOLDS // (int(frame_P.max()) + 1)
    wrong = torch.zeros(COMPONENTS + 1, dtype=torch.float64)
    for fold in range(FOLDS):
        told = fold_P != fold
        components_DK, response_KX = _regression(change_PD[told], left_P2hw[told], COMPONENTS)
        change_QK = (change_PD[~told] @ components_DK).clamp(-FARTHEST, FARTHEST)
        left_QX = left_P2hw[~told].flatten(1)
        wrong[0] += left_QX.square().sum()
        for k in range(COMPONENTS):
            if k < len(response_KX):
                left_QX = left_QX - change_QK[:, k, None] * response_KX[k]
            wrong[k + 1] += left_QX.square().sum()
    return int(wrong.argmin())


def _posture(signal: Conditioning) -> Tensor:
    posture_TD = signal.posture()
    if posture_TD is None:
        raise ValueError(f"{signal.kind} tells no posture")
    return posture_TD.cpu()


def _small(images_NCHW: Tensor) -> Tensor:
    """(N, 3, h, w) uint8, the shorter side at most WORKING_PX."""
    height, width = images_NCHW.shape[2:]
    share = min(1.0, WORKING_PX / min(height, width))
    size = (round(share * height), round(share * width))
    parts = images_NCHW[:, :3].split(_AT_ONCE)  # as floats, all at once would be large
    smaller = (F.interpolate(part.float(), size, mode="area") for part in parts)
    return torch.cat([part.round().byte() for part in smaller])


def _left_over(
    known_T3HW: Tensor, known: Conditioning, wanted_T3HW: Tensor, wanted: Conditioning
) -> Tensor:
    """What the correspondence leaves: (T, 2, h, w) in picture heights, the mean of each cell."""
    height, width = known_T3HW.shape[2:]
    flow_T2HW = known.warp_to(wanted, height, width).flow_T2HW
    brought_T3HW = warp(known_T3HW.float(), flow_T2HW).round().byte()
    brought, shown = (
        images.permute(0, 2, 3, 1).contiguous().numpy() for images in (brought_T3HW, wanted_T3HW)
    )
    preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    found = [dis_flow(*both, preset) for both in zip(shown, brought, strict=True)]
    left_T2HW = torch.stack([torch.from_numpy(flow) for flow in found]).permute(0, 3, 1, 2)
    cells = (max(1, height // CELL_PX), max(1, width // CELL_PX))
    return F.adaptive_avg_pool2d(left_T2HW, cells) / height
