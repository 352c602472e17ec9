"""Whether what a file holds is what was written into it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def checksum(state: object) -> str:
    """SHA-256 of nested dicts, lists, numbers, strings and tensors: 64 hexadecimal digits."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                digest.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(value, (list, tuple)):
            digest.update(f"[{len(value)}]".encode())
            for inner in value:
                add(inner)
        else:
            digest.update(f"{value!r};".encode())

    add(state)
    return digest.hexdigest()
