"""MediaPipe's trackers and its person segmenter, of either generation, behind small interfaces.

mediapipe 0.10 carries its models inside the wheel and runs them through `solutions`; 1.x has only
the Tasks API, which needs model bundles (and which 0.10 has too). This module is the only one that
knows. With a bundle given, or without `solutions`, the Tasks API is used.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidsynth import faces, weights
from vidsynth.errors import BadOption, MissingWeights
from vidsynth.notes import Notes
from vidsynth_plugins.mediapipe_landmarks import coordinates, values
from vidsynth_plugins.sighting import Box, Clouds, Sighting, Sightings, box_around

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB, contiguous."""

MOST_SUBJECTS = 6
"""People (or faces) told apart in one picture."""

STRETCH = 1024
"""Pictures from one reset to the next, at most: opening MediaPipe anew takes as long as 5 of
them."""

_stderr_lock = threading.Lock()


class Tracker(ABC):
    """One tracker for one stream of pictures; not shared between threads.

    It holds up to two of MediaPipe's objects, made when first used: one that goes from picture to
    picture, one that looks at single pictures.

    What it sees it notes, and it looks at no picture that is noted already. MediaPipe lets nobody
    save what it remembers of the pictures before, so it is reset every STRETCH pictures: one that
    goes on behind the notes sees the same there as one that never broke off.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._opened: dict[bool, Any] = {}  # by "for single pictures"
        self._since_reset = 0

    def track(self, picture: Picture, seconds: float) -> Sighting | None:
        """The subject in the next picture, looked for where it was in the one before.

        `seconds` must grow from call to call. All pictures between two resets have one size.
        """
        if self._since_reset >= STRETCH:
            self.reset()
        self._since_reset += 1
        found = self._noted(lambda: self._sightings(self._process(picture, seconds), picture))
        return next(iter(found), None)

    def scan(self, picture: Picture) -> Sequence[Sighting]:
        """Everybody in a picture, without regard to other pictures."""
        return self._noted(lambda: self._everybody(picture))

    def reset(self) -> None:
        """Forget where the subject was."""
        if tracking := self._opened.pop(False, None):
            tracking.close()
        self._since_reset = 0
        self._notes.rest()

    def close(self) -> None:
        """Free the models."""
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()

    def _noted(self, look: Callable[[], Sequence[Sighting]]) -> Sequence[Sighting]:
        return Sightings.of(self._notes.once(lambda: Sightings(look()))).found

    def _everybody(self, picture: Picture) -> Sequence[Sighting]:
        return self._sightings(self._process(picture, None), picture)

    def _process(self, picture: Picture, seconds: float | None) -> Any:
        """MediaPipe's result for a picture of a video, or (seconds None) for a single one."""
        static = seconds is None
        if static in self._opened:
            return self._run(self._opened[static], picture, seconds)
        with _quiet():  # models load with the first picture
            self._opened[static] = self._open(static=static)
            return self._run(self._opened[static], picture, seconds)

    @abstractmethod
    def _open(self, *, static: bool) -> Any: ...

    @abstractmethod
    def _run(self, opened: Any, picture: Picture, seconds: float | None) -> Any: ...

    @abstractmethod
    def _sightings(self, found: Any, picture: Picture) -> list[Sighting]: ...


def open_pose(*, bundle: Path | None, confidence: float, details: bool, notes: Notes) -> Tracker:
    """A body tracker.

    Args:
        bundle: a pose landmarker bundle (.task); None takes the models inside the wheel.
        confidence: smallest score, in [0, 1], of a detection or of a track that goes on.
        details: find hand and face points too.
        notes: of the extractor.

    Raises:
        MissingWeights: this mediapipe has no models of its own and there is no bundle.
        BadOption: hand and face points are asked of a mediapipe that cannot find them.
    """
    solutions = None if bundle else _solutions()
    if solutions:
        return _SolutionsPose(solutions, confidence, details, notes)
    if details:
        raise BadOption(
            "hand and face points of bodies come from models inside mediapipe 0.10.x, which are "
            "not in use here; install mediapipe==0.10.21 and give no model_bundle, or set "
            "hands and face to false"
        )
    return _TasksPose(_bundle("pose_landmarker_full", bundle), confidence, notes)


