"""Films from text by the open models of diffusers: Wan, LTX-Video, CogVideoX, HunyuanVideo...

Ho et al. 2022, "Video Diffusion Models", showed the way; each family has its own paper.
"""

from vidsynth_plugins.text2video.generator import Text2Video
from vidsynth_plugins.text2video.options import Text2VideoOptions

__all__ = ["Text2Video", "Text2VideoOptions"]
