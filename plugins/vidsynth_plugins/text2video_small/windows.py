"""Long films from a network that knows short ones: windows that overlap, denoised together.

Bar-Tal et al. 2023, "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation"; along
time Wang et al. 2023, "Gen-L-Video: Multi-Text to Long Video Generation via Temporal Co-Denoising".
"""

from __future__ import annotations

import torch
from torch import Tensor

# T frames, N windows, F frames of a window


def window_starts(num_frames: int, window: int, overlap: float, stride: int) -> list[int]:
    """First frames of windows that cover a film, the last one ending where it ends.

    Args:
        num_frames: of the film, a multiple of `stride`.
        window: frames of each; a film of no more has one window.
        overlap: share of a window, at least, that the next one shares.
        stride: all windows start at multiples of it.
    """
    if num_frames <= window:
        return [0]
    step = max(stride, int(window * (1 - overlap)) // stride * stride)
    return [*range(0, num_frames - window, step), num_frames - window]


def weights(window: int) -> Tensor:
    """(F,) how much each frame of a window counts: the most in the middle, never nothing."""
    ramp = torch.arange(1, window + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def merged(parts_NFCHW: Tensor, starts: list[int], num_frames: int) -> Tensor:
    """(T, C, H, W): the weighted mean of what the windows that hold a frame say of it."""
    window = parts_NFCHW.shape[1]
    counts = weights(window).to(parts_NFCHW.device).view(-1, 1, 1, 1)
    total = parts_NFCHW.new_zeros(num_frames, *parts_NFCHW.shape[2:])
    shares = parts_NFCHW.new_zeros(num_frames, 1, 1, 1)
    for start, part in zip(starts, parts_NFCHW, strict=True):
        total[start : start + window] += counts * part
        shares[start : start + window] += counts
    return total / shares
