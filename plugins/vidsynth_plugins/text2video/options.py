"""What can be chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidsynth_plugins.text2video.memory import Offload

MODEL = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """Which pipeline of diffusers, and how it is opened.

    Attributes:
        model: a pipeline of diffusers: a folder, or OWNER/NAME on huggingface.co.
        scheduler: how it denoises: euler, unipc, dpm, ddim or lcm, as far as the model takes them;
            empty for the model's own.
        lora: a LoRA for the model, in safetensors.
        lora_weight: how much the LoRA counts.
        precision: of the weights: auto is bf16 where that is fast and fp32 elsewhere; fp16 for
            GPUs.
        offload: what waits in the machine's own memory until its turn: auto (only what must), none,
            model (whole parts) or sequential (single layers, slow).
        tiling: decode the film tile by tile, which takes less memory: auto (large films), on, off.
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.
    """

    model: str = MODEL
    scheduler: str = ""
    lora: Path | None = None
    lora_weight: float = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    offload: Offload = "auto"
    tiling: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Text2VideoOptions(PipelineOptions):
    """Which model, and how it makes films.

    Attributes:
        motion: AnimateDiff's motion adapter, in the same way, for a model that makes pictures.
        image: a picture that the film starts from, where the model takes one.
        window: frames that are made together; a longer film goes on from the last frame of what is
            made already, where the model can start from a picture. 0 makes all at once, or all of
            one prompt.
        negative: what the film shall not show.
        steps: of denoising; as many as the pipeline takes by itself where none is given.
        guidance: how much the prompt counts; the pipeline's own where none is given.
    """

    motion: str = ""
    image: Path | None = None
    window: int = 0
    negative: str = ""
    steps: int | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}")
        if self.window < 0 or self.window == 1:
            raise ValueError(f"window must be 0, or 2 or more; got {self.window}")
        if self.guidance is not None and self.guidance < 0:
            raise ValueError(f"guidance must be 0 or more; got {self.guidance}")
