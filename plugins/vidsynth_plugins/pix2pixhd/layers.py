"""PyTorch's layers, quicker on CPUs: the same parameters, the same numbers to rounding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.grad import conv2d_input

# B batch, C channels, H, W pixels, P pixels of all pictures, K = C * taps, O output channels, S
# channels that are summed into them

CHANNELS_AT_ONCE = 16
"""Of what CPU kernels of convolutions compute together: fewer cost as much."""

FEW_PIXELS = 4096
"""So many, and what each tap of a convolution sees of them stays in a CPU's caches."""


class WideConv(nn.Conv2d):
    """A convolution between many channels, with stride 1, a bias and no padding.

    Trained in bfloat16 on CPUs, the gradient of its weights is one product with what each tap sees:
    a fifth to a half less than by the kernels made for it, which suit many pixels and few channels.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - what is given has a shape
        self, hidden_BCHW: Tensor
    ) -> Tensor:
        if hidden_BCHW.device.type != "cpu" or not torch.is_grad_enabled() or self.bias is None:
            return super().forward(hidden_BCHW)
        mixed = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if mixed else hidden_BCHW.dtype
        if dtype != torch.bfloat16 or hidden_BCHW[:, 0].numel() > FEW_PIXELS:
            return super().forward(hidden_BCHW)
        given = (x.to(dtype) for x in (hidden_BCHW, self.weight, self.bias))
        return _WideConv.apply(*given)


class _WideConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, hidden_BCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_BCHW, weight)
        return F.conv2d(hidden_BCHW, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output, one slope
        ctx: Any, slope_BOHW: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        hidden_BCHW, weight = ctx.saved_tensors
        hidden_slope = None
        if ctx.needs_input_grad[0]:
            hidden_slope = conv2d_input(hidden_BCHW.shape, weight, slope_BOHW)
        down, across = weight.shape[2:]
        seen = hidden_BCHW.unfold(2, down, 1).unfold(3, across, 1)  # B, C, H, W, down, across
        slope_OP = slope_BOHW.transpose(0, 1).flatten(1)
        seen_KP = seen.permute(1, 4, 5, 0, 2, 3).reshape(-1, slope_OP.shape[1])
        return hidden_slope, (slope_OP @ seen_KP.mT).view_as(weight), slope_OP.sum(dim=1)


class ThinConv(nn.Conv2d):
    """A square convolution to few channels, with stride 1 and a bias.

    On CPUs it makes one channel for each tap across, or where that still leaves room for each tap,
    and sums them where they belong: the same numbers, two to four times quicker than by kernels
    that are made for many channels. Compilers are left to do it their way.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - what is given has a shape
        self, hidden_BCHW: Tensor
    ) -> Tensor:
        if hidden_BCHW.device.type != "cpu" or torch.compiler.is_compiling() or self.bias is None:
            return super().forward(hidden_BCHW)
        side, pad = self.kernel_size[0], int(self.padding[0])
        outside, channels = side - 1 - pad, self.in_channels
        if self.out_channels * side**2 <= CHANNELS_AT_ONCE:
            taps_SCHW = self.weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
            each_BSHW = F.conv2d(hidden_BCHW, taps_SCHW)
            window, around = (side, side), (outside, outside)
        else:
            taps_SCHW = self.weight.flip(3).permute(0, 3, 1, 2).reshape(-1, channels, side, 1)
            each_BSHW = F.conv2d(hidden_BCHW, taps_SCHW, padding=(pad, 0))
            window, around = (1, side), (0, outside)
        each_BSP = each_BSHW.to(torch.promote_types(each_BSHW.dtype, torch.float32)).flatten(2)
        height, width = (n + 2 * pad - side + 1 for n in hidden_BCHW.shape[2:])
        summed_BOHW = F.fold(each_BSP, (height, width), window, padding=around)
        return (summed_BOHW + self.bias[:, None, None]).to(self.weight.dtype)
