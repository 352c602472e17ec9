"""Weight files of the published implementation: its names for parameters, in ours.

Each level has a file of its own, `*_net_G0.pth` the coarsest. Modules are numbered by their place
in sequences; the architecture is read back from those numbers and from the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vidsynth.errors import BadSubject
from vidsynth.weights import read as read_weights
from vidsynth_plugins.vid2vid.options import Vid2VidOptions

State = Mapping[str, Tensor]

_HEADS = {
    "model_final_img": "paint_head",
    "model_final_flow": "flow_head",
    "model_final_w": "share_head",
    "indv_final": "front_head",
}
_ENCODERS = {
    "model_down_seg": "labels",
    "model_down_img": "images",
    "indv_down": "front_labels",
}
_BLOCKS = {"model_res_img": "paint", "model_res_flow": "motion", "indv_res": "front"}
_DECODERS = {"model_up_img": "paint", "model_up_flow": "motion", "indv_up": "front"}
_PARTS = "|".join([*_HEADS, *_ENCODERS, *_BLOCKS, *_DECODERS])
_LEARNED = (".weight", ".bias")
FOREGROUND = (26,)
"""The class that the published foreground network paints by default: cars, in Cityscapes."""


def load_reference_weights(path: Path) -> tuple[Vid2VidOptions, dict[str, Tensor]]:
    """A generator's weights (`*_net_G0.pth` or .safetensors), ready for `Vid2Vid.load_weights`.

    The published program renders with the normalisation of the frame at hand, whatever statistics
    its files carry; so do these options: batch normalisation becomes "affine".

    Args:
        path: of the finest level; those of the coarser ones are read beside it.

    Returns:
        The options of its architecture, without a plate, and the weights. Which classes a
        foreground network paints is not in the file: `FOREGROUND` is assumed.

    Raises:
        BadWeights: a file holds no weights, or is missing.
        BadSubject: they are of no such generator.
    """
    levels = [_checked(file, read_weights(file)) for file in _files(path)]
    coarsest = levels[0]
    if _count(coarsest, r"model_up_img\.(\d+)\.conv_block\."):
        raise BadSubject(
            f"{path} is a finer level without the ones below; name it like latest_net_G1.pth, with "
            "latest_net_G0.pth beside it"
        )
    options = _architecture(levels)
    weights: dict[str, Tensor] = {}
    for index, level in enumerate(levels):
        for name, weight in level.items():
            if name.endswith(_LEARNED):
                weights[f"levels.{index}.{_placed(name, options, index)}"] = weight
    return options, weights


def _files(path: Path) -> list[Path]:
    """Of all levels up to the one in `path`, the coarsest first."""
    numbered = re.fullmatch(r"(.*net_G)(\d+)(\.\w+)", path.name)
    if not numbered:
        return [path]
    stem, finest, suffix = numbered.groups()
    return [path.with_name(f"{stem}{n}{suffix}") for n in range(int(finest) + 1)]


def _checked(path: Path, state: State) -> State:
    if not state or not all(re.fullmatch(rf"({_PARTS})\.\d+\..+", name) for name in state):
        raise BadSubject(f"{path} is no vid2vid generator; give one named like latest_net_G0.pth")
    return state


def _architecture(levels: list[State]) -> Vid2VidOptions:
    coarsest = levels[0]
    late = _count(coarsest, r"model_res_img\.(\d+)\.conv_block\.")
    early = _count(coarsest, r"model_down_seg\.(\d+)\.conv_block\.")
    finest = levels[-1]
    return Vid2VidOptions(
        past=coarsest["model_down_img.1.weight"].shape[1] // 3,
        filters=len(coarsest["model_down_seg.1.weight"]),
        downsamplings=_count(coarsest, r"model_down_seg\.(\d+)\.weight", ndim=4) - 1,
        blocks=early + late,
        levels=len(levels),
        local_blocks=_count(finest, r"model_up_img\.(\d+)\.conv_block\.") if levels[1:] else 3,
        norm="affine" if "model_down_seg.2.weight" in coarsest else "instance",
        stem="conv7",
        upsampling="transposed",
        skips=False,
        flow="model_final_flow.1.weight" in coarsest,
        flow_px=20.0,
        least_paint=0.0,
        foreground=FOREGROUND if "indv_final.1.weight" in coarsest else (),
        background=False,
    )


def _count(state: State, pattern: str, ndim: int | None = None) -> int:
    """Distinct values of the pattern's group among the names of tensors of `ndim` axes."""
    found = (re.match(pattern, n) for n, w in state.items() if ndim in (None, w.ndim))
    return len({match[1] for match in found if match})


def _placed(name: str, options: Vid2VidOptions, level: int) -> str:
    """`model_down_seg.4.weight` -> `labels.down.0.0.weight`, and so on."""
    part, number, rest = name.split(".", 2)
    at, rest = int(number), rest.replace("conv_block.", "body.")
    if part in _HEADS:
        return f"{_HEADS[part]}.{at}.{rest}"
    if part in _BLOCKS:
        return f"{_BLOCKS[part]}.blocks.{at}.{rest}"
    if part in _ENCODERS:
        return (
            f"{_ENCODERS[part]}.{_encoder_place(at, 1 if level else options.downsamplings)}.{rest}"
        )
    blocks = options.local_blocks if level else 0
    place = f"blocks.{at}" if at < blocks else _triple("up", at - blocks)
    return f"{_DECODERS[part]}.{place}.{rest}"


def _encoder_place(at: int, downs: int) -> str:
    if at < 4:  # pad, convolution, norm, ReLU
        return f"stem.{at}"
    if at < 4 + 3 * downs:
        return _triple("down", at - 4)
    return f"blocks.{at - 4 - 3 * downs}"


def _triple(name: str, at: int) -> str:
    """Convolution, norm and ReLU, again and again."""
    return f"{name}.{at // 3}.{at % 3}"
