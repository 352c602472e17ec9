"""The eyes of the parametric head: gaze from the pixels between the lids."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth import faces
from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds.motion import turns
from vidsynth_plugins.face3d.eyes import cut_eyes, learn_profile, plain_profile, refine_gaze
from vidsynth_plugins.face3d.fitting import Performance, Person, project
from vidsynth_plugins.face3d.model import EXPRESSIONS, expression_basis

SIZE = 320
CANONICAL = torch.tensor(load_face_mesh().vertices, dtype=torch.float64)
PERSON = Person(CANONICAL, expression_basis(CANONICAL))
COUNT = 8


def glancing() -> Performance:
    """A head that turns a little and looks about."""
    time = torch.linspace(0, 5, COUNT, dtype=torch.float64)
    head = turns(*(0.25 * np.sin(time.numpy() * pace) for pace in (1.0, 1.7, 0.6)))
    yaw, pitch = 0.25 * (1.3 * time).sin(), 0.12 * (2.1 * time).cos()
    return Performance(
        rotation=torch.diag(time.new_tensor([1.0, -1.0, -1.0])) @ torch.from_numpy(head).double(),
        scale=torch.full((COUNT,), 12.0, dtype=torch.float64),
        translation=torch.full((COUNT, 2), SIZE / 2, dtype=torch.float64),
        expression=torch.zeros(COUNT, len(EXPRESSIONS), dtype=torch.float64),
        gaze=torch.stack([yaw, pitch, yaw, pitch], dim=1),
    )


def filmed(seen: Performance, *, lamp: float = 0.0) -> Tensor:
    """(T, 3, SIZE, SIZE) uint8: grey skin, white between the lids, dark ellipses for iris and
    pupil; lit from the right by `lamp`."""
    frames = []
    for points in project(PERSON, seen)[..., :2].numpy():
        canvas = np.full((SIZE, SIZE), 120, np.uint8)
        for ring, iris in faces.EYES:
            inside = np.zeros_like(canvas)
            cv2.fillPoly(inside, [fixed(points[list(ring)])], (1,), cv2.LINE_8, 4)
            ball = np.full_like(canvas, 230)
            middle, *rim = points[list(iris)]
            around = np.stack([(rim[k] - rim[k + 2]) / 2 for k in (0, 1)])
            angle = np.linspace(0, 2 * np.pi, 64)[:, None]
            disc = middle + np.cos(angle) * around[0] + np.sin(angle) * around[1]
            cv2.fillPoly(ball, [fixed(disc)], (90,), cv2.LINE_AA, 4)
            cv2.fillPoly(ball, [fixed(middle + 0.45 * (disc - middle))], (10,), cv2.LINE_AA, 4)
            canvas = np.where(inside > 0, ball, canvas)
        light = 1 + lamp * np.linspace(-1, 1, SIZE)
        frames.append(np.clip(canvas * light, 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(frames))[:, None].expand(-1, 3, -1, -1)


def fixed(points: np.ndarray) -> np.ndarray:
    return np.round((points - 0.5) * 16).astype(np.int32)


def astray(seen: Performance, degrees: float) -> Performance:
    """With the gaze where a poor tracker would have it."""
    noise = torch.randn(seen.gaze.shape, generator=torch.Generator().manual_seed(1)).double()
    return replace(seen, gaze=seen.gaze + np.deg2rad(degrees) * noise)


def errors(found: Tensor, seen: Performance) -> Tensor:
    """(T, 2) degrees."""
    return torch.rad2deg((found - seen.gaze).unflatten(1, (2, 2)).norm(dim=2))


@pytest.mark.parametrize("lamp", [0.0, 0.4])
def test_pixels_tell_the_gaze_whatever_the_light(lamp: float) -> None:
    seen = glancing()
    begun = astray(seen, 6.0)
    cuts = cut_eyes(filmed(seen, lamp=lamp), project(PERSON, seen).float())
    profile = learn_profile(cuts, PERSON, begun)
    found = refine_gaze(cuts, PERSON, begun, profile, steady=False)
    before, after = (float(errors(gaze, seen).median()) for gaze in (begun.gaze, found))
    assert after < min(0.5 * before, 3.0), f"{before:.1f} degrees before, {after:.1f} after"


def test_the_profile_of_eyes_is_learnt_from_them() -> None:
    seen = glancing()
    cuts = cut_eyes(filmed(seen), project(PERSON, seen).float())
    profile = learn_profile(cuts, PERSON, astray(seen, 4.0))
    assert float(profile[:8].max()) < float(profile[14:20].min()), "dark within, bright around"


def test_shut_eyes_look_where_they_looked() -> None:
    seen = glancing()[torch.tensor([2] * 6)]
    blinking = seen.expression.clone()
    for side in ("left", "right"):
        blinking[2:4, EXPRESSIONS.index(f"blink_{side}")] = 1.0
    shut = replace(seen, expression=blinking)
    begun = replace(shut, gaze=shut.gaze.clone().index_fill(0, torch.tensor([2, 3]), 0.5))
    cuts = cut_eyes(filmed(shut), project(PERSON, shut).float())
    found = refine_gaze(cuts, PERSON, begun, plain_profile())
    assert float(errors(found, seen)[2:4].max()) < 4.0


def test_eyes_beyond_the_frame_and_no_frames_at_all() -> None:
    seen = glancing()
    away = replace(seen, translation=seen.translation - 2 * SIZE)
    cuts = cut_eyes(filmed(seen), project(PERSON, away).float())
    assert refine_gaze(cuts, PERSON, away, plain_profile()).isfinite().all()
    assert refine_gaze(cuts[:0], PERSON, seen[slice(0, 0)], plain_profile()).shape == (0, 4)
