"""For plugin authors: conformance checks, and small made-up videos and signals to test with."""

from vidsynth.testing.conformance import Case, checks_of, conformance
from vidsynth.testing.samples import (
    chunked,
    moving_squares,
    nodding_face,
    sizes,
    sliding_labels,
    times,
    waving_person,
)

__all__ = [
    "Case",
    "checks_of",
    "chunked",
    "conformance",
    "moving_squares",
    "nodding_face",
    "sizes",
    "sliding_labels",
    "times",
    "waving_person",
]
