"""FVD: how windows of made and of real videos are distributed, as an action recogniser sees them.

Unterthiner et al. 2018, "Towards Accurate Generative Models of Video: A New Metric & Challenges".
It hardly notices damaged motion: read it beside flow-warp error and pose distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vidsynth import devices
from vidsynth.distances import frechet_distance
from vidsynth.errors import NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth_plugins.metrics.common import blocks, given, published
from vidsynth_plugins.metrics.i3d import CLASSES, FEWEST_FRAMES, I3D, for_i3d

# T frames, N windows, W frames of a window

_FEWEST_WINDOWS = 16
_USUAL_WINDOWS = 2048


@dataclass(frozen=True, kw_only=True)
class FVDOptions:
    """How videos are cut into windows.

    Attributes:
        device: where the network runs: auto, cpu, cuda...
        weights: path of the weights; by default in the weights folder.
        window: frames of a window, at least 10.
        stride: frames from the start of one window to that of the next.
        batch: windows computed together; changes memory and speed only.
    """

    device: str = "auto"
    weights: str = ""
    window: int = 16
    stride: int = 8
    batch: int = 4

    def __post_init__(self) -> None:
        if self.window < FEWEST_FRAMES or min(self.stride, self.batch) < 1:
            raise ValueError(
                f"window must be at least {FEWEST_FRAMES}, stride and batch at least 1"
            )


def windows(film: Film, length: int, stride: int) -> Iterator[Tensor]:
    """Whole windows of a film: (length, 3, H, W) uint8 each."""
    held, skip = torch.empty(0), 0
    for frames in blocks(film):
        held = torch.cat([held, frames]) if len(held) else frames
        while len(held) >= skip + length:
            yield held[skip : skip + length]
            skip += stride
        dropped = min(skip, len(held))
        held, skip = held[dropped:], skip - dropped


class FVD(Metric):
    """Frechet distance between I3D logits of windows; refused for fewer than 16 of them."""

    Options = FVDOptions
    options: FVDOptions
    paper = (
        "Unterthiner et al. 2018, 'Towards Accurate Generative Models of Video: A New Metric & "
        "Challenges'"
    )
    weights_licence = "Apache-2.0"
    unit = ""
    higher_is_better = False
    against = "looks"

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._network: I3D | None = None
        self._hash = ""
        self._made = [torch.empty(0, CLASSES)]
        self._real = [torch.empty(0, CLASSES)]

    def update(self, made: Film, real: Film | None) -> None:
        self._made.append(self._logits(made))
        self._real.append(self._logits(given(real)))

    @torch.inference_mode()
    def _logits(self, film: Film) -> Tensor:
        """(N, 400) on the CPU."""
        device = devices.choose(self.options.device)
        if self._network is None:
            state, self._hash = published("i3d", self.options.weights)
            self._network = I3D.from_published(state).to(device)
        found, waiting = [torch.empty(0, CLASSES)], list[Tensor]()
        for window in windows(film, self.options.window, self.options.stride):
            waiting.append(window)
            if len(waiting) == self.options.batch:
                found.append(self._network(for_i3d(torch.stack(waiting).to(device))).cpu())
                waiting.clear()
        if waiting:
            found.append(self._network(for_i3d(torch.stack(waiting).to(device))).cpu())
        return torch.cat(found)

    def compute(self) -> Measurement:
        ours, theirs = torch.cat(self._made), torch.cat(self._real)
        fewest = min(len(ours), len(theirs))
        if fewest < _FEWEST_WINDOWS:
            raise NotMeasurable(
                f"FVD of {fewest} windows of {self.options.window} frames would mean nothing; give "
                f"longer videos, or more of them: at least {_FEWEST_WINDOWS} windows"
            )
        return Measurement(
            value=frechet_distance(ours, theirs),
            count=fewest,
            protocol=f"fvd 1: I3D Kinetics-400 logits, N {len(ours)} and {len(theirs)} windows of "
            f"{self.options.window} frames, stride {self.options.stride}, 224x224 bilinear, "
            f"weights {self._hash}",
            caveat=_doubt(fewest),
        )


def _doubt(samples: int) -> str:
    if samples >= _USUAL_WINDOWS:
        return ""
    rank = f" and fewer than its {CLASSES} dimensions, so that N rules the value"
    return (
        f"NOT COMPARABLE with published FVD: only {samples} windows where {_USUAL_WINDOWS} are "
        f"usual{rank if samples <= CLASSES else ''}; compare with the floor at equal N only"
    )
