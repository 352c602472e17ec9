"""How the portrait network is trained: L1 and a conditional patch discriminator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vidsynth.kinds import Judgement
from vidsynth.losses import fool, judge_fake, judge_real, linear_decay, weighted_l1
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth.subject import build_discriminator
from vidsynth_plugins.pix2pixhd.objective import adam, stack_windows
from vidsynth_plugins.portrait.networks import PortraitNet
from vidsynth_plugins.portrait.options import PortraitOptions

# B batch, T frames of the sample, of which the last is made


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """One run of both networks, with its graph."""

    batch: TrainBatch
    made: Tensor
    real: Tensor
    fake_judgement: Judgement
    real_judgement: Judgement


class PortraitObjective(Objective):
    """Phase "G" trains the network, phase "D" the discriminator, on the same pass.

    E = E_cGAN + l1 * E_L1; the discriminator sees a frame beside its current conditioning.
    """

    def __init__(self, options: PortraitOptions, network: PortraitNet) -> None:
        self.options = options
        self.num_frames = options.window
        self.network = network
        settings = {"filters": options.d_filters, "layers": options.d_layers, "scales": 1}
        self.judge = build_discriminator(
            options.discriminator, settings, condition_channels=network.channels, num_frames=1
        )
        self.phases = (
            Phase("G", network, adam(network, options.learning_rate)),
            Phase("D", self.judge, adam(self.judge, options.d_learning_rate)),
        )
        self._pass: _Pass | None = None

    @property
    def generator(self) -> nn.Module:
        return self.network

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        seen, self._pass = self._pass, None  # never two at once: a pass is most of the memory
        if phase == "G":
            del seen
            self._pass = seen = self._run(batch)
            return {
                "gan": self.options.gan_weight * fool(seen.fake_judgement, self.options.gan),
                "l1": self.options.l1 * weighted_l1(seen.made, seen.real, self._importance(batch)),
            }
        if seen is None or seen.batch is not batch:
            seen = self._run(batch)
        return {
            "real": 0.5 * judge_real(seen.real_judgement, self.options.gan),
            "fake": 0.5 * judge_fake(seen.fake_judgement, self.options.gan),
        }

    def _run(self, batch: TrainBatch) -> _Pass:
        windows = stack_windows(batch.maps_BTCHW, self.options.window)[:, -1]
        made = self.network(windows, batch.background_CHW)[:, None]
        real, maps = batch.frames_BTCHW[:, -1:], batch.maps_BTCHW[:, -1:]
        return _Pass(batch, made, real, self.judge(made, maps), self.judge(real, maps))

    def _importance(self, batch: TrainBatch) -> Tensor | None:
        if batch.weights_BT1HW is None or not self.options.subject_weight:
            return None
        return 1 + self.options.subject_weight * batch.weights_BT1HW[:, -1:]

    def at_progress(self, progress: float) -> None:
        left = linear_decay(progress, self.options.decay_from)
        rates = (self.options.learning_rate, self.options.d_learning_rate)
        for phase, rate in zip(self.phases, rates, strict=True):
            phase.at_rate(rate * left)
