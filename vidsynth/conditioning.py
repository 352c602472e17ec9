"""What a generator is told about each frame: bodies, faces, labels; `classes` has what is told
without a driving video."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from vidsynth import bodies, correspondence, drawing, faces, limbs
from vidsynth.checksums import checksum
from vidsynth.correspondence import Head, Warp
from vidsynth.errors import UnsupportedVideo
from vidsynth.files import save_tensors

# T frames, P persons, K keypoints, C channels, H, W pixels

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""
VOID = 255
"""The label id of pixels that are of no class, as data sets have it; drawn as none of them."""
LAYOUT = 4
"""A scene is compared by what fills each of so many cells down and across."""


class Conditioning(ABC):
    """Per-frame information about a span of video.

    Subclasses are frozen dataclasses. Every tensor field that has one entry per frame has T as its
    first axis and is named in `per_frame`, as is a mapping of such tensors; other fields describe
    the whole sequence. Coordinates are pixels of `size`.
    """

    kind: ClassVar[str]
    """Short name, unique among kinds: it names the signal in files and messages."""
    per_frame: ClassVar[tuple[str, ...]]
    drawable: ClassVar[bool] = True  # whether `draw` gives maps

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture that coordinates refer to."""

    @abstractmethod
    def draw(self, height: int, width: int) -> Tensor:
        """Conditioning maps, (T, C, height, width) uint8 in [0, 255], on the CPU."""

    def __len__(self) -> int:
        return len(getattr(self, self.per_frame[0]))

    def tensors(self) -> list[Tensor]:
        """Every tensor that has one entry per frame."""
        values = [getattr(self, name) for name in self.per_frame]
        found = [t for v in values for t in (v.values() if isinstance(v, Mapping) else [v])]
        return [tensor for tensor in found if tensor is not None]

    def __getitem__(self, key: slice | Tensor) -> Self:
        """The frames of a slice, or of a LongTensor of indices."""
        chosen = {n: _each(lambda v: v[key], getattr(self, n)) for n in self.per_frame}
        return replace(self, **chosen)  # pyright: ignore

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Join consecutive spans of one video, in order."""
        if not parts:
            raise ValueError("concat needs at least one part")
        joined = {
            name: _each(lambda *values: torch.cat(values), *(getattr(p, name) for p in parts))
            for name in cls.per_frame
        }
        return replace(parts[0], **joined)  # pyright: ignore

    def crop(self, box: tuple[int, int, int, int]) -> Self:
        """The same in the coordinates of the window `box` (x0, y0, x1, y1). Subjects need it."""
        raise ValueError(f"{self.kind} cannot be cropped")

    def rescale(self, height: int, width: int) -> Self:
        """The same in the coordinates of the same picture at another size. Subjects need it."""
        raise ValueError(f"{self.kind} cannot be rescaled")

    def present(self) -> Tensor:
        """(T,) bool: frames in which the subject was really seen."""
        return torch.ones(len(self), dtype=torch.bool)

    def silhouette(self, height: int, width: int) -> Tensor | None:
        """(T, 1, height, width) uint8: 255 generously over the subject; None when unknown."""
        return None

    def core(self, height: int, width: int) -> Tensor | None:
        """(T, 1, height, width) uint8: 255 surely on the subject, none of which is far from there;
        None when unknown."""
        return None

    def regions(self) -> Mapping[str, Tensor]:
        """Boxes by name ("subject", "face"...): (T, 4) float32 pixels; x1 <= x0 where absent."""
        return {}

    def summarise(self) -> dict[str, Any]:
        """What a Subject keeps of its training sequence for retargeting: JSON-able."""
        return {"kind": self.kind, "frames": len(self), "size": list(self.size)}

    def features(self) -> Tensor:
        """(T, F) float32: position-free; the distance of two rows says how unlike frames are."""
        raise ValueError(f"{self.kind} offers no features")

    def part_features(self) -> Tensor | None:
        """(T, F) float32: `features` of parts that move by themselves, as eyes and mouth do, for
        which another frame may stand in than for the whole. Optional."""
        return None

    def posture(self) -> Tensor | None:
        """(T, D) float32: where its landmarks are, in picture heights. Optional: with it a subject
        learns how what has no landmarks follows (`following`)."""
        return None

    def steadied(self, pts: Tensor, rest_seconds: float) -> Self:
        """With the trembling of a tracker smoothed away, causally, less in motion. Optional.

        Args:
            pts: (T,) seconds at which the frames are shown.
            rest_seconds: 0 changes nothing.
        """
        return self

    def warp_to(
        self,
        other: Self,
        height: int,
        width: int,
        *,
        device: torch.device | str = "cpu",
        outlines: Tensor | None = None,
    ) -> Warp:
        """How to bring pictures of these frames to what `other` shows, frame by frame.

        Optional: with it the subject's own pixels can be shown (the generator `exemplar`).

        Args:
            other: as many frames as this, of pictures of the same size.
            height, width: of the pictures that will be sampled; coordinates scale with them.
            device: where to compute it, and where the result lies.
            outlines: what `outlines` gave for frames of the subject; not passed where it gives
                None.
        """
        raise ValueError(f"{self.kind} offers no correspondence")

    def outlines(self, cover: Tensor) -> Tensor | None:
        """How far the parts of the subject reach, from frames in which it is told from a still
        background. Optional: `warp_to` is given it, and shows nothing beyond.

        Args:
            cover: (T, 1, height, width) uint8, 255 where a picture surely shows the subject.
        """
        return None

    def packed(self) -> tuple[dict[str, Tensor], Any]:
        """All it holds: tensors by name, and what else there is, JSON-able."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for f in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                tensors[f.name] = value.contiguous()
            elif isinstance(value, Mapping):
                tensors |= {f"{f.name}.{k}": v.contiguous() for k, v in value.items()}
            elif value is not None:
                plain[f.name] = value
        return tensors, plain

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], plain: Any) -> Self:
        """What `packed` gave, put together again; lists come as tuples."""
        values: dict[str, Any] = dict(plain)
        values |= {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        for key, tensor in tensors.items():
            name, _, member = key.partition(".")
            (values.setdefault(name, {}) if member else values)[member or name] = tensor
        return cls(**values)

    def save(self, path: Path, **extra: str) -> None:
        """Write a .safetensors file; `extra` strings go into its metadata."""
        tensors, plain = self.packed()
        told = {"kind": self.kind, "plain": json.dumps(plain)}
        told["checksum"] = checksum([sorted(tensors.items()), told["plain"]])
        save_tensors(path, tensors, {**told, **extra})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises UnsupportedVideo for a damaged file or another kind's."""
        from safetensors import SafetensorError

        try:
            return cls._read(path)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnsupportedVideo(
                f"{path} is damaged ({error}); extract it again with vidsynth extract"
            ) from error

    @classmethod
    def _read(cls, path: Path) -> Self:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != cls.kind:
                raise UnsupportedVideo(
                    f"{path} holds {metadata.get('kind', 'no')!r} conditioning, not {cls.kind!r}; "
                    "extract it again with the recipe's extractor"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found = checksum([sorted(tensors.items()), metadata["plain"]])
        if metadata.get("checksum", found) != found:  # older files have none
            raise ValueError("its checksum is wrong")
        return cls.unpacked(tensors, json.loads(metadata["plain"]))


def _each(function: Callable[..., Tensor], *values: Any) -> Any:
    """Apply to tensors, to each member of mappings of tensors, and not at all to None."""
    if values[0] is None:
        return None
    if isinstance(values[0], Mapping):
        return {name: function(*(value[name] for value in values)) for name in values[0]}
    return function(*values)


def _shift(points: Tensor | None, x0: float, y0: float) -> Tensor | None:
    return None if points is None else points - points.new_tensor([x0, y0, 0.0])


def _stretch(points: Tensor | None, sx: float, sy: float) -> Tensor | None:
    return None if points is None else points * points.new_tensor([sx, sy, 1.0])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PoseSequence(Conditioning):
    """Body skeletons, in the 33-point layout of MediaPipe Pose (BlazePose)."""

    kind: ClassVar[str] = "pose"
    per_frame: ClassVar[tuple[str, ...]] = ("keypoints", "world", "seen", "hands", "face")

    keypoints: Tensor
    """(T, P, 33, 3) float32: x, y in pixels of `frame_size`, visibility in [0, 1]. Person 0 is the
    subject; the others are tracked but neither drawn nor retargeted."""
    world: Tensor
    """(T, P, 33, 3) float32: metres, origin between the hips, x right, y down, z away."""
    seen: Tensor
    """(T, P) bool: tracked here, or in a gap short enough to be interpolated."""
    frame_size: tuple[int, int]
    """(height, width) in pixels."""
    hands: Tensor | None = None
    """(T, P, 42, 3) float32: 21 left then 21 right hand points: x, y in pixels, visibility."""
    face: Tensor | None = None
    """(T, P, 478, 3) float32: face mesh points: x, y in pixels, visibility."""

    @property
    def size(self) -> tuple[int, int]:
        return self.frame_size

    def draw(self, height: int, width: int) -> Tensor:
        return bodies.draw(self, height, width)

    def crop(self, box: tuple[int, int, int, int]) -> PoseSequence:
        x0, y0, x1, y1 = box
        return replace(
            self,
            keypoints=_shift(self.keypoints, x0, y0),
            hands=_shift(self.hands, x0, y0),
            face=_shift(self.face, x0, y0),
            frame_size=(y1 - y0, x1 - x0),
        )

    def rescale(self, height: int, width: int) -> PoseSequence:
        sy, sx = height / self.size[0], width / self.size[1]
        return replace(
            self,
            keypoints=_stretch(self.keypoints, sx, sy),
            hands=_stretch(self.hands, sx, sy),
            face=_stretch(self.face, sx, sy),
            frame_size=(height, width),
        )

    def present(self) -> Tensor:
        return self.seen[:, 0]

    def silhouette(self, height: int, width: int) -> Tensor:
        return bodies.silhouettes(self, height, width)

    def core(self, height: int, width: int) -> Tensor:
        drawn = self.draw(height, width).amax(dim=1, keepdim=True)
        return (drawn > 8).to(torch.uint8).mul_(255)

    def regions(self) -> Mapping[str, Tensor]:
        return bodies.regions(self)

    def features(self) -> Tensor:
        return bodies.features(self)

    def steadied(self, pts: Tensor, rest_seconds: float) -> PoseSequence:
        return bodies.steadied(self, pts, rest_seconds)

    def warp_to(  # pyright: ignore[reportIncompatibleMethodOverride] - Self, as declared
        self,
        other: PoseSequence,
        height: int,
        width: int,
        *,
        device: torch.device | str = "cpu",
        outlines: Tensor | None = None,
    ) -> Warp:
        known, wanted = (
            bodies.points_in_space(pose, height, width).to(device) for pose in (self, other)
        )
        reach = None if outlines is None else outlines.to(device)
        return limbs.body_warp(known, wanted, height, width, outlines_LVU=reach)

    def outlines(self, cover: Tensor) -> Tensor:
        return limbs.outlines(bodies.points_in_space(self, *cover.shape[2:]), cover)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FaceSequence(Conditioning):
    """One face's 478-point mesh (468 + 2 x 5 iris points of MediaPipe) and its head pose."""

    kind: ClassVar[str] = "face"
    per_frame: ClassVar[tuple[str, ...]] = (
        "landmarks",
        "rotation",
        "translation",
        "scale",
        "seen",
        "parameters",
    )

    landmarks: Tensor
    """(T, 478, 3) float32: x, y in pixels of `frame_size`; z in their scale, smaller is nearer."""
    rotation: Tensor
    """(T, 3, 3) float32, proper rotations: canonical face (x right, y up, z to the viewer) ->
    picture axes (x right, y down, z away). An upright frontal face is diag(1, -1, -1)."""
    translation: Tensor
    """(T, 2) float32: position of the canonical face's origin in pixels of `frame_size`."""
    scale: Tensor
    """(T,) float32: pixels per centimetre of the canonical face (weak perspective)."""
    seen: Tensor
    """(T,) bool: tracked here, or in a gap short enough to be interpolated."""
    frame_size: tuple[int, int]
    """(height, width) in pixels."""
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    """Named 3D parameters (T, n) that an extractor may add ("expression", "illumination"...)."""

    @property
    def size(self) -> tuple[int, int]:
        return self.frame_size

    def draw(self, height: int, width: int) -> Tensor:
        return faces.draw(self, height, width)

    def crop(self, box: tuple[int, int, int, int]) -> FaceSequence:
        x0, y0, x1, y1 = box
        return replace(
            self,
            landmarks=_shift(self.landmarks, x0, y0),
            translation=self.translation - self.translation.new_tensor([x0, y0]),
            frame_size=(y1 - y0, x1 - x0),
        )

    def rescale(self, height: int, width: int) -> FaceSequence:
        sy, sx = height / self.size[0], width / self.size[1]
        landmarks = _stretch(self.landmarks, sx, sy)
        assert landmarks is not None
        landmarks[..., 2] *= (sx * sy) ** 0.5  # depth has no axis of its own: the mean scale
        return replace(
            self,
            landmarks=landmarks,
            translation=self.translation * self.translation.new_tensor([sx, sy]),
            scale=self.scale * (sx * sy) ** 0.5,
            frame_size=(height, width),
        )

    def present(self) -> Tensor:
        return self.seen

    def silhouette(self, height: int, width: int) -> Tensor:
        return faces.silhouettes(self, height, width)

    def regions(self) -> Mapping[str, Tensor]:
        return faces.regions(self)

    def features(self) -> Tensor:
        return faces.features(self)

    def part_features(self) -> Tensor:
        return faces.part_features(self)

    def posture(self) -> Tensor:
        return self.landmarks.flatten(1) / self.size[0]

    def steadied(self, pts: Tensor, rest_seconds: float) -> FaceSequence:
        return faces.steadied(self, pts, rest_seconds)

    def warp_to(  # pyright: ignore[reportIncompatibleMethodOverride] - Self, as declared
        self, other: FaceSequence, height: int, width: int, *, device: torch.device | str = "cpu"
    ) -> Warp:
        known, wanted = (face._head(height, width, device) for face in (self, other))
        return correspondence.face_warp(known, wanted, height, width)

    def _head(self, height: int, width: int, device: torch.device | str) -> Head:
        face = self.rescale(height, width)
        pose = (face.landmarks, face.rotation, face.translation, face.scale)
        return Head(*(part.to(device) for part in pose))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelMaps(Conditioning):
    """Semantic classes per pixel, with instance ids when known."""

    kind: ClassVar[str] = "labels"
    per_frame: ClassVar[tuple[str, ...]] = ("labels", "instances")

    labels: Tensor
    """(T, H, W) uint8 class ids in [0, num_classes), or VOID."""
    num_classes: int
    """In [1, 255]."""
    instances: Tensor | None = None
    """(T, H, W) int32 instance ids: pixels of two things never share one."""

    @property
    def size(self) -> tuple[int, int]:
        return (self.labels.shape[1], self.labels.shape[2])

    def draw(self, height: int, width: int) -> Tensor:
        return drawing.draw_labels(self, height, width)

    def crop(self, box: tuple[int, int, int, int]) -> LabelMaps:
        x0, y0, x1, y1 = box
        return self._changed(lambda ids: ids[:, y0:y1, x0:x1])

    def rescale(self, height: int, width: int) -> LabelMaps:
        return self._changed(lambda ids: drawing.nearest(ids, height, width))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> LabelMaps:
        instances = None if self.instances is None else change(self.instances)
        return replace(self, labels=change(self.labels), instances=instances)

    def present(self) -> Tensor:
        """Frames that show anything but class 0, which is the background where there is one."""
        return ((self.labels != 0) & (self.labels != VOID)).flatten(1).any(dim=1)

    def summarise(self) -> dict[str, Any]:
        return Conditioning.summarise(self) | {  # slots: a bare super() finds no class
            "num_classes": self.num_classes,
            "classes": [i for i in self.labels.unique().tolist() if i != VOID],
            "instances": self.instances is not None,
        }

    def features(self) -> Tensor:
        """The share of each class in each cell of a LAYOUT x LAYOUT grid: where things stand is
        what a scene is like."""
        height, width = (LAYOUT * -(-side // LAYOUT) for side in self.size)
        cells = self.rescale(height, width).labels.unflatten(2, (LAYOUT, -1))
        cells = cells.unflatten(1, (LAYOUT, -1)).transpose(2, 3).flatten(3).flatten(1, 2)
        shares = [(cells == index).float().mean(dim=2) for index in range(self.num_classes)]
        return torch.stack(shares, dim=2).flatten(1)
