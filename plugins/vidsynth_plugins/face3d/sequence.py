"""Face3D: a face told by parameters, and the three pictures of it that a generator is told by."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, FiniteFloat, field_validator
from torch import Tensor

from vidsynth import faces, summaries
from vidsynth.conditioning import FaceSequence
from vidsynth.errors import UnknownName
from vidsynth.facemesh import load_face_mesh
from vidsynth.parametric import ParametricFace
from vidsynth.retarget_face import posed
from vidsynth_plugins.face3d.appearance import (
    TEXTURE_PX,
    all_triangles,
    camera_normals,
    skin_triangles,
    texture_coordinates,
)
from vidsynth_plugins.face3d.model import (
    BIPOLAR,
    EXPRESSIONS,
    LIMITS,
    NUM_MESH,
    expression_basis,
    face_points,
)
from vidsynth_plugins.face3d.rendering import harmonics, rasterise, sample

# T frames, E expressions, V vertices, M covered pixels, H, W pixels

EYE_WHITE, IRIS = (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)
"""Colours of the gaze image, those of the paper."""
DRAWN_AT_ONCE = 16
"""Frames; bounds memory."""


class AtRest(BaseModel, strict=True):
    """A person doing nothing."""

    expression: Annotated[
        list[FiniteFloat], Field(min_length=len(EXPRESSIONS), max_length=len(EXPRESSIONS))
    ]
    gaze: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]


class Looks(BaseModel, strict=True):
    """What a summary holds beside that of other faces (see `Face3D.summarise`)."""

    shape: Annotated[list[summaries.Three], Field(min_length=NUM_MESH, max_length=NUM_MESH)]
    texture: str
    illumination: Annotated[list[FiniteFloat], Field(min_length=27, max_length=27)]
    rest: AtRest

    @field_validator("texture")
    @classmethod
    def _whole(cls, text: str) -> str:
        summaries.refuse_other_length(text, 3 * TEXTURE_PX**2)
        return text


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Face3D(ParametricFace):
    """A FaceSequence of a parametric head; `landmarks` are the model's own points.

    `parameters` holds "expression" (T, E), coefficients of `model.EXPRESSIONS`, eyelids among them
    ("blink_left", "blink_right"); "gaze" (T, 4) radians, yaw (to the right of the picture) and
    pitch (down) of the right, then of the left eye, against the head; "illumination" (T, 27), nine
    spherical harmonics times three colours, in the picture's axes (x right, y up, z to the viewer).
    `scale` is the camera: weak perspective, pixels per centimetre of the canonical face.
    """

    kind: ClassVar[str] = "face3d"

    shape: Tensor = field(default_factory=lambda: torch.zeros(NUM_MESH, 3))
    """(468, 3) float32 centimetres: the person's face at rest, the same in all frames."""
    texture: Tensor = field(default_factory=lambda: torch.zeros(3, TEXTURE_PX, TEXTURE_PX))
    """(3, N, N) float32: the person's reflectance over the mesh's texture coordinates."""

    @property
    def expression(self) -> Tensor:
        return self.parameters["expression"]

    @property
    def gaze(self) -> Tensor:
        return self.parameters["gaze"]

    def draw(self, height: int, width: int) -> Tensor:
        """Nine channels, the conditioning of Kim et al. 2018: diffuse colour, correspondence, gaze.

        Channels 0-2: the face in its own texture, lit; eyes and the inside of the mouth are left
        out. 3-5: texture coordinates u and v, and 255 where the mesh is. 6-8: the openings of the
        eyes in white with the irises in blue, hidden where the face hides them. Frames without the
        face stay black.

        Returns:
            (T, 9, height, width) uint8.
        """
        maps = torch.zeros(len(self), 9, height, width, dtype=torch.uint8)
        for index in self.present().nonzero()[:, 0].split(DRAWN_AT_ONCE):
            part = self[index].rescale(height, width)
            assert isinstance(part, Face3D)
            drawn = torch.cat([_surface(part, height, width), _eyes(part, height, width)], dim=1)
            maps[index] = drawn.clamp(0, 1).mul(255).round().to(torch.uint8)
        return maps

    def summarise(self) -> dict[str, Any]:
        seen = self[self.present().nonzero()[:, 0]]
        summary = ParametricFace.summarise(self)  # slots: super() finds no class
        if not len(seen):
            return summary
        return summary | {
            "shape": [[round(v, 4) for v in point] for point in seen.shape.tolist()],
            "texture": _packed(seen.texture),
            "illumination": seen.parameters["illumination"].median(dim=0).values.tolist(),
            "rest": {name: _at_rest(seen)[name].tolist() for name in ("expression", "gaze")},
        }

    def acted_by(
        self, summary: Mapping[str, Any], *, expression: float, gaze: float
    ) -> tuple[Face3D, Tensor]:
        summaries.check(summary, Looks)
        own = _at_rest(self[self.present().nonzero()[:, 0]])
        rest = {name: torch.tensor(values) for name, values in summary["rest"].items()}
        parameters = {
            "expression": _limited(
                rest["expression"] + expression * (self.expression - own["expression"])
            ),
            "gaze": rest["gaze"] + gaze * (self.gaze - own["gaze"]),
            "illumination": torch.tensor(summary["illumination"]).expand(len(self), -1).clone(),
        }
        made = replace(
            self,
            parameters=parameters,
            shape=torch.tensor(summary["shape"]),
            texture=_unpacked(summary["texture"]),
        )
        return made, made.points()

    @classmethod
    def at_rest(cls, summary: Mapping[str, Any], pose: FaceSequence) -> Face3D:
        count = len(pose)
        still = cls(
            landmarks=pose.landmarks,
            rotation=pose.rotation,
            translation=pose.translation,
            scale=pose.scale,
            seen=pose.seen,
            frame_size=pose.frame_size,
            parameters={
                "expression": torch.zeros(count, len(EXPRESSIONS)),
                "gaze": torch.zeros(count, 4),
            },
        )
        made, points = still.acted_by(summary, expression=0.0, gaze=0.0)
        rotation, place, scale = (x.double() for x in (pose.rotation, pose.translation, pose.scale))
        return posed(made, points, rotation, place, scale, pose.frame_size)

    def points(self) -> Tensor:
        """(T, 478, 3) float64 centimetres in the face's own axes, from the parameters."""
        shape = self.shape.double()
        basis = expression_basis(shape)
        return face_points(shape, basis, self.expression.double(), self.gaze.double())

    def controls(self) -> Mapping[str, str]:
        def meaning(name: str) -> str:
            span = "-1 to 1, to the person's left" if name in BIPOLAR else "0 to 1"
            return f"{name.replace('_', ' ')}, {span}"

        pairs = {name.removesuffix("_left") for name in EXPRESSIONS if name.endswith("_left")}
        both = {name: f"{name.replace('_', ' ')} on both sides, 0 to 1" for name in sorted(pairs)}
        return {name: meaning(name) for name in EXPRESSIONS} | both

    def with_changes(self, changes: Mapping[str, Tensor]) -> Face3D:
        expression, gaze = self.expression.clone(), self.gaze.clone()
        for name, values in changes.items():
            if name in ("gaze_yaw", "gaze_pitch"):
                gaze[:, int(name == "gaze_pitch") :: 2] += values[:, None].float()
            elif name in EXPRESSIONS:
                expression[:, EXPRESSIONS.index(name)] += values.float()
            elif f"{name}_left" in EXPRESSIONS:
                for side in ("left", "right"):
                    expression[:, EXPRESSIONS.index(f"{name}_{side}")] += values.float()
            else:
                raise UnknownName.among("expression", name, self.controls())
        parameters = {**self.parameters, "expression": _limited(expression), "gaze": gaze}
        made = replace(self, parameters=parameters)
        rotation, place, scale = (x.double() for x in (self.rotation, self.translation, self.scale))
        return posed(made, made.points(), rotation, place, scale, self.frame_size)


