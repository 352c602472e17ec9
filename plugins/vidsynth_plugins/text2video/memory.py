"""Whether a pipeline fits into the memory that is there, and how: told before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from vidsynth import devices
from vidsynth.errors import DeviceUnavailable

Offload = Literal["auto", "none", "model", "sequential"]
Placing = Literal["none", "model", "sequential"]

GB = 10**9
SPARE = 1.25
"""What works with the weights takes at least a quarter of them; no more is promised, since what
attention and decoding take depends on the film."""
LAYER = 0.05
"""Where layers come one by one, about this share of the largest part is there at a time."""


def place(
    sizes: Mapping[str, int],
    device: torch.device,
    wanted: Offload = "auto",
    *,
    free: int | None = None,
    host: int | None = None,
) -> Placing:
    """Where the parts of a pipeline shall be while they do not work.

    Args:
        sizes: bytes of each part's weights, in the precision that they are to be used in.
        device: where they work.
        wanted: "none" keeps all of them on the device, "model" brings each part when its turn
            comes, "sequential" each layer; "auto" takes the first of these that fits.
        free, host: bytes of free memory of the device and of the machine, asked for otherwise.

    Raises:
        DeviceUnavailable: they fit in no way, or not in the one that is wanted; says what they
            take, what there is and what to do.
    """
    whole, largest = sum(sizes.values()), max(sizes.values(), default=0)
    host = devices.free_memory(torch.device("cpu")) if host is None else host
    if device.type != "cuda":
        need = round(whole * SPARE)
        if host is not None and need > host:
            raise _too_large(sizes, need, host, "this machine has free")
        return "none"
    free = devices.free_memory(device) if free is None else free
    needs: dict[Placing, int] = {
        "none": round(whole * SPARE),
        "model": round(largest * SPARE),
        "sequential": round(largest * LAYER),
    }
    if host is not None and wanted != "none" and whole > host and needs["none"] > (free or 0):
        raise _too_large(sizes, whole, host, "this machine has free, where parts wait their turn")
    if wanted != "auto":
        if free is not None and needs[wanted] > free:
            raise _too_large(sizes, needs[wanted], free, f"{device} has free")
        return wanted
    for placing, need in needs.items():
        if free is None or need <= free:
            return placing
    raise _too_large(sizes, needs["sequential"], free or 0, f"{device} has free")


def _too_large(sizes: Mapping[str, int], need: int, free: int, where: str) -> DeviceUnavailable:
    parts = sorted(sizes.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {size / GB:.2g} GB" for name, size in parts[:3])
    return DeviceUnavailable(
        f"the model needs at least {need / GB:.3g} GB ({listed}), and {free / GB:.3g} GB are what "
        f"{where}; choose a smaller model, generator.precision=bf16, or generator.offload=auto"
    )
