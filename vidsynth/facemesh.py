"""The canonical face: 468 points, their texture coordinates, and the triangles between them.

The data is the canonical face mesh of MediaPipe (Copyright The MediaPipe Authors, Apache-2.0),
taken once from `geometry_pipeline_metadata_landmarks.binarypb` of its official face landmarker
bundle, so that nothing here needs mediapipe. Its vertices are in the order of the first 468 points
of the 478-point face mesh that the trackers find.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class FaceMesh:
    """A neutral, average face. The arrays are shared: treat them as read-only."""

    vertices: NDArray[np.float32]
    """(468, 3) centimetres: x to the right of the picture, y up, z towards the viewer."""
    uv: NDArray[np.float32]
    """(468, 2) in [0, 1]: u to the right, v down from the top row of a texture."""
    triangles: NDArray[np.int32]
    """(898, 3) vertex indices, counter-clockwise as seen from outside. Eyes and mouth are closed
    by triangles too."""


@cache
def load_face_mesh() -> FaceMesh:
    """Read the mesh that ships with the package."""
    from safetensors.numpy import load_file

    arrays = load_file(Path(__file__).with_name("face_mesh.safetensors"))
    for array in arrays.values():
        array.setflags(write=False)
    return FaceMesh(**arrays)
