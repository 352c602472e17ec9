"""Every error a user can meet: one sentence of fact, one of remedy. The CLI prints the message.

`ValueError` and `TypeError` mean misuse of the Python API; `assert` means a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class VidsynthError(Exception):
    """Root of the tree. `exit_code` is what the command line returns: 2 for the user's mistake."""

    exit_code = 2


class UnsupportedVideo(VidsynthError):
    """A file that is missing, empty, damaged, or of a form that vidsynth refuses by name."""


class OutputExists(VidsynthError):
    """The output is already there and `--overwrite` was not given."""


class CannotWrite(VidsynthError):
    """The output could not be written: folder missing or read-only, disk full."""


class NoSubjectFound(VidsynthError):
    """No person (or face), or too few usable frames of one, in a video."""


class UnknownName(VidsynthError):
    """A recipe, plugin, world or option that does not exist; the message proposes the nearest."""

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str]) -> UnknownName:
        """`what` ("recipe", "option of generator") has no `name`; it could be one of `known`."""
        known = sorted(known)
        near = get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        return cls(f"there is no {what} {name!r}; {remedy}known: {', '.join(known) or 'none'}")


class BadOption(VidsynthError):
    """An option exists but its value cannot be used."""


class PluginError(VidsynthError):
    """A plugin is not installed, cannot be imported, clashes, or broke its contract."""


class IncompatibleStages(VidsynthError):
    """A stage asks for a signal that the stream does not carry."""


class MissingWeights(VidsynthError):
    """Pretrained weights are needed and not on this machine."""


class BadWeights(VidsynthError):
    """A file that was given as weights and holds none."""


class NotMeasurable(VidsynthError):
    """A metric has nothing to say of these videos: no subject in them, or too few samples."""


class BadSubject(VidsynthError):
    """A subject folder that is not one, is damaged, or was made by a newer format."""


class InUse(VidsynthError):
    """Another process is at work on the same folder."""


class DeviceUnavailable(VidsynthError):
    """The device asked for is not on this machine, or cannot do what was asked of it."""


class TrainingFailed(VidsynthError):
    """Training could not go on (for example losses that stay non-finite after every roll-back)."""

    exit_code = 1


class StageFailed(VidsynthError):
    """A stage of the pipeline raised something foreign; says which stage, frame and second."""

    exit_code = 1


class Interrupted(VidsynthError):
    """Ctrl-C: what was finished is kept, and the message says how to go on."""

    exit_code = 130
