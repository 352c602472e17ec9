"""What makes a parametric head hard to track: turned away, covered, cut off, tiny, badly lit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence
from vidsynth.retarget_face import rotation_vectors
from vidsynth.worlds import WORLDS
from vidsynth.worlds.head import Talk
from vidsynth_plugins.face3d import Face3D, Face3DExtractor, Face3DOptions

FRAMES, SIZE = 16, 192
BLINK = 4


@cache
def sitter() -> tuple[Tensor, FaceSequence]:
    """(T, 3, SIZE, SIZE) frames of someone who hardly moves, and the truth."""
    return filmed(calm())


def calm() -> Talk:
    motion = WORLDS["head"].make_motion(5, FRAMES)
    still = {name: 0.3 * getattr(motion, name) for name in ("turn", "shift", "expression", "gaze")}
    return replace(motion, **still)


def filmed(motion: Talk) -> tuple[Tensor, FaceSequence]:
    world = WORLDS["head"]
    identity = world.make_identity(4)
    chunks = world.render(identity, motion, height=SIZE, width=SIZE)
    frames = torch.cat([chunk.clip.frames for chunk in chunks if chunk.clip])
    truth = world.truth(identity, motion, height=SIZE, width=SIZE)
    assert isinstance(truth, FaceSequence)
    return frames, truth


def tracked(frames: Tensor, **options: bool | int) -> Face3D:
    clip = Clip(frames.contiguous(), torch.arange(len(frames), dtype=torch.float64) / 25)
    made = list(Face3DExtractor(Face3DOptions(**options)).extract(iter([clip])))  # pyright: ignore
    return Face3D.concat(made)


def turned_off(made: FaceSequence, truth: FaceSequence) -> Tensor:
    """(T,) degrees."""
    turn = rotation_vectors(made.rotation.double() @ truth.rotation.double().mT)
    return torch.rad2deg(turn.norm(dim=1))


def test_a_head_that_turns_its_back_is_lost_and_not_made_up() -> None:
    motion = calm()
    turn = motion.turn.copy()
    turn[:, 0] = np.deg2rad(np.clip((np.arange(FRAMES) - 6) * 25.0, 0, 180))
    frames, truth = filmed(replace(motion, turn=turn))
    found = tracked(frames, learn_frames=6)
    assert found.present()[:7].all() and not found.present()[-3:].any()
    assert not found[-1:].draw(32, 32).any()
    frontal = torch.from_numpy(turn[:, 0] <= np.deg2rad(40))
    assert float(turned_off(found, truth)[frontal].max()) < 15
    assert found.landmarks.isfinite().all() and found.parameters["gaze"].isfinite().all()


def test_a_hand_before_the_mouth_hardly_turns_the_head() -> None:
    frames, truth = sitter()
    covered = frames.clone()
    points = truth.landmarks[8, :468, :2]
    x0, x1 = int(points[:, 0].min()), int(points[:, 0].max())
    y0 = int(points[164, 1])
    covered[6:, :, y0 : y0 + 30, x0:x1] = torch.tensor([150, 110, 90], dtype=torch.uint8)[
        :, None, None
    ]
    found = tracked(covered, refine=True)
    here = found.present()
    assert here[:6].all()
    assert float(turned_off(found, truth)[here].max()) < 15


def test_a_face_cut_off_by_the_frame_stays_in_its_place() -> None:
    frames, truth = sitter()
    left = int(truth.landmarks[:, 1, 0].mean()) - 20
    found = tracked(frames[..., left:], refine=True)
    here = found.present()
    off = found.landmarks[here, :468, :2] - truth.landmarks[here, :468, :2]
    off[..., 0] += left
    assert here.any() and float((off.norm(dim=2).mean(dim=1) / truth.scale[here]).max()) < 1.0
    assert found.parameters["illumination"].isfinite().all()


def test_a_tiny_face_is_found_and_fitted_at_its_own_size() -> None:
    frames, truth = sitter()
    small = torch.nn.functional.interpolate(frames.float(), scale_factor=0.4, mode="area").byte()
    wide = torch.full((FRAMES, 3, 480, 640), 128, dtype=torch.uint8)
    height, width = small.shape[2:]
    wide[..., 60 : 60 + height, 500 : 500 + width] = small
    found = tracked(wide)
    assert found.present().float().mean() > 0.9
    wanted = 0.4 * truth.landmarks[..., :2] + torch.tensor([500.0, 60.0])
    off = (found.landmarks[..., :2] - wanted)[:, :468].norm(dim=2).mean(dim=1)
    assert float(off[found.present()].median()) < 2.0, "pixels, of a face 36 high"


def test_light_that_fails_is_told_as_light_and_not_as_motion() -> None:
    frames, truth = sitter()
    dimmed = frames.clone()
    dimmed[8:] = (0.45 * frames[8:].float()).byte()
    found = tracked(dimmed, refine=True, learn_frames=8)
    ambient = found.parameters["illumination"][:, :3].mean(dim=1)
    assert 0.3 < float(ambient[8:].mean() / ambient[:8].mean()) < 0.75
    jump = rotation_vectors(found.rotation[8].double() @ found.rotation[7].double().mT)
    true = rotation_vectors(truth.rotation[8].double() @ truth.rotation[7].double().mT)
    assert float(torch.rad2deg((jump - true).norm())) < 2.0


def test_shut_eyes_are_shut_and_look_nowhere_new() -> None:
    motion = calm()
    expression = motion.expression.copy()
    expression[:, BLINK] = 0.0
    expression[6:9, BLINK] = 1.0
    gaze = np.broadcast_to(motion.gaze[:1], motion.gaze.shape).astype(np.float32)
    frames, _ = filmed(replace(motion, expression=expression, gaze=gaze))
    found = tracked(frames, refine=True)
    opening = (found.landmarks[:, 159] - found.landmarks[:, 145]).norm(dim=1)
    assert float(opening[7]) < 0.6 * float(opening[[0, 1, 14, 15]].median())
    gaze_there = found.parameters["gaze"].unflatten(1, (2, 2)).mean(dim=1)
    away = torch.rad2deg((gaze_there[7] - gaze_there[[3, 4, 11, 12]].median(dim=0).values).norm())
    assert float(away) < 12.0
