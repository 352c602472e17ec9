"""Editing a film of someone: curves over time, by name, added to what the head does.

An edit is a curve per name: of the head's pose (`POSE`), of the eyes (`GAZE`), and of whatever
expressions the subject's kind of conditioning offers (`ParametricFace.controls`). `edited` applies
one to any span of frames, so that a slider can show what it does to a single one.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidsynth import devices, options, retarget, video
from vidsynth.conditioning import FaceSequence
from vidsynth.errors import BadOption, BadSubject, UnknownName
from vidsynth.files import writing
from vidsynth.filming import Sound, Studio, Wanted, film
from vidsynth.options import parse_duration
from vidsynth.outputs import check_outputs, settings_file
from vidsynth.parametric import ParametricFace
from vidsynth.provenance import about
from vidsynth.report import Reporter
from vidsynth.retarget_face import canonical, posed, resting
from vidsynth.steady import STEADINESS
from vidsynth.subject import Subject, SubjectCard, load_subject
from vidsynth.tracking import Tracked, track_as

# T frames

POSE = {
    "yaw": "degrees the head turns to the right of the picture",
    "pitch": "degrees it nods down",
    "roll": "degrees its top tilts to the left of the picture",
    "x": "shares of the picture's height that it moves right",
    "y": "shares of the picture's height that it moves down",
    "size": "how much larger it becomes: 0.1 is a tenth",
}
GAZE = {
    "gaze_yaw": "degrees the eyes turn to the right of the picture",
    "gaze_pitch": "degrees they look down",
}
NECK_CM = (0.0, -6.0, -5.0)
"""About what a head turns: centimetres of the canonical face, x right, y up, z to the viewer."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over time: keys, smooth in between, resting at each; constant before and after."""

    keys: tuple[tuple[float, float], ...]
    """(second, value), in order of time, at least one."""

    def at(self, seconds: Tensor) -> Tensor:
        """(T,) float64 values at (T,) seconds."""
        times, values = torch.tensor(self.keys, dtype=torch.float64).T.contiguous()
        after = torch.searchsorted(times, seconds.double(), right=True).clamp(
            1, max(1, len(times) - 1)
        )
        if len(times) == 1:
            return values.expand(len(seconds)).clone()
        begin, end = times[after - 1], times[after]
        share = ((seconds - begin) / (end - begin)).clamp(0, 1)
        share = share * share * (3 - 2 * share)
        return values[after - 1] + share * (values[after] - values[after - 1])


Edit = Mapping[str, Curve]


