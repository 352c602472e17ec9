"""The yardstick: how published trainers run a step, written out plainly.

That of pix2pixHD, Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs", and that of vid2vid, Wang et al. 2018, "Video-to-Video Synthesis", on one frame
with its discriminator of frames. The networks are given, those that ours trains in PyTorch's own
layers, so that only how a step is computed is compared: three passes of the discriminator (the made
frame detached, the real one, the made one), a generator loss that also back-propagates into the
discriminator's weights, and PyTorch's Adam as it comes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.kinds import Discriminator, Judgement
from vidsynth.objectives import TrainBatch

# B batch, T frames (1 here), C channels, H, W pixels

FEATURE_MATCHING = 10.0


class ReferenceSchedule:
    """Least squares and feature matching; everything in the precision of the weights."""

    def __init__(
        self, generator: nn.Module, discriminator: Discriminator, *, learning_rate: float = 2e-4
    ) -> None:
        """Take the networks.

        Args:
            generator: maps (B, C, H, W) to what it painted, with `frames` (B, 3, H, W).
            discriminator: judges frames beside their maps.
            learning_rate: of both.
        """
        self.generator = generator
        self.discriminator = discriminator
        self.learning_rate = learning_rate
        self.optimizer_G = torch.optim.Adam(generator.parameters(), learning_rate, (0.5, 0.999))
        self.optimizer_D = torch.optim.Adam(discriminator.parameters(), learning_rate, (0.5, 0.999))

    def at_progress(self, progress: float) -> None:
        """Constant for the first half of the training, then linearly to 0, as published."""
        rate = self.learning_rate * min(1.0, 2 * (1 - progress))
        for optimizer in (self.optimizer_G, self.optimizer_D):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """One step of both networks. Returns the losses."""
        maps_B1CHW, real_B1CHW = batch.maps_BTCHW[:, -1:], batch.frames_BTCHW[:, -1:]
        gan = matching = loss_D = maps_B1CHW.new_zeros(())
        for fake_BCHW in self.made(batch):
            fake_B1CHW = fake_BCHW[:, None]
            # Discriminator: the made frame, detached, and the real one.
            of_detached = self.discriminator(fake_B1CHW.detach(), maps_B1CHW)
            of_real = self.discriminator(real_B1CHW, maps_B1CHW)
            loss_D = loss_D + 0.5 * (_squares(of_detached, 0.0) + _squares(of_real, 1.0))
            # Generator: the made frame once more, this time with its gradient.
            of_fake = self.discriminator(fake_B1CHW, maps_B1CHW)
            gan = gan + _squares(of_fake, 1.0)
            matching = matching + FEATURE_MATCHING * _matching(of_fake, of_real)
        loss_G = gan + matching

        self.optimizer_G.zero_grad()
        loss_G.backward()
        self.optimizer_G.step()
        self.optimizer_D.zero_grad()
        loss_D.backward()
        self.optimizer_D.step()
        losses = {"gan": gan, "matching": matching, "judge": loss_D}
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def made(self, batch: TrainBatch) -> list[Tensor]:
        """(B, 3, H, W): what is judged beside the batch's last frame."""
        return [self.generator(batch.maps_BTCHW[:, -1]).frames]


class SequenceSchedule(ReferenceSchedule):
    """On the last frame of a batch, made from those before it: as it is finished, and as it was
    painted, before the frame before was blended in. The real frame is judged beside each."""

    def made(self, batch: TrainBatch) -> list[Tensor]:
        past, maps = None, batch.maps_BTCHW
        for n in range(batch.num_frames - 1):
            past = self.generator(maps[:, n], past, None, batch.frames_BTCHW[:, n]).past
        made = self.generator(maps[:, -1], past)
        return [made.frame, made.raw]


def _squares(judgement: Judgement, wanted: float) -> Tensor:
    """The least-squares loss, summed over scales."""
    losses = [F.mse_loss(logits, torch.full_like(logits, wanted)) for logits in judgement.logits]
    return torch.stack(losses).sum()


def _matching(fake: Judgement, real: Judgement) -> Tensor:
    """L1 between activations: mean over scales of 4 / layers times the sum over layers."""
    terms = [
        F.l1_loss(made, wanted.detach()) * 4 / len(layers) / len(fake.features)
        for layers, real_layers in zip(fake.features, real.features, strict=True)
        for made, wanted in zip(layers, real_layers, strict=True)
    ]
    return torch.stack(terms).sum()
