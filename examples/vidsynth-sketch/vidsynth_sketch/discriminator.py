"""A discriminator that is shown the lines of a frame, beside the frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.kinds import Discriminator, Judgement

# B batch, T frames, C channels, H, W pixels


@dataclass(frozen=True, kw_only=True)
class SketchPatchOptions:
    """How large it is. A generator that sets `filters` and `layers` sets these.

    Attributes:
        filters: channels of the first layer; twice as many in each that follows.
        layers: strided ones; each doubles the side of the patch that is judged.
    """

    filters: int = 32
    layers: int = 3

    def __post_init__(self) -> None:
        if self.filters < 1 or self.layers < 1:
            raise ValueError("filters and layers must be at least 1")


class SketchPatch(Discriminator):
    """Real or made, by patches of frames, of their lines and of the sketch they should follow."""

    Options = SketchPatchOptions
    checked = {"options": {"filters": 8}}  # noqa: RUF012 - read, never written
    options: SketchPatchOptions

    def __init__(
        self, options: object | None = None, *, condition_channels: int = 0, num_frames: int = 1
    ) -> None:
        super().__init__(options, condition_channels=condition_channels, num_frames=num_frames)
        channels = num_frames * (3 + 1 + condition_channels)
        self.layers = nn.ModuleList()
        for level in range(self.options.layers):
            wider = self.options.filters * 2**level
            self.layers.append(nn.Conv2d(channels, wider, 4, 2, padding=2))
            channels = wider
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, frames_BTCHW: Tensor, condition_BTCHW: Tensor | None) -> Judgement:
        seen = [frames_BTCHW, lines_of(frames_BTCHW)]
        if condition_BTCHW is not None:
            seen.append(condition_BTCHW)
        stacked = torch.cat(seen, dim=2).unflatten(1, (-1, self.num_frames))
        hidden = stacked.flatten(0, 1).flatten(1, 2)
        features = []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return Judgement([self.last(hidden)], [features])


def lines_of(frames_BTCHW: Tensor) -> Tensor:
    """(B, T, 1, H, W) how steep brightness is at each pixel, smooth enough to learn from."""
    grey = F.pad(frames_BTCHW.mean(dim=2), (1, 1, 1, 1), mode="replicate")
    across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    # Not the square root alone: its slope at 0 is infinite.
    return (across.square() + down.square() + 1e-4).sqrt()[:, :, None]
