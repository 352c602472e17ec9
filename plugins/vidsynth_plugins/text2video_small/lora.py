"""Small matrices beside large ones that stay as they are.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidsynth_plugins.text2video_small.networks import Attention

# D features

PROJECTIONS = ("qkv", "text_kv", "out")
"""Layers of each attention that get such matrices."""


class LowRank(nn.Module):
    """A linear layer that is frozen, and a product of two thin matrices that is added to it.

    The second begins at 0, so that the layer begins as it was.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_down = nn.Parameter(torch.randn(rank, layer.in_features) / rank**0.5)
        self.lora_up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        changed = self.weight + self.lora_up @ self.lora_down
        return nn.functional.linear(x, changed, self.bias)


def with_lora(model: nn.Module, rank: int) -> None:
    """Give every projection of the attentions such matrices, in place; all else is frozen but the
    words, among which there may be new ones."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in list(model.modules()):
        if isinstance(block, Attention):
            for name in PROJECTIONS:
                setattr(block, name, LowRank(getattr(block, name), rank))
    for name, parameter in model.named_parameters():
        if name == "text.embedding.weight":
            parameter.requires_grad_(True)
