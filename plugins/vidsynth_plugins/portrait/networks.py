"""The space-time encoder-decoder of Kim et al. 2018: a U-Net whose decoder refines as it grows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import pad_to_multiple
from vidsynth_plugins.portrait.options import PICTURES, PortraitOptions

# B batch, C channels, H, W pixels

DROPPED_LEVELS = 3


class PortraitNet(nn.Module):
    """Windows of conditioning maps to frames in [-1, 1].

    Normalisation is by frame with a learned scale and offset: what batch normalisation comes to
    with one frame at a time, and no frame depends on others that happen to be made with it.
    """

    def __init__(self, options: PortraitOptions, *, channels: int, background: bool) -> None:
        super().__init__()
        self.options = options
        self.channels = channels
        self.background = background
        widths = [
            min(options.filters * 2**level, options.most_filters) for level in range(options.levels)
        ]
        inputs = [channels * options.window, *widths[:-1]]
        self.down = nn.ModuleList(
            _down(before, after, first=not level)
            for level, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )
        # Half as many at full resolution, where each costs four times what it does below.
        finest = max(1, options.filters // 2)
        up: list[nn.Module] = []
        deep = widths[-1]
        for level in reversed(range(options.levels)):
            wide = widths[level - 1] if level else finest
            drop = options.dropout if options.levels - level <= DROPPED_LEVELS else 0.0
            up.append(_up(deep, wide, dropout=drop))
            deep = wide * 2 if level else wide  # with the encoder's features beside it
        self.up = nn.ModuleList(up)
        self.head = nn.Conv2d(finest, 4 if background else 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, windows_BCHW: Tensor, plate_3HW: Tensor | None = None) -> Tensor:
        """Frames (B, 3, H, W) in [-1, 1]; over the plate, where the network was made for one."""
        height, width = windows_BCHW.shape[-2:]
        hidden = pad_to_multiple(self._shown(windows_BCHW), 2**self.options.levels)
        kept: list[Tensor] = []
        for down in self.down:
            hidden = down(hidden)
            kept.append(hidden)
        kept.pop()
        for up in self.up:
            hidden = up(hidden)
            if kept:
                hidden = torch.cat([hidden, kept.pop()], dim=1)
        made = self.head(hidden)[..., :height, :width]
        painted = made[:, :3].tanh()
        if not self.background:
            return painted
        assert plate_3HW is not None, "a network with a background needs the plate"
        opacity = made[:, 3:].sigmoid()
        return opacity * painted + (1 - opacity) * plate_3HW

    def _shown(self, windows_BCHW: Tensor) -> Tensor:
        """Without the pictures that are left out."""
        if not self.options.leave_out:
            return windows_BCHW
        frames = windows_BCHW.unflatten(1, (self.options.window, self.channels)).clone()
        for name in self.options.leave_out:
            first = 3 * PICTURES.index(name)
            frames[:, :, first : first + 3] = 0
        return frames.flatten(1, 2)


def _down(before: int, after: int, *, first: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, after, 4, stride=2, padding=1)]
    if not first:
        layers.append(_Norm(after))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


def _up(before: int, after: int, *, dropout: float) -> nn.Sequential:
    """Doubling, then two refinements at the new resolution."""
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), *_settled(after, dropout)
    ]  # fmt: skip
    for _ in range(2):
        layers += [nn.Conv2d(after, after, 3, padding=1), *_settled(after, dropout)]
    return nn.Sequential(*layers)


def _settled(width: int, dropout: float) -> list[nn.Module]:
    return [_Norm(width), *([nn.Dropout(dropout)] if dropout else []), nn.ReLU()]


class _Norm(nn.Module):
    """Instance normalisation with scale and offset; a single pixel passes as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        if hidden_BCHW.shape[2] * hidden_BCHW.shape[3] == 1:
            return hidden_BCHW * self.weight[:, None, None] + self.bias[:, None, None]
        return F.instance_norm(hidden_BCHW, weight=self.weight, bias=self.bias)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
