"""Whether frames move as real ones do."""

from __future__ import annotations

import torch
from torch import Tensor

from vidsynth_plugins.pix2pixhd.discriminators import MultiscalePatch

# B batch, T frames, C channels, H, W pixels


class VideoPatch(MultiscalePatch):
    """PatchGAN discriminators of some frames in a row and of the flow from each to the one before.

    The condition is that flow: one entry per frame, that of the first in each row not looked at.
    """

    paper = 'Wang et al. 2018, "Video-to-Video Synthesis"'
    temporal = True

    def channels_seen(self) -> int:
        return self.num_frames * 3 + (self.num_frames - 1) * self.condition_channels

    def stack(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Tensor:
        rows = frames_BTCHW.unflatten(1, (-1, self.num_frames)).flatten(0, 1)
        if condition_BTCHW is None:
            return rows.flatten(1, 2)
        flows = condition_BTCHW.unflatten(1, (-1, self.num_frames)).flatten(0, 1)[:, 1:]
        return torch.cat([rows.flatten(1, 2), flows.flatten(1, 2)], dim=1)
