"""Which films each family of pipelines can make: sizes, lengths and rates.

The rules are those of the pipelines in diffusers 0.42: what `check_inputs` refuses, what `__call__`
would round silently, and what the autoencoder's steps in space and time ask for. Each is read from
the model's own settings, since two models of a family differ (Wan 2.2's smaller one has an
autoencoder of 16 pixels, the others one of 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from vidsynth.clip import VideoSpec
from vidsynth.errors import BadOption

Settings = Mapping[str, Mapping[str, Any]]
"""Part of the pipeline ("vae", "transformer"...) -> its config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one model can make, and what it makes unless asked for something else."""

    multiple: int
    """Pixels: width and height are multiples of this."""
    step: int = 1
    """Films have `step` n + `first` frames, n >= 0."""
    first: int = 1
    width: int
    height: int
    num_frames: int
    fps: Fraction
    most: int | None = None
    """No film is longer than so many frames."""
    fixed: bool = False
    """Whether width and height are the only ones."""

    def film(
        self,
        name: str,
        width: int | None,
        height: int | None,
        fps: Fraction | None,
        num: int | None,
    ) -> tuple[VideoSpec, int]:
        """The film that is asked for; a side that is not named keeps the model's own shape.

        Raises BadOption, naming the nearest that can be made.
        """
        if num is not None:
            self._check_length(name, num)
        if fps is not None and fps <= 0:
            raise BadOption(f"a film of {fps} frames per second is none; leave the rate out")
        if width is None and height is not None:
            width = self._rounded(height * self.width / self.height)
        if height is None and width is not None:
            height = self._rounded(width * self.height / self.width)
        size = {"width": width or self.width, "height": height or self.height}
        for what, pixels in size.items():
            self._check_side(name, what, pixels)
        return VideoSpec(**size, fps=fps or self.fps), num or self.num_frames

    def holding(self, spec: VideoSpec, num_frames: int) -> tuple[int, int, int]:
        """Width, height and length of the smallest film that holds such a one.

        Raises BadOption where it is too long.
        """
        count = self.first + self.step * max(0, math.ceil((num_frames - self.first) / self.step))
        if self.most is not None and count > self.most:
            raise BadOption(
                f"{num_frames} frames are asked for, and this model makes at most {self.most}; "
                "ask for fewer"
            )
        if self.fixed:
            return self.width, self.height, count
        up = (math.ceil(side / self.multiple) * self.multiple for side in (spec.width, spec.height))
        return (*up, count)  # pyright: ignore[reportReturnType]

    def _check_length(self, name: str, num: int) -> None:
        longest = math.inf if self.most is None else self.most
        n = (num - self.first) / self.step
        if num >= 1 and n == int(n) and num <= longest:
            return
        around = {self.first + self.step * max(0, k) for k in (math.floor(n), math.ceil(n))}
        near = sorted(k for k in around if 1 <= k <= longest) or [self.most or self.first]
        rule = f"{self.step}n + {self.first}" if self.step > 1 else "any number of"
        most = f", at most {self.most}" if self.most else ""
        raise BadOption(
            f"{name} makes films of {rule} frames{most}, and {num} are asked for; the nearest: "
            f"{' or '.join(map(str, near))}"
        )

    def _check_side(self, name: str, what: str, pixels: int) -> None:
        if self.fixed and pixels != getattr(self, what):
            raise BadOption(
                f"{name} makes films of {self.width}x{self.height} and of no other size; the "
                f"{what} {pixels} is asked for: leave the size out"
            )
        if pixels >= 1 and pixels % self.multiple == 0:
            return
        down, up = (round_(pixels / self.multiple) for round_ in (math.floor, math.ceil))
        near = sorted({max(1, n) * self.multiple for n in (down, up)})
        raise BadOption(
            f"{name} makes films whose {what} is a multiple of {self.multiple}, and {pixels} is "
            f"asked for; the nearest: {' or '.join(map(str, near))}"
        )

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


_FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
_FLOW = {
    "euler": _FLOW_EULER,
    "unipc": "UniPCMultistepScheduler",
    "dpm": "DPMSolverMultistepScheduler",
}
_COGVIDEOX = {"ddim": "CogVideoXDDIMScheduler", "dpm": "CogVideoXDPMScheduler"}
_NOISE = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Pipelines that share their rules."""

    name: str
    pipeline: str
    """The class in diffusers that `model_index.json` names."""
    limits: Callable[[Settings], Limits]
    needs_image: bool = False
    with_image: str = ""
    """The class that starts from a picture with the same weights; empty where there is none."""
    reads_negative: bool = True
    full_vae: bool = False
    """Whether the autoencoder is to stay in float32, as its authors advise."""
    flow: bool = True
    """Whether it was trained by flow matching, which few schedulers know."""
    clip_text: bool = False
    """Whether CLIP alone reads the prompt, so that pieces of a long one can be joined."""
    schedulers: Mapping[str, str] = field(default_factory=lambda: {"euler": _FLOW_EULER})
    """What users may choose -> the class in diffusers."""


def _blocks(vae: Mapping[str, Any]) -> int:
    """Pixels per latent of an autoencoder that halves between its blocks."""
    return 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1)


def _wan(settings: Settings) -> Limits:
    # pipeline_wan: check_inputs asks for 16; __call__ for scale_factor_spatial x patch_size, and
    # rounds num_frames to scale_factor_temporal n + 1.
    vae, network = settings.get("vae", {}), settings.get("transformer", {})
    cell = vae.get("scale_factor_spatial", 8) * network.get("patch_size", (1, 2, 2))[-1]
    small = cell <= 16
    return Limits(
        multiple=math.lcm(16, cell),
        step=vae.get("scale_factor_temporal", 4),
        width=832 if small else 1280,
        height=480 if small else 704,
        num_frames=81 if small else 121,
        fps=Fraction(16 if small else 24),
    )


