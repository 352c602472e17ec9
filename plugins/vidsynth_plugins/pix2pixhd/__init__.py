"""Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional
GANs" (pix2pixHD), with the additions that per-subject video asks for.

From Chan et al. 2019, "Everybody Dance Now": the previous generated frame as a condition, a
discriminator of frame pairs, a face-region GAN. From Kim et al. 2018, "Deep Video Portraits": a
window of past conditioning frames. Ours: a still plate composited under a soft mask, U-Net skips,
a half-resolution trunk for small machines, a subject-weighted L1.
"""

from vidsynth_plugins.pix2pixhd.discriminators import MultiscalePatch, MultiscalePatchOptions
from vidsynth_plugins.pix2pixhd.generator import Pix2PixHD
from vidsynth_plugins.pix2pixhd.options import Pix2PixHDOptions

__all__ = ["MultiscalePatch", "MultiscalePatchOptions", "Pix2PixHD", "Pix2PixHDOptions"]
