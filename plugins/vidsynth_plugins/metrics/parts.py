"""PSNR inside the parts that a viewer looks at, as tracked in the real film."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vidsynth.kinds import Film
from vidsynth.regions import regions
from vidsynth_plugins.metrics.common import BLOCK, FrameMetric, given, nowhere, pairs, tracked

# T frames, H, W pixels


def region_psnr(made: Tensor, real: Tensor, masks: Tensor) -> Tensor:
    """(T,) PSNR in dB of (T, 3, H, W) uint8 frames inside (T, H, W) masks; NaN where one is empty.

    100 for frames that are equal there, as in `vidsynth.scores.psnr`.
    """
    squares = (made.double() - real.double()).square().mean(dim=1) * masks
    area = masks.flatten(1).sum(dim=1)
    mse = squares.flatten(1).sum(dim=1) / area.clamp_min(1)
    decibels = 10 * torch.log10(255.0**2 / mse.clamp_min(255.0**2 * 1e-10))
    return torch.where(area > 0, decibels, torch.nan)


class PartPSNR(FrameMetric):
    """PSNR inside one part, frame by frame."""

    unit = "dB"
    higher_is_better = True
    extractor: ClassVar[str]
    part: ClassVar[str]
    """A name of `vidsynth.regions.regions`."""

    def measure(self, made: Film, real: Film | None) -> Tensor:
        real = given(real)
        signal = tracked(real, self.extractor)
        if signal is None:
            return nowhere(made)
        found = []
        for index, (ours, theirs) in enumerate(pairs(made, real)):
            span = signal[index * BLOCK : index * BLOCK + len(ours)]
            masks = regions(span, *ours.shape[2:])[self.part]
            found.append(region_psnr(ours, theirs, masks.to(ours.device)))
        return torch.cat(found) if found else torch.empty(0)

    def nothing(self) -> str:
        return (
            f"the {self.extractor} tracker saw no {self.part} in the real video; give one that "
            "shows it"
        )

    def protocol(self) -> str:
        return f"{self.part}_psnr 1: RGB, peak 255, inside the {self.part} ({self.extractor})"


class FacePSNR(PartPSNR):
    """Inside the oval of the face mesh."""

    extractor, part = "face", "face"


class MouthPSNR(PartPSNR):
    """Lips and a little around them."""

    extractor, part = "face", "mouth"
    checked: ClassVar = {"height": 64, "width": 64}


class EyesPSNR(PartPSNR):
    """Both eyes, lids to brows."""

    extractor, part = "face", "eyes"
    checked: ClassVar = {"height": 64, "width": 64}


class HeadPSNR(PartPSNR):
    """A disc over the head of a body that may be too far away for the face mesh."""

    extractor, part = "pose", "face"

    def protocol(self) -> str:
        return super().protocol().replace("face_psnr", "head_psnr")


class LimbsPSNR(PartPSNR):
    """Arms and legs."""

    extractor, part = "pose", "limbs"


class HandsPSNR(PartPSNR):
    """Discs over both hands."""

    extractor, part = "pose", "hands"
