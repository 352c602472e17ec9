"""For plugin authors: conformance checks, and small made-up videos and signals to test with."""

from vidsynth.testing.conformance import Case, Finding, checks_of, conformance, examine
from vidsynth.testing.samples import (
    ClipMaker,
    SignalMaker,
    chunked,
    filmed,
    moving_squares,
    nodding_face,
    sizes,
    sliding_labels,
    times,
    waving_person,
)

__all__ = [
    "Case",
    "ClipMaker",
    "Finding",
    "SignalMaker",
    "checks_of",
    "chunked",
    "conformance",
    "examine",
    "filmed",
    "moving_squares",
    "nodding_face",
    "sizes",
    "sliding_labels",
    "times",
    "waving_person",
]
