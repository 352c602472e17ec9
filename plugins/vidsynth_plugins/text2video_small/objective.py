"""How the model is trained: noise is taken out of captioned clips, at times without the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidsynth.losses import linear_decay
from vidsynth.objectives import Objective, Phase, TrainBatch
from vidsynth_plugins.text2video_small import diffusion
from vidsynth_plugins.text2video_small.model import TextToVideo
from vidsynth_plugins.text2video_small.options import SmallOptions

# B clips, T frames, M moments, C channels, H, W pixels

MADE_NOISE = 0.05
"""Time of the diffusion up to which moments that are made already are noisy in training."""


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
        noise_BM, learnt_BM = self._times(count, clips_BTCHW.shape[1] // self.options.stride)
        noise_BM = noise_BM.to(clips_BTCHW.device)
        by_frame = noise_BM.repeat_interleave(self.options.stride, dim=1)[..., None, None, None]
        alpha, sigma = diffusion.alpha_sigma(by_frame)
        noisy = alpha * clips_BTCHW + sigma * torch.randn_like(clips_BTCHW)
        made = self.model(noisy, noise_BM, *self.model.encoded(texts))
        error_BT = diffusion.loss(made, clips_BTCHW, sigma)
        counts_BT = learnt_BM.repeat_interleave(self.options.stride, dim=1).to(error_BT)
        return {"velocity": (error_BT * counts_BT).sum() / counts_BT.sum()}

    def _times(self, count: int, moments: int) -> tuple[Tensor, Tensor]:
        """Noise of each moment (B, M), and which are learnt: as sampling meets them.

        One moment is on its way from noise to a picture; those before it are made, but for a
        little noise, as what was made is not what was filmed; those after it are noise alone.
        """
        now_B1 = torch.randint(moments, (count, 1))
        place_M = torch.arange(moments)
        before = MADE_NOISE * torch.rand(count, moments)
        noise_BM = torch.where(place_M < now_B1, before, torch.ones(count, moments))
        noise_BM = torch.where(place_M == now_B1, diffusion.times(count)[:, None], noise_BM)
        return noise_BM, place_M >= now_B1