def read_edit(path: Path) -> dict[str, Curve]:
    """An edit in a TOML file: `yaw = 15`, or keys as `smile = [[0.0, 0.0], [1.5, 1.0]]`.

    Raises BadOption for a file that cannot be read or holds something else.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOption(
            f"the edit {path} cannot be read: {error}; give a TOML file of lines such as "
            "yaw = 15 or smile = [[0, 0], [1.5, 1]]"
        ) from error
    return {name: _curve(value, f"{name} in {path}") for name, value in values.items()}


def parse_edit(assignments: Iterable[str]) -> dict[str, Curve]:
    """An edit in words: "yaw=15", or keys as "smile=0s:0,1.5s:1,3s:0" (time:value).

    Raises BadOption.
    """
    curves = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadOption(f"{text!r} is no change; write NAME=VALUE, or NAME=0s:0,1.5s:1")
        curves[name.strip()] = _curve(_keys(value.strip(), text), text)
    return curves


def _keys(value: str, text: str) -> Any:
    """A number, or a list of keys."""
    try:
        if ":" not in value:
            return float(value)
        pairs = (key.rpartition(":") for key in value.split(","))
        return [[parse_duration(when.strip()), float(what)] for when, _, what in pairs]
    except (ValueError, BadOption) as error:
        raise BadOption(
            f"{text!r} cannot be used: {error}; write NAME=VALUE, or NAME=0s:0,1.5s:1"
        ) from error


def _curve(value: Any, where: str) -> Curve:
    keys = [[0.0, value]] if isinstance(value, (int, float)) else value
    try:
        pairs = [(float(when), float(what)) for when, what in keys]
    except (TypeError, ValueError) as error:
        raise BadOption(
            f"{where} is neither a number nor a list of [second, value] pairs; correct it"
        ) from error
    if not pairs or not all(math.isfinite(number) for pair in pairs for number in pair):
        raise BadOption(f"{where} has no keys, or some that are no numbers; correct it")
    if any(later <= former for (former, _), (later, _) in pairwise(pairs)):
        raise BadOption(f"{where}: the keys are not in order of time, each once; sort them")
    return Curve(tuple(pairs))


def names_for(face: FaceSequence) -> dict[str, str]:
    """What can be changed in such a sequence, and what it means."""
    if isinstance(face, ParametricFace):
        return {**POSE, **GAZE, **face.controls()}
    return dict(POSE)


def check_names(edit: Edit, face: FaceSequence) -> None:
    """Raises UnknownName, or BadOption where only another kind of subject could do it."""
    known = names_for(face)
    for name in edit:
        if name in known:
            continue
        if not isinstance(face, ParametricFace):
            raise BadOption(
                f"{name} cannot be changed: this subject's face is points, which can be turned and "
                f"moved ({', '.join(POSE)}); train a subject with --recipe portrait"
            )
        raise UnknownName.among("change", name, known)


def edited(face: FaceSequence, edit: Edit, pts: Tensor) -> FaceSequence:
    """The frames, with the curves' values at their times added. The head turns about its neck.

    Args:
        face: T frames.
        edit: curves by name.
        pts: (T,) seconds.

    Raises:
        UnknownName, BadOption: a name that this kind of face does not have.
    """
    check_names(edit, face)
    values = {name: curve.at(pts) for name, curve in edit.items()}
    if isinstance(face, ParametricFace):
        changes = {
            name: torch.deg2rad(v) if name in GAZE else v
            for name, v in values.items()
            if name not in POSE
        }
        if changes:
            face = face.with_changes(changes)
    if not any(name in POSE for name in values):
        return face
    zero = torch.zeros(len(face), dtype=torch.float64)
    of = {name: values.get(name, zero) for name in POSE}
    turn = [torch.deg2rad(of[name]) for name in ("yaw", "pitch", "roll")]
    rotation = turned(face.rotation.double(), *turn)
    neck = rotation.new_tensor(NECK_CM)
    carried = ((face.rotation.double() - rotation) @ neck)[:, :2] * face.scale.double()[:, None]
    moved = face.size[0] * torch.stack([of["x"], of["y"]], dim=1)
    place = face.translation.double() + carried + moved
    scale = face.scale.double() * (1 + of["size"]).clamp(min=0.05)
    changed = posed(face, canonical(face), rotation, place, scale, face.frame_size)
    hidden = ~face.present()
    return replace(
        changed, landmarks=torch.where(hidden[:, None, None], face.landmarks, changed.landmarks)
    )


def turned(rotation_T33: Tensor, yaw_T: Tensor, pitch_T: Tensor, roll_T: Tensor) -> Tensor:
    """Head rotations with so much added to their yaw, pitch and roll (radians), which are read off,
    changed and put together again: 15 degrees of yaw stay 15 on a tilted head."""
    upright = rotation_T33 * rotation_T33.new_tensor([[1.0], [-1.0], [-1.0]])
    yaw = torch.atan2(upright[:, 0, 2], upright[:, 2, 2]) + yaw_T
    pitch = -torch.asin(upright[:, 1, 2].clamp(-1, 1)) + pitch_T
    roll = torch.atan2(upright[:, 1, 0], upright[:, 1, 1]) + roll_T
    made = _about(yaw, 1) @ _about(pitch, 0) @ _about(roll, 2)
    return made * rotation_T33.new_tensor([[1.0], [-1.0], [-1.0]])


def _about(angle_T: Tensor, axis: int) -> Tensor:
    """(T, 3, 3) rotations about x, y or z, in axes x right, y up, z to the viewer."""
    one, zero, c, s = (
        torch.ones_like(angle_T),
        torch.zeros_like(angle_T),
        angle_T.cos(),
        angle_T.sin(),
    )
    rows = (
        [one, zero, zero, zero, c, -s, zero, s, c],
        [c, zero, s, zero, one, zero, -s, zero, c],
        [c, -s, zero, s, c, zero, zero, zero, one],
    )[axis]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


# The job


def edit(
    subject: Subject | str | Path,
    output: str | Path,
    *,
    changes: Edit | Iterable[str] = (),
    curves: str | Path | None = None,
    target: str | Path | None = None,
    seconds: float = 4.0,
    device: str = "auto",
    seed: int = 0,
    steadiness: float = STEADINESS,
    codec: str = "h264",
    overwrite: bool = False,
    provenance: bool = True,
    certificate: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Film a trained subject anew with some things changed, without a source; returns `output`.

    Args:
        subject: of a face recipe; expressions can be changed where it was trained with portrait.
        output: the video to write.
        changes: curves by name, or "yaw=15" and "smile=0s:0,1s:1" strings.
        curves: a TOML file with more of them.
        target: the video that the subject was trained on, whose motion is changed and whose
            sound is kept; without it the subject at rest is.
        seconds: how long the film is without that video.
        device, seed, steadiness, codec, overwrite, provenance, certificate, reporter: as in
            `transfer`.

    Raises:
        VidsynthError: see vidsynth.errors.
    """
    output, reporter = Path(output), reporter or Reporter()
    wanted = dict(read_edit(Path(curves))) if curves else {}
    wanted |= changes if isinstance(changes, Mapping) else parse_edit(changes)
    if not wanted:
        raise BadOption("nothing is to be changed; name something, like --change yaw=15")
    check_outputs(output, codec, overwrite, inputs=[] if target is None else [Path(target)])
    subject = subject if isinstance(subject, Subject) else load_subject(subject)
    card = subject.card
    studio = Studio.of(subject, devices.choose(device))

    face, pts = _face_to_edit(subject, target, seconds, reporter)
    changed = edited(face, wanted, pts)
    sentence = retarget.range_report(changed, card.summary).sentence(pts)
    if sentence:
        reporter.warn(sentence)
    keys = {name: [list(key) for key in curve.keys] for name, curve in wanted.items()}
    film(
        studio,
        changed,
        pts,
        Wanted(
            output=output,
            seed=seed,
            steadiness=steadiness,
            codec=codec,
            overwrite=overwrite,
            told=about(card, None if target is None else Path(target)) if provenance else None,
            certificate=certificate,
            sound=None if target is None else Sound(path=Path(target)),
        ),
        follows_from=[keys, target is not None, seconds],
        reporter=reporter,
    )
    with writing(settings_file(output)) as temporary:
        temporary.write_text(options.to_toml(keys))
    return output


