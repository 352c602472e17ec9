"""A film in portions of frames that memory holds: smaller ones where a device runs out of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vidsynth.clip import Clip
from vidsynth.stream import Chunk


class Portions:
    """Chunks on their way through a generator: handed out whole, or in smaller portions."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._most: int | None = None
        self._whole: list[Chunk] = []
        """Taken and not given back; the last ones are not handed out yet, or not all of each."""
        self._waiting: list[Chunk] = []
        self._asked: list[Chunk] = []
        self._made: list[Clip] = []
        self.ended_early = False
        """What gives the chunks broke off itself, for want of memory."""

    def hand_out(self) -> Iterator[Chunk]:
        """What a generator takes: all that is not made yet."""
        while True:
            if not self._waiting:
                try:
                    chunk = next(self._chunks, None)
                except torch.OutOfMemoryError:
                    self.ended_early = True
                    raise
                if chunk is None:
                    return
                self._whole.append(chunk)
                self._waiting = self._split(chunk)
            self._asked.append(self._waiting.pop(0))
            yield self._asked[-1]

    @property
    def due(self) -> Chunk | None:
        """The portion that is to be made next, where one is handed out."""
        return self._asked[0] if self._asked else None

    def starts(self) -> list[float]:
        """Seconds at which portions with frames begin that are handed out and not made."""
        return [float(portion.pts[0]) for portion in self._asked if len(portion)]

    def take(self, clip: Clip) -> Chunk | None:
        """The frames of the portion that is due; the whole chunk where they are its last."""
        self._asked.pop(0)
        self._made.append(clip)
        if sum(map(len, self._made)) < len(self._whole[0]):
            return None
        made, self._made = Clip.concat(self._made), []
        return self._whole.pop(0).with_clip(made)

    def lessen(self) -> int | None:
        """Begin again with what is not made, in portions half as large: how many frames they have
        at most. None, and nothing changes, where portions are of one frame already."""
        longest = max((len(portion) for portion in self._asked), default=0)
        if longest < 2:
            return None
        self._most = longest // 2
        again = [*self._asked, *self._waiting]
        self._asked, self._waiting = [], [part for chunk in again for part in self._split(chunk)]
        return self._most

    def _split(self, chunk: Chunk) -> list[Chunk]:
        most = self._most
        if most is None or len(chunk) <= most:
            return [chunk]
        return [chunk.part(start, start + most) for start in range(0, len(chunk), most)]


def forget_cached(device: torch.device) -> None:
    """Give memory back that PyTorch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
