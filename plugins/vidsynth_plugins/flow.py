"""Optical flow between frames, by whichever estimator there is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import devices
from vidsynth.steady import dis_flow
from vidsynth.weights import available
from vidsynth_plugins.metrics.common import fill, in_range, published
from vidsynth_plugins.raft import RAFT, UPDATES

# H, W pixels

FlowChoice = Literal["auto", "dis", "raft"]


class FlowEstimator(Protocol):
    """Tells how pixels moved."""

    name: str
    """What protocols call it."""

    def flow_between(self, first: Tensor, second: Tensor) -> np.ndarray:
        """(H, W, 2) pixels, x then y: how far each pixel of `first` has gone in `second`, both
        (3, H, W) uint8."""
        ...


class DISFlow:
    """Dense inverse search (Kroeger et al. 2016) of OpenCV, preset medium, on grey pictures."""

    name = "DIS medium on grey"

    def flow_between(self, first: Tensor, second: Tensor) -> np.ndarray:
        """As in `FlowEstimator`."""
        medium = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
        return dis_flow(picture(first), picture(second), medium)


class RAFTFlow:
    """RAFT (Teed and Deng 2020) with published weights.

    Args:
        device: where it runs: auto, cpu, cuda...
        weights: path of the weights; by default in the weights folder.

    Raises MissingWeights when they are not here and cannot be had, or are others.
    """

    def __init__(self, *, device: str = "auto", weights: str = "") -> None:
        self._device = devices.choose(device)
        state, digest = published("raft_large", weights)
        network = RAFT()
        fill(network, state, "RAFT")
        self._network = network.to(self._device)
        self.name = f"RAFT large, {UPDATES} updates, weights {digest}"

    @torch.inference_mode()
    def flow_between(self, first: Tensor, second: Tensor) -> np.ndarray:
        """As in `FlowEstimator`."""
        ours, theirs = (in_range(f[None], self._device) for f in (first, second))
        return self._network(ours, theirs)[0].permute(1, 2, 0).cpu().numpy()


class Remembering:
    """An estimator that looks at no pair of frames twice: training meets them again and again.

    Args:
        estimator: asked the first time.
        megabytes: kept at most; what was not asked for longest is forgotten first.
    """

    def __init__(self, estimator: FlowEstimator, *, megabytes: int = 512) -> None:
        self._estimator = estimator
        self._left = megabytes << 20
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self.name = estimator.name

    def flow_between(self, first: Tensor, second: Tensor) -> np.ndarray:
        """As in `FlowEstimator`, to the precision of float16."""
        pair = torch.stack([first, second]).cpu().contiguous()
        key = hashlib.blake2b(pair.numpy().data, digest_size=16).digest()
        if key in self._known:
            self._known.move_to_end(key)
        else:
            self._known[key] = self._estimator.flow_between(first, second).astype(np.float16)
            self._left -= self._known[key].nbytes
            while self._left < 0:
                self._left += self._known.popitem(last=False)[1].nbytes
        return self._known[key].astype(np.float32)


def flow_estimator(
    choice: FlowChoice = "auto", *, device: str = "auto", weights: str = ""
) -> FlowEstimator:
    """The estimator of that name; auto takes RAFT where its weights are here already, else DIS.

    Args:
        choice: which.
        device: where RAFT runs.
        weights: path of RAFT's weights, by default in the weights folder.

    Raises:
        MissingWeights: RAFT's are not here and cannot be had.
    """
    at_hand = bool(weights) or available("raft_large")
    if choice == "raft" or (choice == "auto" and at_hand):
        return RAFTFlow(device=device, weights=weights)
    return DISFlow()


def picture(frame: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 for OpenCV, of a (3, H, W) frame."""
    return np.ascontiguousarray(frame.cpu().numpy().transpose(1, 2, 0))
