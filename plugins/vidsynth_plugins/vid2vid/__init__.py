"""Wang et al. 2018, "Video-to-Video Synthesis" (vid2vid): each frame is what the last one becomes
under an estimated flow, and paint where that does not reach.

Ours: a person's layer over a still plate, a half-resolution trunk for small machines, a
subject-weighted L1.
"""

from vidsynth_plugins.vid2vid.discriminators import VideoPatch
from vidsynth_plugins.vid2vid.generator import Vid2Vid
from vidsynth_plugins.vid2vid.options import Vid2VidOptions

__all__ = ["Vid2Vid", "Vid2VidOptions", "VideoPatch"]
