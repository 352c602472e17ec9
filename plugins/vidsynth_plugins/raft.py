"""RAFT: where each pixel of one picture is in another, by comparing all places with all.

Teed and Deng 2020, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow". Plain torch;
layers are named as in torchvision, so that the weights it publishes fit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# B batch, C channels, H, W pixels, h, w cells of 8x8 pixels, N = h w, D (2 radius + 1)^2 places

CELL = 8
"""Pixels along a side of the cells that are compared."""
LEVELS = 4
SMALLEST = CELL * 2**LEVELS
"""Pixels below which a picture would vanish in the coarsest level; smaller ones are padded."""
UPDATES = 12

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Channels of a variant.

    Attributes:
        stages: of the encoders' stem and three stages.
        features: compared with each other.
        hidden: of the recurrent state.
        context: seen by every update.
        correlation: of the layers that read correlations; 1x1, then 3x3.
        flow: of the two layers that read the flow so far.
        motion: that both give together.
        head: within the flow's head.
        radius: cells around a place whose correlations are looked up.
        small: bottlenecks, one square GRU and bilinear upsampling.
    """

    stages: tuple[int, int, int, int]
    features: int
    hidden: int
    context: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    head: int
    radius: int
    small: bool


LARGE = Sizes(
    stages=(64, 64, 96, 128), features=256, hidden=128, context=128, correlation=(256, 192),
    flow=(128, 64), motion=128, head=256, radius=4, small=False,
)  # fmt: skip
SMALL = Sizes(
    stages=(32, 32, 64, 96), features=128, hidden=96, context=64, correlation=(96,),
    flow=(64, 32), motion=82, head=128, radius=3, small=True,
)  # fmt: skip


class RAFT(nn.Module):
    """Two batches of pictures (B, 3, H, W) in [-1, 1] -> (B, 2, H, W) flow in pixels, x then y,
    from the first to the second.

    Any size: pictures are continued to the right and below to whole cells and to 128 pixels. The
    correlations take (H W / 64)^2 x 16/3 bytes for each pair, 90 MB at 512x512.
    """

    def __init__(self, sizes: Sizes = LARGE) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_encoder = Encoder(sizes, sizes.features, nn.InstanceNorm2d)
        self.context_encoder = Encoder(
            sizes, sizes.hidden + sizes.context, None if sizes.small else nn.BatchNorm2d
        )
        self.update_block = UpdateBlock(sizes)
        self.mask_predictor = None if sizes.small else MaskPredictor(sizes.hidden)

    def forward(self, first_B3HW: Tensor, second_B3HW: Tensor, *, updates: int = UPDATES) -> Tensor:
        height, width = first_B3HW.shape[2:]
        first, second = (_whole_cells(p) for p in (first_B3HW, second_B3HW))
        features = self.feature_encoder(torch.cat([first, second]))
        pyramid = correlation_pyramid(*features.chunk(2))
        state = self.context_encoder(first)
        hidden, context = state.tensor_split([self.sizes.hidden], dim=1)
        hidden, context = hidden.tanh(), context.relu()
        places_B2hw = _places(hidden)
        flow_B2hw = torch.zeros_like(places_B2hw)
        for _ in range(updates):
            seen = look_up(pyramid, places_B2hw + flow_B2hw, self.sizes.radius)
            hidden, step_B2hw = self.update_block(hidden, context, seen, flow_B2hw)
            flow_B2hw = flow_B2hw + step_B2hw
        mask = None if self.mask_predictor is None else self.mask_predictor(hidden)
        return upsample(flow_B2hw, mask)[:, :, :height, :width]


def _whole_cells(pictures_BCHW: Tensor) -> Tensor:
    height, width = (max(SMALLEST, math.ceil(n / CELL) * CELL) for n in pictures_BCHW.shape[2:])
    beyond = (0, width - pictures_BCHW.shape[3], 0, height - pictures_BCHW.shape[2])
    return F.pad(pictures_BCHW, beyond, mode="replicate")


