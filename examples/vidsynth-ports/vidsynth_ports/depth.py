"""Depth estimators of transformers, as an extractor with a kind of conditioning of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import devices, drawing
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, MissingWeights
from vidsynth.kinds import Extractor
from vidsynth.weights import is_offline

# T frames, H, W pixels


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DepthMaps(Conditioning):
    """How near everything is, per pixel."""

    kind: ClassVar[str] = "depth"
    per_frame: ClassVar[tuple[str, ...]] = ("nearness",)

    nearness: Tensor
    """(T, H, W) uint8: 0 is the farthest thing in its frame, 255 the nearest."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.nearness.shape[1], self.nearness.shape[2])

    def draw(self, height: int, width: int) -> Tensor:
        return drawing.resize(self.nearness[:, None], height, width)

    def crop(self, box: tuple[int, int, int, int]) -> DepthMaps:
        x0, y0, x1, y1 = box
        return replace(self, nearness=self.nearness[:, y0:y1, x0:x1])

    def rescale(self, height: int, width: int) -> DepthMaps:
        return replace(self, nearness=self.draw(height, width)[:, 0])


@dataclass(frozen=True, kw_only=True)
class DepthOptions:
    """Which network, and how large it sees frames.

    Attributes:
        model: a depth estimator of transformers: a folder, or a name on huggingface.co.
        size: pixels of the shorter side at which it sees frames, rounded to what it takes.
        nearest_is_largest: whether its numbers grow towards the camera, as those of DPT and Depth
            Anything do (inverse depth); false for metres, as of GLPN and ZoeDepth.
        batch: frames at once.
        device: where it runs: auto, cpu, cuda...
    """

    model: str = ""
    size: int = 384
    nearest_is_largest: bool = True
    batch: int = 4
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.size < 28 or self.batch < 1:
            raise ValueError("size must be at least 28, and batch at least 1")


class DepthExtractor(Extractor):
    """Depth of every frame, each stretched to the whole range by itself."""

    Options = DepthOptions
    produces = DepthMaps
    weights_licence = "that of the model you name"
    options: DepthOptions

    def extract(self, clips: Iterator[Clip]) -> Iterator[DepthMaps]:
        """One DepthMaps per clip. Raises MissingWeights, BadOption: no such model, or of no use."""
        network = None
        for clip in clips:
            if network is None:  # models load when there is something to look at
                network = self._opened()
            # One batch is as good as another: nothing in these networks looks across frames.
            parts = clip.frames.split(self.options.batch)
            yield DepthMaps(nearness=torch.cat([self._nearness(network, p) for p in parts]))

    def _opened(self) -> Any:
        if not self.options.model:
            raise BadOption("extractor.model names no depth estimator; give its folder or its name")
        from transformers import AutoModelForDepthEstimation

        try:
            network = AutoModelForDepthEstimation.from_pretrained(
                self.options.model, local_files_only=is_offline()
            )
        except OSError as error:
            raise MissingWeights(
                f"extractor.model = {self.options.model!r}: no such model is here "
                f"({str(error).splitlines()[0]}); give a folder with config.json and "
                "model.safetensors"
            ) from error
        except ValueError as error:
            raise BadOption(
                f"extractor.model = {self.options.model!r} estimates no depth "
                f"({str(error).splitlines()[0]}); choose one like DPT or Depth Anything"
            ) from error
        return network.eval().to(devices.choose(self.options.device))

    @torch.inference_mode()
    def _nearness(self, network: Any, frames_T3HW: Tensor) -> Tensor:
        """(T, H, W) uint8"""
        height, width = frames_T3HW.shape[2:]
        step = _patch(network.config)
        scale = self.options.size / min(height, width)
        size = [max(1, round(side * scale / step)) * step for side in (height, width)]
        pixels = frames_T3HW.to(network.device).float() / 255
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
        found_Thw = network(pixel_values=(pixels - mean) / deviation).predicted_depth
        depth = F.interpolate(found_Thw[:, None].float(), (height, width), mode="bilinear")[:, 0]
        low, high = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
        share = (depth - low) / (high - low).clamp_min(1e-6)
        if not self.options.nearest_is_largest:
            share = 1 - share
        return share.mul(255).round().to(torch.uint8).cpu()


# Of ImageNet: what these networks were trained with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _patch(config: Any) -> int:
    """Pixels that the sides of a picture must be a multiple of."""
    backbone = getattr(config, "backbone_config", None)
    return int(getattr(config, "patch_size", None) or getattr(backbone, "patch_size", None) or 32)
