"""The processes of a distributed training."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


class Processes:
    """The processes of an `accelerate launch`, or just this one.

    Gradients are averaged here rather than by wrapping modules in DistributedDataParallel: a GAN
    step runs several forward passes of one module and back-propagates into parts of the graph,
    which DDP's hooks do not follow.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._accelerator = None
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator

            cpu = device is not None and device.type == "cpu"
            self._accelerator = Accelerator(cpu=cpu)
            self.rank = self._accelerator.process_index
            self.count = self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device | None:
        """This process's device; None when there is one process."""
        return self._accelerator.device if self._accelerator else None

    def share(self, module: torch.nn.Module) -> None:
        """Give every process the first one's weights."""
        if self._accelerator:
            from accelerate.utils import broadcast

            for tensor in [*module.parameters(), *module.buffers()]:
                tensor.data.copy_(broadcast(tensor.data))

    def average(self, tensors: list[Tensor]) -> list[Tensor]:
        """Replace each tensor by its mean over processes, in one message."""
        if self._accelerator and tensors:
            flat = torch.cat([t.flatten().float() for t in tensors])
            flat = self._accelerator.reduce(flat, "mean")
            assert isinstance(flat, Tensor)
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))
        return tensors

    def agree(self, value: Any) -> Any:
        """The first process's number, for all."""
        if not self._accelerator:
            return value
        from accelerate.utils import broadcast

        told = torch.tensor([float(value)], device=self._accelerator.device)
        agreed = broadcast(told)
        assert isinstance(agreed, Tensor)
        return type(value)(agreed.item())

    def wait(self) -> None:
        if self._accelerator:
            self._accelerator.wait_for_everyone()
