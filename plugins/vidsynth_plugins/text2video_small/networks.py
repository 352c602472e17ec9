"""The networks: a small text encoder, and one that takes the noise out of a few frames."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import pad_to_multiple
from vidsynth_plugins.text2video_small.options import GROUPS

# B clips, F frames of a moment, P frames before it, H, W pixels or cells, N cells, L tokens of
# text, C channels, D features


class TextTransformer(nn.Module):
    """CLIP's text encoder, small: causal, and the mean of its tokens stands for the whole.

    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
    Words begin far apart, and a mean hears each of them from the first step on: the last token,
    which CLIP takes, would first have to learn to listen.
    """

    def __init__(self, *, words: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.1)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, ids_BL: Tensor, last_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D), and the whole (B, D) of those up to the place `last_B` of the end."""
        x_BLD = self.embedding(ids_BL) + self.positions
        future = torch.ones(self.length, self.length, dtype=torch.bool, device=x_BLD.device).triu(1)
        tokens_BLD = self.layers(x_BLD, mask=future, is_causal=True)
        within_BL = torch.arange(self.length, device=x_BLD.device) <= last_B[:, None]
        share_BL1 = (within_BL / (last_B[:, None] + 1.0))[..., None]
        return tokens_BLD, (tokens_BLD * share_BL1).sum(dim=1)


class Residual(nn.Module):
    """Two convolutions, of which the second hears of the noise and of the text, added to what came
    in.

    The scale and shift after its normalisation: Dhariwal and Nichol 2021, "Diffusion Models Beat
    GANs on Image Synthesis", section 3.
    """

    def __init__(self, channels: int, out: int, told: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.told = nn.Linear(told, 2 * out)
        self.norm_told = nn.GroupNorm(GROUPS, out)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.past = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x_BCHW: Tensor, told_BD: Tensor) -> Tensor:
        scale, shift = self.told(told_BD)[..., None, None].chunk(2, dim=1)
        inner = self.norm_told(self.first(F.silu(self.norm(x_BCHW))))
        inner = F.silu(torch.addcmul(shift, inner, 1 + scale))
        return self.past(x_BCHW) + self.second(inner)


class Attention(nn.Module):
    """Every cell looks at all others and at the text; what it sees is added to it."""

    def __init__(self, width: int, text_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.text_kv = nn.Linear(text_width, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BCHW: Tensor, text_BLD: Tensor) -> Tensor:
        cells_BNC = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        q, k, v = self._by_head(self.qkv(cells_BNC), 3)
        told_k, told_v = self._by_head(self.text_kv(text_BLD), 2)
        k, v = torch.cat([told_k, k], dim=-2), torch.cat([told_v, v], dim=-2)
        seen_BNC = self.out(_attend(q, k, v).transpose(1, 2).flatten(2))
        return x_BCHW + seen_BNC.transpose(1, 2).unflatten(2, x_BCHW.shape[2:])

    def _by_head(self, x_BND: Tensor, parts: int) -> Tensor:
        """(parts, B, heads, N, D / heads)"""
        return x_BND.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # Written out: PyTorch's fused kernel takes three times as long back through so few tokens.
    weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).softmax(dim=-1)
    return torch.matmul(weights, v)


