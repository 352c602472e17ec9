"""Label maps: what stands where in a picture, as conditioning for scenes."""

from vidsynth_plugins.labels.extractor import LabelExtractor, LabelOptions

__all__ = ["LabelExtractor", "LabelOptions"]
