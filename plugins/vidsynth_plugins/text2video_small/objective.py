"""How the model is trained: noise is taken out of captioned clips, at times without the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidsynth.kinds import Objective, Phase, TrainBatch
from vidsynth.losses import linear_decay
from vidsynth_plugins.text2video_small import diffusion
from vidsynth_plugins.text2video_small.model import TextToVideo
from vidsynth_plugins.text2video_small.options import SmallOptions

# B clips, T frames, C channels, H, W pixels


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
        told = torch.rand(count) >= self.options.untold
        texts = [text if t else "" for text, t in zip(batch.captions, told.tolist(), strict=True)]
        noise_B = diffusion.times(count).to(clips_BTCHW.device)
        alpha, sigma = (s.view(-1, 1, 1, 1, 1) for s in diffusion.alpha_sigma(noise_B))
        hiss = torch.randn_like(clips_BTCHW)
        made = self.model(alpha * clips_BTCHW + sigma * hiss, noise_B, *self.model.encoded(texts))
        return {"velocity": diffusion.loss(made, clips_BTCHW, sigma).mean()}
