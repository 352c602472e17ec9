"""LPIPS v0.1: how far two pictures are apart in the layers of AlexNet.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric". Built
from torch alone, for the published weights: AlexNet of torchvision, and the heads of the paper's
own repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidsynth import devices
from vidsynth.errors import NotMeasurable
from vidsynth_plugins.metrics.common import fill, in_range, published
from vidsynth_plugins.metrics.pixels import PairMetric

# B batch, C channels, H, W pixels

_CHANNELS = (64, 192, 384, 256, 256)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_SMALLEST = 31  # px; a smaller picture vanishes in AlexNet's strides


class LPIPSNetwork(nn.Module):
    """Two batches of pictures in [-1, 1] -> (B,) distances."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Numbered as torchvision's AlexNet, so that its weights fit.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in _CHANNELS)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(self, ours_B3HW: Tensor, theirs_B3HW: Tensor) -> Tensor:
        layers = zip(self.activations(ours_B3HW), self.activations(theirs_B3HW), strict=True)
        total = ours_B3HW.new_zeros(len(ours_B3HW))
        for head, (ours, theirs) in zip(self.heads, layers, strict=True):
            apart = (_unit(ours) - _unit(theirs)).square()
            total = total + (apart * head).sum(dim=1).mean(dim=(1, 2))
        return total

    def activations(self, pictures_B3HW: Tensor) -> list[Tensor]:
        """What the five ReLUs give."""
        hidden, found = (pictures_B3HW - self.shift) / self.scale, []
        for layer in self.features:
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU):
                found.append(hidden)
        return found

    @staticmethod
    def from_published(trunk: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> LPIPSNetwork:
        """From the two published state dicts. Raises MissingWeights when they are others."""
        renamed = {
            f"heads.{name[3]}": w for name, w in heads.items() if name.endswith("model.1.weight")
        }
        network = LPIPSNetwork()
        fill(network, {**trunk, **renamed}, "LPIPS")
        return network


def _unit(features_BCHW: Tensor) -> Tensor:
    """Each position's channels divided by their length."""
    return features_BCHW / (features_BCHW.norm(dim=1, keepdim=True) + 1e-10)


@dataclass(frozen=True, kw_only=True)
class LPIPSOptions:
    """How LPIPS is computed.

    Attributes:
        device: where the network runs: auto, cpu, cuda...
        trunk: path of AlexNet's weights; by default in the weights folder.
        heads: path of the weights of LPIPS v0.1 for AlexNet; by default in the weights folder.
    """

    device: str = "auto"
    trunk: str = ""
    heads: str = ""


class LPIPS(PairMetric):
    """Perceptual distance; nearer to what people see than PSNR or SSIM, and not kind to blur."""

    Options = LPIPSOptions
    options: LPIPSOptions
    paper = (
        "Zhang et al. 2018, 'The Unreasonable Effectiveness of Deep Features as a Perceptual "
        "Metric'"
    )
    weights_licence = "BSD-3-Clause (AlexNet), BSD-2-Clause (heads)"
    unit = ""
    higher_is_better = False
    _network: LPIPSNetwork | None = None
    _hashes = ""

    def compare(self, made: Tensor, real: Tensor) -> Tensor:
        if min(made.shape[2:]) < _SMALLEST:
            raise NotMeasurable(f"LPIPS needs frames of {_SMALLEST} pixels; give a larger video")
        device = devices.choose(self.options.device)
        if self._network is None:
            trunk, first = published("alexnet", self.options.trunk)
            heads, second = published("lpips", self.options.heads)
            self._network = LPIPSNetwork.from_published(trunk, heads).to(device)
            self._hashes = f"{first}+{second}"
        with torch.inference_mode():
            return self._network(in_range(made, device), in_range(real, device)).cpu()

    def protocol(self) -> str:
        return f"lpips 0.1: AlexNet, no resize, weights {self._hashes}"
