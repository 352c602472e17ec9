"""Image-to-image pipelines of diffusers, as a generator that brings its own weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidsynth import devices, drawing
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import Conditioning
from vidsynth.errors import BadOption, MissingWeights
from vidsynth.kinds import Conditions, PretrainedGenerator
from vidsynth.stream import Chunk
from vidsynth.weights import is_offline

# T frames, C channels, H, W pixels


@dataclass(frozen=True, kw_only=True)
class ImageToImageOptions:
    """Which pipeline, and what it is told.

    Attributes:
        model: an image-to-image pipeline of diffusers: a folder, or a name on huggingface.co.
        prompt: what the frames shall show.
        strength: share of the way back to noise that each picture is taken, in (0, 1]: more changes
            more.
        steps: of denoising from pure noise; strength times as many are done.
        guidance: how much the prompt counts; 1 is not more than the model gives it by itself.
        from_pictures: begin with the stream's own pictures, where it has some, and not with what
            conditions them.
        device: where it runs: auto, cpu, cuda...
    """

    model: str = ""
    prompt: str = ""
    strength: float = 0.6
    steps: int = 25
    guidance: float = 5.0
    from_pictures: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and up to 1; got {self.strength}")
        if self.steps < 1 or int(self.steps * self.strength) < 1:
            raise ValueError("steps times strength must be at least 1")


class ImageToImage(PretrainedGenerator):
    """Every frame painted over by a diffusion model, always from the same noise."""

    Options = ImageToImageOptions
    paper = (
        'Meng et al. 2022, "SDEdit: Guided Image Synthesis and Editing with Stochastic '
        'Differential Equations"'
    )
    weights_licence = "that of the model you name"
    accepts = (Conditioning,)
    options: ImageToImageOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._pipeline: Any = None

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        seed = int(torch.randint(2**31, (), generator=rng))
        for chunk in chunks:
            if self._pipeline is None:
                self._pipeline = self._opened()
            started = self._started(chunk, spec)
            made = [self._painted(picture, seed) for picture in started]
            frames = torch.stack(made) if made else started
            yield Clip(drawing.resize(frames, spec.height, spec.width), chunk.pts)

    def _started(self, chunk: Chunk, spec: VideoSpec) -> Tensor:
        """(T, 3, H, W) uint8, the sides such that the pipeline takes them."""
        height, width = (max(1, -(-side // 8)) * 8 for side in (spec.height, spec.width))
        if self.options.from_pictures and chunk.clip is not None:
            return drawing.resize(chunk.clip.frames, height, width)
        return drawing.in_colours(self.conditions.draw(chunk, height, width))

    def _painted(self, picture_3HW: Tensor, seed: int) -> Tensor:
        # The same noise for each frame: what does not change then stays much as it is.
        noise = torch.Generator().manual_seed(seed)
        answer = self._pipeline(
            prompt=self.options.prompt,
            image=picture_3HW[None].float() / 255,
            strength=self.options.strength,
            num_inference_steps=self.options.steps,
            guidance_scale=self.options.guidance,
            generator=noise,
            output_type="np",
        )
        levels = np.rint(answer.images[0] * 255).clip(0, 255).astype(np.uint8)
        return torch.from_numpy(levels).permute(2, 0, 1)

    def _opened(self) -> Any:
        if not self.options.model:
            raise BadOption("model names no image-to-image pipeline; give its folder or its name")
        from diffusers import AutoPipelineForImage2Image
        from diffusers.utils import logging

        logging.disable_progress_bar()
        try:
            pipeline = AutoPipelineForImage2Image.from_pretrained(
                self.options.model, local_files_only=is_offline()
            )
        except OSError as error:
            raise MissingWeights(
                f"model = {self.options.model!r}: no such pipeline is here "
                f"({str(error).splitlines()[0]}); give a folder with model_index.json"
            ) from error
        except ValueError as error:
            raise BadOption(
                f"model = {self.options.model!r} cannot start from a picture "
                f"({str(error).splitlines()[0]}); choose one like Stable Diffusion"
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(devices.choose(self.options.device))
