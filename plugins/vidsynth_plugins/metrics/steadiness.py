"""Whether a film is steady: flow-warp error, flicker of what stands still, drift of colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth.kinds import Film
from vidsynth.steady import sampled
from vidsynth_plugins.flow import FlowChoice, FlowEstimator, flow_estimator, picture
from vidsynth_plugins.metrics.common import FrameMetric, blocks, given, nowhere, pairs

# T frames, H, W pixels

_STILL = 3.0  # levels of 255 by which noise moves a small patch of a still background
_QUARTERS = 4


def trusted(backward: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels that were visible before, by flows to and from the frame before.

    Forward-backward consistency and motion boundaries after Ruder et al. 2016, "Artistic Style
    Transfer for Videos"; what comes from outside the picture is not trusted either.
    """
    height, width = backward.shape[:2]
    back_again = sampled(forward, backward)
    apart = ((backward + back_again) ** 2).sum(axis=2)
    lengths = (backward**2).sum(axis=2) + (back_again**2).sum(axis=2)
    consistent = apart <= 0.01 * lengths + 0.5
    slopes = sum((g**2).sum(axis=2) for g in np.gradient(backward, axis=(0, 1)))
    smooth = slopes <= 0.01 * (backward**2).sum(axis=2) + 0.002
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + backward[..., 0], rows + backward[..., 1]
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    return consistent & smooth & inside


def warp_error(before: Tensor, now: Tensor, flow: FlowEstimator) -> float:
    """Mean squared RGB distance, colours in [0, 1], between a frame and the one before warped to
    it, where that was visible; NaN when that is less than a tenth of the picture.

    Args:
        before: (3, H, W) uint8.
        now: (3, H, W) uint8, the next frame.
        flow: tells how one moved to the other.
    """
    backward = flow.flow_between(now, before)
    mask = trusted(backward, flow.flow_between(before, now))
    if mask.mean() < 0.1:
        return float("nan")
    first, second = (picture(f).astype(np.float32) / 255 for f in (before, now))
    squares = ((second - sampled(first, backward)) ** 2).sum(axis=2)
    return float(squares[mask].mean())


@dataclass(frozen=True, kw_only=True)
class FlowWarpOptions:
    """How motion is found.

    Attributes:
        flow: dis (OpenCV, quick), raft (needs weights, slow without a GPU), or auto: raft
            where its weights are on this machine already, else dis.
        device: where RAFT runs: auto, cpu, cuda...
        weights: path of RAFT's weights; by default in the weights folder.
    """

    flow: FlowChoice = "auto"
    device: str = "auto"
    weights: str = ""


class FlowWarp(FrameMetric):
    """Flow-warp error of the made film, in thousandths; what moves smoothly costs nothing.

    Lai et al. 2018, "Learning Blind Video Temporal Consistency", with the flow of the made film
    itself. Blur lowers it: read it beside sharpness, and against the real film's own value.
    """

    Options = FlowWarpOptions
    options: FlowWarpOptions
    paper = "Lai et al. 2018, 'Learning Blind Video Temporal Consistency'"
    weights_licence = "none needed; RAFT (BSD-3-Clause) for the flow when present"
    checked: ClassVar = {"options": {"flow": "dis"}}
    unit = "e-3"
    higher_is_better = False
    against = "nothing"

    @cached_property
    def _flow(self) -> FlowEstimator:
        chosen = self.options
        return flow_estimator(chosen.flow, device=chosen.device, weights=chosen.weights)

    def measure(self, made: Film, real: Film | None) -> Tensor:
        found, before = [], None
        for frames in blocks(made):
            for now in frames:
                error = torch.nan if before is None else warp_error(before, now, self._flow)
                found.append(1000 * error)
                before = now
        return torch.tensor(found, dtype=torch.float64)

    def nothing(self) -> str:
        return "no two neighbouring frames could be compared; give a video of two frames or more"

    def protocol(self) -> str:
        return (
            f"flow_warp 1: {self._flow.name}, previous frame warped, mask of Ruder et al. 2016, "
            "squared RGB distance in [0, 1]"
        )


class Flicker(FrameMetric):
    """How much the made film trembles where the real one stands still.

    Half the mean absolute second difference over time, |x(t-1) - 2 x(t) + x(t+1)| / 2, in pixels
    whose surroundings (5x5) stay within 3 levels over three frames of the real film: a steady
    change has none, a frame that stands out by d has d.
    """

    unit = "levels of 255"
    higher_is_better = False

    def measure(self, made: Film, real: Film | None) -> Tensor:
        result = nowhere(made)
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        time = 0
        for made_block, real_block in pairs(made, given(real)):
            for ours_now, theirs_now in zip(made_block.cpu(), real_block.cpu(), strict=True):
                ours = [*ours[-2:], ours_now.double()]
                theirs = [*theirs[-2:], _local_mean(theirs_now)]
                if len(ours) == 3:
                    result[time - 1] = flicker(torch.stack(ours), torch.stack(theirs))
                time += 1
        return result

    def nothing(self) -> str:
        return "no part of the real video stands still for three frames, so flicker has no place"

    def protocol(self) -> str:
        return f"flicker 1: half second differences where 5x5 means stay within {_STILL:g} levels"


def _local_mean(frame: Tensor) -> Tensor:
    """(3, H, W) float64, means over 5x5 pixels."""
    means = cv2.blur(picture(frame).astype(np.float64), (5, 5))
    return torch.from_numpy(means).permute(2, 0, 1)


def flicker(made: Tensor, real_means: Tensor) -> float:
    """Levels, of three frames (3, 3, H, W) in [0, 255] and the real ones' local means."""
    still = (real_means.amax(dim=0) - real_means.amin(dim=0)).amax(dim=0) <= _STILL
    if not still.any():
        return float("nan")
    second = (made[0] - 2 * made[1] + made[2]).abs().mean(dim=0) / 2
    return float(second[still].mean())


class ColourDrift(FrameMetric):
    """How far the colours of the last quarter have moved from those of the first.

    Distance in CIELAB (Delta E of 1976) between each late frame's mean colour and the mean of the
    early frames. Motion changes mean colours too: compare with the real film's own value.
    """

    unit = "Delta E"
    higher_is_better = False
    against = "nothing"

    def measure(self, made: Film, real: Film | None) -> Tensor:
        colours = [mean_colour(frame) for frames in blocks(made) for frame in frames.cpu()]
        result, quarter = nowhere(made), len(colours) // _QUARTERS
        if quarter:
            lab = torch.stack(colours)
            result[-quarter:] = (lab[-quarter:] - lab[:quarter].mean(dim=0)).norm(dim=1)
        return result

    def nothing(self) -> str:
        return "the video has fewer than four frames; give a longer one"

    def protocol(self) -> str:
        return "colour_drift 1: mean CIELAB of whole frames, last quarter against first"


def mean_colour(frame: Tensor) -> Tensor:
    """(3,) float64: mean L, a, b of a (3, H, W) uint8 sRGB picture."""
    lab = cv2.cvtColor(picture(frame).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return torch.from_numpy(lab.reshape(-1, 3).mean(axis=0, dtype=np.float64))
