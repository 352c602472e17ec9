"""A generator that the maps steer at every layer.

Park et al. 2019, "Semantic Image Synthesis with Spatially-Adaptive Normalization": a network that
reads its maps at the bottom only washes them out by normalising, so here each normalisation is
scaled and shifted, pixel by pixel, by what the maps say. Without the style encoder and the spectral
normalisation of the publication.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth_plugins.pix2pixhd.options import Norm

# B batch, C channels, H, W pixels


class SpadeGenerator(nn.Module):
    """From the maps made small, block by block to full size, the maps given to each.

    The published sizes are 64 filters, 5 downsamplings and 3 blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        filters: int,
        downsamplings: int,
        blocks: int,
        norm: Norm = "instance",
    ) -> None:
        """Untrained.

        Args:
            in_channels: of the maps.
            out_channels: of what it makes.
            filters: channels at full size; they double with each halving, but not with the last.
            downsamplings: halvings between full size and where it begins, at least 1.
            blocks: before it narrows, at least 1: the first at the smallest size, the others at the
                next.
            norm: what is scaled and shifted: "instance" or "batch" normalisation.
        """
        super().__init__()
        self.stride = 2**downsamplings
        widths = [filters * 2**level for level in reversed(range(downsamplings))]
        hidden = 2 * filters

        def block(wide: int, narrow: int) -> SpadeBlock:
            return SpadeBlock(wide, narrow, in_channels, hidden=hidden, norm=norm)

        self.start = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.smallest = nn.ModuleList(block(widths[0], widths[0]) for _ in range(blocks))
        self.narrowing = nn.ModuleList(block(wide, narrow) for wide, narrow in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        hidden = self.start(F.interpolate(maps_BCHW, scale_factor=1 / self.stride))
        for index, block in enumerate(self.smallest):
            hidden = block(hidden, maps_BCHW)
            if index == 0:
                hidden = F.interpolate(hidden, scale_factor=2.0)
        for block in self.narrowing:
            hidden = block(F.interpolate(hidden, scale_factor=2.0), maps_BCHW)
        return self.head(F.leaky_relu(hidden, 0.2))


class SpadeBlock(nn.Module):
    """A residual block whose normalisations see the maps; so does its shortcut where the width
    changes."""

    def __init__(self, wide: int, narrow: int, maps: int, *, hidden: int, norm: Norm) -> None:
        super().__init__()
        middle = min(wide, narrow)
        self.first = Spade(wide, maps, hidden=hidden, norm=norm)
        self.first_conv = nn.Conv2d(wide, middle, 3, padding=1)
        self.second = Spade(middle, maps, hidden=hidden, norm=norm)
        self.second_conv = nn.Conv2d(middle, narrow, 3, padding=1)
        self.aside = Spade(wide, maps, hidden=hidden, norm=norm) if wide != narrow else None
        self.aside_conv = nn.Conv2d(wide, narrow, 1, bias=False) if wide != narrow else None

    def forward(self, hidden_BCHW: Tensor, maps_BCHW: Tensor) -> Tensor:
        made = self.first_conv(F.leaky_relu(self.first(hidden_BCHW, maps_BCHW), 0.2))
        made = self.second_conv(F.leaky_relu(self.second(made, maps_BCHW), 0.2))
        if self.aside is not None and self.aside_conv is not None:
            hidden_BCHW = self.aside_conv(self.aside(hidden_BCHW, maps_BCHW))
        return hidden_BCHW + made


class Spade(nn.Module):
    """Spatially-adaptive normalisation: normalised, then times 1 + gamma plus beta, both maps of
    their own, made from the conditioning maps by two convolutions."""

    def __init__(self, width: int, maps: int, *, hidden: int, norm: Norm) -> None:
        super().__init__()
        kind = nn.InstanceNorm2d if norm == "instance" else nn.BatchNorm2d
        self.norm = kind(width, affine=False)
        self.shared = nn.Conv2d(maps, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, width, 3, padding=1)
        self.beta = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, hidden_BCHW: Tensor, maps_BCHW: Tensor) -> Tensor:
        maps_BCHW = F.interpolate(maps_BCHW, hidden_BCHW.shape[-2:])
        told = F.relu(self.shared(maps_BCHW))
        return self.norm(hidden_BCHW) * (1 + self.gamma(told)) + self.beta(told)
