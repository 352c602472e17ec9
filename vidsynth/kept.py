"""What is kept of work under way: frames of a rendering, so that one that broke off goes on behind
the last chunk.

A folder of the cache, named after everything that the frames follow from. Frames are kept as the
generator made them, losslessly, with what it remembers of them (`Generator.memory`).
"""

from __future__ import annotations

import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidsynth import locks
from vidsynth.errors import CannotWrite, InUse
from vidsynth.files import cache_folder, cache_key, writing

# T frames, C channels, H, W pixels

MEMORY = "memory.safetensors"
WORTH = 0.1
"""Of the time it takes to make frames: keeping them may take no more."""
DAYS = 14
"""After which work that nobody went on with is forgotten."""


class KeptFrames:
    """The chunks of one rendering that are made already, and those that are being made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks, self.memory = _found(folder)
        self._keeping = True
        self._spent = self._made = 0.0

    @property
    def num_frames(self) -> int:
        return sum(_shape(path)[0] for path in self._chunks)

    def clips(self) -> Iterator[Tensor]:
        """(T, C, H, W) uint8 of each chunk that is there, in order."""
        for path in self._chunks:
            yield _read(path)

    def add(self, frames: Tensor, memory: Mapping[str, Tensor] | None, *, seconds: float) -> None:
        """Keep the next chunk, (T, C, H, W) uint8 on the CPU.

        Args:
            frames: the chunk.
            memory: what the generator needs to go on behind it; None when it cannot.
            seconds: that making the chunk took. Where keeping takes more than the share WORTH of
                that, or the disk is full, what is kept goes, and no more is kept.
        """
        if not self._keeping:
            return
        began = time.perf_counter()
        try:
            if memory is None:
                return self._give_up()
            path = self.folder / f"{len(self._chunks):06}-{'x'.join(map(str, frames.shape))}.z"
            with writing(path) as temporary:
                temporary.write_bytes(zlib.compress(frames.contiguous().numpy().data, 1))
            self._chunks.append(path)
            tensors = {name: value.detach().cpu().contiguous() for name, value in memory.items()}
            with writing(self.folder / MEMORY) as temporary:
                save_file(tensors, temporary, {"chunks": str(len(self._chunks))})
        except CannotWrite:
            return self._give_up()
        self._spent += time.perf_counter() - began
        self._made += seconds
        if len(self._chunks) >= 4 and self._spent > WORTH * self._made:
            self._give_up()

    def _give_up(self) -> None:
        self._keeping = False
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def unfinished(what: str, *follow_from: Any) -> Iterator[Path | None]:
    """A folder for what is kept of some work until it is done, and goes when the block ends
    without an error.

    Args:
        what: the sort of work: a folder of the cache.
        follow_from: JSON-able: whatever the work follows from.

    Yields:
        The folder; None when another process is at the same work: that one keeps things.
    """
    for old in cache_folder(what).iterdir():
        if time.time() - old.stat().st_mtime > DAYS * 86_400:
            shutil.rmtree(old, ignore_errors=True)
    folder = cache_folder(what, cache_key(*follow_from))
    try:
        with locks.alone(folder, f"the {what}"):
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
    except InUse as error:
        if str(folder) not in str(error):
            raise
        yield None


def forget(what: str, *follow_from: Any) -> None:
    """Clear away what a process that was killed at the very end left of work that is done."""
    if (cache_folder(what) / cache_key(*follow_from)).exists():
        with unfinished(what, *follow_from):
            pass


@contextmanager
def kept_frames(*follow_from: Any) -> Iterator[KeptFrames | None]:
    """What is kept of the rendering that follows from these JSON-able values, as `unfinished`."""
    with unfinished("rendering", *follow_from) as folder:
        yield None if folder is None else KeptFrames(folder)


def _found(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """The whole chunks of a folder, and the memory behind the last; none where it is damaged."""
    try:
        with safe_open(folder / MEMORY, "pt") as file:
            count = int(file.metadata()["chunks"])
            memory = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        chunks = sorted(folder.glob("[0-9]*.z"))[:count]
        for path in chunks:
            _read(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, zlib.error):
        return [], {}
    return (chunks, memory) if len(chunks) == count else ([], {})


def _shape(path: Path) -> tuple[int, ...]:
    found = re.fullmatch(r"\d{6}-(\d+)x(\d+)x(\d+)x(\d+)", path.stem)
    if not found:
        raise ValueError(path.name)
    return tuple(map(int, found.groups()))


def _read(path: Path) -> Tensor:
    data = np.frombuffer(bytearray(zlib.decompress(path.read_bytes())), np.uint8)
    return torch.from_numpy(data).view(_shape(path))