def _limited(expression: Tensor) -> Tensor:
    low, high = (expression.new_tensor(bound) for bound in zip(*LIMITS, strict=True))
    return expression.maximum(low).minimum(high)


def _at_rest(seen: Face3D) -> dict[str, Tensor]:
    """Coefficients (E,) and gaze (4,) of the person doing nothing.

    Each coefficient where it is lowest (a tenth of the frames lie below), except those that go both
    ways, and lids, which rest half-way between: the usual.
    """
    expression = seen.expression.quantile(0.1, dim=0)
    usual = seen.expression.median(dim=0).values
    for index, name in enumerate(EXPRESSIONS):
        if name in BIPOLAR or name.startswith("blink"):
            expression[index] = usual[index]
    return {"expression": expression, "gaze": seen.gaze.median(dim=0).values}


def _packed(texture_3NN: Tensor) -> str:
    """As text: a byte a number, 170 for 1."""
    levels = (texture_3NN.clamp(0, 1.5) * 170).round().to(torch.uint8)
    return base64.b64encode(levels.contiguous().numpy().tobytes()).decode()


def _unpacked(text: str) -> Tensor:
    levels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(3, TEXTURE_PX, TEXTURE_PX)
    return torch.from_numpy(levels.astype(np.float32) / 170)


# Pictures


