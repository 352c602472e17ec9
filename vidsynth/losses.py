"""Losses that two or more plugins use: adversarial, feature matching, perceptual, L1.

Plain functions of tensors and Judgements; each returns an unweighted scalar unless it says so.
Sums are taken in float32 at least, whatever precision the networks ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.kinds import Judgement
from vidsynth.weights import locate, read

# B batch, C channels, H, W pixels

GanLoss = Literal["lsgan", "hinge", "vanilla"]
"""Least squares to 0 and 1; hinge at -1 and 1; binary cross-entropy of logits."""


def judge_fake(fake: Judgement, kind: GanLoss = "lsgan") -> Tensor:
    """A discriminator's loss on what was made, summed over scales."""
    return _over_scales(fake, _FAKE[kind])


def judge_real(real: Judgement, kind: GanLoss = "lsgan") -> Tensor:
    """A discriminator's loss on what is real, summed over scales."""
    return _over_scales(real, _REAL[kind])


def fool(fake: Judgement, kind: GanLoss = "lsgan") -> Tensor:
    """A generator's adversarial loss, summed over scales."""
    if kind == "hinge":  # BigGAN's form: the discriminator's own would vanish beyond the margin
        return _over_scales(fake, lambda logits: -logits.mean())
    return _over_scales(fake, _REAL[kind])


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """L1 between a discriminator's activations on made and real frames, the real ones held fixed.

    Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
    GANs": mean over scales, 4 / (number of layers) times the sum over layers, logits left out.
    Weighted by 10 there.
    """
    total = _zero(fake)
    for fake_layers, real_layers in zip(fake.features, real.features, strict=True):
        weight = 4.0 / (len(fake_layers) * len(fake.features))
        for made, wanted in zip(fake_layers, real_layers, strict=True):
            total = total + weight * F.l1_loss(_wide(made), _wide(wanted.detach()))
    return total


def weighted_l1(made: Tensor, real: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of |made - real| * weights; `weights` broadcasts and is not normalised."""
    difference = (_wide(made) - real).abs()
    return (difference if weights is None else difference * weights).mean()


def linear_decay(progress: float, start: float) -> float:
    """Share of a learning rate that is left: 1 up to `start` of the training, then down to 0."""
    return 1.0 if progress <= start else max(0.0, (1 - progress) / (1 - start))


class PerceptualLoss(nn.Module):
    """L1 between VGG19 activations relu1_1 ... relu5_1, weighted 1/32, 1/16, 1/8, 1/4, 1.

    Weighted by 10 in Wang et al. 2018. As in their code, frames enter in [-1, 1]; with `normalise`
    they are brought to the mean and deviation that VGG19 was trained with, which changes the
    weight that this loss effectively has.
    """

    mean: Tensor
    deviation: Tensor
    layer_weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)

    def __init__(self, vgg19: Mapping[str, Tensor], *, normalise: bool = False) -> None:
        """Take a VGG19 state dict in torchvision's naming; the classifier is not needed."""
        super().__init__()
        self.normalise = normalise
        self.slices = _vgg19_slices(vgg19)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.requires_grad_(False).eval()

    @classmethod
    def pretrained(cls, *, normalise: bool = False, offline: bool = False) -> PerceptualLoss:
        """With the ImageNet weights of `vidsynth.weights`. Raises MissingWeights, BadWeights."""
        path = locate("vgg19", offline=offline or None)
        return cls(read(path), normalise=normalise)

    def forward(self, made_B3HW: Tensor, real_B3HW: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.activations(real_B3HW)
        total = made_B3HW.new_zeros((), dtype=torch.float32)
        for weight, ours, theirs in zip(
            self.layer_weights, self.activations(made_B3HW), wanted, strict=True
        ):
            total = total + weight * F.l1_loss(_wide(ours), _wide(theirs))
        return total

    def activations(self, images_B3HW: Tensor) -> list[Tensor]:
        """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of frames in [-1, 1]."""
        hidden = images_B3HW
        if self.normalise:
            hidden = ((hidden + 1) / 2 - self.mean) / self.deviation
        found = []
        for part in self.slices:
            hidden = part(hidden)
            found.append(hidden)
        return found


# Convolutions per slice, "M" a 2x2 max-pooling; each slice ends at the first ReLU of its width.
_VGG19 = (
    (64,),
    (64, "M", 128),
    (128, "M", 256),
    (256, 256, 256, "M", 512),
    (512, 512, 512, "M", 512),
)


def _vgg19_slices(state: Mapping[str, Tensor]) -> nn.ModuleList:
    slices, channels, position = nn.ModuleList(), 3, 0
    for plan in _VGG19:
        part = nn.Sequential()
        for width in plan:
            if isinstance(width, str):
                part.append(nn.MaxPool2d(2, 2))
                position += 1
                continue
            conv = nn.Conv2d(channels, width, 3, padding=1)
            conv.load_state_dict(
                {name: state[f"features.{position}.{name}"] for name in ("weight", "bias")}
            )
            part.extend([conv, nn.ReLU(inplace=True)])
            channels, position = width, position + 2
        slices.append(part)
    return slices


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: a mean of a million bfloat16 values is no mean."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _zero(judgement: Judgement) -> Tensor:
    return _wide(judgement.logits[0]).new_zeros(())


def _over_scales(judgement: Judgement, loss: Callable[[Tensor], Tensor]) -> Tensor:
    total = _zero(judgement)
    for logits in judgement.logits:
        total = total + loss(_wide(logits))
    return total


_REAL: dict[GanLoss, Callable[[Tensor], Tensor]] = {
    "lsgan": lambda logits: (logits - 1).square().mean(),
    "hinge": lambda logits: F.relu(1 - logits).mean(),
    "vanilla": lambda logits: F.softplus(-logits).mean(),
}
_FAKE: dict[GanLoss, Callable[[Tensor], Tensor]] = {
    "lsgan": lambda logits: logits.square().mean(),
    "hinge": lambda logits: F.relu(1 + logits).mean(),
    "vanilla": lambda logits: F.softplus(logits).mean(),
}
