"""The plugin itself: renders with a subject's weights, and hands out the training rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidsynth.blocks import filled, halve
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import FaceSequence, LabelMaps, PoseSequence
from vidsynth.drawing import resize
from vidsynth.errors import BadOption, IncompatibleStages
from vidsynth.kinds import Conditions, Generator
from vidsynth.objectives import Objective
from vidsynth.stream import Chunk
from vidsynth_plugins.pix2pixhd.generator import SMALLEST, in_callers_precision, plate_of
from vidsynth_plugins.vid2vid.networks import Past, Sequencer, is_cut
from vidsynth_plugins.vid2vid.objective import Vid2VidObjective
from vidsynth_plugins.vid2vid.options import Vid2VidOptions
from vidsynth_plugins.vid2vid.reference_weights import load_reference_weights

# T frames, C channels, H, W pixels


class Vid2Vid(Generator):
    """Frames from conditioning maps and from the frames made before, for one subject at a time.

    With the option `start` = "given", the stream's own pictures open each sequence.
    """

    Options = Vid2VidOptions
    paper = 'Wang et al. 2018, "Video-to-Video Synthesis"'
    weights_licence = (
        "none needed; VGG19 (BSD-3-Clause) for the perceptual loss and RAFT (BSD-3-Clause) for the "
        "flow when present"
    )
    checked: ClassVar = {
        "options": {
            "filters": 8,
            "downsamplings": 2,
            "blocks": 1,
            "d_filters": 8,
            "reference_flow": "dis",
            "longest": 3,
        }
    }
    accepts = (PoseSequence, FaceSequence, LabelMaps)
    options: Vid2VidOptions

    def __init__(self, options: object | None = None, *, conditions: Conditions) -> None:
        super().__init__(options, conditions=conditions)
        self._sequencer: Sequencer | None = None
        self._memory: Mapping[str, Tensor] = {}
        self._before: Mapping[str, Tensor] = {}
        classes = self.options.foreground
        if classes and not issubclass(conditions.kinds[0], LabelMaps):
            raise BadOption(
                f"foreground names label classes, and {conditions.kinds[0].kind!r} has none; "
                "leave it empty"
            )
        if classes and not 0 <= min(classes) <= max(classes) < conditions.channels:
            raise BadOption(
                f"foreground = {list(classes)} is outside of the {conditions.channels} channels of "
                "the label maps; name classes that they have"
            )

    def _new_sequencer(self) -> Sequencer:
        composites = self.options.background and self.conditions.background
        return Sequencer(self.options, channels=self.conditions.channels, background=composites)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self._sequencer = filled(self._new_sequencer(), weights, method="vid2vid")

    @classmethod
    def read_published(cls, path: Path) -> tuple[Vid2VidOptions, Mapping[str, Tensor]]:
        return load_reference_weights(path)

    def objective(self, spec: VideoSpec) -> Objective:
        if min(spec.height, spec.width) < SMALLEST:
            raise BadOption(
                f"vid2vid cannot be trained at {spec.width}x{spec.height}: it needs "
                f"{SMALLEST} pixels each way; choose a larger size"
            )
        return Vid2VidObjective(self.options, self._new_sequencer())

    def memory(self) -> Mapping[str, Tensor]:
        return self._memory

    def go_on(self, memory: Mapping[str, Tensor]) -> None:
        self._before = dict(memory)

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        if self._sequencer is None:
            raise ValueError("load_weights comes before generate")
        sequencer = in_callers_precision(self._sequencer)
        device = next(sequencer.parameters()).device
        size = (spec.height, spec.width)
        told, self._before = self._before, {}  # of the next film only
        past = Past.of_tensors(told, device) if told else None
        before, plate = told["before"].to(device) if told else None, None
        for chunk in chunks:
            if not len(chunk):
                yield Clip(torch.empty(0, 3, *size, dtype=torch.uint8), chunk.pts)
                continue
            maps_TCHW = self.conditions.draw(chunk, *size).to(device).float() / 255
            if sequencer.background and plate is None:
                plate = self._sized(plate_of(chunk, spec).to(device)[None])[0]
            made = []
            for n, now in enumerate(maps_TCHW.split(1)):
                if before is not None and is_cut(before, now, self.options.cut):
                    past = None
                before = now
                given = self._given(chunk, n, past, spec, device)
                found = sequencer(self._sized(now), past, plate, given)
                past = found.past
                made.append(found.frame)
            assert past is not None and before is not None
            self._memory = {"before": before, **past.tensors()}
            frames_T3HW = torch.cat(made)
            if sequencer.is_coarse:
                frames_T3HW = F.interpolate(frames_T3HW, size, mode="bilinear")
            yield Clip.from_float(frames_T3HW, chunk.pts)

    def _given(
        self, chunk: Chunk, index: int, past: Past | None, spec: VideoSpec, device: torch.device
    ) -> Tensor | None:
        """The stream's own frame (1, 3, H, W) where it opens a sequence, with that option."""
        if self.options.start != "given" or (past is not None and past.made >= self.options.past):
            return None
        if chunk.clip is None:
            raise IncompatibleStages(
                "vid2vid was to go on from given frames, and the stream carries none; put the "
                "opening pictures into it, or set generator.start to 'none' or 'image'"
            )
        frame = resize(chunk.clip.frames[index : index + 1], spec.height, spec.width)
        return self._sized(Clip(frame, chunk.pts[:1]).to(device).as_float())

    def _sized(self, images_BCHW: Tensor) -> Tensor:
        """Halved while the finest level has not joined."""
        assert self._sequencer is not None
        return halve(images_BCHW) if self._sequencer.is_coarse else images_BCHW
