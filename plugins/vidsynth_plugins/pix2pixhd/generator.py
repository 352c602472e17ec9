"""The plugin itself: renders with a subject's weights, and hands out the training rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidsynth.blocks import filled
from vidsynth.clip import Clip, VideoSpec
from vidsynth.compiling import LongRun
from vidsynth.conditioning import Conditioning, FaceSequence, LabelMaps, PoseSequence
from vidsynth.errors import BadOption
from vidsynth.exemplars import Exemplars
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective, Recalled
from vidsynth.plate import BackgroundPlate
from vidsynth.stream import Chunk
from vidsynth_plugins.pix2pixhd.objective import Pix2PixHDObjective, stack_windows
from vidsynth_plugins.pix2pixhd.options import Pix2PixHDOptions
from vidsynth_plugins.pix2pixhd.painter import Painter
from vidsynth_plugins.pix2pixhd.reference_weights import load_reference_weights

# T frames, C channels, H, W pixels

Network = TypeVar("Network", bound=nn.Module)

SMALLEST = 16
"""Pixels: below this the discriminators have nothing left to judge."""


class Pix2PixHD(Generator):
    """Frames from conditioning maps, for one subject at a time."""

    Options = Pix2PixHDOptions
    paper = (
        'Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with '
        'Conditional GANs"'
    )
    weights_licence = "none needed; VGG19 (BSD-3-Clause) for the perceptual loss when present"
    checked: ClassVar = {"options": {"filters": 8, "downsamplings": 2, "blocks": 1, "d_filters": 8}}
    accepts = (PoseSequence, FaceSequence, LabelMaps, Conditioning)
    options: Pix2PixHDOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._painter: Painter | None = None
        self._num_frames: int | None = None
        self._memory: Mapping[str, Tensor] = {}
        self._before: Mapping[str, Tensor] = {}

    def _new_painter(self) -> Painter:
        composites = self.options.background and self.conditions.background
        return Painter(self.options, channels=self.conditions.channels, background=composites)

    def _new_objective(self) -> Objective:
        return Pix2PixHDObjective(self.options, self._new_painter())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self._painter = filled(self._new_painter(), weights, method="pix2pixhd")

    @classmethod
    def read_published(cls, path: Path) -> tuple[Pix2PixHDOptions, Mapping[str, Tensor]]:
        return load_reference_weights(path)

    def objective(self, spec: VideoSpec) -> Objective:
        if min(spec.height, spec.width) < SMALLEST:
            raise BadOption(
                f"pix2pixhd cannot be trained at {spec.width}x{spec.height}: it needs "
                f"{SMALLEST} pixels each way; choose a larger size"
            )
        return self._new_objective()

    def expect(self, num_frames: int) -> None:
        self._num_frames = num_frames

    def memory(self) -> Mapping[str, Tensor]:
        return self._memory

    def go_on(self, memory: Mapping[str, Tensor]) -> None:
        self._before = dict(memory)

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._painter is None:
            raise ValueError("load_weights comes before generate")
        painter = in_callers_precision(self._painter)
        device = next(painter.parameters()).device
        run = LongRun(painter.body, self._num_frames)
        told, self._before = self._before, {}  # of the next film only
        past_TCHW, previous = (
            told[name].to(device) if name in told else None for name in ("past", "previous")
        )
        plate = None
        for chunk in chunks:
            began = perf_counter()
            if not len(chunk):
                yield Clip(torch.empty(0, 3, spec.height, spec.width, dtype=torch.uint8), chunk.pts)
                continue
            maps_TCHW = self.conditions.draw(chunk, spec.height, spec.width).to(device)
            windows_TCHW, past_TCHW = windows_of(maps_TCHW, past_TCHW, self.options.window)
            if painter.background and plate is None:
                plate = plate_of(chunk, spec).to(device)
            faces_T4 = self._faces(chunk, spec, device)
            recalled = None
            if painter.slots:
                recalled = Recalled.of(chunk.require(Exemplars), device)
            if self.options.previous:
                if previous is None:
                    previous = windows_TCHW.new_zeros(1, 3, spec.height, spec.width)
                frames_T3HW = _one_by_one(
                    painter, windows_TCHW, previous, plate, faces_T4, recalled
                )
                previous = frames_T3HW[-1:]
            else:
                frames_T3HW = painter(windows_TCHW, None, plate, faces_T4, recalled).frames
            run.made(len(chunk), perf_counter() - began)
            remembered = {"past": past_TCHW, "previous": previous}
            self._memory = {name: value for name, value in remembered.items() if value is not None}
            size = (spec.height, spec.width)
            if frames_T3HW.shape[-2:] != size:  # the local enhancers have not joined yet
                frames_T3HW = F.interpolate(frames_T3HW, size, mode="bilinear")
            yield Clip.from_float(frames_T3HW, chunk.pts)

    def _faces(self, chunk: Chunk, spec: VideoSpec, device: torch.device) -> Tensor | None:
        """Face boxes (T, 4) in pixels of `spec`, from the first signal that knows them."""
        for kind in self.conditions.kinds if self.options.face else ():
            signal = chunk.require(kind)
            boxes_T4 = signal.regions().get("face")
            if boxes_T4 is not None:
                x, y = spec.width / signal.size[1], spec.height / signal.size[0]
                return (boxes_T4 * boxes_T4.new_tensor([x, y, x, y])).to(device)
        return None


def windows_of(drawn_TCHW: Tensor, past_TCHW: Tensor | None, window: int) -> tuple[Tensor, Tensor]:
    """What each frame of a chunk is made from, and what the next chunk needs of it.

    Args:
        drawn_TCHW: the chunk's conditioning, uint8.
        past_TCHW: what this gave for the chunk before, None for the first.
        window: frames of conditioning seen at once.

    Returns:
        (T, window * C, H, W) and (window - 1, C, H, W), floats in [0, 1].
    """
    maps_TCHW = drawn_TCHW.float() / 255
    if past_TCHW is None:  # before the first frame, the first repeats
        past_TCHW = maps_TCHW[:1].expand(window - 1, -1, -1, -1)
    maps_TCHW = torch.cat([past_TCHW, maps_TCHW])
    return stack_windows(maps_TCHW[None], window)[0], maps_TCHW[len(drawn_TCHW) :]


def in_callers_precision(network: Network) -> Network:
    """Under autocast, a copy with weights of its type: cast once and not at every use."""
    weight = next(network.parameters())
    kind = weight.device.type
    if not torch.is_autocast_enabled(kind) or weight.dtype != torch.float32:
        return network
    return deepcopy(network).to(torch.get_autocast_dtype(kind))


def _one_by_one(
    painter: Painter,
    windows_TCHW: Tensor,
    previous_13HW: Tensor,
    plate_3HW: Tensor | None,
    faces_T4: Tensor | None,
    recalled: Recalled | None,
) -> Tensor:
    """Each frame after the one before it."""
    frames = []
    for n in range(len(windows_TCHW)):
        face_14 = None if faces_T4 is None else faces_T4[n : n + 1]
        shown = recalled and recalled.each(lambda x, n=n: x[n : n + 1])
        window_1CHW = windows_TCHW[n : n + 1]
        previous_13HW = painter(window_1CHW, previous_13HW, plate_3HW, face_14, shown).frames
        frames.append(previous_13HW)
    return torch.cat(frames)


def plate_of(chunk: Chunk, spec: VideoSpec) -> Tensor:
    """(3, H, W) float32 in [-1, 1]"""
    plate = chunk.require(BackgroundPlate)[:1].draw(spec.height, spec.width)
    return Clip(plate, torch.zeros(1, dtype=torch.float64)).as_float()[0]
