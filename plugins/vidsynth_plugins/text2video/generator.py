"""The generator: a prompt in, the frames of one film out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
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
from vidsynth_plugins.text2video.takes import Take, in_lengths, takes_of

# T frames, H, W pixels

Told = Callable[[int, int], None]


class Text2Video(PretrainedGenerator):
    """Films from a prompt by a pipeline of diffusers; some start from a picture too.

    The frames of a take are denoised together, and come out one after the other when that is done.
    A film is one take; with a model that can start from a picture it may be several, one for each
    prompt, or of `window` frames, each going on from the last frame of the one before.
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
        self._opened: opening.Opened | None = None

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
        window = self.options.window
        if not window:
            return model.limits.film(model.name, width, height, fps, num_frames)
        spec, longest = model.limits.film(model.name, width, height, fps, window)
        self._check(takes_of([Prompt.of("a film", num_frames or longest)], window))
        return spec, num_frames or longest

    def watch(self, told: Told) -> None:
        self._told = told

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        """As `Generator.generate`; a take is made before its first frame comes out.

        Raises:
            BadOption: the prompt is empty, too long for the model, or changes on the way and the
                model takes no picture to go on from.
            DeviceUnavailable: there is not enough memory.
            MissingWeights, BadWeights: the model's files cannot be used.
        """
        asked = [(chunk.pts, chunk.require(Prompt)) for chunk in chunks]
        if not asked:
            return
        takes = takes_of((prompt for _, prompt in asked), self.options.window)
        self._check(takes)
        lengths = [len(pts) for pts, _ in asked]
        made = in_lengths(self._made(takes, spec, rng), lengths)
        for (pts, _), frames in zip(asked, made, strict=True):
            yield Clip(frames, pts)

    def _check(self, takes: Sequence[Take]) -> None:
        """Raises BadOption for an empty prompt, and takes of a model that cannot go on."""
        if not all(take.text.strip() for take in takes):
            raise BadOption("the prompt is empty; say what the film shall show")
        model = self._looked()
        if len(takes) > 1 and not opening.takes_picture(model):
            raise BadOption(
                f"{model.name} ({model.family.name}) makes a film at once and from one prompt, "
                f"since it starts from no picture, and {len(takes)} takes are asked for; choose an "
                "image-to-video model, or the generator text2video-small, whose prompts may change"
            )

    def _looked(self) -> folder.ModelFolder:
        if self._model is None:
            self._model = folder.look(self.options.model, self.options.motion)
        return self._model

    def _pipeline_from(self, picture: bool) -> Any:
        """The pipeline that starts from a picture, or from none."""
        with torch.inference_mode(False):  # weights outlive the caller's inference mode
            if self._opened is None:
                whole = folder.fetch(self._looked(), self.options.motion)
                device = devices.choose(self.options.device)
                kind = opening.pipeline_class(whole, self.options.image is not None)
                self._opened = opening.open_pipeline(whole, kind, self.options, device)
            kind = opening.pipeline_class(self._looked(), picture)
            self._opened = self._opened.as_kind(kind)
        return self._opened.pipeline

    def _made(
        self, takes: Sequence[Take], spec: VideoSpec, rng: torch.Generator
    ) -> Iterator[Tensor]:
        """(T, 3, H, W) uint8 of the spec's size, on the CPU: no frames, then those of each take."""
        options = self.options
        yield torch.empty((0, 3, spec.height, spec.width), dtype=torch.uint8)
        last: Any = None
        for number, take in enumerate(takes):
            total = take.num_frames + (last is not None)
            width, height, length = self._looked().limits.holding(spec, total)
            if last is None and options.image is not None:
                last = read_picture(options.image, width, height)
                total = take.num_frames
            pipeline = self._pipeline_from(last is not None)
            opening.tiled(pipeline, options.tiling, width * height * length)
            takes_from = inspect.signature(type(pipeline).__call__).parameters
            given = self._told_to(pipeline, takes_from, take.text) | {
                "width": width,
                "height": height,
                "num_frames": length,
                "generator": torch.Generator().manual_seed(
                    int(torch.randint(2**62, (), generator=rng))
                ),
                "output_type": "pt",
            }
            if "frame_rate" in takes_from:
                given["frame_rate"] = float(spec.fps)
            if last is not None:
                given["image"] = last
            given |= self._reporting(pipeline, takes_from, number, len(takes))
            frames = as_frames(called(pipeline, given))[:total]
            last = as_picture(frames[-1])
            yield drawing.resize(frames[total - take.num_frames :], spec.height, spec.width)

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

    def _reporting(self, pipeline: Any, takes: Any, number: int, count: int) -> dict[str, Any]:
        """What makes the pipeline tell of its steps, in take `number` of `count`."""
        steps = self.options.steps or takes["num_inference_steps"].default
        if "callback_on_step_end" not in takes:

            def old(step: int, *_: Any) -> None:
                self._told(number * steps + step + 1, count * steps)

            return {"callback": old, "callback_steps": 1}

        def ended(pipeline: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
            all_steps = getattr(pipeline, "num_timesteps", steps)
            self._told(number * all_steps + step + 1, count * all_steps)
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


def as_picture(frame: Tensor) -> Any:
    """A PIL image, RGB, of a frame (3, H, W) uint8."""
    from PIL import Image

    return Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())


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


def _check_length(pipeline: Any, takes: Any, text: str) -> None:
    """Raises BadOption for a prompt that the pipeline would cut off without a word."""
    most = takes["max_sequence_length"].default
    count = len(pipeline.tokenizer(text, verbose=False).input_ids)
    if count > most:
        raise BadOption(
            f"the prompt has {count} tokens and this model reads {most}; shorten it, since the "
            "rest would be cut off"
        )
