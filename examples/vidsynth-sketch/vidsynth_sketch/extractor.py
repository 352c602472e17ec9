"""Outlines of what a film shows, by OpenCV's Canny edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vidsynth.clip import Clip
from vidsynth.kinds import Extractor
from vidsynth_sketch.sketch import Sketch

# T frames, H, W pixels


@dataclass(frozen=True, kw_only=True)
class SketchOptions:
    """Which outlines are drawn, and how.

    Attributes:
        detail: pixels; the standard deviation of the blur before edges are looked for. More leaves
            fine texture out.
        contrast: levels of 255 across an edge; stronger ones begin a line, those half as strong go
            on with one.
        line: pixels; how thick lines are.
    """

    detail: float = 1.0
    contrast: float = 60.0
    line: int = 2

    def __post_init__(self) -> None:
        if self.detail <= 0 or self.contrast <= 0:
            raise ValueError("detail and contrast must be above 0")
        if not 1 <= self.line <= 16:
            raise ValueError(f"line must be between 1 and 16; got {self.line}")


class SketchExtractor(Extractor):
    """A line drawing of every frame."""

    Options = SketchOptions
    produces = Sketch
    options: SketchOptions

    def extract(self, clips: Iterator[Clip]) -> Iterator[Sketch]:
        for clip in clips:
            ink = np.empty((len(clip), clip.height, clip.width), np.uint8)
            for frame, out in zip(clip.frames.permute(0, 2, 3, 1).cpu().numpy(), ink, strict=True):
                out[:] = self.drawn(np.ascontiguousarray(frame))
            yield Sketch(ink=torch.from_numpy(ink))

    def drawn(self, frame: np.ndarray) -> np.ndarray:
        """(H, W) uint8 lines of an (H, W, 3) uint8 frame."""
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        soft = cv2.GaussianBlur(grey, (0, 0), self.options.detail)
        # Canny's thresholds are of Sobel's sums, which are four times the step across an edge.
        strong = 4 * self.options.contrast
        lines = cv2.Canny(soft, strong / 2, strong, L2gradient=True)
        return cv2.dilate(lines, np.ones((self.options.line, self.options.line), np.uint8))
