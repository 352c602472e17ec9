"""Wan-Animate: somebody on a picture moves like somebody in a video, or takes their place in it.

Cheng et al. 2025, "Wan-Animate: Unified Character Animation and Replacement with Holistic
Replication"; the pipeline is that of diffusers, what it takes is made by `vidsynth.animation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vidsynth import devices, drawing
from vidsynth.animation import AREA, Animation
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import MissingWeights
from vidsynth.kinds import Conditions, PretrainedGenerator
from vidsynth.stream import Chunk
from vidsynth_plugins.text2video import folder, opening
from vidsynth_plugins.text2video.families import ANIMATORS
from vidsynth_plugins.text2video.generator import as_frames, called
from vidsynth_plugins.text2video.options import PipelineOptions

# T frames, H, W pixels

MODEL = "Wan-AI/Wan2.2-Animate-14B-Diffusers"


@dataclass(frozen=True, kw_only=True)
class WanAnimateOptions(PipelineOptions):
    """Which model, and how it animates.

    Attributes:
        model: Wan-Animate as diffusers keeps it: a folder, or OWNER/NAME on huggingface.co.
        mode: "animate" moves the picture; "replace" puts who is on it into the driving film.
        prompt: what is to be seen, in words; the model needs little of it.
        area: pixels of a frame at most.
        segment: frames that are made together, 4 n + 1.
        overlap: frames of one segment that the next begins with: 1, or 5 for calmer seams.
        steps: of denoising each segment.
        guidance: how much the prompt counts; above 1 each step takes twice as long.
    """

    model: str = MODEL
    mode: Literal["animate", "replace"] = "animate"
    prompt: str = "a person moves"
    area: int = AREA
    segment: int = 77
    overlap: int = 1
    steps: int = 20
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.segment < 5 or self.segment % 4 != 1:
            near = max(5, self.segment // 4 * 4 + 1)
            raise ValueError(f"segment must be 4 n + 1 frames; got {self.segment}, like {near}")
        if self.overlap not in (1, 5) or self.overlap >= self.segment:
            raise ValueError(f"overlap must be 1 or 5, and below segment; got {self.overlap}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}")
        if self.area < 256:
            raise ValueError(f"area must be at least 256 pixels; got {self.area}")


class WanAnimate(PretrainedGenerator):
    """A picture, animated by the skeleton and the face of a video."""

    Options = WanAnimateOptions
    paper = (
        'Cheng et al. 2025, "Wan-Animate: Unified Character Animation and Replacement with '
        'Holistic Replication"'
    )
    weights_licence = "Apache-2.0"
    accepts: ClassVar = (Animation,)
    options: WanAnimateOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._told: Callable[[int, int], None] = lambda step, of: None
        self._pipeline: Any = None

    def film(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        fps: Fraction | None = None,
        num_frames: int | None = None,
    ) -> tuple[VideoSpec, int]:
        """As `PretrainedGenerator.film`; any length will do, since it is made in segments.

        Raises MissingWeights where the model is not here: says what works without it.
        """
        spec, _ = self._looked().limits.film(self.options.model, width, height, fps, None)
        return spec, num_frames or self.options.segment

    def watch(self, told: Callable[[int, int], None]) -> None:
        self._told = told

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        """As `Generator.generate`; the whole film is made before its first frame comes out.

        Raises:
            DeviceUnavailable: there is not enough memory.
            MissingWeights, BadWeights: the model's files cannot be used.
        """
        asked = [(chunk.pts, chunk.require(Animation)) for chunk in chunks]
        if not asked:
            return
        told = Animation.concat([signal for _, signal in asked])
        frames = drawing.resize(self._made(told, rng), spec.height, spec.width)
        start = 0
        for pts, _ in asked:
            yield Clip(frames[start : start + len(pts)], pts)
            start += len(pts)

    def _looked(self) -> folder.ModelFolder:
        try:
            return folder.look(self.options.model, families=ANIMATORS)
        except MissingWeights as error:
            raise MissingWeights(
                f"{error}; vidsynth extract SOURCE --for wan-animate --reference PICTURE writes "
                "what other tools take for it, and needs no weights"
            ) from error

    def _opened(self) -> Any:
        if self._pipeline is None:
            whole = folder.fetch(self._looked())
            with torch.inference_mode(False):  # weights outlive the caller's inference mode
                device = devices.choose(self.options.device)
                kind = opening.pipeline_class(whole, has_image=False)
                self._pipeline = opening.open_pipeline(whole, kind, self.options, device).pipeline
        return self._pipeline

    def _made(self, told: Animation, rng: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 on the CPU."""
        pipeline, options = self._opened(), self.options
        height, width = told.size
        opening.tiled(pipeline, options.tiling, height * width * min(len(told), options.segment))
        fresh = options.segment - options.overlap
        segments = max(1, -(-(len(told) - options.overlap) // fresh))
        done = 0

        def ended(_: Any, step: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            nonlocal done
            done += 1
            self._told(done, segments * options.steps)
            return values

        given: dict[str, Any] = {
            "image": as_pictures(told.reference[None])[0],
            "pose_video": as_pictures(told.pose),
            "face_video": as_pictures(told.face),
            "prompt": options.prompt,
            "height": height,
            "width": width,
            "segment_frame_length": options.segment,
            "prev_segment_conditioning_frames": options.overlap,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            "mode": "animate",
            "generator": torch.Generator().manual_seed(
                int(torch.randint(2**62, (), generator=rng))
            ),
            "output_type": "pt",
            "callback_on_step_end": ended,
        }
        if told.background is not None and told.mask is not None:
            given |= {
                "mode": "replace",
                "background_video": as_pictures(told.background),
                "mask_video": as_pictures(told.mask),
            }
        return as_frames(called(pipeline, given))


def as_pictures(frames_TCHW: Tensor) -> list[Any]:
    """PIL images, RGB or grey, of uint8 frames: what the pipeline takes."""
    from PIL import Image

    grey = frames_TCHW.shape[1] == 1
    shown = frames_TCHW[:, 0] if grey else frames_TCHW.permute(0, 2, 3, 1)
    return [Image.fromarray(frame.numpy()) for frame in shown.contiguous().cpu()]
