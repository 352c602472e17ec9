"""From videos to Face3D: learn whose face it is from the first seconds, then follow it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.kinds import Extractor
from vidsynth.notes import Finding, Notes
from vidsynth_plugins.face import FaceExtractor, FaceOptions
from vidsynth_plugins.face3d.appearance import (
    Appearance,
    Crops,
    cut_crops,
    estimate_appearance,
    frame_lights,
    read,
    resemblance,
)
from vidsynth_plugins.face3d.eyes import EyeCuts, cut_eyes, learn_profile, refine_gaze
from vidsynth_plugins.face3d.fitting import (
    Performance,
    Person,
    canonical_sight,
    fit,
    learn,
    project,
)
from vidsynth_plugins.face3d.refining import learn_by_pixels, refine
from vidsynth_plugins.face3d.sequence import Face3D

# T frames

BLOCK = 16
"""Frames fitted together, counted from the start of the video, however it is cut into clips."""
LEARNT_FROM = 32
"""Frames at most that the person is learnt from, spread over `learn_frames`."""
PATIENCE = 4
"""A face that shows late is waited for until so many times `learn_frames` have gone by."""

LEAST_LIKE = 0.1
"""Resemblance (see `appearance.resemblance`) below which what was tracked is not the face."""


@dataclass(frozen=True, kw_only=True)
class Face3DOptions(FaceOptions):
    """How heads are tracked and fitted.

    Attributes:
        person: which face by size at the first sighting, where there are several: 1 (or none
            given) is the largest, 2 the next.
        min_confidence: smallest score, in [0, 1], of a detection or of a track that goes on.
        smoothing: seconds; time constant of the filter for a point at rest, less in motion;
            0 switches it off.
        max_gap_seconds: seconds; shorter absences are interpolated, longer ones are marked.
        model_bundle: as of the extractor `face`.
        learn_frames: frames, from the start, from which shape, texture and light are learnt; they
            are held in memory until then.
        refine: compare every pixel of the face and of the eyes with a rendering of it, instead of
            stopping at the landmarks; several times slower.
    """

    learn_frames: int = 96
    refine: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn_frames < 1:
            raise ValueError(f"learn_frames must be at least 1; got {self.learn_frames}")


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """What is kept of frames until they are fitted."""

    face: Crops
    eyes: EyeCuts

    def __getitem__(self, key: slice | Tensor) -> _Cuts:
        return _Cuts(self.face[key], self.eyes[key])

    @staticmethod
    def of(frames_T3HW: Tensor, landmarks_TV3: Tensor) -> _Cuts:
        return _Cuts(cut_crops(frames_T3HW, landmarks_TV3), cut_eyes(frames_T3HW, landmarks_TV3))

    @staticmethod
    def concat(parts: list[_Cuts]) -> _Cuts:
        return _Cuts(
            Crops.concat([part.face for part in parts]), EyeCuts.concat([p.eyes for p in parts])
        )


class Face3DExtractor(Extractor):
    """Fits a parametric head to one face. Where it is not seen, the last known face is kept; nor is
    it where the tracker went on but the pixels look like something else."""

    Options = Face3DOptions
    produces: ClassVar = Face3D
    checked: ClassVar = {
        "options": {"learn_frames": 16},
        "world": "head",
        "height": 128,
        "width": 128,
    }
    paper = 'Kim et al. 2018, "Deep Video Portraits"'
    weights_licence = "Apache-2.0 (MediaPipe's own models)"

    options: Face3DOptions

    def extract(self, clips: Iterator[Clip]) -> Iterator[Face3D]:
        """One Face3D per clip.

        Raises:
            MissingWeights: this mediapipe has no models of its own and there is no bundle.
        """
        waiting: list[FaceSequence] = []  # one per clip, not given back yet
        cuts: list[_Cuts] = []
        fitter: _Fitter | None = None
        done: list[Face3D] = []

        def advance(last: bool) -> Iterator[Face3D]:
            nonlocal fitter
            if not waiting:
                return
            if fitter is None:
                if not (last or self._knows_enough(waiting)):
                    return
                fitter = _Fitter.learn(
                    FaceSequence.concat(waiting),
                    _Cuts.concat(cuts),
                    self.options,
                    self.notes.part("fitting"),
                )
            yield from self._blocks(waiting, cuts, fitter, done, last)

        for face, clip in self._tracked(clips):
            waiting.append(face)
            cuts.append(_Cuts.of(clip.frames, face.landmarks))
            yield from advance(False)
        yield from advance(True)

    def _tracked(self, clips: Iterator[Clip]) -> Iterator[tuple[FaceSequence, Clip]]:
        held: list[Clip] = []

        def noted() -> Iterator[Clip]:
            for clip in clips:
                held.append(clip)
                yield clip

        names = {f.name for f in fields(FaceOptions)}
        plain = FaceOptions(**{n: getattr(self.options, n) for n in names})
        tracker = FaceExtractor(plain)
        tracker.notes = self.notes.part("tracking")
        for face in tracker.extract(noted()):
            yield face, held.pop(0)

    def _knows_enough(self, waiting: list[FaceSequence]) -> bool:
        seen = sum(int(face.seen.sum()) for face in waiting)
        total = sum(map(len, waiting))
        return seen >= self.options.learn_frames or total >= PATIENCE * self.options.learn_frames

    def _blocks(
        self,
        waiting: list[FaceSequence],
        cuts: list[_Cuts],
        fitter: _Fitter,
        done: list[Face3D],
        last: bool,
    ) -> Iterator[Face3D]:
        """Fit whole blocks of the frames that have come in, and give back whole clips."""
        faces, cut = FaceSequence.concat(waiting), _Cuts.concat(cuts)
        fitted = sum(map(len, done))
        while fitted < len(faces) and (last or fitted + BLOCK <= len(faces)):
            span = slice(fitted, fitted + BLOCK)
            done.append(fitter.fit(faces[span], cut[span]))
            fitted += len(done[-1])
        while waiting and (len(waiting[0]) <= fitted if len(waiting[0]) else True):
            count = len(waiting[0])
            whole = Face3D.concat(done) if done else fitter.nothing(waiting[0])
            yield replace(whole[:count], frame_size=waiting[0].frame_size)
            done[:] = [whole[count:]] if count < len(whole) else []
            fitted -= count
            waiting.pop(0)
            cuts.pop(0)


class _Fitter:
    """One person, learnt, and the last frame fitted."""

    def __init__(
        self, person: Person, appearance: Appearance, eyes: Tensor | None, notes: Notes
    ) -> None:
        self._person = person
        self._appearance = appearance
        self._eyes = eyes
        self._notes = notes
        self._before: Performance | None = None

    @staticmethod
    def learn(faces: FaceSequence, cuts: _Cuts, options: Face3DOptions, notes: Notes) -> _Fitter:
        """From the first frames that show the face; the average face where none does."""
        shown = faces.seen.nonzero()[:, 0][: options.learn_frames]
        if not len(shown):
            faces, shown = _average_face(faces), torch.zeros(1, dtype=torch.long)
            size = (1, 3, *faces.frame_size)
            cuts = _Cuts.of(torch.full(size, 128, dtype=torch.uint8), faces.landmarks)
        spread = torch.linspace(0, len(shown) - 1, min(len(shown), LEARNT_FROM)).round().long()
        index = shown[spread]
        cut, landmarks = cuts[index], faces.landmarks[index]
        person = learn(landmarks)
        inside = cut.face.landmarks(landmarks)
        seen = fit(inside, person)
        if not options.refine:
            return _Fitter(person, estimate_appearance(read(cut.face, person, seen)), None, notes)
        appearance, seen = learn_by_pixels(cut.face, inside, person, seen)
        eyes = learn_profile(cut.eyes, person, cut.face.leave(seen))
        return _Fitter(person, appearance, eyes, notes)

    def fit(self, faces: FaceSequence, cuts: _Cuts) -> Face3D:
        """The next frames."""
        known = faces.landmarks.flatten(1).any(dim=1)
        count, width = len(faces), self._person.basis.shape[0]
        made = Face3D(
            landmarks=faces.landmarks.clone(),
            rotation=faces.rotation,
            translation=faces.translation,
            scale=faces.scale,
            seen=faces.seen,
            frame_size=faces.frame_size,
            parameters={
                "expression": torch.zeros(count, width),
                "gaze": torch.zeros(count, 4),
                "illumination": self._appearance.illumination.expand(count, -1).clone(),
            },
            shape=self._person.shape.float(),
            texture=self._appearance.texture,
        )
        index = known.nonzero()[:, 0]
        return self._filled(made, cuts[index], index) if len(index) else made

    def _fitted(self, landmarks_TV3: Tensor, cuts: _Cuts) -> Finding:
        """The Performance of frames that show the face, their lights, and whether it is it."""
        crops, person = cuts.face, self._person
        landmarks = crops.landmarks(landmarks_TV3)
        seen = fit(landmarks, person)
        if self._eyes is not None:
            seen = refine(crops, landmarks, person, seen, self._appearance, before=self._before)
        readings = read(crops, person, seen)
        lights = frame_lights(readings, self._appearance)
        believed = resemblance(readings, self._appearance, lights) > LEAST_LIKE
        seen = crops.leave(seen)
        if self._eyes is not None:
            seen = replace(seen, gaze=refine_gaze(cuts.eyes, person, seen, self._eyes))
        return {"lights": lights, "believed": believed} | seen.tensors()

    def _filled(self, made: Face3D, cuts: _Cuts, index: Tensor) -> Face3D:
        found = dict(self._notes.once(lambda: self._fitted(made.landmarks[index], cuts)))
        lights, believed = found.pop("lights"), found.pop("believed")
        seen = Performance(**found)
        self._before = seen[-1:]
        self._notes.rest()

        def put(into: Tensor, values: Tensor) -> Tensor:
            return into.index_copy(0, index, values.to(into.dtype))

        parameters = {
            "expression": put(made.parameters["expression"], seen.expression),
            "gaze": put(made.parameters["gaze"], seen.gaze),
            "illumination": put(made.parameters["illumination"], lights),
        }
        return replace(
            made,
            seen=made.seen.index_copy(0, index, made.seen[index] & believed),
            landmarks=put(made.landmarks, project(self._person, seen)),
            rotation=put(made.rotation, seen.rotation),
            translation=put(made.translation, seen.translation),
            scale=put(made.scale, seen.scale),
            parameters=parameters,
        )

    def nothing(self, face: FaceSequence) -> Face3D:
        """For a clip without frames."""
        return self.fit(face, _Cuts.of(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), face.landmarks))


def _average_face(faces: FaceSequence) -> FaceSequence:
    """One frame of the canonical face in the middle of the picture."""
    return FaceSequence(
        landmarks=canonical_sight(*faces.frame_size).float(),
        rotation=torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None],
        translation=torch.zeros(1, 2),
        scale=torch.ones(1),
        seen=torch.ones(1, dtype=torch.bool),
        frame_size=faces.frame_size,
    )
