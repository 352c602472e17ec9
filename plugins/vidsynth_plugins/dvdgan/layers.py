"""Layers of DVD-GAN: spectral norm, orthogonal starts, conditional batch norm, ConvGRU, blocks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

# B batch, T frames, C channels, H, W pixels, D numbers of the condition; X = B * T

Statistics = Literal["step", "clip"]
Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d | nn.Conv3d)

SETTLING = 20
"""Power iterations that averaged weights get: their vectors were averaged too, and are no unit
vectors any more."""

MOMENTUM = 0.1
"""Of the averages of batch statistics that sampling uses."""


def normed(layer: Layer) -> Layer:
    """With an orthogonal start, and its weight divided by its largest singular value.

    Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks"; Saxe et al.
    2014, "Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear Neural Networks".
    The value follows by one power iteration a forward pass in training, and none outside of it.
    """
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    spectral_norm(layer)  # in place
    return layer


def once_a_pass() -> AbstractContextManager[None]:
    """Within it a weight is normed once, however often it is used."""
    return parametrize.cached()  # pyright: ignore[reportReturnType]


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Norm every weight for good, by as many iterations as that takes: for sampling."""
    network.train()
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            for _ in range(SETTLING):
                _ = module.weight  # reading it iterates
            module.eval()  # and removing it reads it again
            parametrize.remove_parametrizations(module, "weight")
    network.eval().requires_grad_(False)


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and offset are told by the condition (1 and 0 at first).

    With statistics per "step", each time step of a clip is normalised by itself over batch and
    place, as DVD-GAN does; per "clip", over time too. Outside of training, averages of the training
    stand in, the last step's for all later ones.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, condition: int, *, steps: int, statistics: Statistics) -> None:
        super().__init__()
        self.per_step = statistics == "step"
        self.gain = nn.Linear(condition, width, bias=False)
        self.bias = nn.Linear(condition, width, bias=False)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)
        rows = steps if self.per_step else 1
        self.register_buffer("mean", torch.zeros(rows, width))
        self.register_buffer("variance", torch.ones(rows, width))

    def forward(self, hidden_BTCHW: Tensor, condition_BTD: Tensor, first: int) -> Tensor:
        """`first` is how many steps came before; `condition` may have one step for all."""
        steps = torch.arange(first, first + hidden_BTCHW.shape[1], device=hidden_BTCHW.device)
        rows = steps.clamp(max=len(self.mean) - 1) if self.per_step else steps[:1] * 0
        mean_TC, variance_TC = self.mean[rows], self.variance[rows]
        if self.training:
            over = (0, 3, 4) if self.per_step else (0, 1, 3, 4)
            variance, mean = torch.var_mean(hidden_BTCHW.float(), over, correction=0)
            mean_TC, variance_TC = mean.view_as(mean_TC), variance.view_as(variance_TC)
            with torch.no_grad():
                self.mean[rows] += MOMENTUM * (mean_TC - self.mean[rows])
                self.variance[rows] += MOMENTUM * (variance_TC - self.variance[rows])
        gain_BTC = (1 + self.gain(condition_BTD)) * (variance_TC + 1e-5).rsqrt()
        offset_BTC = self.bias(condition_BTD) - mean_TC * gain_BTC
        gain, offset = (x.to(hidden_BTCHW.dtype)[..., None, None] for x in (gain_BTC, offset_BTC))
        return torch.addcmul(offset, hidden_BTCHW, gain)


class ConvGRU(nn.Module):
    """A gated recurrent unit of 3x3 convolutions over time (Ballas et al. 2016, "Delving Deeper
    into Convolutional Networks for Learning Video Representations").

    As in DVD-GAN the candidate passes a ReLU, and the update gate u keeps the old state:
    h = u * h_before + (1 - u) * candidate. The first state is zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.reset = normed(nn.Conv2d(2 * width, width, 3, padding=1))
        self.update = normed(nn.Conv2d(2 * width, width, 3, padding=1))
        self.candidate = normed(nn.Conv2d(2 * width, width, 3, padding=1))

    def forward(
        self, seen_BTCHW: Tensor, num_frames: int, state_BCHW: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states (B, num_frames, C, H, W), and the last one to go on from.

        Where only one step is `seen`, it is seen at each of them.
        """
        layers = (self.reset, self.update, self.candidate)
        weights = [layer.weight.split(self.width, dim=1) for layer in layers]
        # What depends on the input alone is computed for all steps at once.
        of_input = torch.cat([of_seen for of_seen, _ in weights])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        seen = F.conv2d(seen_BTCHW.flatten(0, 1), of_input, torch.cat(biases), padding=1)
        seen_BTXHW = seen.unflatten(0, seen_BTCHW.shape[:2])
        of_gates = torch.cat([weights[0][1], weights[1][1]])
        of_candidate = weights[2][1].contiguous()
        state = torch.zeros_like(seen_BTCHW[:, 0]) if state_BCHW is None else state_BCHW
        states = []
        for seen_BXHW in seen_BTXHW.expand(-1, num_frames, -1, -1, -1).unbind(1):
            gates, candidate = seen_BXHW.split((2 * self.width, self.width), dim=1)
            gates = (gates + F.conv2d(state, of_gates, padding=1)).sigmoid()
            reset, update = gates.chunk(2, dim=1)
            candidate = (candidate + F.conv2d(reset * state, of_candidate, padding=1)).relu()
            state = candidate + update * (state - candidate)
            states.append(state)
        return torch.stack(states, dim=1), state


