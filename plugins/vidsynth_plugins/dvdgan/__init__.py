"""Clark et al. 2019, "Adversarial Video Generation on Complex Datasets" (DVD-GAN): clips from noise
and a class, with dual discriminators."""

from vidsynth_plugins.dvdgan.discriminators import SpatialDiscriminator, TemporalDiscriminator
from vidsynth_plugins.dvdgan.generator import DVDGAN
from vidsynth_plugins.dvdgan.options import DVDGANOptions, SpatialOptions, TemporalOptions

__all__ = [
    "DVDGAN",
    "DVDGANOptions",
    "SpatialDiscriminator",
    "SpatialOptions",
    "TemporalDiscriminator",
    "TemporalOptions",
]