def open_face(*, bundle: Path | None, confidence: float, notes: Notes) -> Tracker:
    """A face tracker. Arguments and errors as for `open_pose`."""
    solutions = None if bundle else _solutions()
    if solutions:
        return _SolutionsFace(solutions, confidence, notes)
    return _TasksFace(_bundle("face_landmarker", bundle), confidence, notes)


class Segmenter(ABC):
    """Tells people from what is behind them, in one picture at a time."""

    @abstractmethod
    def people(self, picture: Picture) -> NDArray[np.float32]:
        """(H, W) how likely each pixel is of a person, in [0, 1]."""

    @abstractmethod
    def close(self) -> None:
        """Free the model."""


def open_segmenter(*, bundle: Path | None) -> Segmenter:
    """A person segmenter; `bundle` is a model of MediaPipe's image segmenter (.tflite).

    Raises MissingWeights as `open_pose`.
    """
    solutions = None if bundle else _solutions()
    if solutions:
        return _SolutionsSegmenter(solutions)
    return _TasksSegmenter(_bundle("selfie_segmenter", bundle))


def _solutions() -> Any | None:
    """`mediapipe.solutions`, where this mediapipe has it."""
    return getattr(_mediapipe(), "solutions", None)


def _mediapipe() -> Any:
    # Read when the C++ part is loaded: 2 leaves errors only.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import mediapipe

    return mediapipe


def _bundle(name: str, given: Path | None) -> Path:
    """The bundle given, else that of the folder VIDSYNTH_MODELS, else of the weights folder."""
    folder = os.environ.get("VIDSYNTH_MODELS")
    if given is None and folder:
        suffix = Path(weights.WEIGHTS[name].file).suffix
        candidates = sorted(Path(folder).expanduser().glob(f"{name}*{suffix}"))
        if not candidates:
            raise MissingWeights(
                f"VIDSYNTH_MODELS is {folder}, which holds no {name}{suffix}; put "
                f"{weights.WEIGHTS[name]} there, or unset it"
            )
        given = candidates[0]
    return weights.locate(name, path=given)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what MediaPipe's C++ prints while its models load: it heeds no log level there."""
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # a program without a standard error
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _body(landmarks: Any, world: Any, picture: Picture) -> Sighting:
    size = _Size.of(picture)
    box = box_around([(p.x, p.y, p.visibility) for p in _each(landmarks)])
    return Sighting(
        size.scaled(box),
        lambda: Clouds(points=size.points(landmarks), world=coordinates(world)),
    )


def _face(landmarks: Any, picture: Picture) -> Sighting:
    size, reach = _Size.of(picture), _on_the_outside(_each(landmarks))
    x, y = [point.x for point in reach], [point.y for point in reach]
    box = size.scaled((min(x), min(y), max(x), max(y)))
    return Sighting(box, lambda: Clouds(points=size.face_points(landmarks)))


_on_the_outside = itemgetter(*faces.OVAL[::2], faces.NOSE_BRIDGE[-1])
"""Points that a face reaches to on all sides, to within a hundredth of its size on the mean."""


def _each(landmarks: Any) -> Sequence[Any]:
    """The landmarks one by one, of a protocol buffer or of a list of objects."""
    return getattr(landmarks, "landmark", landmarks)


class _Size(NamedTuple):
    """Of a picture, in pixels."""

    height: int
    width: int

    @staticmethod
    def of(picture: Picture) -> _Size:
        return _Size(*picture.shape[:2])

    def scaled(self, box: Box) -> Box:
        x0, y0, x1, y1 = box
        return x0 * self.width, y0 * self.height, x1 * self.width, y1 * self.height

    def points(self, landmarks: Any) -> NDArray[np.float32]:
        """(N, 4) as in `Clouds.points`, from normalised landmarks."""
        found = values(landmarks, ("x", "y", "z", "visibility"))
        return found * np.array([self.width, self.height, self.width, 1], np.float32)

    def face_points(self, landmarks: Any) -> NDArray[np.float32]:
        """The same for landmarks that carry no visibility (faces, hands): 1."""
        found = coordinates(landmarks)
        points = np.ones((len(found), 4), np.float32)
        scale = np.array([self.width, self.height, self.width], np.float32)
        np.multiply(found, scale, out=points[:, :3])
        return points


