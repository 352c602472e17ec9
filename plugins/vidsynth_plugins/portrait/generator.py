"""The plugin itself: renders with a subject's weights, and hands out the training rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from vidsynth.blocks import filled
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import FaceSequence
from vidsynth.errors import BadOption
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective
from vidsynth.stream import Chunk
from vidsynth_plugins.pix2pixhd.generator import (
    SMALLEST,
    in_callers_precision,
    plate_of,
    windows_of,
)
from vidsynth_plugins.portrait.networks import PortraitNet
from vidsynth_plugins.portrait.objective import PortraitObjective
from vidsynth_plugins.portrait.options import PICTURES, PortraitOptions

# T frames, C channels, H, W pixels


class Portrait(Generator):
    """Frames from renderings of a head, the current one and those before it.

    Made for the nine channels of `face3d`; the maps of `face` do as well.
    """

    Options = PortraitOptions
    paper = 'Kim et al. 2018, "Deep Video Portraits"'
    checked: ClassVar = {"options": {"filters": 8, "levels": 3, "window": 3, "d_filters": 8}}
    accepts = (FaceSequence,)
    options: PortraitOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        if self.options.leave_out and conditions.channels != 3 * len(PICTURES):
            raise BadOption(
                "leave_out names pictures of the extractor face3d, and this conditioning has "
                f"{conditions.channels} channels; leave it empty"
            )
        self._network: PortraitNet | None = None

    def _new_network(self) -> PortraitNet:
        composites = self.options.background and self.conditions.background
        return PortraitNet(self.options, channels=self.conditions.channels, background=composites)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self._network = filled(self._new_network(), weights, method="portrait")

    def objective(self, spec: VideoSpec) -> Objective:
        if min(spec.height, spec.width) < SMALLEST:
            raise BadOption(
                f"portrait cannot be trained at {spec.width}x{spec.height}: it needs "
                f"{SMALLEST} pixels each way; choose a larger size"
            )
        return PortraitObjective(self.options, self._new_network())

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._network is None:
            raise ValueError("load_weights comes before generate")
        network = in_callers_precision(self._network)
        device = next(network.parameters()).device
        past_TCHW = plate = None
        for chunk in chunks:
            if not len(chunk):
                yield Clip(torch.empty(0, 3, spec.height, spec.width, dtype=torch.uint8), chunk.pts)
                continue
            maps_TCHW = self.conditions.draw(chunk, spec.height, spec.width).to(device)
            windows_TCHW, past_TCHW = windows_of(maps_TCHW, past_TCHW, self.options.window)
            if network.background and plate is None:
                plate = plate_of(chunk, spec).to(device)
            yield Clip.from_float(network(windows_TCHW, plate), chunk.pts)
