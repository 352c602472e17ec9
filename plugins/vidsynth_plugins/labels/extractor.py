"""The plugin itself: people by MediaPipe, classes by a network, or maps that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import VOID, LabelMaps
from vidsynth.errors import BadOption
from vidsynth.kinds import Extractor, Given
from vidsynth.notes import Finding, Notes
from vidsynth_plugins.labels.files import read_maps
from vidsynth_plugins.labels.palettes import load_palette
from vidsynth_plugins.labels.segmenters import Segmenter
from vidsynth_plugins.mediapipe_models import open_segmenter

# H, W pixels

_Classes = Callable[[Tensor], Tensor]
"""The class of each pixel, (H, W), of a frame (3, H, W) uint8."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Where label maps come from.

    Attributes:
        model: "person" tells people from their background (class 1 from 0) with MediaPipe; "given"
            takes maps that are there already, from files (vidsynth train --labels); anything else
            is a semantic-segmentation model of transformers, by its name or as a folder.
        palette: what the colours of given maps mean: "cityscapes", "voc", or a text file with a
            line of red, green and blue per class. Maps of ids need none.
        classes: how many classes given maps have, 0: as many as they show or their palette has.
        threshold: smallest likelihood, in [0, 1], at which a pixel is of a person.
        size: pixels of the shorter side at which a transformers model sees frames.
        model_bundle: a model of MediaPipe's image segmenter (.tflite) to use through its Tasks
            API, which mediapipe 1.x needs; none given: the model inside mediapipe 0.10.x, or the
            one in the folder VIDSYNTH_MODELS or among vidsynth's weights.
    """

    model: str = "person"
    palette: str = "cityscapes"
    classes: int = 0
    threshold: float = 0.5
    size: int = 512
    model_bundle: Path | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model cannot be empty; say 'person', 'given', a name or a folder")
        if not 0 <= self.classes <= VOID:
            raise ValueError(f"classes must be in 0 to {VOID}; got {self.classes}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1; got {self.threshold}")
        if self.size < 32:
            raise ValueError(f"size must be at least 32; got {self.size}")


class LabelExtractor(Extractor):
    """Semantic label maps of every frame, from pictures or from files."""

    Options = LabelOptions
    produces: ClassVar = LabelMaps
    weights_licence = "Apache-2.0 (MediaPipe's own model); a model of yours has its own"
    checked: ClassVar = {"world": "puppet", "height": 160, "width": 160}

    options: LabelOptions

    @property
    def reads_files(self) -> bool:
        return self.options.model == "given"

    def read(self, given: Given, *, shorter: int) -> LabelMaps:
        if not self.reads_files:
            raise BadOption(
                f"label maps were given, and extractor.model = {self.options.model!r} would make "
                "them anew; leave one of the two out"
            )
        palette = load_palette(self.options.palette)
        return read_maps(given, palette, self.options.classes, shorter=shorter)

    def extract(self, clips: Iterator[Clip]) -> Iterator[LabelMaps]:
        """One LabelMaps per clip, without instances.

        Raises:
            BadOption: the maps are to be given and were not; or a model of another sort.
            MissingWeights: a model that is not here.
        """
        if self.reads_files:
            raise BadOption(
                "label maps are to come from files: name them with --labels, or a model that "
                "makes them with -s extractor.model ('person', or one of transformers)"
            )
        classes, num_classes = None, 0
        # Telling people takes less time than noting where they are.
        notes = Notes() if self.options.model == "person" else self.notes
        with ExitStack() as opened:
            for clip in clips:
                if classes is None:  # models load when there is something to look at
                    classes, num_classes = self._open(opened)
                maps = notes.once(partial(_maps, clip, classes))["maps"]
                yield LabelMaps(labels=maps, num_classes=num_classes)
                notes.rest()

    def _open(self, opened: ExitStack) -> tuple[_Classes, int]:
        """What tells the classes of a frame, and how many there are."""
        if self.options.model != "person":
            network = Segmenter(self.options.model, self.options.size)
            return network.classes, network.num_classes
        segmenter = open_segmenter(bundle=self.options.model_bundle)
        opened.callback(segmenter.close)

        def people(frame_3HW: Tensor) -> Tensor:
            picture = np.ascontiguousarray(frame_3HW.permute(1, 2, 0).numpy())
            likely = segmenter.people(picture) >= self.options.threshold
            return torch.from_numpy(likely)

        return people, 2


def _maps(clip: Clip, classes: _Classes) -> Finding:
    """The classes of each pixel of each frame."""
    maps = torch.empty(len(clip), clip.height, clip.width, dtype=torch.uint8)
    for frame, out in zip(clip.frames.cpu(), maps, strict=True):
        out.copy_(classes(frame))
    return {"maps": maps}
