"""What metrics share: reading films side by side, means over frames, and published weights."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.errors import MissingWeights, NoSubjectFound, NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth.weights import locate, read

# T frames, H, W pixels

BLOCK = 16
"""Frames looked at together."""
_FEW = 0.2  # share of the frames below which a mean is told to rest on few


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Nothing can be chosen, so that numbers stay comparable."""


def blocks(film: Film, size: int = BLOCK) -> Iterator[Tensor]:
    """The film's frames (size, 3, H, W) uint8, whatever its clips are; the last may be shorter."""
    held: list[Tensor] = []
    for clip in film.read():
        held.append(clip.frames)
        while sum(map(len, held)) >= size:
            together = torch.cat(held)
            yield together[:size]
            held = [together[size:]]
    rest = torch.cat(held) if held else torch.empty(0)
    if len(rest):
        yield rest


def pairs(made: Film, real: Film, size: int = BLOCK) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of two films of the same moments, side by side.

    Raises NotMeasurable when their lengths or sizes differ.
    """
    shapes = [(len(f), f.spec.height, f.spec.width) for f in (made, real)]
    if shapes[0] != shapes[1]:
        words = [f"{n} frames of {w}x{h}" for n, h, w in shapes]
        raise NotMeasurable(
            f"{made.name} has {words[0]} and {real.name} has {words[1]}; compare films of one "
            "length and size"
        )
    yield from zip(blocks(made, size), blocks(real, size), strict=True)


def given(real: Film | None) -> Film:
    """The film held against, which the caller has to give."""
    if real is None:
        raise ValueError("this metric compares; it needs a real film")
    return real


def tracked(film: Film, extractor: str) -> Conditioning | None:
    """What the extractor sees in the film; None when there is no subject at all."""
    try:
        return film.track(extractor)
    except NoSubjectFound:
        return None


class FrameMetric(Metric):
    """The mean of one number per frame."""

    Options = NoOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._found: list[Tensor] = []

    @abstractmethod
    def measure(self, made: Film, real: Film | None) -> Tensor:
        """(T,) one number per frame of `made`, NaN where there is none."""

    @abstractmethod
    def protocol(self) -> str:
        """As in `Measurement`."""

    def nothing(self) -> str:
        """What to say when no frame could be measured."""
        return "there was no frame to measure; give a video that has some"

    def caveat(self, value: float) -> str:
        """As in `Measurement`."""
        return ""

    def update(self, made: Film, real: Film | None) -> None:
        self._found.append(self.measure(made, real).double().cpu())

    def compute(self) -> Measurement:
        per_frame = torch.cat(self._found) if self._found else torch.empty(0, dtype=torch.float64)
        known = per_frame[~per_frame.isnan()]
        if not len(known):
            raise NotMeasurable(self.nothing())
        value, doubts = float(known.mean()), []
        if len(known) < _FEW * len(per_frame):
            doubts.append(f"rests on {len(known)} of {len(per_frame)} frames only")
        doubts.append(self.caveat(value))
        return Measurement(
            value=value,
            count=len(known),
            protocol=self.protocol(),
            per_frame=per_frame,
            caveat="; ".join(filter(None, doubts)),
        )


def nowhere(film: Film) -> Tensor:
    """(T,) NaN: nothing was measured in this film."""
    return torch.full((len(film),), torch.nan, dtype=torch.float64)


def published(name: str, own: str = "") -> tuple[dict[str, Tensor], str]:
    """A state dict of `vidsynth.weights`, or the user's `own` file, and its fingerprint.

    Raises MissingWeights when it is not here, BadWeights when it is no state dict.
    """
    path = weights_file(name, own)
    return read(path), fingerprint(path)


def weights_file(name: str, own: str = "") -> Path:
    """Where published weights lie, or the user's own file. Raises MissingWeights."""
    return locate(name, path=Path(own).expanduser() if own else None)


def fingerprint(path: Path) -> str:
    """The first eight digits of a file's SHA-256, for protocols."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def fill(network: torch.nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load weights that may carry more than the network needs, and freeze it.

    Raises MissingWeights when some are lacking or of another shape.
    """
    own = network.state_dict()
    lacking = [
        name
        for name, tensor in own.items()
        if not name.endswith("num_batches_tracked")
        and (name not in state or state[name].shape != tensor.shape)
    ]
    if lacking:
        raise MissingWeights(
            f"the weights of {what} lack {lacking[0]!r} of shape {tuple(own[lacking[0]].shape)}; "
            "give the published file"
        )
    network.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})
    network.eval().requires_grad_(False)


def in_range(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 frames as float32 in [-1, 1] on a device."""
    return Clip(frames, torch.arange(len(frames), dtype=torch.float64)).to(device).as_float()