def _face_to_edit(
    subject: Subject, path: str | Path | None, seconds: float, reporter: Reporter
) -> tuple[FaceSequence, Tensor]:
    """What the subject does before anything is changed, and when: (T,) seconds."""
    card, extractor = subject.card, subject.extractor()
    if not issubclass(extractor.produces, FaceSequence):
        raise BadSubject(
            f"{subject.folder} was trained on {card.summary.get('kind')!r} conditioning, and only "
            "faces can be edited; train a subject with --recipe portrait"
        )
    if path is not None:
        tracked = own_motion(subject, Path(path), reporter)
        assert isinstance(tracked.signal, FaceSequence)
        return tracked.signal, tracked.pts
    count = max(1, round(seconds * float(card.spec.fps)))
    still: FaceSequence = resting(card.summary, count)
    if issubclass(extractor.produces, ParametricFace):
        still = extractor.produces.at_rest(card.summary, still)
    return still, torch.arange(count, dtype=torch.float64) / float(card.spec.fps)


def own_motion(subject: Subject, path: Path, reporter: Reporter | None = None) -> Tracked:
    """The motion of the video that a subject was trained on, in pixels of its output frame.

    Raises BadOption for another video.
    """
    card: SubjectCard = subject.card
    if video.content_hash(path) != card.target_hash:
        raise BadOption(
            f"{path} is not the video that {subject.folder} was trained on ({card.target}); give "
            "that one, or drive the subject with this one by vidsynth render"
        )
    tracked = track_as(path, card.extractor, reporter=reporter)
    signal = tracked.signal
    if card.crop is not None:
        signal = signal.crop(card.crop)
    return replace(tracked, signal=signal.rescale(card.height, card.width))
