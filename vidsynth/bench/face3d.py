"""`vidsynth bench face3d`: how true a parametric face is, before and after it is refined by pixels.

On the world `head` every parameter is known: errors are medians over all frames of a few people.
Rotation and gaze are also told about each person's own mean error, which is what reenactment sees
of them: where the head's axes point differs between two models, how far it has turned does not. An
edit turns the tracked heads by EDIT_YAW: "edit_points" and "edit_picture" compare the model's
points and its drawn face with the world's render of the head so turned, as "points" and "picture"
do before the edit. On a clip of the user's (`--clip`) there is no truth: how far the model's points
lie from the tracked ones, how far the rendered face is from the filmed one, how much it trembles,
and how fast it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidsynth import registry, video
from vidsynth.bench import Asked, Row
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.editing import Curve, edited
from vidsynth.errors import BadOption
from vidsynth.faces import LEFT_EYE, RIGHT_EYE
from vidsynth.options import build
from vidsynth.retarget_face import canonical, rotation_vectors
from vidsynth.worlds import WORLDS, face

# T frames, V vertices

NUM_MESH = 468
STAGES = {"landmarks": False, "refined": True}
GOALS = {"rotation": 1.5, "gaze": 3.0, "expression": 2.0, "light": 10.0}
UNITS = {
    "rotation": "deg", "rotation_about_mean": "deg", "gaze": "deg", "gaze_about_mean": "deg",
    "expression": "% eyes", "light": "deg", "points": "cm", "picture": "levels",
    "edit_points": "cm", "edit_picture": "levels",
}  # fmt: skip
CLIP_FRAMES = 300
EDIT_YAW = 15.0
"""Degrees by which the tracked heads are turned, and rendered anew by the world to compare."""
DRAWN_EVERY = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is filmed."""

    people: tuple[int, ...] = (1, 2)
    frames: int = 96
    size: int = 384


def bench(asked: Asked) -> Iterator[Row]:
    """Errors of pose, gaze, expression and light on heads; consistency and speed on a clip."""
    if asked.world not in (None, "head"):
        raise BadOption(f"face3d knows the truth of the world head only; got {asked.world}")
    if asked.clip is not None:
        yield from on_clip(_clips_of(asked), prefix=asked.clip.stem)
        return
    settings = Settings()
    if asked.full:
        settings = Settings(people=(1, 2, 3, 4, 5), frames=300, size=512)
    yield from on_heads(replace(settings, size=asked.size or settings.size), asked)


def on_heads(settings: Settings, asked: Asked) -> Iterator[Row]:
    """Rows "landmarks.rotation", "refined.rotation", ..., then what refinement gains."""
    medians: dict[str, dict[str, float]] = {}
    for stage, refine in STAGES.items():
        found: dict[str, list[Tensor]] = {name: [] for name in UNITS}
        with asked.reporter.step(f"fitting heads ({stage})", total=len(settings.people)) as step:
            for n, seed in enumerate(settings.people, start=1):
                for name, errors in errors_on(seed, settings, refine=refine).items():
                    found[name].append(errors)
                step.update(n)
        medians[stage] = {}
        for name, errors in found.items():
            each = [float(e.median()) for e in errors]
            value = float(torch.cat(errors).median())
            medians[stage][name] = value
            goal = GOALS.get(name) if refine else None
            yield Row(
                name=f"{stage}.{name}",
                value=value,
                unit=UNITS[name],
                spread=(min(*each, value), max(*each, value)),
                goal=goal,
                at_most=True,
            )
    for name in UNITS:
        ratio = medians["refined"][name] / max(medians["landmarks"][name], 1e-9)
        yield Row(
            name=f"refinement.{name}",
            value=ratio,
            unit="x",
            goal=1.0 if name in GOALS else None,
            at_most=True,
        )