class _Solutions(Tracker):
    """The trackers of mediapipe 0.10.x, which run the models inside its wheel."""

    def __init__(self, solutions: Any, confidence: float, notes: Notes) -> None:
        super().__init__(notes)
        self._solutions, self._confidence = solutions, confidence

    def _run(self, opened: Any, picture: Picture, seconds: float | None) -> Any:
        known = all(hasattr(opened, name) for name in _INSIDE)
        return _processed(opened, picture) if known else opened.process(picture)


_INSIDE = (
    "_graph", "_graph_outputs", "_simulated_timestamp", "_make_packet", "_get_packet_content",
    "_input_stream_type_info", "_output_stream_type_info",
)  # fmt: skip


def _processed(opened: Any, picture: Picture) -> Any:
    """As `opened.process(picture)`, which makes a class of its own for each answer: 6 % of the time
    that a face takes."""
    found = opened._graph_outputs
    found.clear()
    opened._simulated_timestamp += 33333  # microseconds, as `process` counts them
    ((stream, kind),) = opened._input_stream_type_info.items()
    packet = opened._make_packet(kind, picture).at(opened._simulated_timestamp)
    opened._graph.add_packet_to_input_stream(stream=stream, packet=packet)
    opened._graph.wait_until_idle()
    kinds = opened._output_stream_type_info.items()
    return SimpleNamespace(
        **{
            name: opened._get_packet_content(kind, found[name]) if name in found else None
            for name, kind in kinds
        }
    )


class _SolutionsPose(_Solutions):
    """MediaPipe Pose sees one person a picture, so `scan` paints out whom it has found."""

    def __init__(self, solutions: Any, confidence: float, details: bool, notes: Notes) -> None:
        super().__init__(solutions, confidence, notes)
        self._details = details

    def _open(self, *, static: bool) -> Any:
        detailed = self._details and not static
        settings = {"refine_face_landmarks": True} if detailed else {}
        kind = self._solutions.holistic.Holistic if detailed else self._solutions.pose.Pose
        return kind(
            static_image_mode=static,
            model_complexity=1,  # the one whose model is inside the wheel
            smooth_landmarks=False,
            min_detection_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
            **settings,
        )

    def _everybody(self, picture: Picture) -> Sequence[Sighting]:
        everybody: list[Sighting] = []
        remaining = picture.copy()
        while len(everybody) < MOST_SUBJECTS:
            found = self._sightings(self._process(remaining, None), picture)
            if not found:
                break
            everybody += found
            x0, y0, x1, y1 = (max(int(edge), 0) for edge in found[0].box)
            remaining[y0:y1, x0:x1] = picture.mean(axis=(0, 1)).astype(np.uint8)
        return everybody

    def _sightings(self, found: Any, picture: Picture) -> list[Sighting]:
        if found.pose_landmarks is None:
            return []
        sighting = _body(found.pose_landmarks, found.pose_world_landmarks, picture)
        # Only a holistic result has hands.
        detailed = hasattr(found, "left_hand_landmarks")
        return [_with_details(sighting, found, _Size.of(picture)) if detailed else sighting]


def _with_details(sighting: Sighting, found: Any, size: _Size) -> Sighting:
    """Hands and face of a holistic result; those not found lie on wrist and nose, invisible."""
    parts = (
        (found.left_hand_landmarks, 15, 21),
        (found.right_hand_landmarks, 16, 21),
        (found.face_landmarks, 0, 478),
    )

    def read() -> Clouds:
        body, clouds = sighting.clouds, []
        for landmarks, anchor, count in parts:
            hidden = np.tile(body.points[anchor] * np.array([1, 1, 1, 0], np.float32), (count, 1))
            clouds.append(size.face_points(landmarks) if landmarks else hidden)
        return replace(body, hands=np.concatenate(clouds[:2]), face=clouds[2])

    return Sighting(sighting.box, read)