def _places(like_BChw: Tensor) -> Tensor:
    """(B, 2, h, w): each cell's own x and y, counted in cells."""
    batch, _, height, width = like_BChw.shape
    rows, columns = (torch.arange(n).to(like_BChw) for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y]).expand(batch, -1, -1, -1)


def correlation_pyramid(first_BChw: Tensor, second_BChw: Tensor) -> list[Tensor]:
    """Scaled dot products of each cell of `first` with all of `second`, at four resolutions.

    Returns:
        (B N, 1, h / 2^l, w / 2^l) for levels l = 0..3, rounded down.
    """
    cells_BCN = first_BChw.flatten(2) / math.sqrt(first_BChw.shape[1])
    pyramid = []
    for _ in range(LEVELS):
        products = torch.einsum("bcn,bchw->bnhw", cells_BCN, second_BChw)
        pyramid.append(products.flatten(0, 1).unsqueeze(1))
        # A mean of dot products is the dot product with the mean.
        second_BChw = F.avg_pool2d(second_BChw, 2)
    return pyramid


def look_up(pyramid: list[Tensor], places_B2hw: Tensor, radius: int) -> Tensor:
    """(B, 4 D, h, w): correlations around a place for each cell, bilinear, 0 outside.

    Args:
        pyramid: of `correlation_pyramid`.
        places_B2hw: x and y in the second picture, in cells of the finest level.
        radius: cells to each side, at every level.
    """
    batch, _, height, width = places_B2hw.shape
    steps = torch.arange(-radius, radius + 1).to(places_B2hw)
    # The published weights count places column by column: x changes slowest.
    around_DD2 = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    centres = places_B2hw.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = []
    for level, volume in enumerate(pyramid):
        last = places_B2hw.new_tensor([volume.shape[3] - 1, volume.shape[2] - 1])
        grid = 2 * (centres / 2**level + around_DD2) / last - 1
        seen = F.grid_sample(volume, grid, align_corners=True)
        found.append(seen.view(batch, height, width, -1))
    return torch.cat(found, dim=3).permute(0, 3, 1, 2)


