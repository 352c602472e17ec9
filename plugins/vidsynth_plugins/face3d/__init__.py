"""Parametric heads: tracking, rendering and refinement after Kim et al. 2018, "Deep Video
Portraits" (ACM Transactions on Graphics 37, 163), on a face model of our own that needs no
licensed scans."""

from vidsynth_plugins.face3d.extractor import Face3DExtractor, Face3DOptions
from vidsynth_plugins.face3d.sequence import Face3D

__all__ = ["Face3D", "Face3DExtractor", "Face3DOptions"]
