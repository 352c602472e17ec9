"""Semantic segmentation with any model of the `transformers` library, from safetensors only.

The networks are the library's; its image processors are not used, since what they do to a frame
(scale, normalise) and to the answer is a few lines, and they need torchvision or Pillow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth import weights
from vidsynth.conditioning import VOID
from vidsynth.devices import choose
from vidsynth.errors import BadOption, MissingWeights

# H, W pixels, h, w of the answer, Q queries, C classes

MASK_MODELS = ("maskformer", "mask2former", "oneformer")
"""Models that answer with masks and what each is of, not with classes per pixel."""
STRIDE = 32
"""Pixels: sides of what a model sees are multiples of this."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Segmenter:
    """One model, ready to be asked."""

    def __init__(self, name: str, size: int) -> None:
        """Load a model by its name, or from its folder.

        Args:
            name: of a repository of the Hugging Face hub, or a folder.
            size: pixels of the shorter side of what it sees.

        Raises:
            MissingWeights: `transformers` or the model is not here and cannot be had, or has no
                safetensors.
            BadOption: it is no model for semantic segmentation, or knows too many classes.
        """
        self._size = size
        self._device = choose("auto")
        transformers = _library()
        source: dict[str, Any] = {"local_files_only": weights.is_offline() or Path(name).is_dir()}
        try:
            config = transformers.AutoConfig.from_pretrained(name, **source)
            self._by_masks = config.model_type in MASK_MODELS
            kind = (
                transformers.AutoModelForUniversalSegmentation
                if self._by_masks
                else transformers.AutoModelForSemanticSegmentation
            )
            model = kind.from_pretrained(name, use_safetensors=True, **source)
            scaling = _scaling(transformers, name, source)
            self._task = _task(transformers, name, config, source)
        except (OSError, ImportError) as error:
            raise MissingWeights(
                f"extractor.model = {name!r}: no such model is here, or it lacks a file "
                f"({_first_line(error)}); give a folder with config.json and model.safetensors, "
                "or the name of a model on huggingface.co (VIDSYNTH_OFFLINE forbids downloads)"
            ) from error
        except (ValueError, KeyError) as error:
            raise BadOption(
                f"extractor.model = {name!r} is no model for semantic segmentation "
                f"({_first_line(error)}); choose one like SegFormer, Mask2Former or OneFormer"
            ) from error
        self.num_classes = int(config.num_labels)
        if self.num_classes > VOID:
            raise BadOption(
                f"extractor.model = {name!r} knows {self.num_classes} classes; {VOID} at most fit "
                "into a label map"
            )
        self._model = model.eval().to(self._device)
        self._mean, self._std = (
            torch.tensor(v, device=self._device)[:, None, None] for v in scaling
        )

    @torch.inference_mode()
    def classes(self, frame_3HW: Tensor) -> Tensor:
        """(H, W) uint8: the likeliest class of each pixel of a (3, H, W) uint8 frame."""
        height, width = frame_3HW.shape[1:]
        scale = self._size / min(height, width)
        size = [max(1, round(side * scale / STRIDE)) * STRIDE for side in (height, width)]
        pixels = frame_3HW[None].to(self._device).float() / 255
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        answer = self._model(pixel_values=(pixels - self._mean) / self._std, **self._task)
        scores = _scores(answer) if self._by_masks else answer.logits
        scores = F.interpolate(scores.float(), (height, width), mode="bilinear")
        return scores[0].argmax(dim=0).to(torch.uint8).cpu()


def _scores(answer: Any) -> Tensor:
    """(1, C, h, w): each mask counts for its classes. Cheng et al. 2021, "Per-Pixel Classification
    is Not All You Need for Semantic Segmentation", semantic inference; the last class is none."""
    classes_1QC = answer.class_queries_logits.softmax(dim=-1)[..., :-1]
    masks_1Qhw = answer.masks_queries_logits.sigmoid()
    return torch.einsum("bqc,bqhw->bchw", classes_1QC, masks_1Qhw)


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingWeights(
            "segmentation models need the package transformers, which is not installed; "
            "pip install 'vidsynth[labels]'"
        ) from error
    transformers.logging.set_verbosity_error()
    return transformers


def _scaling(transformers: Any, name: str, source: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and spread of the colours in [0, 1] that the model was trained with, by channel."""
    try:
        values, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, **source)
    except OSError:  # a bare model
        return IMAGENET
    return values.get("image_mean", IMAGENET[0]), values.get("image_std", IMAGENET[1])


def _task(transformers: Any, name: str, config: Any, source: dict[str, Any]) -> dict[str, Tensor]:
    """What OneFormer must be told beside the picture: which kind of segmentation is wanted."""
    if config.model_type != "oneformer":
        return {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source)
    words = tokenizer(
        "the task is semantic",
        padding="max_length",
        max_length=config.task_seq_len,
        truncation=True,
        return_tensors="pt",
    )
    return {"task_inputs": words.input_ids.to(choose("auto"))}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