class Denoiser(nn.Module):
    """What the frames of a noisy moment were without their noise, behind the frames before them.

    A U-Net over space that sees frames as channels (Voleti et al. 2022, "MCVD: Masked Conditional
    Video Diffusion for Prediction, Generation, and Interpolation"): those of the moment, and those
    before it, black where there are none. Where it is coarsest, attention sees all cells and the
    text.
    """

    def __init__(
        self,
        *,
        height: int,
        width_px: int,
        num_frames: int,
        stride: int,
        patch: int,
        width: int,
        levels: int,
        blocks: int,
        heads: int,
        text_width: int,
    ) -> None:
        super().__init__()
        self.stride, self.patch = stride, patch
        self.multiple = patch * 2 ** (levels - 1)
        told = 2 * text_width
        # Cells: at least two each way, as `pad_to_multiple` makes them.
        rows, columns = (
            max(2, -(-side // self.multiple)) * 2 ** (levels - 1) for side in (height, width_px)
        )
        self.noise = nn.Sequential(nn.Linear(FREQUENCIES, told), nn.SiLU(), nn.Linear(told, told))
        self.whole = nn.Linear(text_width, told)
        # A single word is a small part of the whole: it is to be heard from the first step on.
        nn.init.normal_(self.whole.weight, std=4 * text_width**-0.5)
        self.before = nn.Embedding(num_frames // stride, told)
        self.into = nn.Conv2d(3 * num_frames * patch**2, width, 3, padding=1)
        self.places = nn.Parameter(0.02 * torch.randn(1, width, rows, columns))
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            nn.ModuleList(Residual(fine, fine, told) for _ in range(blocks)) for fine in widths[:-1]
        )
        self.coarser = nn.ModuleList(
            nn.Conv2d(fine, 2 * fine, 3, 2, padding=1) for fine in widths[:-1]
        )
        last = widths[-1]
        self.middle = nn.ModuleList(Residual(last, last, told) for _ in range(blocks + 1))
        self.attention = nn.ModuleList(Attention(last, text_width, heads) for _ in range(blocks))
        self.finer = nn.ModuleList(
            nn.Conv2d(2 * fine, fine, 3, padding=1) for fine in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(
            nn.ModuleList(Residual(fine if n else 2 * fine, fine, told) for n in range(blocks))
            for fine in reversed(widths[:-1])
        )
        self.norm = nn.GroupNorm(GROUPS, width)
        self.out = nn.Conv2d(width, 3 * stride * patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        moment_BFCHW: Tensor,
        before_BPCHW: Tensor,
        count_B: Tensor,
        noise_B: Tensor,
        tokens_BLD: Tensor,
        pooled_BD: Tensor,
    ) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1] without noise, from noisy frames.

        Args:
            moment_BFCHW: the noisy frames; F is `stride`.
            before_BPCHW: the frames before them, P = `num_frames` - F, the last ones last; 0 where
                there are none.
            count_B: how many moments of them there are.
            noise_B: in [0, 1], time of the diffusion.
            tokens_BLD: the text, token by token.
            pooled_BD: the whole text.
        """
        height, width = moment_BFCHW.shape[-2:]
        film = torch.cat([moment_BFCHW, before_BPCHW], dim=1).flatten(1, 2)
        cells = F.pixel_unshuffle(pad_to_multiple(film, self.multiple), self.patch)
        told = self.noise(_waves(noise_B)) + self.whole(pooled_BD) + self.before(count_B)
        told = F.silu(told)
        x = self.into(cells.contiguous(memory_format=torch.channels_last)) + self.places
        past: list[Tensor] = []
        for blocks, coarser in zip(self.down, self.coarser, strict=True):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, told)
            past.append(x)
            x = coarser(x)
        x = self.middle[0](x, told)
        for attention, block in zip(self.attention, list(self.middle)[1:], strict=True):
            x = block(attention(x, tokens_BLD), told)
        for finer, blocks in zip(self.finer, self.up, strict=True):
            x = torch.cat([finer(F.interpolate(x, scale_factor=2)), past.pop()], dim=1)
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, told)
        made = F.pixel_shuffle(self.out(F.silu(self.norm(x))), self.patch).float()
        return made.unflatten(1, (self.stride, 3))[..., :height, :width]


FREQUENCIES = 64


def _waves(noise_B: Tensor) -> Tensor:
    """(B, FREQUENCIES): sines and cosines of 1 to 1000 radians over [0, 1]."""
    rates = torch.logspace(0, math.log10(1000), FREQUENCIES // 2, device=noise_B.device)
    angles = noise_B[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
