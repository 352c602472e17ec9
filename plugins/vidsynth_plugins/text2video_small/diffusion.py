"""Diffusion in the form that predicts velocity, guided, and sampled in few steps.

Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models": a clip x and
noise e make z = alpha x + sigma e with alpha^2 + sigma^2 = 1, and v = alpha e - sigma x, so that
x = alpha z - sigma v and e = sigma z + alpha v.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

# B clips

SHIFT = 4.0
"""How much more noise than the plain cosine schedule: thousands of pixels that show the same thing
see through noise that would hide a single one."""
LEAST_SIGMA = 0.4
"""The loss counts what is less noisy than this as if it were so noisy."""

Predict = Callable[[Tensor, Tensor], Tensor]
"""(z, noise in [0, 1]) -> the clip without noise, as the network sees it."""


def alpha_sigma(noise: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of clip and noise at times in [0, 1]: 1 and 0 at 0, and 0 and 1 at 1, exactly."""
    angle = noise.double() * (torch.pi / 2)
    clip, hiss = angle.cos(), SHIFT * angle.sin()
    clip = torch.where(noise == 1, 0.0, clip)
    length = (clip**2 + hiss**2).sqrt()
    return (clip / length).to(noise.dtype), (hiss / length).to(noise.dtype)


def velocity(clip: Tensor, hiss: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v of a clip and of the noise that it is mixed with."""
    return alpha * hiss - sigma * clip


def clip_of(z: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The clip that z and v tell of."""
    return alpha * z - sigma * v


def velocity_to(z: Tensor, clip: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """v that leads from z to a clip; sigma must be above 0."""
    return (alpha * z - clip) / sigma


def guided(v_told: Tensor, v_untold: Tensor, guidance: float) -> Tensor:
    """v pushed away from what it would be without the text, or with what is not wanted.

    Ho and Salimans 2022, "Classifier-Free Diffusion Guidance"; 1 leaves it as it is.
    """
    return v_untold + guidance * (v_told - v_untold)


def loss(made: Tensor, clips: Tensor, sigma: Tensor) -> Tensor:
    """Squared error of v of each frame, (B, T), where the network tells the clip:
    v - v' = (x' - x) / sigma. `sigma` is (B, T, 1, 1, 1)."""
    error = (made - clips).square().mean(dim=(2, 3, 4))
    return error / sigma.flatten(1).clamp(min=LEAST_SIGMA).square()


def times(count: int, *, rng: torch.Generator | None = None) -> Tensor:
    """`count` times in [0, 1], one in each of as many equal parts: less chance in the loss."""
    return (torch.arange(count) + torch.rand(count, generator=rng)) / count


def sample(velocity_at: Predict, z: Tensor, steps: int) -> Tensor:
    """From noise to a clip in [-1, 1], in `steps` steps.

    Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", second order in the clip (2M); the first and the last step are DDIM's.

    Args:
        velocity_at: (z, time) -> v.
        z: standard normal noise, of any shape.
        steps: as many calls of `velocity_at`.
    """
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    before: Tensor | None = None
    step_before = 0.0
    for n, (now, then) in enumerate(pairwise(grid)):
        (alpha, sigma), (alpha_then, sigma_then) = alpha_sigma(now), alpha_sigma(then)
        v = velocity_at(z, now.float())
        clip = clip_of(z, v, alpha.float(), sigma.float()).clamp(-1, 1)
        step = float(_clearness(alpha_then, sigma_then) - _clearness(alpha, sigma))
        towards = clip
        if before is not None and 0 < n < steps - 1 and step_before < float("inf"):
            towards = clip + (clip - before) * (step / (2 * step_before))
        z = stepped(z, towards, (alpha, sigma), (alpha_then, sigma_then))
        before, step_before = clip, step
    return z


def stepped(
    z: Tensor, clip: Tensor, now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]
) -> Tensor:
    """z at another alpha and sigma, if it is noise over this clip: DDIM's step (Song et al. 2021,
    "Denoising Diffusion Implicit Models")."""
    left = float(then[1] / now[1])
    return left * z + float(then[0] - now[0] * left) * clip


def _clearness(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Half the logarithm of the ratio of signal to noise."""
    return (alpha / sigma).log()
