"""Films made from line drawings, with vidsynth."""

from vidsynth_sketch.discriminator import SketchPatch
from vidsynth_sketch.extractor import SketchExtractor
from vidsynth_sketch.metric import LineAgreement
from vidsynth_sketch.sketch import Sketch

__all__ = ["LineAgreement", "Sketch", "SketchExtractor", "SketchPatch"]
