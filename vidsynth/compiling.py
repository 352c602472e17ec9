"""Long runs pay for a compiler; short ones never wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Made = TypeVar("Made")

# Measured on two CPU cores, on networks that were in bfloat16 already (`vidsynth bench generate`).
COMPILE_SECONDS = 20.0
SAVED = 0.2
"""Of the time that a frame takes."""

log = logging.getLogger(__name__)


def frozen(network: Callable[[Tensor], Made], **options: Any) -> Callable[[Tensor], Made]:
    """Compiled, its weights constants that are laid out for their kernels beforehand: for inference
    on tensors of one shape only.

    Freezing given as an option of `torch.compile` itself comes too late, and does nothing: it is
    asked for when the network is traced, which is at the first call.

    Args:
        network: maps one tensor.
        options: of the compiler, TorchInductor.
    """
    from torch._inductor import config  # a second to import

    compiled = torch.compile(network, dynamic=False)

    def run(images: Tensor) -> Made:
        with config.patch(freezing=True, **options):
            return compiled(images)

    return run


class LongRun:
    """Compiles a network once the frames still to come are sure to repay it.

    The compiled network is frozen, its weights become constants: for inference only.
    """

    def __init__(self, network: nn.Module, num_frames: int | None) -> None:
        """Watch a run of so many frames; None is not known, and never compiles.

        Args:
            network: maps one tensor to one; its `forward` is replaced when it pays.
            num_frames: that it will make.
        """
        self._network = network
        self._left = num_frames or 0
        self._warm = self.compiled = False

    def made(self, frames: int, seconds: float) -> None:
        """So many more frames were made in so much time."""
        self._left -= frames
        was_warm, self._warm = self._warm, True  # the time of the first call tells little
        if self.compiled or not was_warm or not frames:
            return
        if self._left * SAVED * seconds / frames > COMPILE_SECONDS:
            log.warning(
                "compiling the network, about %d s; the %d frames to come save more than that",
                COMPILE_SECONDS,
                self._left,
            )
            self._network.forward = _Compiled(self._network.forward)
            self.compiled = True


class _Compiled:
    """A compiled function for inputs of the first one's shape; the plain one for all others, and
    where nothing can be compiled."""

    def __init__(self, plain: Callable[[Tensor], Tensor]) -> None:
        self._plain = plain
        self._fast = frozen(plain)
        self._shape: torch.Size | None = None

    def __call__(self, images: Tensor) -> Tensor:
        self._shape = self._shape or images.shape
        if images.shape != self._shape:
            return self._plain(images)
        try:
            return self._fast(images)
        except RuntimeError as error:  # what torch._dynamo and a missing C++ compiler raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("the network cannot be compiled here (%s); going on without", reason)
            self._fast = self._plain
            return self._plain(images)
