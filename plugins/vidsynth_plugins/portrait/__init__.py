"""The rendering-to-video network of Kim et al. 2018, "Deep Video Portraits" (ACM Transactions on
Graphics 37, 163): from pictures of a parametric head to a film of a person."""

from vidsynth_plugins.portrait.generator import Portrait
from vidsynth_plugins.portrait.options import PortraitOptions

__all__ = ["Portrait", "PortraitOptions"]
