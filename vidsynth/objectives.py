"""What a generator is taught by: batches, and the rules that say what each step minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vidsynth.exemplars import Exemplars

# B batch, T frames, C channels, H, W pixels


SHOWN = 0.25
"""Over a still background, so sure an exemplar must be to be shown altogether."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """A batch of consecutive frames with everything an objective may condition on."""

    frames_BTCHW: Tensor
    """Real frames, float32 in [-1, 1]."""
    maps_BTCHW: Tensor
    """Conditioning maps as `Conditioning.draw` gives them, float32 in [0, 1]; the kinds named in
    `Generator.accepts`, concatenated along C in that order. Maps that are the same everywhere, as
    those of a class are, may have H = W = 1."""
    background_CHW: Tensor | None = None
    """The still background plate, float32 in [-1, 1], when the subject has one."""
    weights_BT1HW: Tensor | None = None
    """Where the subject is, float32 in [0, 1]: 1 on the body or face, 0 on background."""
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    """Boxes by name ("face", "mouth", "hands"...): (B, T, 4) float32 x0, y0, x1, y1 in pixels;
    an absent region has x1 <= x0."""
    recalled: Recalled | None = None
    """Exemplars of the last `Objective.num_recalled` frames, (B, T', ...)."""
    captions: tuple[str, ...] = ()
    """What each of the B clips shows, in words; of clips by class the class."""

    @property
    def num_frames(self) -> int:
        return self.frames_BTCHW.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """K exemplars of each frame, ready to be sampled; `...` stands for the batch's axes."""

    images: Tensor
    """(..., K, C, H, W) float32 in [-1, 1]: as they were filmed, and where C is 4, how surely each
    pixel shows the subject, 1 for surely."""
    flow: Tensor
    """(..., K, 2, H, W) float32 pixels: what `blocks.warp` takes. With `Conditions.carry` one
    more: from the frame made before, whose picture only the generator has."""
    valid: Tensor
    """(..., K, 1, H, W) float32 in [0, 1]; one more where `flow` has."""

    @staticmethod
    def of(signal: Exemplars, device: torch.device) -> Recalled:
        """Of T frames, on the device."""
        images = signal.images[signal.chosen.cpu()].to(device)
        return Recalled(
            images.float().div_(127.5).sub_(1.0), signal.flow.to(device), signal.valid.to(device)
        )

    def cover(self, sampled: Tensor) -> Tensor:
        """What the fourth channel of `images`, sampled by `flow`, covers of a still background, in
        [0, 1]: nothing where it is not sure, since that would be a ghost."""
        return sampled.add(1).div(2).clamp(0, 1) * (self.valid / SHOWN).clamp(max=1)

    def each(self, change: Callable[[Tensor], Tensor]) -> Recalled:
        """With `change` applied to all three."""
        return Recalled(change(self.images), change(self.flow), change(self.valid))


class Samples(Protocol):
    """What batches are drawn from: a target's `Footage`, or `Clips`."""

    def longest_run(self) -> int:
        """Most consecutive frames that a sample can have."""
        ...

    def starts(self, num_frames: int) -> Tensor:
        """A number for every sample of so many frames; drawn equally often.

        Raises NoSubjectFound where there is none.
        """
        ...

    def batch(
        self, starts: Tensor, num_frames: int, device: torch.device, *, num_recalled: int = 0
    ) -> TrainBatch:
        """The samples of these numbers (B,), on the device."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One optimiser step within a training step (Karras et al.'s phases: Gmain, Dmain, Dreg...)."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    every: int = 1
    """Run on steps divisible by this (lazy regularisation)."""

    def at_rate(self, learning_rate: float) -> None:
        """Take this learning rate from now on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate


class Objective(ABC):
    """One paper's training rule: which phases there are and what each minimises.

    The loop calls `losses` for each phase of a step, in order, on the same batch, and
    back-propagates into that phase's module only. So an objective may compute the fakes and the
    discriminator's judgement once, in the first phase, and use the same graph in the later ones.
    """

    phases: Sequence[Phase]
    num_frames: int = 1
    """Consecutive frames in one training sample (T of the batch). May grow in `at_progress`; a
    sample is shorter where the footage has no run of that length."""
    num_recalled: int = 0
    """How many of them, the last ones, come with exemplars."""

    @abstractmethod
    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; their sum is minimised."""

    @property
    @abstractmethod
    def generator(self) -> nn.Module:
        """The module whose EMA becomes the subject's weights (`Generator.load_weights`)."""

    def at_progress(self, progress: float) -> None:  # noqa: B027 - optional
        """Told before each step how much of the training is done, in [0, 1]: staged schedules."""

    def state(self) -> dict[str, Any]:
        """What a resume needs beyond modules and optimisers (tensors, numbers, strings)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Take back what `state` gave."""