class UpBlock(nn.Module):
    """A residual block of the generator, frame by frame (Brock et al. 2019's), `scale` times as
    large at its end."""

    def __init__(
        self, before: int, after: int, condition: int, *, scale: int, steps: int, of: Statistics
    ) -> None:
        super().__init__()
        self.scale = scale
        self.first_norm = ConditionalNorm(before, condition, steps=steps, statistics=of)
        self.first = normed(nn.Conv2d(before, after, 3, padding=1))
        self.second_norm = ConditionalNorm(after, condition, steps=steps, statistics=of)
        self.second = normed(nn.Conv2d(after, after, 3, padding=1))
        self.short = normed(nn.Conv2d(before, after, 1)) if before != after else nn.Identity()

    def forward(self, hidden_BTCHW: Tensor, condition_BTD: Tensor, start: int) -> Tensor:
        batch = hidden_BTCHW.shape[:2]
        # Convolutions of few channels are twice as fast on a CPU with the channels last.
        kept = hidden_BTCHW.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        hidden_BTCHW = kept.unflatten(0, batch)
        inner = self.first_norm(hidden_BTCHW, condition_BTD, start).relu_().flatten(0, 1)
        inner = self.first(self._larger(inner)).unflatten(0, batch)
        inner = self.second_norm(inner, condition_BTD, start).relu_().flatten(0, 1)
        # A 1x1 convolution and the enlargement commute: the cheaper one first.
        return (self.second(inner) + self._larger(self.short(kept))).unflatten(0, batch)

    def _larger(self, hidden_XCHW: Tensor) -> Tensor:
        if self.scale == 1:
            return hidden_XCHW
        return F.interpolate(hidden_XCHW, scale_factor=self.scale, mode="nearest")


class DownBlock(nn.Module):
    """A residual block of a discriminator, of pictures or, with `volume`, of clips (B, C, T, H, W);
    halved at its end unless `down` says no."""

    def __init__(
        self, before: int, after: int, *, volume: bool = False, down: bool = True, raw: bool = False
    ) -> None:
        super().__init__()
        conv = nn.Conv3d if volume else nn.Conv2d
        self.raw, self.down, self.volume = raw, down, volume
        self.first = normed(conv(before, after, 3, padding=1))
        self.second = normed(conv(after, after, 3, padding=1))
        changes = before != after
        self.short = normed(conv(before, after, 1)) if changes else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        inner = hidden if self.raw else hidden.relu()  # pixels are no activations
        inner = self._smaller(self.second(self.first(inner).relu_()))
        return inner + self.short(self._smaller(hidden))

    def _smaller(self, hidden: Tensor) -> Tensor:
        if not self.down:
            return hidden
        return halved(hidden, volume=self.volume)


def halved(hidden: Tensor, *, volume: bool = False) -> Tensor:
    """2x2 means, or 2x2x2 of clips (..., T, H, W); at an odd edge, of what there is."""
    pool = F.avg_pool3d if volume else F.avg_pool2d
    sides = hidden.shape[-3:] if volume else hidden.shape[-2:]
    return pool(hidden, [min(2, side) for side in sides], stride=2, ceil_mode=True)


def orthogonality(network: nn.Module) -> Tensor:
    """Sum over weights of |W W^T off its diagonal|^2: Brock et al. 2019's regulariser."""
    total = torch.zeros((), device=next(network.parameters()).device)
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            rows = module.parametrizations["weight"].original.flatten(1)  # pyright: ignore
            gram = rows @ rows.T
            total = total + (gram - torch.diag(gram.diagonal())).square().sum()
    return total
