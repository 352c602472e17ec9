"""Films in takes: longer than a model makes at once, or of several prompts.

Each take after the first starts from the last frame of the one before, so that it takes a model
that can start from a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from vidsynth.classes import Prompt


@dataclass(frozen=True, slots=True)
class Take:
    """Frames that are made together, from one prompt."""

    text: str
    num_frames: int
    """New ones: without the frame that it starts from."""


def takes_of(prompts: Iterable[Prompt], window: int = 0) -> list[Take]:
    """The takes of a film that is told by these prompts, one after the other.

    Args:
        prompts: what is said at each frame.
        window: frames that are made together at most, the one that a take starts from included; 0
            for any number.
    """
    said = [prompt.texts[int(i)] for prompt in prompts for i in prompt.index]
    found: list[Take] = []
    for text, frames in groupby(said):
        left = sum(1 for _ in frames)
        while left:
            most = window - bool(found) if window else left
            found.append(Take(text, min(left, most)))
            left -= found[-1].num_frames
    return found


def in_lengths(parts: Iterator[Tensor], lengths: Sequence[int]) -> Iterator[Tensor]:
    """The frames of the parts, (T, C, H, W) each, at least one part, as tensors of these lengths; a
    part is asked for when its first frame is due."""
    held = next(parts)
    for length in lengths:
        while len(held) < length:
            held = torch.cat([held, next(parts)])
        yield held[:length]
        held = held[length:]
