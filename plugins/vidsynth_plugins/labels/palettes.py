"""What the colours of label pictures mean: one row of RGB per class, in the order of their ids."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidsynth.errors import BadOption

Palette = NDArray[np.uint8]
"""(classes, 3) RGB. Classes may share a colour, which then means the first of them."""

# Of the data set's own list: its ids 0 to 33, hexadecimal.
_CITYSCAPES = """
    000000 000000 000000 000000 000000 6f4a00 510051 804080 f423e8 faaaa0 e6968c 464646 66669c
    be9999 b4a5b4 966464 96785a 999999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000
    00008e 000046 003c64 00005a 00006e 005064 0000e6 770b20
"""
NAMED = ("cityscapes", "voc")


def load_palette(name_or_path: str) -> Palette:
    """A palette by name ("cityscapes"; "voc", which many other data sets share), or from a file.

    A file has one line per class, in the order of their ids: red, green and blue in 0-255, then
    anything; lines that begin with # are passed over.

    Raises BadOption when there is none such, or it cannot be read.
    """
    if name_or_path == "cityscapes":
        return np.array([list(bytes.fromhex(c)) for c in _CITYSCAPES.split()], np.uint8)
    if name_or_path == "voc":
        return _voc()
    path = Path(name_or_path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(
            f"extractor.palette = {name_or_path!r} is neither {' nor '.join(NAMED)} nor a text "
            "file that can be read; write one line per class: red, green, blue"
        ) from error
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    return np.array([_colour(line, path) for line in lines], np.uint8).reshape(-1, 3)


def _colour(line: str, path: Path) -> list[int]:
    match = re.match(r"\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\b", line)
    if not match or max(map(int, match.groups())) > 255:
        raise BadOption(
            f"{path}: {line.strip()!r} is no colour; write red, green and blue in 0-255 first"
        )
    return [int(part) for part in match.groups()]


def _voc() -> Palette:
    """The colours of PASCAL VOC: bits 0, 3, 6... of the id become the high bits of red, and so on
    for green and blue."""
    ids = np.arange(255)
    channels = [
        sum(((ids >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(3)) for c in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.uint8)


def code(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(..., 3) colours as single numbers, red in the lowest byte, as panoptic data sets have it."""
    wide = rgb.astype(np.int32)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