def errors_on(seed: int, settings: Settings, *, refine: bool) -> dict[str, Tensor]:
    """(T,) errors by name, in UNITS, of one person."""
    world = WORLDS["head"]
    identity = world.make_identity(seed)
    motion = world.make_motion(seed + 10, settings.frames)
    size = {"height": settings.size, "width": settings.size}
    clips = [chunk.clip for chunk in world.render(identity, motion, **size) if chunk.clip]
    made = extracted(clips, refine=refine)
    truth: Any = world.truth(identity, motion, **size)
    neutral = torch.from_numpy(face.shape(identity.look)).double()
    frames = torch.cat([clip.frames for clip in clips])[::DRAWN_EVERY]
    further = replace(motion, turn=motion.turn + np.deg2rad(np.array([EDIT_YAW, 0, 0], np.float32)))
    wanted: Any = world.truth(identity, further, **size)
    shot = world.render(identity, further[::DRAWN_EVERY], **size)
    wanted_frames = torch.cat([chunk.clip.frames for chunk in shot if chunk.clip])
    pts = torch.arange(len(motion), dtype=torch.float64) / motion.fps
    changed = edited(made, {"yaw": Curve(((0.0, EDIT_YAW),))}, pts)
    turn = rotation_vectors(made.rotation.double() @ truth.rotation.double().mT)
    gaze = made.parameters["gaze"].unflatten(1, (2, 2)).mean(dim=1) - truth.parameters["gaze"]
    light = _direction(made.parameters["illumination"])
    towards = true_light(identity.light)
    return {
        "rotation": torch.rad2deg(turn.norm(dim=1)),
        "rotation_about_mean": torch.rad2deg((turn - turn.mean(dim=0)).norm(dim=1)),
        "gaze": torch.rad2deg(gaze.norm(dim=1)).double(),
        "gaze_about_mean": torch.rad2deg((gaze - gaze.mean(dim=0)).norm(dim=1)).double(),
        "expression": _expression_error(made, truth, neutral),
        "light": torch.rad2deg(torch.acos((light @ towards).clamp(-1, 1))).double(),
        "points": _apart(made, truth),
        "picture": unlikeness(made[::DRAWN_EVERY], frames),
        "edit_points": _apart(changed, wanted),
        "edit_picture": unlikeness(changed[::DRAWN_EVERY], wanted_frames),
    }


def _apart(made: FaceSequence, truth: FaceSequence) -> Tensor:
    """(T,) mean distance of the mesh's points in the picture, in centimetres of the face."""
    off = (made.landmarks - truth.landmarks)[:, :NUM_MESH, :2].norm(dim=2).mean(dim=1)
    return (off / truth.scale).double()


def extracted(clips: list[Clip], *, refine: bool) -> Any:
    """What face3d sees in consecutive clips."""
    plugin: Any = registry.load("extractor", "face3d")
    options = build(plugin.Options, {"refine": refine}, where="extractor")
    return plugin.produces.concat(list(plugin(options).extract(iter(clips))))


def _expression_error(made: Any, truth: FaceSequence, neutral: Tensor) -> Tensor:
    """(T,) mean distance between how the vertices have moved from rest, in % of that between the
    eyes."""
    ours = _moves(canonical(made)[:, :NUM_MESH], made.shape.double())
    theirs = _moves(canonical(truth)[:, :NUM_MESH], neutral)
    eyes = (neutral[list(RIGHT_EYE)].mean(0) - neutral[list(LEFT_EYE)].mean(0)).norm()
    return 100 * (ours - theirs).norm(dim=2).mean(dim=1) / eyes


def _moves(points_TV3: Tensor, rest_V3: Tensor) -> Tensor:
    """Movement from rest; depth has no origin in weak perspective, and its mean none either."""
    moves = points_TV3 - rest_V3
    moves[..., 2] -= moves[..., 2].mean(dim=1, keepdim=True)
    return moves


def _direction(illumination_T27: Tensor) -> Tensor:
    """(T, 3) towards the light: the first order of the luminance, of harmonics 1, y, z, x, ..."""
    luminance = illumination_T27.unflatten(1, (9, 3)) @ torch.tensor([0.299, 0.587, 0.114])
    return torch.nn.functional.normalize(luminance[:, [3, 1, 2]], dim=1)


