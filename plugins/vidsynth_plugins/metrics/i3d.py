"""I3D for Kinetics-400, for FVD.

Carreira and Zisserman 2017, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset".
Names of layers are those of the published conversion of the TF-Hub weights to torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth_plugins.metrics.common import fill

# B batch, C channels, T frames, H, W pixels

CLASSES = 400
FEWEST_FRAMES = 10
SIDE = 224

_Size = tuple[int, int, int]


def _same(x_BCTHW: Tensor, kernel: _Size, stride: _Size) -> Tensor:
    """Zeros around, as TensorFlow's "SAME": the odd one behind, and none to spare."""
    padding: list[int] = []
    for size, k, s in zip(x_BCTHW.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x_BCTHW, padding)


class Unit(nn.Module):
    """Convolution, and, but for the logits, batch normalisation and ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, *, stride: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.kernel: _Size = (kernel, kernel, kernel)
        self.stride: _Size = (stride, stride, stride)
        self.conv3d = nn.Conv3d(c_in, c_out, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(c_out, eps=0.001)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x = self.conv3d(_same(x_BCTHW, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class Pool(nn.Module):
    """Maximum; the zeros around count, which after a ReLU changes nothing."""

    def __init__(self, kernel: _Size, stride: _Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return F.max_pool3d(_same(x_BCTHW, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches: 1, 1-3, 1-3, pool-1."""

    def __init__(self, c_in: int, *c: int) -> None:
        super().__init__()
        self.b0 = Unit(c_in, c[0])
        self.b1a = Unit(c_in, c[1])
        self.b1b = Unit(c[1], c[2], 3)
        self.b2a = Unit(c_in, c[3])
        self.b2b = Unit(c[3], c[4], 3)
        self.b3a = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(c_in, c[5])

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """(B, 3, T, 224, 224) in [-1, 1], T at least 10 -> (B, 400) logits, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, stride=2)
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Mixed(192, 64, 96, 128, 16, 32, 32)
        self.Mixed_3c = Mixed(256, 128, 128, 192, 32, 96, 64)
        self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Mixed(480, 192, 96, 208, 16, 48, 64)
        self.Mixed_4c = Mixed(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d = Mixed(512, 128, 128, 256, 24, 64, 64)
        self.Mixed_4e = Mixed(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f = Mixed(528, 256, 160, 320, 32, 128, 128)
        self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Mixed(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = Mixed(832, 384, 192, 384, 48, 128, 128)
        self.logits = Unit(1024, CLASSES, last=True)

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        hidden = clips_BCTHW
        for name, layer in self.named_children():
            if name != "logits":
                hidden = layer(hidden)
        pooled = F.avg_pool3d(hidden, (2, 7, 7), stride=1)
        return self.logits(pooled).mean(dim=(2, 3, 4))

    @staticmethod
    def from_published(state: Mapping[str, Tensor]) -> I3D:
        """From the conversion. Raises MissingWeights when the weights are others."""
        network = I3D()
        fill(network, dict(state), "I3D")
        return network


def for_i3d(clips_BTCHW: Tensor) -> Tensor:
    """(B, T, 3, H, W) uint8 -> (B, 3, T, 224, 224) float32 in [-1, 1]; bilinear, no antialiasing,
    whatever the shape, as FVD is commonly computed."""
    batch = clips_BTCHW.shape[0]
    frames = clips_BTCHW.flatten(0, 1).float() / 127.5 - 1
    scaled = F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return scaled.unflatten(0, (batch, -1)).transpose(1, 2)