def upsample(flow_B2hw: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 2, 8 h, 8 w) in pixels, of flow in cells.

    Args:
        flow_B2hw: 0 beyond its borders where there is a mask.
        mask: (B, 9 64, h, w), for each pixel of a cell the logits of the 3x3 cells around; their
            weighted mean is the pixel's flow. None: bilinear.
    """
    if mask is None:
        fine = F.interpolate(flow_B2hw, scale_factor=CELL, mode="bilinear", align_corners=True)
        return CELL * fine
    cells = flow_B2hw.shape[2:]
    around = F.unfold(CELL * flow_B2hw, 3, padding=1).unflatten(1, (2, 9)).unflatten(3, cells)
    shares = mask.unflatten(1, (9, CELL**2)).softmax(dim=1)
    pixels = torch.einsum("bcnhw,bnphw->bcphw", around, shares)
    return F.pixel_shuffle(pixels.flatten(1, 2), CELL)


def unit(
    c_in: int, c_out: int, kernel: int, stride: int = 1, norm: Norm | None = None, relu: bool = True
) -> nn.Sequential:
    """Convolution, norm if any, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)]
    if norm:
        layers.append(norm(c_out))
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Residual: two 3x3 layers, or a 3x3 layer of a quarter of the channels between two of 1x1."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: Norm | None, narrow: bool) -> None:
        super().__init__()
        if narrow:
            quarter = c_out // 4
            self.convnormrelu1 = unit(c_in, quarter, 1, norm=norm)
            self.convnormrelu2 = unit(quarter, quarter, 3, stride, norm)
            self.convnormrelu3 = unit(quarter, c_out, 1, norm=norm)
        else:
            self.convnormrelu1 = unit(c_in, c_out, 3, stride, norm)
            self.convnormrelu2 = unit(c_out, c_out, 3, norm=norm)
            self.convnormrelu3 = nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = unit(c_in, c_out, 1, stride, norm, relu=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        found = self.convnormrelu3(self.convnormrelu2(self.convnormrelu1(x_BCHW)))
        return F.relu(self.downsample(x_BCHW) + found)


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, C, h, w)."""

    def __init__(self, sizes: Sizes, c_out: int, norm: Norm | None) -> None:
        super().__init__()
        stem, *stages = sizes.stages
        self.convnormrelu = unit(3, stem, 7, 2, norm)

        def stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
            first = Block(c_in, c_out, stride, norm, sizes.small)
            return nn.Sequential(first, Block(c_out, c_out, 1, norm, sizes.small))

        self.layer1 = stage(stem, stages[0], 1)
        self.layer2 = stage(stages[0], stages[1], 2)
        self.layer3 = stage(stages[1], stages[2], 2)
        self.conv = nn.Conv2d(stages[2], c_out, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(x_B3HW)))))


class MotionEncoder(nn.Module):
    """Correlations and the flow so far, read together; the flow itself is the last two channels."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        first, *second = sizes.correlation
        self.convcorr1 = unit(LEVELS * (2 * sizes.radius + 1) ** 2, first, 1)
        self.convcorr2 = unit(first, second[0], 3) if second else nn.Identity()
        self.convflow1 = unit(2, sizes.flow[0], 7)
        self.convflow2 = unit(*sizes.flow, 3)
        self.conv = unit(sizes.correlation[-1] + sizes.flow[-1], sizes.motion - 2, 3)

    def forward(self, seen_BChw: Tensor, flow_B2hw: Tensor) -> Tensor:
        correlation = self.convcorr2(self.convcorr1(seen_BChw))
        flow = self.convflow2(self.convflow1(flow_B2hw))
        return torch.cat([self.conv(torch.cat([correlation, flow], dim=1)), flow_B2hw], dim=1)


class ConvGRU(nn.Module):
    """A gated recurrent unit whose products are convolutions."""

    def __init__(self, hidden: int, c_in: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz, self.convr, self.convq = (
            nn.Conv2d(hidden + c_in, hidden, kernel, padding=padding) for _ in range(3)
        )

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        hx = torch.cat([h, x], dim=1)
        z, r = self.convz(hx).sigmoid(), self.convr(hx).sigmoid()
        q = self.convq(torch.cat([r * h, x], dim=1)).tanh()
        return (1 - z) * h + z * q


class UpdateBlock(nn.Module):
    """One step of the recurrence: the next hidden state, and how the flow changes."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        kernels = {"convgru1": (3, 3)} if sizes.small else {"convgru1": (1, 5), "convgru2": (5, 1)}
        c_in = sizes.context + sizes.motion
        self.motion_encoder = MotionEncoder(sizes)
        self.recurrent_block = nn.ModuleDict(
            {name: ConvGRU(sizes.hidden, c_in, kernel) for name, kernel in kernels.items()}
        )
        first = nn.Conv2d(sizes.hidden, sizes.head, 3, padding=1)
        last = nn.Conv2d(sizes.head, 2, 3, padding=1)
        self.flow_head = nn.Sequential(OrderedDict(conv1=first, relu=nn.ReLU(), conv2=last))

    def forward(
        self, hidden: Tensor, context: Tensor, seen_BChw: Tensor, flow_B2hw: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = torch.cat([context, self.motion_encoder(seen_BChw, flow_B2hw)], dim=1)
        for gru in self.recurrent_block.values():
            hidden = gru(hidden, x)
        return hidden, self.flow_head(hidden)


class MaskPredictor(nn.Module):
    """What `upsample` takes as mask."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convrelu = unit(hidden, 256, 3)
        self.conv = nn.Conv2d(256, 9 * CELL**2, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return 0.25 * self.conv(self.convrelu(hidden))  # as the weights were trained