class _SolutionsFace(_Solutions):
    def _open(self, *, static: bool) -> Any:
        return self._solutions.face_mesh.FaceMesh(
            static_image_mode=static,
            max_num_faces=MOST_SUBJECTS if static else 1,
            refine_landmarks=True,
            min_detection_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
        )

    def _sightings(self, found: Any, picture: Picture) -> list[Sighting]:
        return [_face(f, picture) for f in found.multi_face_landmarks or []]


@contextmanager
def _refusal_of(bundle: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # how mediapipe refuses a bundle
        raise MissingWeights(
            f"{bundle} cannot be used as a model bundle ({error}); get the published one, "
            "`vidsynth doctor` says where"
        ) from error


def _image(picture: Picture) -> Any:
    mediapipe = _mediapipe()
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)


class _Tasks(Tracker):
    """The trackers of the Tasks API, which need a bundle."""

    def __init__(self, bundle: Path, confidence: float, notes: Notes) -> None:
        super().__init__(notes)
        self._bundle, self._confidence = bundle, confidence
        self._milliseconds = -1

    @abstractmethod
    def _create(self, vision: Any, base: Any, mode: Any, count: int) -> Any: ...

    def _open(self, *, static: bool) -> Any:
        from mediapipe.tasks.python import BaseOptions, vision

        mode = vision.RunningMode.IMAGE if static else vision.RunningMode.VIDEO
        # As bytes: absolute Windows paths have been refused by some versions.
        base = BaseOptions(model_asset_buffer=self._bundle.read_bytes())
        with _refusal_of(self._bundle):
            return self._create(vision, base, mode, MOST_SUBJECTS if static else 1)

    def _run(self, opened: Any, picture: Picture, seconds: float | None) -> Any:
        image = _image(picture)
        if seconds is None:
            return opened.detect(image)
        # Timestamps are whole milliseconds and must grow.
        self._milliseconds = max(self._milliseconds + 1, round(seconds * 1000))
        return opened.detect_for_video(image, self._milliseconds)


class _TasksPose(_Tasks):
    def _create(self, vision: Any, base: Any, mode: Any, count: int) -> Any:
        options = vision.PoseLandmarkerOptions(
            base_options=base,
            running_mode=mode,
            num_poses=count,
            min_pose_detection_confidence=self._confidence,
            min_pose_presence_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
        )
        return vision.PoseLandmarker.create_from_options(options)

    def _sightings(self, found: Any, picture: Picture) -> list[Sighting]:
        pairs = zip(found.pose_landmarks, found.pose_world_landmarks, strict=True)
        return [_body(p, w, picture) for p, w in pairs]


class _TasksFace(_Tasks):
    def _create(self, vision: Any, base: Any, mode: Any, count: int) -> Any:
        options = vision.FaceLandmarkerOptions(
            base_options=base,
            running_mode=mode,
            num_faces=count,
            min_face_detection_confidence=self._confidence,
            min_face_presence_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
        )
        return vision.FaceLandmarker.create_from_options(options)

    def _sightings(self, found: Any, picture: Picture) -> list[Sighting]:
        return [_face(f, picture) for f in found.face_landmarks]


class _SolutionsSegmenter(Segmenter):
    def __init__(self, solutions: Any) -> None:
        with _quiet():
            self._opened = solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
            self.people(np.zeros((8, 8, 3), np.uint8))  # the model loads with the first picture

    def people(self, picture: Picture) -> NDArray[np.float32]:
        return self._opened.process(picture).segmentation_mask

    def close(self) -> None:
        self._opened.close()


class _TasksSegmenter(Segmenter):
    def __init__(self, bundle: Path) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_buffer=bundle.read_bytes()),
            output_confidence_masks=True,
        )
        with _quiet(), _refusal_of(bundle):
            self._opened = vision.ImageSegmenter.create_from_options(options)
            self.people(np.zeros((8, 8, 3), np.uint8))  # the model loads with the first picture

    def people(self, picture: Picture) -> NDArray[np.float32]:
        masks = self._opened.segment(_image(picture)).confidence_masks
        return masks[-1].numpy_view()  # where there are two, the first is the background

    def close(self) -> None:
        self._opened.close()
