"""Steadier or livelier: one knob for whatever generator, frame-wise ones included.

What is made is blended with the frame before, carried along by optical flow, wherever the two
agree but for a tremble. Where they do not, something really changed, and the new frame stays as it
is. Beyond the middle of its range the knob smooths motion too before it is drawn, which lags.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# H, W pixels

STEADINESS = 0.5
"""Unless the user says otherwise, in [0, 1]: 0 leaves frames as the generator makes them."""
MOST_KEPT = 0.9
"""Share of the frame before at steadiness 1, where both agree."""
TREMBLE_LEVELS = 8.0
"""Differences well below this, of 255, are a tremble, those well above a change."""
REST_SECONDS = 0.1
"""Time constant, at steadiness 1, by which motion at rest is smoothed; 0 up to the middle."""


def rest_seconds(steadiness: float) -> float:
    """By how much to smooth motion, for `Conditioning.steadied`."""
    return REST_SECONDS * max(0.0, 2 * steadiness - 1)


def steadier(before: Tensor, now: Tensor, steadiness: float) -> Tensor:
    """A frame with the tremble against the one before taken out of it.

    Args:
        before: (3, H, W) uint8, made steadier itself.
        now: (3, H, W) uint8, the next frame.
        steadiness: in [0, 1].

    Returns:
        (3, H, W) uint8.
    """
    old, new = (np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in (before, now))
    flow = dis_flow(new, old, cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow[_apart(old, new) == 0] = 0  # what stands still must not be resampled
    carried = sampled(old, flow)
    kept = cv2.LUT(_apart(carried, new), (MOST_KEPT * steadiness * _ALIKE).astype(np.float32))
    steady = cv2.blendLinear(carried, new, kept, 1 - kept)
    return torch.from_numpy(steady).permute(2, 0, 1)


_ALIKE = np.exp(-(np.arange(256) ** 2) / (2 * TREMBLE_LEVELS**2))


def _apart(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W): levels by which two pictures differ about each pixel."""
    apart = cv2.blur(cv2.cvtColor(cv2.absdiff(first, second), cv2.COLOR_RGB2GRAY), (5, 5))
    return apart  # pyright: ignore[reportReturnType]


def dis_flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], preset: int
) -> NDArray[np.float32]:
    """How far each pixel of `first` has gone in `second`, both (H, W, 3) RGB: (H, W, 2) pixels, x
    then y.

    By dense inverse search (Kroeger et al. 2016) on grey pictures; `preset` is one of OpenCV's.
    """
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    search = cv2.DISOpticalFlow.create(preset)
    return search.calc(*greys, None)  # pyright: ignore[reportCallIssue, reportArgumentType]


def sampled(values: np.ndarray, flow: NDArray[np.float32]) -> np.ndarray:
    """`values` (H, W, C) looked up at each pixel's own place plus `flow`, bilinear; borders
    repeated."""
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