def _surface(face: Face3D, height: int, width: int) -> Tensor:
    """(T, 6, height, width) in [0, 1]: diffuse colour, then u, v and coverage."""
    mesh, triangles = face.landmarks[:, :NUM_MESH], all_triangles()
    shown = rasterise(mesh, triangles, height, width)
    uv = shown.interpolate(texture_coordinates(), triangles)
    normals = F.normalize(shown.interpolate(camera_normals(mesh), triangles), dim=-1)
    light = face.parameters["illumination"].unflatten(1, (9, 3))[shown.frame]
    shade = torch.einsum("mk,mkc->mc", harmonics(normals), light).clamp(min=0)
    # Eyes and mouth hide what is behind them, and are holes themselves.
    skin = _is_skin()[shown.triangle][:, None].float()
    values = torch.cat([sample(face.texture, uv) * shade, uv, torch.ones_like(uv[:, :1])], dim=1)
    return shown.image(values * skin, (len(face), height, width))


@cache
def _is_skin() -> Tensor:
    """(F,) bool: which triangles of the whole mesh are skin."""
    skin = {tuple(corners) for corners in skin_triangles().tolist()}
    return torch.tensor([tuple(corners) in skin for corners in all_triangles().tolist()])


def _eyes(face: Face3D, height: int, width: int) -> Tensor:
    """(T, 3, height, width) in [0, 1]: the openings in white, the irises in blue.

    Drawn at twice the size and averaged: a lid is a matter of a pixel or two.
    """
    zoom = face.landmarks.new_tensor([2.0, 2.0, 2.0])
    triangles, eye_F = _eye_triangles()
    shown = rasterise(face.landmarks[:, :NUM_MESH] * zoom, triangles, 2 * height, 2 * width)
    eye_M = eye_F[shown.triangle]
    x = (shown.pixel % (2 * width)).float() + 0.5
    y = (shown.pixel // (2 * width)).float() + 0.5
    colour = torch.zeros(len(eye_M), 3)
    for number, (_, iris) in enumerate(faces.EYES, start=1):
        inside = _in_iris(face.landmarks[:, list(iris)] * zoom, shown.frame, x, y)[:, None]
        white, blue = colour.new_tensor(EYE_WHITE), colour.new_tensor(IRIS)
        painted = white + inside * (blue - white)
        colour = torch.where((eye_M == number)[:, None], painted, colour)
    return F.avg_pool2d(shown.image(colour, (len(face), 2 * height, 2 * width)), 2)


def _in_iris(iris_T53: Tensor, frame_M: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(M,) 1 inside the ellipse that the iris is in the picture, 0 outside, in between at its
    edge."""
    centre, across, along = (
        iris_T53[:, 0, :2],
        (iris_T53[:, 1] - iris_T53[:, 3])[:, :2] / 2,
        (iris_T53[:, 2] - iris_T53[:, 4])[:, :2] / 2,
    )
    area = across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0]
    area = torch.where(area.abs() < 1e-3, 1e-3, area)
    dx, dy = x - centre[frame_M, 0], y - centre[frame_M, 1]
    a = (dx * along[frame_M, 1] - dy * along[frame_M, 0]) / area[frame_M]
    b = (dy * across[frame_M, 0] - dx * across[frame_M, 1]) / area[frame_M]
    radius = area.abs().sqrt()[frame_M]
    return ((1 - (a * a + b * b).sqrt()) * radius + 0.5).clamp(0, 1)


@cache
def _eye_triangles() -> tuple[Tensor, Tensor]:
    """(F, 3) the triangles that fill the eyes and those of the nose, which can hide one; and (F,)
    which eye each fills: 0 none, 1 the right, 2 the left."""
    triangles = all_triangles()
    number = torch.zeros(len(triangles), dtype=torch.long)
    for n, (ring, _) in enumerate(faces.EYES, start=1):
        number[torch.isin(triangles, torch.tensor(ring)).all(dim=1)] = n
    x, y, _ = torch.from_numpy(load_face_mesh().vertices.copy())[triangles].mean(dim=1).unbind(1)
    kept = (number > 0) | ((x.abs() < 2.2) & (y > -3) & (y < 5))
    return triangles[kept], number[kept]
