"""A kind of conditioning of our own: line drawings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from vidsynth import drawing
from vidsynth.conditioning import Conditioning

# T frames, H, W pixels


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sketch(Conditioning):
    """Ink on paper, one drawing per frame.

    What `draw`, `crop` and `rescale` do is all that a subject needs of a kind; saving, slicing and
    joining come with the base class.
    """

    kind: ClassVar[str] = "sketch"
    per_frame: ClassVar[tuple[str, ...]] = ("ink",)

    ink: Tensor
    """(T, H, W) uint8: 0 is paper, 255 a line."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.ink.shape[1], self.ink.shape[2])

    def draw(self, height: int, width: int) -> Tensor:
        return drawing.resize(self.ink[:, None], height, width)

    def crop(self, box: tuple[int, int, int, int]) -> Sketch:
        x0, y0, x1, y1 = box
        return replace(self, ink=self.ink[:, y0:y1, x0:x1])

    def rescale(self, height: int, width: int) -> Sketch:
        return replace(self, ink=self.draw(height, width)[:, 0])

    def present(self) -> Tensor:
        """Frames with a line in them."""
        return (self.ink > 127).flatten(1).any(dim=1)
