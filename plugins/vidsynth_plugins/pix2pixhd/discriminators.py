"""Whether frames are real: PatchGAN discriminators on an image pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidsynth.blocks import halve
from vidsynth.kinds import Discriminator, Judgement
from vidsynth_plugins.pix2pixhd.layers import ThinConv
from vidsynth_plugins.pix2pixhd.networks import initialise, normalisation
from vidsynth_plugins.pix2pixhd.options import Norm

# B batch, T frames, C channels, H, W pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiscalePatchOptions:
    """The published discriminators.

    Attributes:
        filters: channels of the first layer; they double per layer up to 512.
        layers: strided layers of each discriminator.
        scales: discriminators, each at half the resolution of the one before.
        norm: "instance", "batch" or "affine" normalisation.
    """

    filters: int = 64
    layers: int = 3
    scales: int = 2
    norm: Norm = "instance"


class MultiscalePatch(Discriminator):
    """PatchGAN discriminators on an image pyramid, the finest first.

    With `num_frames` above 1 they judge stacks of that many frames: all conditions, then all
    frames, along the channels.
    """

    Options = MultiscalePatchOptions
    paper = (
        'Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with '
        'Conditional GANs"'
    )
    checked: ClassVar = {"options": {"filters": 8}}
    options: MultiscalePatchOptions

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options, condition_channels=condition_channels, num_frames=num_frames)
        self.scales = nn.ModuleList(
            _patch_layers(self.channels_seen(), self.options) for _ in range(self.options.scales)
        )
        initialise(self)

    def channels_seen(self) -> int:
        """Of what `stack` gives."""
        return self.num_frames * (self.condition_channels + 3)

    def stack(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Tensor:
        """What is judged as one picture: (B * T / num_frames, channels_seen, H, W)."""
        seen = self._stacked(frames_BTCHW)
        if condition_BTCHW is None:
            return seen
        return torch.cat([self._stacked(condition_BTCHW), seen], dim=1)

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        seen = self.stack(frames_BTCHW, condition_BTCHW)
        logits, features = [], []
        for index, layers in enumerate(self.scales):
            seen = halve(seen) if index else seen
            hidden, kept = seen, []
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
                hidden = layer(hidden)
                kept.append(hidden)
            logits.append(kept.pop())
            features.append(kept)
        return Judgement(logits, features)

    def _stacked(self, images_BTCHW: Tensor) -> Tensor:
        """(B * T / num_frames, num_frames * C, H, W)"""
        height, width = images_BTCHW.shape[-2:]
        return images_BTCHW.reshape(-1, self.num_frames * images_BTCHW.shape[2], height, width)


def _patch_layers(in_channels: int, options: MultiscalePatchOptions) -> nn.ModuleList:
    widths = [min(options.filters * 2**level, 512) for level in range(options.layers + 1)]
    first = nn.Conv2d(in_channels, options.filters, 4, stride=2, padding=2)
    layers = nn.ModuleList([nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True))])
    for level, (fine, coarse) in enumerate(pairwise(widths), 1):
        conv = nn.Conv2d(fine, coarse, 4, stride=2 if level < options.layers else 1, padding=2)
        layers.append(nn.Sequential(conv, normalisation(coarse, options.norm), nn.LeakyReLU(0.2)))
    layers.append(nn.Sequential(ThinConv(widths[-1], 1, 4, padding=2)))
    return layers
