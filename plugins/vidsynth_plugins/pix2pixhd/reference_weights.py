"""Weight files of the published implementation: its names for parameters, in ours.

It numbers modules by their place in long sequences; the architecture is read back from those
numbers and from the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vidsynth.errors import BadSubject
from vidsynth.weights import read as read_weights
from vidsynth_plugins.pix2pixhd.discriminators import MultiscalePatchOptions
from vidsynth_plugins.pix2pixhd.options import Norm, Pix2PixHDOptions


def load_reference_weights(path: Path) -> tuple[Pix2PixHDOptions, dict[str, Tensor]]:
    """A generator's weights (`*_net_G.pth` or .safetensors), ready for `Pix2PixHD.load_weights`.

    Args:
        path: of a global generator, or of one with local enhancers.

    Returns:
        The options of its architecture, without a plate, and the weights. `input_channels` tells
        how many channels of maps they expect.

    Raises:
        BadWeights: the file holds no weights.
        BadSubject: they are of no such generator.
    """
    theirs = _read(path)
    if not _all_match(theirs, r"model(\d+_[12])?\.\d+\..+"):
        raise BadSubject(f"{path} is no pix2pixHD generator; give one named like latest_net_G.pth")
    options = _architecture(theirs)
    return options, {_generator_name(name, options): weight for name, weight in theirs.items()}


def input_channels(weights: Mapping[str, Tensor]) -> int:
    """Channels of the conditioning maps that imported generator weights expect."""
    names = ("body.stem.1.weight", "body.coarse.stem.1.weight")
    return next(weights[name].shape[1] for name in names if name in weights)


def load_reference_discriminator(path: Path) -> tuple[MultiscalePatchOptions, dict[str, Tensor]]:
    """A discriminator's weights (`*_net_D.pth`), for `MultiscalePatch.load_state_dict`.

    Raises:
        BadWeights: the file holds no weights.
        BadSubject: they are of no such discriminator.
    """
    theirs = _read(path)
    if not _all_match(theirs, r"(scale\d+_layer\d+|layer\d+\.\d+)\..+"):
        raise BadSubject(
            f"{path} is no pix2pixHD discriminator; give one named like latest_net_D.pth"
        )
    placed = {_discriminator_place(name): weight for name, weight in theirs.items()}
    coarsest_first = 1 + max(scale for scale, _, _ in placed)
    options = MultiscalePatchOptions(
        filters=len(placed[0, 0, "0.weight"]),
        layers=max(layer for _, layer, _ in placed) - 1,
        scales=coarsest_first,
        norm=_norm(theirs),
    )
    return options, {
        f"scales.{coarsest_first - 1 - scale}.{layer}.{rest}": weight
        for (scale, layer, rest), weight in placed.items()
    }


def _read(path: Path) -> dict[str, Tensor]:
    state = read_weights(path)
    if _norm(state) == "batch":
        return state
    # Files from before PyTorch 0.4 carry statistics that instance normalisation never used.
    learned = (".weight", ".bias")
    return {name: weight for name, weight in state.items() if name.endswith(learned)}


def _all_match(state: Mapping[str, Tensor], pattern: str) -> bool:
    return bool(state) and all(re.fullmatch(pattern, name) for name in state)


def _norm(state: Mapping[str, Tensor]) -> Norm:
    learned = any(name.endswith(".weight") and w.ndim == 1 for name, w in state.items())
    return "batch" if learned else "instance"


def _architecture(state: Mapping[str, Tensor]) -> Pix2PixHDOptions:
    def count(pattern: str) -> int:
        """Distinct values of the pattern's group among the names of convolutions."""
        found = (re.match(pattern, name) for name, w in state.items() if w.ndim == 4)
        return len({match[1] for match in found if match})

    levels = count(r"model(\d+)_1\.")
    # stem, one each way per downsampling, and a head unless the enhancers took it
    plain = count(r"model\.(\d+)\.weight")
    return Pix2PixHDOptions(
        filters=len(state["model.1.weight"]) // 2**levels,
        downsamplings=(plain - (1 if levels else 2)) // 2,
        blocks=count(r"model\.(\d+)\.conv_block\."),
        local_enhancers=levels,
        local_blocks=count(r"model1_2\.(\d+)\.conv_block\."),
        norm=_norm(state),
        background=False,
    )


def _generator_name(name: str, options: Pix2PixHDOptions) -> str:
    """`model.4.weight` -> `body.down.0.0.weight`, and so on."""
    part, index, rest = name.split(".", 2)
    at, rest = int(index), rest.replace("conv_block.", "body.")
    if part == "model":
        inside = "coarse." if options.local_enhancers else ""
        return f"body.{inside}{_global_place(at, options)}.{rest}"
    level, way = re.fullmatch(r"model(\d+)_([12])", part).groups()  # pyright: ignore
    if way == "1":
        return f"body.encoders.{int(level) - 1}.{at}.{rest}"
    if at < options.local_blocks + 3:
        return f"body.decoders.{int(level) - 1}.{at}.{rest}"
    return f"body.head.{at - options.local_blocks - 3}.{rest}"


def _global_place(at: int, options: Pix2PixHDOptions) -> str:
    """Where module `at` of the global generator's sequence is in ours."""
    parts = [("stem", 4, 1)]  # pad, convolution, norm, ReLU
    parts += [(f"down.{n}", 3, 1) for n in range(options.downsamplings)]
    parts += [(f"blocks.{n}", 1, 0) for n in range(options.blocks)]
    parts += [(f"up.{n}", 3, 1) for n in range(options.downsamplings)]
    for name, length, numbered in [*parts, ("head", 3, 1)]:
        if at < length:
            return f"{name}.{at}" if numbered else name
        at -= length
    raise AssertionError("the architecture was counted from the same names")


def _discriminator_place(name: str) -> tuple[int, int, str]:
    """Scale (0 the coarsest), layer, and the name within the layer."""
    if match := re.fullmatch(r"scale(\d+)_layer(\d+)\.(.+)", name):
        return int(match[1]), int(match[2]), match[3]
    scale, at, rest = re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", name).groups()  # pyright: ignore
    # One sequence: convolution and ReLU, then convolution, norm and ReLU per layer.
    layer, within = divmod(int(at) + 1, 3) if int(at) >= 2 else (0, int(at))
    return int(scale), layer, f"{within}.{rest}"
