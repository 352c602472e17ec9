"""The networks of Wang et al. 2018 (pix2pixHD), and the groups of layers that they are made of."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import halve
from vidsynth_plugins.pix2pixhd.layers import ThinConv, WideConv
from vidsynth_plugins.pix2pixhd.options import Norm, Pix2PixHDOptions, Stem, Upsampling

# B batch, C channels, H, W pixels


class GlobalGenerator(nn.Module):
    """G1: convolution, strided convolutions, residual blocks, transposed convolutions, head.

    Without its head (`out_channels` 0) it gives the features that a local enhancer builds on. With
    the "shuffle" stem the finest features are at half the resolution of the picture.
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
        stem: Stem = "conv7",
        upsampling: Upsampling = "transposed",
        skips: bool = False,
    ) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(downsamplings + 1)]
        steps = list(pairwise(widths))
        self.skips = skips
        self.stride = 2**downsamplings * (2 if stem == "shuffle" else 1)
        make_stem = shuffle_stem if stem == "shuffle" else conv7_stem
        make_head = shuffle_head if stem == "shuffle" else conv7_head
        self.stem = make_stem(in_channels, filters, norm)
        self.down = nn.ModuleList(down_layers(fine, coarse, norm) for fine, coarse in steps)
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1], norm) for _ in range(blocks)))
        self.up = nn.ModuleList(
            up_layers(coarse, fine, norm, upsampling) for fine, coarse in reversed(steps)
        )
        self.head = make_head(filters, out_channels) if out_channels else nn.Identity()

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        hidden = self.stem(maps_BCHW)
        kept = []
        for down in self.down:
            if self.skips:
                kept.append(hidden)
            hidden = down(hidden)
        hidden = self.blocks(hidden)
        for up in self.up:
            hidden = up(hidden)
            if self.skips:
                hidden = hidden + kept.pop()
        return self.head(hidden)


class LocalEnhancer(nn.Module):
    """G2: the global generator at a fraction of the resolution, doubled by each enhancer.

    Each enhancer adds its own downsampled features to those from the level below. `coarse_only`,
    a part of the weights, says that the enhancers have not been trained yet: the picture is then
    that of the global generator, at its lower resolution.
    """

    coarse_only: Tensor

    def __init__(self, in_channels: int, out_channels: int, options: Pix2PixHDOptions) -> None:
        super().__init__()
        levels = options.local_enhancers
        self.stride = 2 ** (levels + options.downsamplings)
        self.coarse = GlobalGenerator(
            in_channels,
            0,
            filters=options.filters * 2**levels,
            downsamplings=options.downsamplings,
            blocks=options.blocks,
            norm=options.norm,
            upsampling=options.upsampling,
            skips=options.skips,
        )
        widths = [options.filters * 2**level for level in reversed(range(levels))]
        self.encoders = nn.ModuleList(_enhancer_down(in_channels, w, options.norm) for w in widths)
        self.decoders = nn.ModuleList(_enhancer_up(w, options) for w in widths)
        self.head = conv7_head(options.filters, out_channels)
        self.coarse_head: nn.Module | None = None
        if options.coarse_fraction:
            self.coarse_head = conv7_head(options.filters * 2**levels, out_channels)
            self.register_buffer("coarse_only", torch.tensor(True))

    @property
    def is_coarse(self) -> bool:
        return self.coarse_head is not None and bool(self.coarse_only)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        pyramid = [maps_BCHW]
        for _ in self.encoders:
            pyramid.append(halve(pyramid[-1]))
        hidden = self.coarse(pyramid.pop())
        if self.coarse_head is not None and self.is_coarse:
            return self.coarse_head(hidden)
        for encode, decode in zip(self.encoders, self.decoders, strict=True):
            hidden = decode(encode(pyramid.pop()) + hidden)
        return self.head(hidden)


class ResidualBlock(nn.Module):
    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            WideConv(width, width, 3),
            normalisation(width, norm),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            WideConv(width, width, 3),
            normalisation(width, norm),
        )

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        return hidden_BCHW + self.body(hidden_BCHW)


class Blur(nn.Module):
    """1-2-1 in both directions: blind to the finest checkerboard, keeps sums."""

    def forward(self, hidden_BCHW: Tensor) -> Tensor:
        channels = hidden_BCHW.shape[1]
        taps = hidden_BCHW.new_tensor([0.25, 0.5, 0.25])
        kernel = (taps[:, None] * taps).expand(channels, 1, 3, 3)
        padded = F.pad(hidden_BCHW, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, kernel, groups=channels)


def conv7_stem(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, width, 7)
    return nn.Sequential(nn.ReflectionPad2d(3), conv, normalisation(width, norm), nn.ReLU())


def conv7_head(width: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(3), ThinConv(width, out_channels, 7))


def shuffle_stem(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(in_channels * 4, width, 3),
        normalisation(width, norm),
        nn.ReLU(),
    )


def shuffle_head(width: int, out_channels: int) -> nn.Sequential:
    # A few channels unfold to full resolution, where one more convolution removes the 2x2 grid
    # that unfolding straight to colours would leave.
    fine = max(out_channels, width // 4)
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(width, fine * 4, 3),
        nn.PixelShuffle(2),
        # Leaky: so few channels, with no normalisation, die for good under a plain ReLU, and
        # colours with them.
        nn.LeakyReLU(0.2, inplace=True),
        nn.ReflectionPad2d(1),
        nn.Conv2d(fine, out_channels, 3),
    )


def down_layers(fine: int, coarse: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
    return nn.Sequential(conv, normalisation(coarse, norm), nn.ReLU())


def up_layers(coarse: int, fine: int, norm: Norm, upsampling: Upsampling) -> nn.Sequential:
    conv = nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1)
    blur = [Blur()] if upsampling == "smooth" else []
    return nn.Sequential(conv, *blur, normalisation(fine, norm), nn.ReLU())


def _enhancer_down(in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *conv7_stem(in_channels, width, norm), *down_layers(width, width * 2, norm)
    )


def _enhancer_up(width: int, options: Pix2PixHDOptions) -> nn.Sequential:
    body = (ResidualBlock(width * 2, options.norm) for _ in range(options.local_blocks))
    return nn.Sequential(*body, *up_layers(width * 2, width, options.norm, options.upsampling))


def normalisation(width: int, norm: Norm) -> nn.Module:
    """Leave what it gives as it is: an activation in place would have to copy it on its way back,
    since PyTorch's instance normalisation answers with a view."""
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.InstanceNorm2d(width, affine=norm == "affine")


def initialise(network: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch-norm scales N(1, 0.02), as published."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
