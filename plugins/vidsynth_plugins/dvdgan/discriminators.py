"""The dual discriminators of Clark et al. 2019: few whole frames, and the whole clip made small.

Together they look at a fraction of a clip's pixels. Both take any condition: what its maps show on
average, over time and place, is projected on the features (Miyato and Koyama 2018, "cGANs with
Projection Discriminator").
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.kinds import Discriminator, Judgement
from vidsynth_plugins.dvdgan.layers import DownBlock, normed, once_a_pass
from vidsynth_plugins.dvdgan.networks import widths
from vidsynth_plugins.dvdgan.options import SpatialOptions, TemporalOptions, Total

# B batch, T frames, K frames that are judged, C channels, H, W pixels

PAPER = 'Clark et al. 2019, "Adversarial Video Generation on Complex Datasets"'


class SpatialDiscriminator(Discriminator):
    """Judges k random frames of each clip at full resolution."""

    Options = SpatialOptions
    paper = PAPER
    checked: ClassVar = {"options": {"filters": 4}}
    options: SpatialOptions

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options, condition_channels=condition_channels, num_frames=num_frames)
        o = self.options
        channels = [3, *widths(o.filters, o.levels)]
        blocks = [
            DownBlock(before, after, raw=index == 0, down=index < o.levels)
            for index, (before, after) in enumerate(pairwise(channels))
        ]
        self.blocks = nn.ModuleList(blocks)
        self.score = Score(channels[-1], condition_channels, o.total)

    def seen(self, frames_BTCHW: Tensor) -> Tensor:
        """(B, K, C, H, W): k frames of each clip, drawn without replacement, in order."""
        batch, num_frames = frames_BTCHW.shape[:2]
        dice = torch.rand(batch, num_frames, device=frames_BTCHW.device)
        chosen_BK = dice.argsort(dim=1)[:, : self.options.frames].sort(dim=1).values
        return frames_BTCHW[torch.arange(batch, device=dice.device)[:, None], chosen_BK]

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        seen_BKCHW = self.seen(frames_BTCHW)
        hidden, features = _channels_last(seen_BKCHW.flatten(0, 1)), []
        with once_a_pass():
            for block in self.blocks:
                hidden = block(hidden)
                features.append(hidden)
            scores = self.score(hidden.unflatten(0, seen_BKCHW.shape[:2]), condition_BTCHW)
        return Judgement([scores], [features])


class TemporalDiscriminator(Discriminator):
    """Judges the motion of whole clips, made smaller: blocks over time and place, then frame by
    frame."""

    Options = TemporalOptions
    paper = PAPER
    temporal = True
    checked: ClassVar = {"options": {"filters": 4}}
    options: TemporalOptions

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options, condition_channels=condition_channels, num_frames=num_frames)
        o = self.options
        halvings = max(0, o.levels - 1)
        channels = [3, *widths(o.filters, max(halvings, o.volumes))]
        blocks = [
            DownBlock(
                before, after, raw=index == 0, down=index < halvings, volume=index < o.volumes
            )
            for index, (before, after) in enumerate(pairwise(channels))
        ]
        self.blocks = nn.ModuleList(blocks)
        self.score = Score(channels[-1], condition_channels, o.total)

    def seen(self, frames_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H', W'): every frame, made smaller."""
        small = F.avg_pool2d(frames_BTCHW.flatten(0, 1), self.options.shrink, ceil_mode=True)
        return small.unflatten(0, frames_BTCHW.shape[:2])

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        batch = len(frames_BTCHW)
        hidden, features = _channels_last(self.seen(frames_BTCHW).transpose(1, 2)), []
        with once_a_pass():
            for block in self.blocks:
                hidden = block(hidden if block.volume else _frame_by_frame(hidden))
                features.append(hidden)
            hidden = _frame_by_frame(hidden)
            scores = self.score(hidden.unflatten(0, (batch, -1)), condition_BTCHW)
        return Judgement([scores], [features])


def _frame_by_frame(hidden: Tensor) -> Tensor:
    """Clips (B, C, T, H, W) as pictures (B * T, C, H, W); pictures as they are."""
    if hidden.ndim == 4:
        return hidden
    return _channels_last(hidden.transpose(1, 2).flatten(0, 1))


def _channels_last(hidden: Tensor) -> Tensor:
    """The layout in which a CPU convolves few channels twice as fast."""
    layout = torch.channels_last if hidden.ndim == 4 else torch.channels_last_3d
    return hidden.contiguous(memory_format=layout)


class Score(nn.Module):
    """One number for each clip, from its frames': linear in the features, which the condition is
    projected on."""

    def __init__(self, width: int, condition_channels: int, total: Total) -> None:
        super().__init__()
        self.total = total
        self.linear = normed(nn.Linear(width, 1))
        self.projection = None
        if condition_channels:
            self.projection = normed(nn.Linear(condition_channels, width, bias=False))

    def forward(self, hidden_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Tensor:
        """(B, 1)"""
        hidden_BTC = hidden_BTCHW.relu().sum(dim=(3, 4))
        scores_BT1 = self.linear(hidden_BTC)
        if self.projection is not None and condition_BTCHW is not None:
            shown_BC = self.projection(condition_BTCHW.mean(dim=(1, 3, 4)))
            scores_BT1 = scores_BT1 + (hidden_BTC * shown_BC[:, None]).sum(dim=2, keepdim=True)
        return scores_BT1.sum(dim=1) if self.total == "sum" else scores_BT1.mean(dim=1)
