"""CLIP: prompts as embeddings, how well films show what a prompt says, and which shows it best.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision". The
networks are those of the `transformers` library, by name or from a folder, from safetensors only.
CLIP reads 77 tokens at a time; longer prompts are read in pieces, none of which is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import devices, hub, weights
from vidsynth.classes import TextEmbedding
from vidsynth.errors import BadOption, BadWeights, MissingWeights, NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric, TextEncoder

# N prompts, M pieces, L tokens, D numbers of an embedding, T frames, H, W pixels

MODEL = "openai/clip-vit-large-patch14"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that the published models were trained with, by channel."""
FRAMES_RANKED = 8
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ClipTextOptions:
    """Which model of CLIP, and where it computes.

    Attributes:
        model: a CLIP model of transformers: a folder, or OWNER/NAME on huggingface.co.
        batch: pieces of prompts that are read at once.
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.
        precision: of the computation: auto is bf16 where that is fast, else fp32.
    """

    model: str = MODEL
    batch: int = 32
    device: str = "auto"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError("model cannot be empty; give a folder or a name")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1; got {self.batch}")


class ClipText(TextEncoder):
    """Prompts as CLIP's tokens (the last layer's, normalised) and its sentence embedding.

    A prompt of more than 75 tokens is read in pieces of that many: its tokens are the pieces' one
    after the other, its sentence embedding the mean of theirs, each counting as many times as it
    has tokens.
    """

    Options = ClipTextOptions
    paper = (
        'Radford et al. 2021, "Learning Transferable Visual Models From Natural Language '
        'Supervision"'
    )
    weights_licence = "MIT (OpenAI's models); a model of yours has its own"
    options: ClipTextOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._opened: tuple[Any, Any] | None = None

    def encode(self, prompts: Sequence[str]) -> Sequence[TextEmbedding]:
        """One embedding for each prompt, of one frame: `pooled` (1, D), `tokens` (L, D).

        `pooled` is in the space that CLIP shares between text and pictures where the model has the
        projection into it.

        Raises:
            BadOption: a prompt is empty.
            MissingWeights, BadWeights: the model is not here, or none.
        """
        for number, prompt in enumerate(prompts, 1):
            if not prompt.strip():
                raise BadOption(f"prompt {number} is empty; say what is to be shown")
        if not prompts:
            return []
        if self._opened is None:
            self._opened = _open_text(self.options)
        tokenizer, model = self._opened
        device = next(model.parameters()).device
        with torch.inference_mode(), devices.autocast(device, self.options.precision):
            return [self._encoded(tokenizer, model, prompt) for prompt in prompts]

    def rank(self, clips: Sequence[Tensor], prompt: str) -> list[int]:
        """As every encoder's; looks at FRAMES_RANKED frames of each clip, spread over it.

        Raises:
            BadOption: the prompt is empty.
            MissingWeights, BadWeights: the model is not here, or none.
        """
        if not prompt.strip():
            raise BadOption("the prompt is empty; say what the clips were to show")
        judge = ClipJudge(self.options)
        scores = [
            float(judge.similarity(_spread(clip, FRAMES_RANKED), prompt).mean()) for clip in clips
        ]
        return sorted(range(len(clips)), key=lambda i: -scores[i])

    def _encoded(self, tokenizer: Any, model: Any, prompt: str) -> TextEmbedding:
        ids, lengths = pieces(tokenizer, prompt)
        tokens, pooled = _read(model, ids, self.options.batch)
        kept = [piece[:length] for piece, length in zip(tokens, lengths, strict=True)]
        share = torch.tensor(lengths, dtype=torch.float32)[:, None] / sum(lengths)
        return TextEmbedding(
            pooled=(pooled * share).sum(dim=0, keepdim=True),
            tokens=torch.cat(kept),
            prompt=prompt,
        )


