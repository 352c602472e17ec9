"""The plugin itself: makes clips with a model's weights, and hands out the training rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from vidsynth.blocks import refuse_half_on_cpu
from vidsynth.classes import ClassLabel, Noise, normal
from vidsynth.clip import Clip, VideoSpec
from vidsynth.drawing import resize
from vidsynth.errors import BadOption, BadSubject
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective
from vidsynth.stream import Chunk
from vidsynth_plugins.dvdgan.discriminators import PAPER
from vidsynth_plugins.dvdgan.layers import settle
from vidsynth_plugins.dvdgan.networks import Memory, VideoGenerator
from vidsynth_plugins.dvdgan.objective import DVDGANObjective
from vidsynth_plugins.dvdgan.options import DVDGANOptions

# T frames, C channels, H, W pixels, D numbers of noise

SMALLEST = 16
"""Pixels: below this the discriminators have nothing left to judge."""


class DVDGAN(Generator):
    """Clips of any length from noise and a class."""

    Options = DVDGANOptions
    paper = PAPER
    accepts = (ClassLabel,)
    options: DVDGANOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._network: VideoGenerator | None = None

    def _new_network(self, height: int, width: int) -> VideoGenerator:
        classes = self.conditions.channels
        return VideoGenerator(self.options, classes=classes, height=height, width=width)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        try:
            network = self._new_network(*weights["frame_size"].tolist())
            network.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise BadSubject(
                f"these weights are not of the dvdgan that the options describe ({reason}); "
                "generate with the options that the model was trained with"
            ) from error
        weight = network.to_frames.parametrizations["weight"].original  # pyright: ignore
        device, dtype = weights["last_norm.mean"].device, weight.dtype
        refuse_half_on_cpu(dtype, device)
        network.to(device)
        settle(network)
        self._network = network

    def objective(self, spec: VideoSpec) -> Objective:
        if min(spec.height, spec.width) < SMALLEST:
            raise BadOption(
                f"dvdgan cannot be trained at {spec.width}x{spec.height}: it needs {SMALLEST} "
                "pixels each way; choose a larger size"
            )
        network = self._new_network(spec.height, spec.width)
        return DVDGANObjective(self.options, network, classes=self.conditions.channels)

    def noise(
        self, num_frames: int, *, rng: torch.Generator, truncation: float | None = None
    ) -> Noise:
        size = self.options.noise
        if self.options.noise_per == "clip":
            values = normal((1, size), rng=rng, truncation=truncation).repeat(num_frames, 1)
        else:  # row by row: the first frames of a longer film are the same
            rows = [normal((1, size), rng=rng, truncation=truncation) for _ in range(num_frames)]
            values = torch.cat([torch.empty(0, size), *rows])
        return Noise(values=values)

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._network is None:
            raise ValueError("load_weights comes before generate")
        device = self._network.frame_size.device
        memory, noise = None, None
        for chunk in chunks:
            if not len(chunk):
                yield Clip(torch.empty(0, 3, spec.height, spec.width, dtype=torch.uint8), chunk.pts)
                continue
            if Noise in chunk.signals:
                noise = chunk.require(Noise)
            elif noise is None or self.options.noise_per == "frame":
                noise = self.noise(len(chunk), rng=rng)
            made, memory = self._made(chunk, noise, memory, device)
            frames = Clip.from_float(made, chunk.pts).frames
            if frames.shape[2:] != (spec.height, spec.width):
                frames = resize(frames.cpu(), spec.height, spec.width)
            yield Clip(frames, chunk.pts)

    def _made(
        self, chunk: Chunk, noise: Noise, memory: Memory | None, device: torch.device
    ) -> tuple[Tensor, Memory]:
        """(T, 3, H, W) in [-1, 1]"""
        assert self._network is not None
        values = noise.values
        if len(values) != len(chunk):  # drawn once, for an earlier chunk
            values = values[:1].expand(len(chunk), -1)
        shares = chunk.require(ClassLabel).shares
        frames, after = self._network(
            values[None].to(device), shares[None].to(device), len(chunk), memory
        )
        return frames[0], after
