"""From a folder to a pipeline that is ready: precision, placing, scheduler, LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidsynth import devices
from vidsynth.errors import BadOption, BadWeights, MissingWeights
from vidsynth_plugins.text2video.folder import ModelFolder
from vidsynth_plugins.text2video.memory import Placing, place
from vidsynth_plugins.text2video.options import PipelineOptions

LARGE = 25_000_000
"""Pixels of a whole film: decoding more at once takes more memory than all else (diffusers'
issue 12097), so that it is done tile by tile."""
_BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
_NAMED = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def library() -> Any:
    """diffusers, quiet. Raises MissingWeights where it is not installed."""
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise MissingWeights(
            f"films from text need the package {error.name}, which is not installed; pip install "
            "'vidsynth[text]'"
        ) from error
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return diffusers


def precision_on(device: torch.device, wanted: str) -> torch.dtype:
    """The numbers to compute with: "auto" halves them where that is fast.

    Raises BadOption for fp16 on a CPU, where it is far slower than fp32.
    """
    if wanted == "auto":
        return torch.bfloat16 if devices.has_fast_bf16(device) else torch.float32
    if wanted == "fp16" and device.type == "cpu":
        raise BadOption("generator.precision = 'fp16' is for GPUs; use auto, fp32 or bf16 on a CPU")
    return _NAMED[wanted]


def sizes_of(model: ModelFolder, counted: Mapping[str, int], dtype: torch.dtype) -> dict[str, int]:
    """Bytes of each part's weights in that precision, of their numbers."""
    full = "vae" if model.family.full_vae else ""
    return {
        part: numbers * (4 if part == full else _BYTES[dtype]) for part, numbers in counted.items()
    }


@dataclass(frozen=True, slots=True)
class Opened:
    """A pipeline of diffusers, ready to be called."""

    pipeline: Any
    placing: Placing
    device: torch.device

    def as_kind(self, kind: str) -> Opened:
        """The same weights in a pipeline of another class."""
        if type(self.pipeline).__name__ == kind:
            return self
        pipeline = getattr(library(), kind)(**self.pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
        return Opened(_placed(pipeline, self.placing, self.device), self.placing, self.device)


def open_pipeline(
    model: ModelFolder, kind: str, options: PipelineOptions, device: torch.device
) -> Opened:
    """The pipeline of a model; `kind` is its class in diffusers, as of `pipeline_class`.

    Raises:
        DeviceUnavailable: it does not fit into the memory that is there, told before it is read.
        BadOption: an option that this pipeline has not.
        BadWeights, MissingWeights: files that cannot be used.
    """
    scheduler = _scheduler_class(model, options.scheduler)
    dtype = precision_on(device, options.precision)
    counted = model.parameters()
    placing = place(sizes_of(model, counted, dtype), device, options.offload)
    diffusers = library()
    full = {"vae": torch.float32} if model.family.full_vae else {}
    source: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    try:
        if model.adapter is not None:
            adapter = diffusers.MotionAdapter.from_pretrained(model.adapter, dtype=dtype, **source)
            source["motion_adapter"] = adapter
        pipeline = getattr(diffusers, kind).from_pretrained(
            model.path, dtype={**full, "default": dtype}, **source
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise BadWeights(
            f"{model.name} cannot be opened as {kind} ({_first_line(error)}); copy or download "
            "the folder again, or give another model"
        ) from error
    _refuse_holes(pipeline, model, counted)
    if scheduler:
        pipeline.scheduler = _scheduler(getattr(diffusers, scheduler), pipeline, model)
    if options.lora is not None:
        _add_lora(pipeline, options.lora, options.lora_weight)
    pipeline.set_progress_bar_config(disable=True)
    return Opened(_placed(pipeline, placing, device), placing, device)


def pipeline_class(model: ModelFolder, has_image: bool) -> str:
    """The class in diffusers that makes the film. Raises BadOption where it needs a picture that
    is not given, or takes none that is."""
    family = model.family
    if not has_image and family.needs_image:
        raise BadOption(
            f"{model.name} ({family.name}) starts from a picture; name one with generator.image"
        )
    if not has_image:
        return family.pipeline
    if not takes_picture(model):
        raise BadOption(
            f"{model.name} ({family.name}) takes no picture; leave generator.image out, or choose "
            "an image-to-video model"
        )
    return family.with_image


def takes_picture(model: ModelFolder) -> bool:
    """Whether a film of this model can start from a picture."""
    family = model.family
    wide = family.name != "Wan" or model.index.get("expand_timesteps", False)
    return bool(family.with_image) and wide


def tiled(pipeline: Any, wanted: str, pixels: int) -> None:
    """Decode in tiles where that is wanted, or "auto" and the film is large."""
    on = wanted == "on" or (wanted == "auto" and pixels > LARGE)
    if hasattr(pipeline.vae, "enable_tiling") and on:
        pipeline.vae.enable_tiling()
    elif hasattr(pipeline.vae, "disable_tiling"):
        pipeline.vae.disable_tiling()


def _refuse_holes(pipeline: Any, model: ModelFolder, counted: Mapping[str, int]) -> None:
    """Raises BadWeights where the files hold fewer numbers than a part has: the libraries would
    leave holes, or fill them at random."""
    for name, part in pipeline.components.items():
        grown = name == "unet" and model.adapter is not None  # by the adapter's layers
        if not isinstance(part, torch.nn.Module) or grown:
            continue
        if sum(p.numel() for p in part.parameters()) > counted.get(name, 0):
            raise BadWeights(
                f"{model.path / name} lacks weights that its settings ask for; copy or download "
                "the folder again"
            )


def _placed(pipeline: Any, placing: Placing, device: torch.device) -> Any:
    if placing == "model":
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    if placing == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)


def _scheduler_class(model: ModelFolder, name: str) -> str:
    """Empty for the model's own. Raises BadOption."""
    known = model.family.schedulers
    if name and name not in known:
        raise BadOption(
            f"generator.scheduler = {name!r} cannot be used with {model.family.name}; it takes: "
            f"{', '.join(known)}"
        )
    return known[name] if name else ""


def _scheduler(kind: Any, pipeline: Any, model: ModelFolder) -> Any:
    settings = pipeline.scheduler.config
    if not model.family.flow:
        return kind.from_config(settings)
    shift = settings.get("flow_shift") or settings.get("shift") or 1.0
    if kind.__name__.startswith("FlowMatch"):
        return kind.from_config(settings, shift=shift)
    return kind.from_config(
        settings, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    )


def _add_lora(pipeline: Any, path: Path, strength: float) -> None:
    if path.suffix != ".safetensors":
        raise BadWeights(f"{path} is no .safetensors file; give a LoRA that is one")
    if not path.is_file():
        raise MissingWeights(f"{path} is no file; it was given as generator.lora")
    try:
        pipeline.load_lora_weights(
            path.parent, weight_name=path.name, adapter_name="lora", local_files_only=True
        )
        pipeline.set_adapters(["lora"], [strength])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise BadWeights(
            f"{path} does not fit this model ({_first_line(error)}); give a LoRA that was trained "
            "for it (LoRAs need the package peft)"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
