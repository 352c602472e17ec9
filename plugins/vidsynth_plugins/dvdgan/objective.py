"""How DVD-GAN is trained: hinge losses of two discriminators, several of their steps to each of the
generator's, after Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image
Synthesis"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidsynth.kinds import Judgement
from vidsynth.losses import fool, judge_fake, judge_real, linear_decay
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth.subject import build_discriminator
from vidsynth_plugins.dvdgan.augment import augmented
from vidsynth_plugins.dvdgan.layers import orthogonality
from vidsynth_plugins.dvdgan.networks import VideoGenerator, levels_for
from vidsynth_plugins.dvdgan.options import DVDGANOptions

# B batch, T frames, N classes, C channels, H, W pixels, D numbers of noise


class DVDGANObjective(Objective):
    """Phases "G", every `d_steps` steps, and "D".

    Made and real clips are judged in one pass, which serves both phases where both are due. Each
    network is run once a step (the generator twice where there is a run-up), so that its weights'
    norms are followed by one iteration a step.
    """

    def __init__(self, options: DVDGANOptions, network: VideoGenerator, *, classes: int) -> None:
        self.options = options
        self.network = network
        height, width = network.frame_size.tolist()
        self.judges = Judges(options, classes, levels_for(height, width))
        self.num_frames = options.num_frames
        rates = (options.learning_rate, options.d_learning_rate)
        made, judged = (
            torch.optim.Adam(module.parameters(), rate, betas=(0.0, 0.999), fused=True)
            for module, rate in zip((network, self.judges), rates, strict=True)
        )
        self.phases = [
            Phase("G", network, made, every=options.d_steps),
            Phase("D", self.judges, judged),
        ]
        self._seen: dict[str, tuple[Judgement, Judgement]] | None = None

    @property
    def generator(self) -> nn.Module:
        return self.network

    def at_progress(self, progress: float) -> None:
        left = linear_decay(progress, self.options.decay_from)
        rates = (self.options.learning_rate, self.options.d_learning_rate)
        for phase, rate in zip(self.phases, rates, strict=True):
            phase.at_rate(rate * left)

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        if phase == "G":
            self._seen = self._judged(batch, self.make(batch))
            losses = {name: fool(made, "hinge") for name, (made, _) in self._seen.items()}
            if self.options.orthogonal:
                losses["orthogonal"] = self.options.orthogonal * orthogonality(self.network)
            return losses
        if self._seen is None:  # the generator has no turn: its gradient is not wanted
            with torch.no_grad():
                made = self.make(batch)
            self._seen = self._judged(batch, made)
        losses = {}
        for name, (made, real) in self._seen.items():
            losses[f"{name}_real"] = judge_real(real, "hinge")
            losses[f"{name}_made"] = judge_fake(made, "hinge")
        self._seen = None
        return losses

    def make(self, batch: TrainBatch) -> Tensor:
        """(B, T, 3, H, W): a clip of the class of each of the batch's, from somewhere in a film."""
        count, num_frames = batch.frames_BTCHW.shape[:2]
        before = int(torch.randint(self.options.run_up + 1, ())) if self.options.run_up else 0
        steps = before + num_frames if self.options.noise_per == "frame" else 1
        noise_BTD = torch.randn(
            count, steps, self.options.noise, device=batch.frames_BTCHW.device
        ).to(batch.frames_BTCHW.dtype)
        shares_B1N = batch.maps_BTCHW.mean(dim=(1, 3, 4))[:, None]
        memory = None
        if before:
            with torch.no_grad():
                _, memory = self.network(noise_BTD[:, :before], shares_B1N, before)
        frames_BTCHW, _ = self.network(noise_BTD[:, -num_frames:], shares_B1N, num_frames, memory)
        return frames_BTCHW

    def _judged(
        self, batch: TrainBatch, made_BTCHW: Tensor
    ) -> dict[str, tuple[Judgement, Judgement]]:
        """What each discriminator says of the made and of the real clips."""
        both = torch.cat([made_BTCHW, batch.frames_BTCHW])
        both = augmented(both, self.options.augment)
        condition = torch.cat([batch.maps_BTCHW, batch.maps_BTCHW])
        return {
            name: _halves(judge(both, condition)) for name, judge in self.judges.named_children()
        }


class Judges(nn.Module):
    """The discriminators that the options name: "spatial", "temporal" or both."""

    def __init__(self, options: DVDGANOptions, classes: int, levels: int) -> None:
        super().__init__()
        ours = {
            "filters": options.d_filters,
            "levels": levels,
            "frames": options.d_frames,
            "total": options.d_total,
        }
        for role, name in (("spatial", options.spatial), ("temporal", options.temporal)):
            if name:
                judge = build_discriminator(
                    name, ours, condition_channels=classes, num_frames=options.num_frames
                )
                self.add_module(role, judge)


def _halves(both: Judgement) -> tuple[Judgement, Judgement]:
    """Of the first and of the second half of a batch."""
    parts = [logits.chunk(2) for logits in both.logits]
    features = [[f.chunk(2) for f in scale] for scale in both.features]
    first, second = (
        Judgement([p[n] for p in parts], [[f[n] for f in scale] for scale in features])
        for n in (0, 1)
    )
    return first, second