def pieces(tokenizer: Any, prompt: str) -> tuple[Tensor, list[int]]:
    """A prompt as ids of its pieces (M, L), each with a start and an end and padded to CLIP's
    length, and how many ids of each piece are not padding."""
    length = min(tokenizer.model_max_length, 77)
    words = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    room = length - 2
    parts = [words[i : i + room] for i in range(0, len(words), room)] or [[]]
    framed = [[tokenizer.bos_token_id, *part, tokenizer.eos_token_id] for part in parts]
    pad = tokenizer.pad_token_id
    ids = [part + [pad] * (length - len(part)) for part in framed]
    return torch.tensor(ids), [len(part) for part in framed]


def joined_tokens(tokenizer: Any, model: Any, prompts: Sequence[str]) -> Tensor:
    """(N, M L, D): the tokens of each prompt's pieces, one after the other, padding included, all
    of as many pieces as the longest prompt has: what a network that attends to CLIP's tokens takes
    for prompts of any length."""
    read = [pieces(tokenizer, prompt)[0] for prompt in prompts]
    most = max(map(len, read))
    nothing = pieces(tokenizer, "")[0]
    padded = [torch.cat([ids, nothing.expand(most - len(ids), -1)]) for ids in read]
    device = next(model.parameters()).device
    return torch.stack([model(ids.to(device)).last_hidden_state.flatten(0, 1) for ids in padded])


class ClipJudge:
    """A whole CLIP model, text and pictures."""

    def __init__(self, options: ClipTextOptions) -> None:
        """Raises MissingWeights, BadWeights."""
        self._options = options
        self._tokenizer, self._model = _open(options, "CLIPModel")
        self._size = int(self._model.config.vision_config.image_size)

    def similarity(self, frames_T3HW: Tensor, prompt: str) -> Tensor:
        """(T,) float32: the cosine of each frame (uint8 RGB) and the prompt, in CLIP's space."""
        device = next(self._model.parameters()).device
        with torch.inference_mode(), devices.autocast(device, self._options.precision):
            seen_TD = self._model.get_image_features(pixel_values=self._pixels(frames_T3HW, device))
            said_1D = self._said(prompt)
        return F.cosine_similarity(_embedding(seen_TD), said_1D.to(device), dim=1).float().cpu()

    def _said(self, prompt: str) -> Tensor:
        ids, lengths = pieces(self._tokenizer, prompt)
        device = next(self._model.parameters()).device
        found = _embedding(self._model.get_text_features(input_ids=ids.to(device))).float()
        share = torch.tensor(lengths, device=device)[:, None] / sum(lengths)
        return (F.normalize(found, dim=1) * share).sum(dim=0, keepdim=True)

    def _pixels(self, frames_T3HW: Tensor, device: torch.device) -> Tensor:
        """As CLIP was shown pictures: the shorter side scaled, the middle square, normalised."""
        pixels = frames_T3HW.to(device).float() / 255
        scale = self._size / min(pixels.shape[2:])
        size = [max(self._size, round(side * scale)) for side in pixels.shape[2:]]
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - self._size) // 2 for side in size)
        square = pixels[..., top : top + self._size, left : left + self._size]
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
        return (square - mean) / std


@dataclass(frozen=True, kw_only=True)
class ClipSimilarityOptions:
    """What the frames are held against.

    Attributes:
        prompt: what the film is to show; without one nothing is measured.
        model: a CLIP model of transformers: a folder, or OWNER/NAME on huggingface.co.
        every: seconds; a frame is looked at this often.
        device: where it computes: auto, cpu, cuda, cuda:1 or mps.
    """

    prompt: str = ""
    model: str = MODEL
    every: float = 0.25
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every must be 0 seconds or more; got {self.every}")