def true_light(light: Any) -> Tensor:
    """(3,) the same of the world's lamp and room together, as nine harmonics can have them.

    Harmonics up to the second order are the polynomials of that order on the ball, so that the
    linear terms of the best polynomial are the first order; over normals that a camera can see.
    """
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20_000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals[normals[:, 2] > 0.25]
    towards = np.array(light.towards) / np.linalg.norm(light.towards)
    lamp = np.clip((normals @ towards + 0.25) / 1.25, 0, 1)
    sky = 0.75 + 0.25 * normals[:, 1]
    shade = np.outer(lamp, light.lamp) + np.outer(sky, light.room)
    x, y, z = normals.T
    terms = np.stack([x, y, z, x**0, x * y, y * z, x * z, z * z, x * x - y * y], axis=1)
    found = np.linalg.lstsq(terms, shade @ [0.299, 0.587, 0.114], rcond=None)[0][:3]
    return torch.from_numpy(found / np.linalg.norm(found)).float()


# Clips without truth


def _clips_of(asked: Asked) -> list[Clip]:
    assert asked.clip is not None
    clips, count = [], 0
    for chunk in video.read_chunks(asked.clip):
        assert chunk.clip is not None
        clips.append(chunk.clip)
        count += len(chunk)
        if count >= CLIP_FRAMES and not asked.full:
            break
    return clips


def on_clip(clips: list[Clip], *, prefix: str) -> Iterator[Row]:
    """Rows of one video, by stage."""
    plain: Any = registry.load("extractor", "face")
    tracked = FaceSequence.concat(list(plain().extract(iter(clips))))
    frames = torch.cat([clip.frames for clip in clips])
    for stage, refine in STAGES.items():
        began = perf_counter()
        made = extracted(clips, refine=refine)
        seconds = perf_counter() - began
        here = made.present() & tracked.present()
        name = f"{prefix}.{stage}"
        fps = len(frames) / seconds
        yield Row(name=f"{name}.speed", value=fps, unit="fps", goal=None if refine else 25.0)
        apart = (made.landmarks - tracked.landmarks)[here][..., :2].norm(dim=2)
        yield Row(name=f"{name}.points", value=float(apart.mean()), unit="px")
        index = here.nonzero()[::10, 0]
        unlike = float(unlikeness(made[index], frames[index]).mean())
        yield Row(name=f"{name}.picture", value=unlike, unit="levels")
        tremble = jitter(made[here])
        yield Row(name=f"{name}.jitter", value=tremble, unit="px@512", goal=0.3, at_most=True)


def unlikeness(made: FaceSequence, frames: Tensor) -> Tensor:
    """(T,) mean absolute difference of the drawn face from the filmed one, where it is drawn, in
    levels of 255."""
    height, width = frames.shape[2:]
    each = [torch.zeros(0, dtype=torch.float64)]
    for index in torch.arange(len(frames)).split(16):
        maps = made[index].draw(height, width).float()
        there = maps[:, 5:6] > 127
        off = ((maps[:, :3] - frames[index].float()).abs() * there).sum(dim=(1, 2, 3)) / 3
        each.append((off / there.sum(dim=(1, 2, 3)).clamp(min=1)).double())
    return torch.cat(each)


def jitter(made: FaceSequence) -> float:
    """How far the face's origin and its points tremble where the head is at rest: the median, over
    the stillest quarter of the frames, of what a frame is off the mean of its neighbours; in pixels
    of a picture of 512."""
    points = made.landmarks[:, :NUM_MESH, :2] * (512 / min(made.size))
    if len(points) < 3:
        return 0.0
    moved = (points[2:] - points[:-2]).norm(dim=2).mean(dim=1)
    still = moved <= moved.quantile(0.25)
    off = (points[1:-1] - (points[2:] + points[:-2]) / 2).norm(dim=2).mean(dim=1)
    return float(off[still].median())
