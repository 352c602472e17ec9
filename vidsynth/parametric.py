"""Faces told by parameters: what can be acted by another, and edited by name.

A plugin may give more than points: an extractor that fits a 3D model gives a kind of its own, a
ParametricFace, and retargeting and editing then change its parameters and not its outline.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from vidsynth.conditioning import FaceSequence

# T frames


class ParametricFace(FaceSequence):
    """A FaceSequence whose `landmarks` are what a model makes of `parameters` and of who it is."""

    __slots__ = ()

    @abstractmethod
    def acted_by(
        self, summary: Mapping[str, Any], *, expression: float, gaze: float
    ) -> tuple[Self, Tensor]:
        """These expressions and glances on the subject's face, in the subject's light.

        Relative to the face at rest of each: how far someone's mouth is open goes over, and not
        what it looks like shut.

        Args:
            summary: what `retarget.summarise` gave for the subject.
            expression: how strongly, 1 as they are and 0 the subject at rest.
            gaze: the same of the eyes.

        Returns:
            The sequence, its pose and place as they were; and its points in the face's own axes
            (T, 478, 3), float64 centimetres.
        """

    @classmethod
    @abstractmethod
    def at_rest(cls, summary: Mapping[str, Any], pose: FaceSequence) -> Self:
        """The subject doing nothing, in the pose and place of each frame of `pose`."""

    @abstractmethod
    def controls(self) -> Mapping[str, str]:
        """Names of the expressions that `with_changes` takes, and what each does at 1."""

    @abstractmethod
    def with_changes(self, changes: Mapping[str, Tensor]) -> Self:
        """With so much added to each named expression or eye angle, its pose as it was.

        Args:
            changes: (T,) by name: `controls` at coefficients, "gaze_yaw" and "gaze_pitch" at
                radians, positive to the right of the picture and down.
        """
