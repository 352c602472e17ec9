"""How the model is trained: noise is taken out of captioned clips, at times without the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidsynth.losses import linear_decay
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth_plugins.text2video_small import diffusion
from vidsynth_plugins.text2video_small.model import TextToVideo
from vidsynth_plugins.text2video_small.options import SmallOptions

# B clips, T frames, P frames before a moment, C channels, H, W pixels

MADE_NOISE = 0.02
"""Time of the diffusion up to which frames that are made already are noisy in training, as what was
made is not what was filmed."""
FIRST = 0.5
"""Share of the training that goes to first moments, which follow from noise and text alone: that is
most of what there is to learn."""


class Denoising(Objective):
    """One phase, which minimises the error of v."""

    def __init__(self, options: SmallOptions, model: TextToVideo) -> None:
        self.options = options
        self.model = model
        self.num_frames = options.num_frames
        learnt = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learnt, options.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.phases = [Phase("G", model, optimizer)]

    @property
    def generator(self) -> nn.Module:
        return self.model

    def at_progress(self, progress: float) -> None:
        left = linear_decay(progress, self.options.decay_from)
        self.phases[0].at_rate(self.options.learning_rate * left)

    def losses(self, phase: str, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        clips_BTCHW = batch.frames_BTCHW
        count = len(clips_BTCHW)
        hidden = (torch.rand(count) < self.options.untold).tolist()
        texts = ["" if hide else text for text, hide in zip(batch.captions, hidden, strict=True)]
        now_B = self._moments(count, clips_BTCHW.shape[1] // self.options.stride)
        moment, before = self._parts(clips_BTCHW, now_B.to(clips_BTCHW.device))
        noise_B = diffusion.times(count).to(clips_BTCHW.device)
        alpha, sigma = diffusion.alpha_sigma(noise_B[:, None, None, None, None])
        noisy = alpha * moment + sigma * torch.randn_like(moment)
        known = self.model.encoded(texts)
        made = self.model(noisy, before, now_B.to(noisy.device), noise_B, *known)
        return {"velocity": diffusion.loss(made, moment, sigma).mean()}

    def _moments(self, count: int, most: int) -> Tensor:
        """Which moment of each clip is learnt, (B,): the first ones more often than others."""
        later = torch.randint(1, most, (count,))
        return torch.where(torch.rand(count) < FIRST, 0, later)

    def _parts(self, clips_BTCHW: Tensor, now_B: Tensor) -> tuple[Tensor, Tensor]:
        """The frames of these moments, and those before them as sampling meets them."""
        stride, device = self.options.stride, clips_BTCHW.device
        rows = torch.arange(len(now_B), device=device)[:, None]
        starts_B1 = now_B[:, None] * stride
        moment = clips_BTCHW[rows, starts_B1 + torch.arange(stride, device=device)]
        room = self.options.num_frames - stride
        place_BP = starts_B1 + torch.arange(-room, 0, device=device)
        before = clips_BTCHW[rows, place_BP.clamp(min=0)]
        some = MADE_NOISE * torch.rand(len(now_B), 1, 1, 1, 1, device=device)
        alpha, sigma = diffusion.alpha_sigma(some)
        before = alpha * before + sigma * torch.randn_like(before)
        return moment, before * (place_BP >= 0)[..., None, None, None]
