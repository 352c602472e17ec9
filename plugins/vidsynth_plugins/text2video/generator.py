"""The generator: a prompt in, the frames of one film out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidsynth import devices, drawing, pictures
from vidsynth.classes import Prompt
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import BadOption, DeviceUnavailable, UnsupportedVideo
from vidsynth.kinds import Conditions, PretrainedGenerator
from vidsynth.stream import Chunk
from vidsynth_plugins import clip_text
from vidsynth_plugins.text2video import folder, opening
from vidsynth_plugins.text2video.options import Text2VideoOptions

# T frames, H, W pixels

Told = Callable[[int, int], None]


class Text2Video(PretrainedGenerator):
    """Films from a prompt by a pipeline of diffusers; some start from a picture too.

    A film is made as a whole: all its frames are denoised together, and come out one after the
    other when that is done. It keeps one prompt from its first frame to its last.
    """

    Options = Text2VideoOptions
    paper = 'Ho et al. 2022, "Video Diffusion Models"; each model has its own'
    weights_licence = "that of the model you name; Wan 2.1 is Apache-2.0"
    accepts: ClassVar = (Prompt,)
    options: Text2VideoOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._told: Told = lambda step, of: None
        self._model: folder.ModelFolder | None = None
        self._pipeline: Any = None

    def film(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        fps: Fraction | None = None,
        num_frames: int | None = None,
    ) -> tuple[VideoSpec, int]:
        """What the model makes when asked for this; reads its settings and no weights.

        Raises:
            BadOption: it does not make such films, or none at all, or lacks the picture that it
                starts from.
            MissingWeights: the model is not here.
        """
        model = self._looked()
        opening.pipeline_class(model, self.options.image is not None)
        if self.options.image is not None and not self.options.image.is_file():
            raise UnsupportedVideo(
                f"{self.options.image} is no file; it was given as generator.image"
            )
        return model.limits.film(model.name, width, height, fps, num_frames)

    def watch(self, told: Told) -> None:
        self._told = told

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        """As `Generator.generate`; the whole film is made before its first frame comes out.

        Raises:
            BadOption: the prompt is empty, too long for the model, or changes on the way.
            DeviceUnavailable: there is not enough memory.
            MissingWeights, BadWeights: the model's files cannot be used.
        """
        asked = [(chunk.pts, chunk.require(Prompt)) for chunk in chunks]
        if not asked:
            return
        text = _one_text([prompt for _, prompt in asked])
        frames = self._made(text, spec, sum(len(pts) for pts, _ in asked), rng)
        start = 0
        for pts, _ in asked:
            yield Clip(frames[start : start + len(pts)], pts)
            start += len(pts)

    def _looked(self) -> folder.ModelFolder:
        if self._model is None:
            self._model = folder.look(self.options.model, self.options.motion)
        return self._model

    def _opened(self) -> Any:
        if self._pipeline is None:
            whole = folder.fetch(self._looked(), self.options.motion)
            device = devices.choose(self.options.device)
            with torch.inference_mode(False):  # weights outlive the caller's inference mode
                self._pipeline = opening.open_pipeline(whole, self.options, device)
        return self._pipeline

    def _made(self, text: str, spec: VideoSpec, total: int, rng: torch.Generator) -> Tensor:
        """(T, 3, H, W) uint8 of the spec's size, on the CPU."""
        model = self._looked()
        width, height, length = model.limits.holding(spec, total)
        pipeline = self._opened()
        opening.tiled(pipeline, self.options.tiling, width * height * length)
        takes = inspect.signature(type(pipeline).__call__).parameters
        given = self._told_to(pipeline, takes, text) | {
            "width": width,
            "height": height,
            "num_frames": length,
            "generator": torch.Generator().manual_seed(
                int(torch.randint(2**62, (), generator=rng))
            ),
            "output_type": "pt",
        }
        if "frame_rate" in takes:
            given["frame_rate"] = float(spec.fps)
        if self.options.image is not None:
            given["image"] = read_picture(self.options.image, width, height)
        given |= self._reporting(pipeline, takes)
        frames = as_frames(called(pipeline, given))[:total]
        return drawing.resize(frames, spec.height, spec.width)

    def _told_to(self, pipeline: Any, takes: Any, text: str) -> dict[str, Any]:
        """The prompts, and what the user set of the rest."""
        family, options = self._looked().family, self.options
        if options.negative and not family.reads_negative:
            raise BadOption(f"{family.name} reads no negative prompt; leave generator.negative out")
        given: dict[str, Any] = {
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if family.clip_text and len(clip_text.pieces(pipeline.tokenizer, text)[0]) > 1:
            with torch.no_grad():
                both = clip_text.joined_tokens(
                    pipeline.tokenizer, pipeline.text_encoder, [text, options.negative]
                )
            return given | {"prompt_embeds": both[:1], "negative_prompt_embeds": both[1:]}
        if not family.clip_text:
            _check_length(pipeline, takes, text)
        if options.negative:
            given["negative_prompt"] = options.negative
        return given | {"prompt": text}

    def _reporting(self, pipeline: Any, takes: Any) -> dict[str, Any]:
        steps = self.options.steps or takes["num_inference_steps"].default
        if "callback_on_step_end" not in takes:

            def old(step: int, *_: Any) -> None:
                self._told(step + 1, steps)

            return {"callback": old, "callback_steps": 1}

        def ended(pipeline: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
            self._told(step + 1, getattr(pipeline, "num_timesteps", steps))
            return values

        return {"callback_on_step_end": ended}


def called(pipeline: Any, given: dict[str, Any]) -> Tensor:
    """What the pipeline answers: (T, 3, H, W) in [0, 1].

    Raises DeviceUnavailable when the memory does not suffice.
    """
    device = pipeline._execution_device
    try:
        # Its parts have the precision that was chosen for each; autocast would undo that.
        with torch.autocast(device.type, enabled=False):
            return pipeline(**given).frames[0]
    except torch.OutOfMemoryError as error:
        raise DeviceUnavailable(
            f"{device} ran out of memory while the film was made; ask for a smaller or shorter "
            "one, or set generator.offload=sequential and generator.tiling=on"
        ) from error
    finally:
        pipeline.maybe_free_model_hooks()


def as_frames(answer: Tensor) -> Tensor:
    """(T, 3, H, W) uint8 RGB on the CPU. Raises BadOption where numbers overflowed."""
    if not bool(answer.isfinite().all()):
        raise BadOption(
            "the film has numbers that are none: the precision does not suffice for this model; "
            "set generator.precision to bf16 or fp32"
        )
    return answer.float().mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu()


def read_picture(path: Path, width: int, height: int) -> Any:
    """The middle of a picture of the wanted shape, scaled to that size: a PIL image, RGB.

    Raises UnsupportedVideo.
    """
    from PIL import Image

    frame, _ = pictures.decode(path)
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    scale = max(width / picture.width, height / picture.height)
    box = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
    window = (*box, box[0] + width / scale, box[1] + height / scale)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=window)


def _one_text(prompts: list[Prompt]) -> str:
    said = dict.fromkeys(p.texts[int(i)] for p in prompts for i in p.index.unique())
    if len(said) > 1:
        raise BadOption(
            f"text2video keeps one prompt for a whole film, and {len(said)} are given; give one, "
            "or use the generator text2video-small, whose prompts may change"
        )
    (text,) = said
    if not text.strip():
        raise BadOption("the prompt is empty; say what the film shall show")
    return text


def _check_length(pipeline: Any, takes: Any, text: str) -> None:
    """Raises BadOption for a prompt that the pipeline would cut off without a word."""
    most = takes["max_sequence_length"].default
    count = len(pipeline.tokenizer(text, verbose=False).input_ids)
    if count > most:
        raise BadOption(
            f"the prompt has {count} tokens and this model reads {most}; shorten it, since the "
            "rest would be cut off"
        )