class ClipSimilarity(Metric):
    """How well frames show a prompt: the mean cosine between them and it, in CLIP's space."""

    Options = ClipSimilarityOptions
    paper = ClipText.paper
    weights_licence = ClipText.weights_licence
    unit = ""
    higher_is_better = True
    against = "nothing"
    options: ClipSimilarityOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._judge: ClipJudge | None = None
        self._scores: list[Tensor] = []

    def update(self, made: Film, real: Film | None) -> None:
        prompt = self.options.prompt
        if not prompt.strip():
            raise NotMeasurable(
                "nothing says what the film is to show; set clip_similarity's option prompt"
            )
        if self._judge is None:
            self._judge = ClipJudge(
                ClipTextOptions(model=self.options.model, device=self.options.device)
            )
        found = torch.full((len(made),), torch.nan, dtype=torch.float64)
        start, due = 0, -torch.inf
        for clip in made.read():
            for offset, second in enumerate(clip.pts.tolist()):
                if second >= due:
                    frame = clip.frames[offset : offset + 1]
                    found[start + offset] = self._judge.similarity(frame, prompt).double()[0]
                    due = second + self.options.every
            start += len(clip)
        self._scores.append(found)

    def compute(self) -> Measurement:
        if not self._scores or not len(measured := _known(torch.cat(self._scores))):
            raise NotMeasurable("there was no frame to hold against the prompt; give a film")
        return Measurement(
            value=float(measured.mean()),
            count=len(measured),
            protocol=f"CLIP {self.options.model}, a frame every {self.options.every:g} s",
            per_frame=torch.cat(self._scores),
        )


def _known(values: Tensor) -> Tensor:
    return values[~values.isnan()]


def _spread(frames_T3HW: Tensor, count: int) -> Tensor:
    index = torch.linspace(0, len(frames_T3HW) - 1, min(count, len(frames_T3HW))).round().long()
    return frames_T3HW[index]


def _embedding(answer: Any) -> Tensor:
    """Of `get_*_features`, which newer transformers answer with a structure."""
    return answer if isinstance(answer, Tensor) else answer.pooler_output


def _read(model: Any, ids_ML: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Tokens (M, L, D) and sentence embeddings (M, D'), float32 on the CPU."""
    device = next(model.parameters()).device
    tokens, pooled = [], []
    for part in ids_ML.split(batch):
        answer = model(input_ids=part.to(device))
        tokens.append(answer.last_hidden_state.float().cpu())
        sentence = getattr(answer, "text_embeds", None)
        pooled.append((answer.pooler_output if sentence is None else sentence).float().cpu())
    return torch.cat(tokens), torch.cat(pooled)


def _open_text(options: ClipTextOptions) -> tuple[Any, Any]:
    return _open(options, "CLIPTextModelWithProjection", "CLIPTextModel")


def _open(options: ClipTextOptions, *kinds: str) -> tuple[Any, Any]:
    """Tokenizer and model: of the first of `kinds` whose weights are all in the files."""
    try:
        import transformers
    except ImportError as error:
        raise MissingWeights(
            "CLIP needs the package transformers, which is not installed; pip install "
            "'vidsynth[text]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = hub.locate(options.model, option="model", files=hub.EVERYTHING)
    _refuse_others(transformers, folder, options.model)
    source: dict[str, Any] = {"local_files_only": weights.is_offline() or folder.is_dir()}
    for kind in kinds:
        try:
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, **source)
            model, report = getattr(transformers, kind).from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **source
            )
        except (OSError, ImportError) as error:
            raise MissingWeights(
                f"{options.model} lacks a file ({str(error).strip().splitlines()[0]}); give a "
                "folder with config.json, model.safetensors and the tokenizer's files"
            ) from error
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise BadWeights(
                f"{options.model} cannot be read as CLIP ({str(error).strip().splitlines()[0]}); "
                "give a model that transformers calls CLIPModel or CLIPTextModel"
            ) from error
        if not report["missing_keys"]:
            return tokenizer, model.eval().to(devices.choose(options.device))
    raise BadWeights(
        f"{options.model} lacks weights of a {kinds[-1]}; give a model of CLIP that has them"
    )


def _refuse_others(transformers: Any, folder: Path, name: str) -> None:
    try:
        kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError, KeyError) as error:
        raise MissingWeights(
            f"{name} has no settings of a model ({str(error).strip().splitlines()[0]}); give a "
            "folder with config.json, model.safetensors and the tokenizer's files"
        ) from error
    if kind not in ("clip", "clip_text_model"):
        raise BadWeights(f"{name} is a model of the kind {kind!r}; give one of CLIP")
