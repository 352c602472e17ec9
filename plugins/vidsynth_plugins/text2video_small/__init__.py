"""Short clips from a few words: a small diffusion model in pixels, with a text encoder of its own,
trained here on made-up clips, and trainable on others.

Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models"; Ho and
Salimans 2022, "Classifier-Free Diffusion Guidance"; Voleti et al. 2022, "MCVD: Masked Conditional
Video Diffusion for Prediction, Generation, and Interpolation".
"""

from vidsynth_plugins.text2video_small.generator import TextToVideoSmall
from vidsynth_plugins.text2video_small.options import SmallOptions

__all__ = ["SmallOptions", "TextToVideoSmall"]
