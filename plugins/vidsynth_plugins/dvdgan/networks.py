"""The generator of Clark et al. 2019, "Adversarial Video Generation on Complex Datasets"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidsynth_plugins.dvdgan.layers import ConditionalNorm, ConvGRU, UpBlock, normed, once_a_pass
from vidsynth_plugins.dvdgan.options import DVDGANOptions

# B batch, T frames, N classes, C channels, H, W pixels, D numbers of the condition

COARSEST = 4
"""Places of the coarsest grid's shorter side, at least."""
WIDEST = 8
"""Times as many channels as at full resolution, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Where a film stands: what the next frames go on from."""

    made: int = 0
    """Frames so far."""
    states: Sequence[Tensor | None] = ()
    """Of each stage's ConvGRU."""


def levels_for(height: int, width: int) -> int:
    """Halvings that leave a grid whose shorter side is COARSEST to 2 * COARSEST - 1."""
    return max(0, (min(height, width) // COARSEST).bit_length() - 1)


def widths(filters: int, levels: int) -> list[int]:
    """Channels from full resolution down to the coarsest: they double up to WIDEST times."""
    return [filters * min(WIDEST, 2**level) for level in range(levels + 1)]


class VideoGenerator(nn.Module):
    """Noise and class to clips of any length.

    An affine map of both makes a coarse grid, the same at every time step. Each stage is a ConvGRU
    over time and residual blocks frame by frame, the last of which doubles the resolution, but for
    the first stage's.
    """

    frame_size: Tensor

    def __init__(self, options: DVDGANOptions, *, classes: int, height: int, width: int) -> None:
        super().__init__()
        self.options = options
        levels = options.levels or levels_for(height, width)
        self.grid = tuple(-(-side // 2**levels) for side in (height, width))
        self.register_buffer("frame_size", torch.tensor([height, width]))
        condition = options.noise + options.embedding
        *_, coarsest = channels = widths(options.filters, levels)
        self.classes = normed(nn.Linear(classes, options.embedding, bias=False))
        self.affine = normed(nn.Linear(condition, coarsest * self.grid[0] * self.grid[1]))
        plan = [(coarsest, coarsest, 1)]
        plan += [(channels[n], channels[n - 1], 2) for n in range(levels, 0, -1)]
        self.stages = nn.ModuleList(
            Stage(before, after, condition, scale, options, recurrent=_remembers(options, index))
            for index, (before, after, scale) in enumerate(plan)
        )
        self.last_norm = ConditionalNorm(
            channels[0], condition, steps=options.num_frames, statistics=options.statistics
        )
        self.to_frames = normed(nn.Conv2d(channels[0], 3, 3, padding=1))

    def forward(
        self,
        noise_BTD: Tensor,
        shares_BTN: Tensor,
        num_frames: int,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Memory]:
        """Frames (B, num_frames, 3, H, W) in [-1, 1], and what to go on from.

        Args:
            noise_BTD: standard normal; T is 1 where it is the same in all frames.
            shares_BTN: how much of each class; likewise.
            num_frames: to make.
            memory: of the frames before.
        """
        memory = memory or Memory(states=[None] * len(self.stages))
        with once_a_pass():
            embedded_BTD = self.classes(shares_BTN)
            steps = max(noise_BTD.shape[1], embedded_BTD.shape[1])
            parts = [x.expand(-1, steps, -1) for x in (noise_BTD, embedded_BTD)]
            condition_BTD = torch.cat(parts, dim=2)
            hidden_BTCHW = self.affine(condition_BTD).unflatten(2, (-1, *self.grid))
            states: list[Tensor | None] = []
            for stage, before in zip(self.stages, memory.states, strict=True):
                hidden_BTCHW, state = stage(
                    hidden_BTCHW, condition_BTD, num_frames, before, memory.made
                )
                states.append(state)
            hidden_BTCHW = self.last_norm(hidden_BTCHW, condition_BTD, memory.made).relu_()
            frames = self.to_frames(hidden_BTCHW.flatten(0, 1)).tanh()
        height, width = self.frame_size.tolist()
        frames_BTCHW = frames[..., :height, :width].unflatten(0, (-1, num_frames))
        return frames_BTCHW, Memory(memory.made + num_frames, states)


class Stage(nn.Module):
    """A ConvGRU over time, then residual blocks, the last of which enlarges."""

    def __init__(
        self,
        before: int,
        after: int,
        condition: int,
        scale: int,
        options: DVDGANOptions,
        *,
        recurrent: bool,
    ) -> None:
        super().__init__()
        steps, of = options.num_frames, options.statistics
        self.memory = ConvGRU(before) if recurrent else None
        plan = [(before, 1)] * (options.blocks - 1) + [(after, scale)]
        self.blocks = nn.ModuleList(
            UpBlock(before, width, condition, scale=larger, steps=steps, of=of)
            for width, larger in plan
        )

    def forward(
        self,
        hidden_BTCHW: Tensor,
        condition_BTD: Tensor,
        num_frames: int,
        state_BCHW: Tensor | None,
        made: int,
    ) -> tuple[Tensor, Tensor | None]:
        if self.memory is not None:
            hidden_BTCHW, state_BCHW = self.memory(hidden_BTCHW, num_frames, state_BCHW)
        elif hidden_BTCHW.shape[1] < num_frames:
            hidden_BTCHW = hidden_BTCHW.expand(-1, num_frames, -1, -1, -1)
        for block in self.blocks:
            hidden_BTCHW = block(hidden_BTCHW, condition_BTD, made)
        return hidden_BTCHW, state_BCHW


def _remembers(options: DVDGANOptions, index: int) -> bool:
    return options.recurrence == "each" or (options.recurrence == "first" and index == 0)
