"""The plugin itself: makes clips from prompts with a model's weights, and hands out the training
rule."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidsynth import drawing
from vidsynth.blocks import refuse_half_on_cpu
from vidsynth.classes import Prompt
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import BadSubject
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective
from vidsynth.stream import Chunk
from vidsynth_plugins.text2video_small import diffusion
from vidsynth_plugins.text2video_small.model import EMBEDDED, TextToVideo, source_of, started
from vidsynth_plugins.text2video_small.objective import Denoising
from vidsynth_plugins.text2video_small.options import SmallOptions
from vidsynth_plugins.text2video_small.words import vocabulary

# T frames, F frames of a moment, C channels, H, W pixels


class TextToVideoSmall(Generator):
    """Clips of any length from prompts in the words that it was taught."""

    Options = SmallOptions
    paper = (
        "Salimans and Ho 2022, 'Progressive Distillation for Fast Sampling of Diffusion Models' "
        "(v-prediction); Voleti et al. 2022, 'MCVD: Masked Conditional Video Diffusion for "
        "Prediction, Generation, and Interpolation'"
    )
    weights_licence = "Apache-2.0, trained on made-up clips of this project"
    accepts = (Prompt,)
    embedded = EMBEDDED
    checked: ClassVar[Mapping[str, Any]] = {
        "options": {
            "num_frames": 4,
            "stride": 2,
            "width": 16,
            "blocks": 1,
            "heads": 2,
            "text_width": 16,
            "text_layers": 1,
            "steps": 4,
            "learning_rate": 1e-2,
        }
    }
    options: SmallOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._model: TextToVideo | None = None

    @classmethod
    def words_of(cls, options: object, captions: Collection[str]) -> tuple[str, ...]:
        assert isinstance(options, SmallOptions)
        if options.encoder:
            return ()
        source = source_of(options)
        return vocabulary(captions, () if source is None else source.card.words)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        try:
            height, width = weights["frame_size"].tolist()
        except (KeyError, ValueError) as error:
            raise BadSubject(
                "these weights are not of a text2video-small; train it again, or choose another "
                "model"
            ) from error
        refuse_half_on_cpu(next(iter(weights.values())).dtype, weights["frame_size"].device)
        model = TextToVideo(self.options, self.conditions.words, height, width)
        self._model = model.filled(weights).eval()

    def objective(self, spec: VideoSpec) -> Objective:
        model = TextToVideo(self.options, self.conditions.words, spec.height, spec.width)
        source = source_of(self.options)
        if source is not None:
            started(model, source)
        return Denoising(self.options, model)

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._model is None:
            raise ValueError("load_weights comes before generate")
        context, ready = None, torch.empty(0, 3, *self._model.frame_size.tolist())
        for chunk in chunks:
            prompt = chunk.require(Prompt)
            while len(ready) < len(chunk):
                text = prompt.texts[int(prompt.index[len(ready)])]
                moment, context = self._moment(text, context, rng)
                ready = torch.cat([ready, moment.cpu()])
            clip = Clip.from_float(ready[: len(chunk)], chunk.pts)
            ready = ready[len(chunk) :]
            if len(chunk) and clip.frames.shape[2:] != (spec.height, spec.width):
                clip = Clip(drawing.resize(clip.frames, spec.height, spec.width), chunk.pts)
            yield clip

    def _moment(
        self, text: str, context: Tensor | None, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The next `stride` frames (F, 3, H, W) in [-1, 1], and what comes before the ones after
        them: the frames made so far, as many as there is room for."""
        model, options = self._model, self.options
        assert model is not None
        device, stride = model.frame_size.device, options.stride
        height, width = model.frame_size.tolist()
        noise = torch.randn(stride, 3, height, width, generator=rng).to(device)
        room = options.num_frames - stride
        before = noise[:0] if context is None else context
        seen = torch.cat([noise.new_zeros(room - len(before), 3, height, width), before])
        told = model.encoded([text, options.negative])
        count = torch.full((2,), len(before) // stride, device=device)

        def velocity(z_FCHW: Tensor, time: Tensor) -> Tensor:
            both, behind = (x.expand(2, -1, -1, -1, -1) for x in (z_FCHW, seen))
            made = model(both, behind, count, time.to(device).expand(2), *told).float()
            alpha, sigma = diffusion.alpha_sigma(time.to(device))
            v_told, v_untold = diffusion.velocity_to(z_FCHW, made, alpha, sigma)
            return diffusion.guided(v_told, v_untold, options.guidance)

        moment = diffusion.sample(velocity, noise, options.steps).clamp(-1, 1)
        return moment, torch.cat([before, moment])[-room:]
