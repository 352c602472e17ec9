"""The plugin itself: makes clips from prompts with a model's weights, and hands out the training
rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vidsynth import drawing
from vidsynth.blocks import refuse_half_on_cpu
from vidsynth.classes import Prompt
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import BadSubject
from vidsynth.kinds import Conditions, Generator, Objective
from vidsynth.stream import Chunk
from vidsynth_plugins.text2video_small import diffusion
from vidsynth_plugins.text2video_small.model import EMBEDDED, TextToVideo, source_of, started
from vidsynth_plugins.text2video_small.objective import Denoising
from vidsynth_plugins.text2video_small.options import SmallOptions
from vidsynth_plugins.text2video_small.windows import merged, window_starts
from vidsynth_plugins.text2video_small.words import vocabulary

# T frames, N windows, F frames of a window, L tokens, D features, C channels, H, W pixels

TOGETHER = 8
"""Windows that the network sees in one go."""


class TextToVideoSmall(Generator):
    """Clips of any length from prompts in the words that it was taught."""

    Options = SmallOptions
    paper = (
        "Salimans and Ho 2022, 'Progressive Distillation for Fast Sampling of Diffusion Models' "
        "(v-prediction); Ho and Salimans 2022, 'Classifier-Free Diffusion Guidance'"
    )
    weights_licence = "Apache-2.0, trained on made-up clips of this project"
    accepts = (Prompt,)
    embedded = EMBEDDED
    checked: ClassVar[Mapping[str, Any]] = {
        "options": {
            "num_frames": 4,
            "stride": 2,
            "width": 16,
            "convolutions": 1,
            "token_width": 16,
            "depth": 2,
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
        self._told: Callable[[int, int], None] = lambda done, of: None

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

    def watch(self, told: Callable[[int, int], None]) -> None:
        self._told = told

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._model is None:
            raise ValueError("load_weights comes before generate")
        held = list(chunks)
        told = [chunk.require(Prompt) for chunk in held if len(chunk)]
        texts = [prompt.texts[n] for prompt in told for n in prompt.index.tolist()]
        frames = self._film(texts, rng) if texts else torch.empty(0, 3, spec.height, spec.width)
        start = 0
        for chunk in held:
            part = frames[start : start + len(chunk)]
            start += len(chunk)
            clip = Clip.from_float(part, chunk.pts)
            if clip.frames.shape[2:] != (spec.height, spec.width) and len(chunk):
                clip = Clip(drawing.resize(clip.frames.cpu(), spec.height, spec.width), chunk.pts)
            yield clip

    def _film(self, texts: list[str], rng: torch.Generator) -> Tensor:
        """(T, 3, H, W) in [-1, 1], of one text for each frame."""
        model, options = self._model, self.options
        assert model is not None
        stride = options.stride
        length = -(-len(texts) // stride) * stride
        window = min(length, options.num_frames)
        starts = window_starts(length, window, options.overlap, stride)
        # A window is of what is said at its middle.
        of_windows = [texts[min(start + window // 2, len(texts) - 1)] for start in starts]
        height, width = model.frame_size.tolist()
        noise = torch.randn(length, 3, height, width, generator=rng).to(model.frame_size.device)
        texts_of_both = [*of_windows, *[options.negative] * len(starts)]
        tokens, wholes = (part.chunk(2) for part in model.encoded(texts_of_both))

        def predict(z_TCHW: Tensor, time: Tensor) -> Tensor:
            windows = torch.stack([z_TCHW[start : start + window] for start in starts])
            pieces = [
                self._velocity(windows[span], time, [t[span] for t in (*tokens, *wholes)])
                for span in (slice(n, n + TOGETHER) for n in range(0, len(starts), TOGETHER))
            ]
            return merged(torch.cat(pieces), starts, length)

        return diffusion.sample(predict, noise, options.steps, self._told)[: len(texts)].clamp(
            -1, 1
        )

    def _velocity(self, z_NFCHW: Tensor, time: Tensor, texts: list[Tensor]) -> Tensor:
        """Guided v of some windows; `texts` as tokens told and untold, then wholes."""
        assert self._model is not None
        told, untold, whole_told, whole_untold = texts
        both = torch.cat([z_NFCHW, z_NFCHW])
        times = time.to(both).expand(len(both))
        tokens, wholes = torch.cat([told, untold]), torch.cat([whole_told, whole_untold])
        made = self._model(both, times, tokens, wholes).float()
        v = diffusion.velocity_to(both, made, *diffusion.alpha_sigma(time.to(both)))
        v_told, v_untold = v.chunk(2)
        return diffusion.guided(v_told, v_untold, self.options.guidance)
