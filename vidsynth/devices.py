"""Which device a job runs on, and in which precision: decided once, said aloud, never silent."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from vidsynth.errors import DeviceUnavailable

Precision = Literal["auto", "fp32", "bf16"]


def choose(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, else MPS, else the CPU.

    Raises DeviceUnavailable when it is asked for by name and is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(
            f"no device is called {name!r}; use auto, cpu, cuda, cuda:1 or mps"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "CUDA was asked for, but PyTorch sees no CUDA device here; use --device cpu, or "
            "install a CUDA build of torch and a driver (`vidsynth doctor` shows what is there)"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"{name} was asked for, but there are only {torch.cuda.device_count()} CUDA devices; "
            "use a lower number"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("MPS was asked for, but is not on this machine; use --device cpu")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is a gain there: native on the GPU, AVX512-BF16 or AMX on the CPU."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """The precision to compute in. "auto" is bfloat16 where it is a gain and float32 elsewhere.

    float16 is no choice: on a CPU it is two orders of magnitude slower than float32.
    """
    enabled = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a job may still take on the device; None where that cannot be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        # What Linux would give: its caches of files make way.
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        return int(found[1]) * 1024 if found else None
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def prefetch_beside(device: torch.device) -> int:
    """How many chunks the stages beside a generator on `device` may run ahead.

    On two CPU cores a generator's threads take both, and every chunk that is encoded meanwhile
    makes the whole team wait: there the stages take turns, which is faster.
    """
    return 0 if device.type == "cpu" and (os.cpu_count() or 1) <= 2 else 2