def _ltx(settings: Settings) -> Limits:
    # pipeline_ltx: check_inputs asks for 32; the autoencoder decodes to temporal_compression_ratio
    # n + 1 frames, that ratio being patch_size_t x 2^(how often it scales).
    vae = settings.get("vae", {})
    halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
    cell = vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * 2**halvings
    step = vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * 2**halvings
    return Limits(
        multiple=math.lcm(32, cell),
        step=step,
        width=704,
        height=512,
        num_frames=1 + step * round(160 / step),
        fps=Fraction(24),
    )


def _cogvideox(settings: Settings) -> Limits:
    # pipeline_cogvideox asks for multiples of 8, and its transformer's patches of 2 latents for
    # twice that. The autoencoder gives 4(n - 1) + 1 frames of n latents where n is odd, else 4n, so
    # that only 8n + 1 come out as they were asked for. Learnt positions forbid other sizes.
    vae, network = settings.get("vae", {}), settings.get("transformer", {})
    cell = _blocks(vae)
    later = (
        network.get("patch_size_t") is not None
    )  # version 1.5, whose own sample size is a square
    return Limits(
        multiple=math.lcm(16, cell * network.get("patch_size", 2)),
        step=2 * vae.get("temporal_compression_ratio", 4),
        width=1360 if later else cell * network.get("sample_width", 90),
        height=768 if later else cell * network.get("sample_height", 60),
        num_frames=81 if later else network.get("sample_frames", 49),
        fps=Fraction(16 if later else 8),
        fixed=bool(network.get("use_learned_positional_embeddings", False)),
    )


def _hunyuan(settings: Settings) -> Limits:
    vae, network = settings.get("vae", {}), settings.get("transformer", {})
    cell = vae.get("spatial_compression_ratio", 8) * network.get("patch_size", 2)
    return Limits(
        multiple=math.lcm(16, cell),
        step=vae.get("temporal_compression_ratio", 4),
        width=1280,
        height=720,
        num_frames=129,
        fps=Fraction(24),
    )


def _mochi(settings: Settings) -> Limits:
    # pipeline_mochi: 8 pixels and 6 frames per latent, both written into it, and patches of 2.
    return Limits(multiple=16, step=6, width=848, height=480, num_frames=85, fps=Fraction(30))


def _pictures(settings: Settings) -> Limits:
    """Networks of Stable Diffusion's kind, which treat frames as pictures: any length."""
    cell, network = _blocks(settings.get("vae", {})), settings.get("unet", {})
    side = cell * network.get("sample_size", 64)
    multiple = math.lcm(8, cell)
    return Limits(
        multiple=multiple,
        width=side,
        height=side,
        num_frames=16,
        fps=Fraction(8),
    )


def _animatediff(settings: Settings) -> Limits:
    # Positions in time are a table of motion_max_seq_length.
    base = _pictures(settings)
    network, adapter = settings.get("unet", {}), settings.get("motion_adapter", {})
    most = adapter.get("motion_max_seq_length") or network.get("motion_max_seq_length", 32)
    return Limits(
        multiple=base.multiple,
        width=base.width,
        height=base.height,
        num_frames=min(16, most),
        fps=base.fps,
        most=most,
    )


FAMILIES: Mapping[str, Family] = {
    f.pipeline: f
    for f in (
        Family(
            name="Wan",
            pipeline="WanPipeline",
            limits=_wan,
            with_image="WanImageToVideoPipeline",
            full_vae=True,
            schedulers=_FLOW,
        ),
        Family(
            name="Wan image-to-video",
            pipeline="WanImageToVideoPipeline",
            limits=_wan,
            needs_image=True,
            with_image="WanImageToVideoPipeline",
            full_vae=True,
            schedulers=_FLOW,
        ),
        Family(
            name="LTX-Video",
            pipeline="LTXPipeline",
            limits=_ltx,
            with_image="LTXImageToVideoPipeline",
        ),
        Family(
            name="LTX-Video image-to-video",
            pipeline="LTXImageToVideoPipeline",
            limits=_ltx,
            needs_image=True,
            with_image="LTXImageToVideoPipeline",
        ),
        Family(
            name="CogVideoX",
            pipeline="CogVideoXPipeline",
            limits=_cogvideox,
            flow=False,
            schedulers=_COGVIDEOX,
        ),
        Family(
            name="CogVideoX image-to-video",
            pipeline="CogVideoXImageToVideoPipeline",
            limits=_cogvideox,
            needs_image=True,
            with_image="CogVideoXImageToVideoPipeline",
            flow=False,
            schedulers=_COGVIDEOX,
        ),
        Family(
            name="HunyuanVideo",
            pipeline="HunyuanVideoPipeline",
            limits=_hunyuan,
            reads_negative=False,
        ),
        Family(name="Mochi", pipeline="MochiPipeline", limits=_mochi),
        Family(
            name="AnimateDiff",
            pipeline="AnimateDiffPipeline",
            limits=_animatediff,
            flow=False,
            clip_text=True,
            schedulers=_NOISE,
        ),
        Family(
            name="text-to-video with CLIP (ModelScope, Zeroscope)",
            pipeline="TextToVideoSDPipeline",
            limits=_pictures,
            flow=False,
            clip_text=True,
            schedulers=_NOISE,
        ),
    )
}
"""By the class that `model_index.json` names."""

ANIMATORS: Mapping[str, Family] = {
    "WanAnimatePipeline": Family(
        name="Wan-Animate",
        pipeline="WanAnimatePipeline",
        limits=_wan,
        full_vae=True,
        schedulers=_FLOW,
    )
}
"""Those that make a picture move."""
