"""The networks: a small text encoder, and one that takes the noise out of clips."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import pad_to_multiple

# B clips, T frames or moments (of `stride` frames each), H, W pixels or cells (of `patch` pixels
# each way), L tokens of text, C channels, D features


class TextTransformer(nn.Module):
    """CLIP's text encoder, small: causal, and its last token stands for the whole.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
    """

    def __init__(self, *, words: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        nn.init.normal_(self.embedding.weight, std=0.05)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, ids_BL: Tensor, last_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D) and, from the place `last_B` of the end, the whole (B, D)."""
        x_BLD = self.embedding(ids_BL) + self.positions
        future = torch.ones(self.length, self.length, dtype=torch.bool, device=x_BLD.device).triu(1)
        tokens_BLD = self.layers(x_BLD, mask=future, is_causal=True)
        rows = torch.arange(len(ids_BL), device=x_BLD.device)
        return tokens_BLD, tokens_BLD[rows, last_B]


class Convolutions(nn.Module):
    """A step of convolution over space, then one over time, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.changes = nn.Parameter(torch.zeros(CHANGES, width))
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x_BTHWD: Tensor, changes_BTCD: Tensor) -> Tensor:
        shift, scale, gate = _changes(changes_BTCD + self.changes, x_BTHWD)
        inner = F.silu(_modulated(x_BTHWD, shift, scale))
        inner = self.space(inner.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        inner = F.silu(inner.view(x_BTHWD.shape)).permute(0, 4, 1, 2, 3)
        return torch.addcmul(x_BTHWD, gate, self.time(inner).permute(0, 2, 3, 4, 1))


class Attention(nn.Module):
    """Every token of a clip looks at all others, of any moment, and at the text; then a perceptron.
    Both are added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.changes = nn.Parameter(torch.zeros(2 * CHANGES, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.text_kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.rise = nn.Linear(width, 4 * width)
        self.fall = nn.Linear(4 * width, width)

    def forward(self, x_BND: Tensor, changes_BNCD: Tensor, text_BLD: Tensor) -> Tensor:
        changes = (changes_BNCD + self.changes).to(x_BND.dtype).unbind(dim=2)
        shift, scale, gate, shift_after, scale_after, gate_after = changes
        qkv = self._by_head(self.qkv(_modulated(x_BND, shift, scale)), 3)
        told = self._by_head(self.text_kv(text_BLD), 2)
        k, v = (torch.cat(pair, dim=-2) for pair in ((told[0], qkv[1]), (told[1], qkv[2])))
        seen = _attend(qkv[0], k, v).transpose(1, 2).flatten(2)
        x_BND = torch.addcmul(x_BND, gate, self.out(seen))
        risen = F.gelu(self.rise(_modulated(x_BND, shift_after, scale_after)))
        return torch.addcmul(x_BND, gate_after, self.fall(risen))

    def _by_head(self, x_BND: Tensor, parts: int) -> Tensor:
        """(parts, B, heads, N, D / heads)"""
        return x_BND.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


CHANGES = 3
"""Shift, scale and gate of a block. They follow from how noisy a clip is and from the whole text
(Peebles and Xie 2023, "Scalable Diffusion Models with Transformers"), in one way for all blocks of
a kind, to which each adds its own; all begin at 0, so that a block begins by changing nothing."""


def _changes(changes_BTCD: Tensor, x_BTHWD: Tensor) -> tuple[Tensor, ...]:
    return changes_BTCD.to(x_BTHWD.dtype)[:, :, :, None, None].unbind(dim=2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # Written out: PyTorch's fused kernel takes three times as long back through so few tokens.
    weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).softmax(dim=-1)
    return torch.matmul(weights, v)


class Denoiser(nn.Module):
    """What a noisy clip was without its noise.

    `stride` frames of a square of `patch` pixels are a cell. Convolutions over space and time see
    cells; between them, where two by two cells are one token, attention sees the whole clip.
    """

    def __init__(
        self,
        *,
        height: int,
        width_px: int,
        num_frames: int,
        patch: int,
        stride: int,
        width: int,
        convolutions: int,
        token_width: int,
        depth: int,
        heads: int,
        text_width: int,
    ) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        # Tokens: at least two each way, as `pad_to_multiple` makes them.
        rows, columns = (max(2, -(-side // (MERGED * patch))) for side in (height, width_px))
        values = 3 * stride * patch**2
        self.into = nn.Linear(values, width)
        self.places = nn.Parameter(torch.randn(MERGED * rows, MERGED * columns, width) * 0.02)
        self.before = nn.ModuleList(Convolutions(width) for _ in range(convolutions))
        self.merge = nn.Linear(MERGED**2 * width, token_width)
        grid = (num_frames // stride, rows, columns)
        self.token_places = nn.Parameter(_grid_waves(grid, token_width))
        self.noise = nn.Sequential(
            nn.Linear(FREQUENCIES, token_width), nn.SiLU(), nn.Linear(token_width, token_width)
        )
        self.text = nn.Linear(text_width, token_width)
        self.whole = nn.Linear(text_width, token_width)
        self.blocks = nn.ModuleList(Attention(token_width, heads) for _ in range(depth))
        self.divide = nn.Linear(token_width, MERGED**2 * width)
        self.after = nn.ModuleList(Convolutions(width) for _ in range(convolutions))
        self.token_changes = nn.Linear(token_width, 2 * CHANGES * token_width)
        self.changes = nn.Linear(token_width, (CHANGES + 2) * width)
        self.out = nn.Linear(width, values)
        for layer in (self.token_changes, self.changes, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, clips_BTCHW: Tensor, noise_BM: Tensor, tokens_BLD: Tensor, pooled_BD: Tensor
    ) -> Tensor:
        """(B, T, 3, H, W) clips in [-1, 1] without noise, from noisy ones.

        Args:
            clips_BTCHW: T frames, a multiple of `stride`, at most `num_frames`.
            noise_BM: in [0, 1], time of the diffusion at each of M = T / `stride` moments.
            tokens_BLD: the text, token by token.
            pooled_BD: the whole text.
        """
        height, width = clips_BTCHW.shape[-2:]
        filled = pad_to_multiple(clips_BTCHW.flatten(0, 1), MERGED * self.patch)
        x_BTHWD = self.into(self._cells(filled.unflatten(0, clips_BTCHW.shape[:2])))
        x_BTHWD = x_BTHWD + self.places.to(x_BTHWD.dtype)
        whole_BTD = F.silu(self.noise(_waves(noise_BM)) + self.whole(pooled_BD)[:, None])
        changes_BTCD = self.changes(whole_BTD).unflatten(-1, (CHANGES + 2, -1))
        for block in self.before:
            x_BTHWD = block(x_BTHWD, changes_BTCD[:, :, :CHANGES])
        x_BTHWD = x_BTHWD + self._of_tokens(x_BTHWD, whole_BTD, self.text(tokens_BLD))
        for block in self.after:
            x_BTHWD = block(x_BTHWD, changes_BTCD[:, :, :CHANGES])
        shift, scale = _changes(changes_BTCD[:, :, CHANGES:], x_BTHWD)
        made = self._frames(self.out(_modulated(x_BTHWD, shift, scale)).float())
        return made[..., :height, :width]

    def _of_tokens(self, x_BTHWD: Tensor, whole_BTD: Tensor, text_BLD: Tensor) -> Tensor:
        """What attention makes of two by two cells at a time, for each cell."""
        cells = x_BTHWD.unflatten(3, (-1, MERGED)).unflatten(2, (-1, MERGED))
        merged = self.merge(cells.transpose(3, 4).flatten(4))  # B, T, H / 2, W / 2, D
        merged = merged + self.token_places[: merged.shape[1]].to(merged.dtype)
        changes_BTCD = self.token_changes(whole_BTD).unflatten(-1, (2 * CHANGES, -1))
        of_tokens = changes_BTCD.repeat_interleave(merged.shape[2] * merged.shape[3], dim=1)
        tokens_BND = merged.flatten(1, 3)
        for block in self.blocks:
            tokens_BND = block(tokens_BND, of_tokens, text_BLD)
        divided = self.divide(tokens_BND.view(merged.shape))
        divided = divided.unflatten(-1, (MERGED, MERGED, -1)).transpose(3, 4)
        return divided.flatten(4, 5).flatten(2, 3)

    def _cells(self, clips_BTCHW: Tensor) -> Tensor:
        cells = clips_BTCHW.unflatten(1, (-1, self.stride))
        cells = cells.unflatten(-2, (-1, self.patch)).unflatten(-1, (-1, self.patch))
        # B, T, stride, C, H, patch, W, patch
        return cells.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4)

    def _frames(self, cells_BTHWD: Tensor) -> Tensor:
        cells = cells_BTHWD.unflatten(-1, (self.stride, 3, self.patch, self.patch))
        # B, T, H, W, stride, C, patch, patch
        return cells.permute(0, 1, 4, 5, 2, 6, 3, 7).flatten(-2).flatten(-3, -2).flatten(1, 2)


FREQUENCIES = 64
MERGED = 2
"""Cells of a token, each way."""


def _grid_waves(grid: tuple[int, int, int], width: int) -> Tensor:
    """(T, H, W, width): sines and cosines of each of the three places, a third of the width each,
    so that from the beginning near places look alike and equal steps are equal turns."""
    rates = torch.logspace(0, -1.3, -(-width // 6)) * (math.pi / 2)
    axes = []
    for axis, length in enumerate(grid):
        angles = torch.arange(length)[:, None] * rates
        shape = [1, 1, 1, 2 * len(rates)]
        shape[axis] = length
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).view(shape)
        axes.append(waves.expand(*grid, -1))
    return 0.5 * torch.cat(axes, dim=-1)[..., :width].clone()


def _waves(noise_BM: Tensor) -> Tensor:
    """(B, M, FREQUENCIES): sines and cosines of 1 to 1000 radians over [0, 1]."""
    rates = torch.logspace(0, math.log10(1000), FREQUENCIES // 2, device=noise_BM.device)
    angles = noise_BM[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
