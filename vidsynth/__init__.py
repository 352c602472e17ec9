"""Video synthesis and reenactment: one command turns two videos into a finished one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Resolved on first use (PEP 562), so that importing vidsynth imports no
# torch and `vidsynth --help` answers at once.
_PUBLIC = {
    "Chunk": "vidsynth.stream",
    "Clip": "vidsynth.clip",
    "FaceSequence": "vidsynth.conditioning",
    "LabelMaps": "vidsynth.conditioning",
    "PoseSequence": "vidsynth.conditioning",
    "Subject": "vidsynth.subject",
    "VideoSpec": "vidsynth.clip",
    "VidsynthError": "vidsynth.errors",
    "evaluate": "vidsynth.evaluation",
    "extract": "vidsynth.jobs",
    "generate": "vidsynth.generation",
    "load_subject": "vidsynth.subject",
    "read_chunks": "vidsynth.video",
    "render": "vidsynth.jobs",
    "run": "vidsynth.stream",
    "train": "vidsynth.jobs",
    "transfer": "vidsynth.jobs",
    "write_video": "vidsynth.video",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from vidsynth.clip import Clip, VideoSpec
    from vidsynth.conditioning import FaceSequence, LabelMaps, PoseSequence
    from vidsynth.errors import VidsynthError
    from vidsynth.evaluation import evaluate
    from vidsynth.generation import generate
    from vidsynth.jobs import extract, render, train, transfer
    from vidsynth.stream import Chunk, run
    from vidsynth.subject import Subject, load_subject
    from vidsynth.video import read_chunks, write_video


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vidsynth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
