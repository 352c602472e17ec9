"""The synthetic worlds: repeatable, exact, and believed by the real trackers."""

import math
import runpy
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vidsynth.facemesh import load_face_mesh
from vidsynth.worlds import (
    WORLDS,
    World,
    face,
    head,
    puppet,
    skeleton,
    sound,
    write_video_with_sound,
)
from vidsynth.worlds.figure import Figure, Light, ball, draw, sheet, tube
from vidsynth.worlds.motion import eased, shortest_arc, spline, turns, wandering
from vidsynth.worlds.skin import NOSTRILS, skin_texture
from vidsynth.worlds.texture import plain

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def film(world: World, person: int, motion, height: int = 64, width: int = 64) -> torch.Tensor:
    chunks = world.render(world.make_identity(person), motion, height=height, width=width)
    return torch.cat([chunk.clip.frames for chunk in chunks])


# Every world --------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_pixels(world: World):
    frames = [film(world, 3, world.make_motion(4, 3)) for _ in range(2)]
    assert torch.equal(*frames)


def test_other_seeds_give_other_people_and_other_motions(world: World):
    here = film(world, 3, world.make_motion(4, 3)).float()
    assert (here - film(world, 5, world.make_motion(4, 3)).float()).abs().mean() > 10
    assert (here - film(world, 3, world.make_motion(5, 3)).float()).abs().mean() > 1


@pytest.mark.parametrize(("height", "width", "count"), [(37, 53, 1), (70, 41, 18), (16, 16, 2)])
def test_any_size_and_length(world: World, height: int, width: int, count: int):
    motion = world.make_motion(1, count, 30.0)
    someone = world.make_identity(1)
    chunks = list(world.render(someone, motion, height=height, width=width))
    pts = torch.cat([chunk.pts for chunk in chunks])
    torch.testing.assert_close(pts, torch.arange(count, dtype=torch.float64) / 30)
    assert all(chunk.clip.frames.shape[2:] == (height, width) for chunk in chunks)
    truth = world.truth(someone, motion, height=height, width=width)
    assert len(truth) == count and truth.size == (height, width)
    assert len(world.soundtrack(1, motion)) == round(count / 30 * sound.RATE)


def test_no_frames_give_no_chunks(world: World):
    assert not list(
        world.render(world.make_identity(1), world.make_motion(1, 0), height=32, width=32)
    )


def test_a_part_of_a_motion_is_filmed_as_within_the_whole(world: World):
    motion = world.make_motion(4, 20)
    assert torch.equal(film(world, 3, motion)[17:19], film(world, 3, motion[17:19]))


def test_a_longer_motion_begins_like_a_shorter_one(world: World):
    short, long = world.make_motion(4, 5), world.make_motion(4, 60)
    assert torch.equal(film(world, 3, short), film(world, 3, long[:5]))


@pytest.mark.parametrize("world", [WORLDS["puppet"], WORLDS["head"]], ids=lambda w: w.name)
def test_truth_scales_with_the_picture(world: World):
    someone, motion = world.make_identity(2), world.make_motion(2, 4)

    def points(side: int) -> torch.Tensor:
        truth = world.truth(someone, motion, height=side, width=side)
        return getattr(truth, truth.per_frame[0])[..., :2]

    torch.testing.assert_close(points(300), 3 * points(100), rtol=1e-4, atol=1e-3)


def test_worlds_need_no_tracker():
    code = "import sys, vidsynth.worlds; sys.exit('mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# The real trackers believe them -------------------------------------------------------------------


def solutions():
    """The legacy API of MediaPipe, whose models come inside the wheel."""
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe has no solutions API; install mediapipe==0.10.21")
    return mediapipe.solutions


@pytest.mark.slow
def test_the_body_tracker_finds_the_puppet_and_its_joints():
    found, errors = 0, []
    for seed in (0, 1):
        motion = puppet.make_motion(seed + 10, 200)[::10]
        someone = puppet.make_identity(seed)
        truth = puppet.truth(someone, motion, height=256, width=256).keypoints[:, 0, :, :2].numpy()
        frames = film(WORLDS["puppet"], seed, motion, 256, 256).permute(0, 2, 3, 1).numpy()
        with solutions().pose.Pose(model_complexity=1, smooth_landmarks=False) as tracker:
            for frame, joints in zip(frames, truth, strict=True):
                seen = tracker.process(np.ascontiguousarray(frame)).pose_landmarks
                if seen is None:
                    continue
                found += 1
                points = 256 * np.array([(p.x, p.y) for p in seen.landmark])
                torso = np.linalg.norm(joints[11:13].mean(0) - joints[23:25].mean(0))
                errors.append(np.linalg.norm(points - joints, axis=1) / torso)
    assert found >= 0.95 * 40
    assert np.mean(errors) < 0.08  # of the torso's length


@pytest.mark.slow
def test_the_face_tracker_finds_the_head_its_mesh_and_its_irises():
    found, errors = 0, []
    for seed in (0, 1):
        motion = head.make_motion(seed + 10, 200)[::10]
        someone = head.make_identity(seed)
        truth = head.truth(someone, motion, height=256, width=256).landmarks[..., :2].numpy()
        frames = film(WORLDS["head"], seed, motion, 256, 256).permute(0, 2, 3, 1).numpy()
        with solutions().face_mesh.FaceMesh(refine_landmarks=True) as tracker:
            for frame, mesh in zip(frames, truth, strict=True):
                seen = tracker.process(np.ascontiguousarray(frame)).multi_face_landmarks
                if not seen:
                    continue
                found += 1
                points = 256 * np.array([(p.x, p.y) for p in seen[0].landmark])
                errors.append(
                    np.linalg.norm(points - mesh, axis=1) / np.linalg.norm(mesh[33] - mesh[263])
                )
    assert found >= 0.95 * 40
    assert np.mean(errors) < 0.06  # of the distance between the outer eye corners
    assert np.mean(errors, axis=0)[468:].max() < 0.04  # each iris point, in the trackers' order


# The puppet ---------------------------------------------------------------------------------------

SHOULDER, ELBOW, WRIST, HIP, KNEE, ANKLE = ([a, a + 1] for a in (11, 13, 15, 23, 25, 27))


def joints(person: int, motion) -> np.ndarray:
    """(T, 33, 3) metres, x right, y up, z to the viewer, origin between the hips."""
    truth = puppet.truth(puppet.make_identity(person), motion, height=64, width=64)
    return truth.world[:, 0].numpy() * (1, -1, -1)


def still_dance():
    dance = puppet.make_motion(0, 2)
    arrays = ("pelvis", "chest", "head", "root", "squat", "feet", "toes")
    return replace(dance, **{name: 0 * getattr(dance, name) for name in arrays})


def test_bones_keep_their_lengths_in_every_frame():
    at = joints(3, puppet.make_motion(4, 120))
    for near, far in ((SHOULDER, ELBOW), (ELBOW, WRIST), (HIP, KNEE), (KNEE, ANKLE)):
        lengths = np.linalg.norm(at[:, near] - at[:, far], axis=-1)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(120, 0), rtol=1e-3)


def test_straight_arms_reach_out_by_their_own_length():
    out = np.float32([[[1, 0, 0], [1, 0, 0]]] * 2)
    someone = puppet.make_identity(3)
    at = joints(3, replace(still_dance(), upper_arms=out, forearms=out))
    still = skeleton.rest(someone.body)
    reach = at[0, WRIST] - at[0, SHOULDER]
    arm = still.upper + still.fore
    np.testing.assert_allclose(reach, [[arm, 0, 0], [-arm, 0, 0]], atol=1e-5)


def test_standing_still_is_the_rest_pose_but_for_barely_bent_knees():
    someone = puppet.make_identity(3)
    at, still = joints(3, still_dance()), skeleton.rest(someone.body)
    drop = at[0, HIP, 1] - at[0, ANKLE, 1]
    np.testing.assert_allclose(drop, 0.985 * (still.thigh + still.shin), rtol=1e-4)
    assert (at[0, KNEE, 2] > at[0, HIP, 2]).all()  # knees bend forwards


def test_feet_rest_where_the_dance_puts_them():
    dance = puppet.make_motion(4, 120)
    someone = puppet.make_identity(3)
    still = skeleton.rest(someone.body)
    _, place = skeleton.pose(someone.body, dance)
    ankles = place[:, [skeleton.limb(skeleton.FOOT, s) for s in skeleton.SIDES]]
    leg = still.thigh + still.shin
    np.testing.assert_allclose(ankles[..., 1], still.ankle + leg * dance.feet[..., 1], atol=2e-3)
    np.testing.assert_allclose(ankles[..., 2], leg * dance.feet[..., 2], atol=2e-3)


def test_everyone_does_the_same_motion():
    dance = puppet.make_motion(4, 50)

    def directions(person: int) -> np.ndarray:
        at = joints(person, dance)
        limbs = np.stack([at[:, ELBOW] - at[:, SHOULDER], at[:, WRIST] - at[:, ELBOW]])
        return limbs / np.linalg.norm(limbs, axis=-1, keepdims=True)

    np.testing.assert_allclose(directions(3), directions(8), atol=1e-5)


def test_true_joints_lie_on_the_drawn_person():
    someone, dance = puppet.make_identity(3), puppet.make_motion(4, 30)[::6]
    frames = film(WORLDS["puppet"], 3, dance, 200, 200).float().permute(0, 2, 3, 1).numpy()
    plate = puppet.paint(someone.room, someone.camera, 200, 200)
    truth = puppet.truth(someone, dance, height=200, width=200).keypoints[:, 0]
    for frame, points in zip(frames, truth.numpy(), strict=True):
        x, y = points[[0, *SHOULDER, *ELBOW, *HIP, *KNEE], :2].astype(int).T
        assert (np.abs(frame - plate).max(axis=-1)[y, x] > 12).mean() > 0.85


def test_the_background_is_still_apart_from_shadows():
    someone = puppet.make_identity(3)
    frames = film(WORLDS["puppet"], 3, puppet.make_motion(4, 40)[::8], 96, 96).float()
    plate = torch.from_numpy(puppet.paint(someone.room, someone.camera, 96, 96)).permute(2, 0, 1)
    assert (frames[:, :, :, :8] - plate[:, :, :8]).abs().max() < 1.01


# The head -----------------------------------------------------------------------------------------


def still_talk(**changes):
    talk = head.make_motion(0, 1)
    arrays = ("turn", "shift", "expression", "gaze")
    return replace(talk, **{name: 0 * getattr(talk, name) for name in arrays} | changes)


def landmarks(talk, person: int = 3) -> np.ndarray:
    return head.truth(head.make_identity(person), talk, height=256, width=256).landmarks[0].numpy()


def expressing(name: str) -> np.ndarray:
    coefficients = np.zeros((1, len(face.EXPRESSIONS)), np.float32)
    coefficients[0, face.EXPRESSIONS.index(name)] = 1
    return landmarks(still_talk(expression=coefficients))


def test_head_pose_and_shape_give_the_landmarks_back():
    someone, talk = head.make_identity(3), head.make_motion(4, 30)
    truth = head.truth(someone, replace(talk, expression=0 * talk.expression), height=90, width=120)
    shape = torch.from_numpy(face.shape(someone.look))
    turned = shape @ truth.rotation.transpose(1, 2) * truth.scale[:, None, None]
    expected = turned[..., :2] + truth.translation[:, None]
    torch.testing.assert_close(truth.landmarks[:, :468, :2], expected, rtol=1e-4, atol=1e-3)
    identity = truth.rotation @ truth.rotation.transpose(1, 2)
    torch.testing.assert_close(identity, torch.eye(3).expand(30, 3, 3), rtol=0, atol=1e-5)


def test_nostrils_are_dark_within_their_rims_and_nowhere_between_them():
    look = WORLDS["head"].make_identity(1).look
    skin, uv = skin_texture(look, 512).sum(axis=2), load_face_mesh().uv

    def shade(places: np.ndarray) -> float:
        u, v = (512 * places.mean(axis=0)).astype(int)
        return skin[v, u] / sum(look.skin)

    for rim in NOSTRILS:
        assert shade(uv[rim]) < 0.5
    assert shade(uv[[242, 462]]) > 0.6  # the partition


def test_expressions_do_what_they_are_called():
    neutral = landmarks(still_talk())
    gap = lambda mesh, a, b: abs(mesh[a, 1] - mesh[b, 1])  # noqa: E731
    assert gap(expressing("jaw_open"), 13, 14) > gap(neutral, 13, 14) + 5
    assert np.allclose(expressing("jaw_open")[[10, 33, 263, 4]], neutral[[10, 33, 263, 4]])
    assert gap(expressing("blink"), 159, 145) < 0.2 * gap(neutral, 159, 145)
    assert gap(expressing("brow_raise"), 105, 159) > gap(neutral, 105, 159) + 3
    wide = lambda mesh: mesh[291, 0] - mesh[61, 0]  # noqa: E731
    assert wide(expressing("smile")) > wide(neutral) + 5
    assert wide(expressing("pucker")) < wide(neutral) - 5


def test_eyes_look_where_the_gaze_says():
    ahead = landmarks(still_talk())
    aside = landmarks(still_talk(gaze=np.float32([[0.3, 0.0]])))
    down = landmarks(still_talk(gaze=np.float32([[0.0, 0.2]])))
    for iris in (468, 473):
        assert aside[iris, 0] > ahead[iris, 0] + 1.5 and down[iris, 1] > ahead[iris, 1] + 1
    np.testing.assert_array_equal(aside[:468], ahead[:468])


def test_someone_who_turns_right_shows_the_nose_to_the_right():
    turned = landmarks(still_talk(turn=np.float32([[0.4, 0.0, 0.0]])))
    middle = (turned[33, 0] + turned[263, 0]) / 2
    assert turned[4, 0] > middle + 5


# Curves and rotations -----------------------------------------------------------------------------


def test_a_spline_passes_through_its_keys_and_an_eased_curve_rests_there():
    keys = np.random.default_rng(0).normal(size=(6, 2))
    np.testing.assert_allclose(spline(keys, np.arange(6.0)), keys, atol=1e-6)
    around = np.array([1.9, 2.0, 2.1])
    np.testing.assert_allclose(eased(keys, around), keys[[2, 2, 2]], atol=1e-6)
    line = np.arange(6.0)[:, None]
    np.testing.assert_allclose(spline(line, np.array([2.25]))[0], 2.25, atol=1e-6)


def test_the_shortest_arc_takes_one_direction_to_the_other():
    a, b = np.random.default_rng(0).normal(size=(2, 50, 3))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    rotation = shortest_arc(a, b)
    np.testing.assert_allclose(np.einsum("tij,tj->ti", rotation, a), b, atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-4)
    angle = np.arccos((np.trace(rotation, axis1=1, axis2=2) - 1) / 2)
    np.testing.assert_allclose(angle, np.arccos((a * b).sum(1)), atol=1e-3)


def test_turns_follow_their_signs():
    one, none = np.float32(0.3), np.float32(0)
    front, top = np.eye(3)[2], np.eye(3)[1]
    assert (turns(one, none, none) @ front)[0] > 0.29  # yaw: to the right of the picture
    assert (turns(none, one, none) @ front)[1] < -0.29  # pitch: down
    assert (turns(none, none, one) @ top)[0] < -0.29  # roll: the top to the left
    whole = turns(*np.float32([0.3, -0.2, 0.5]))
    parts = [turns(one, none, none), turns(none, np.float32(-0.2), none)]
    parts.append(turns(none, none, np.float32(0.5)))
    np.testing.assert_allclose(whole, parts[0] @ parts[1] @ parts[2], atol=1e-6)


def test_wandering_stays_within_bounds_and_moves_slowly():
    curve = wandering(np.random.default_rng(0), 4, np.arange(1000) / 100, 0.5)
    assert np.abs(curve).max() <= 1 and curve.std(axis=0).min() > 0.2
    assert np.abs(np.diff(curve, axis=0)).max() < 4 * 0.6 * 2 * math.pi * 0.5 / 100


# Figures ------------------------------------------------------------------------------------------


def test_normals_of_a_tube_point_outwards():
    path = np.stack([np.zeros(5), np.linspace(1, -1, 5), np.zeros(5)], -1)
    part = tube(path, np.ones((5, 2)), plain((1, 1, 1), 4))
    outwards = part.vertices * (1, 0, 1)
    assert ((part.normals * outwards).sum(1) > 0.99).all()
    a, b, c = (part.vertices[part.triangles[:, k]] for k in range(3))
    assert ((np.cross(b - a, c - a) * (a + b + c) * (1, 0, 1)).sum(1) > 0).all()


def test_a_white_ball_covers_its_circle_and_is_lit_from_the_lamp():
    figure = Figure.joined([ball((0, 0, 0), (1, 1, 1), plain((200, 200, 200), 4), rings=24)])
    projected = figure.vertices * np.float32([40, -40, -40]) + np.float32([50, 50, 0])
    colour, coverage = draw(figure, projected, figure.normals, Light(), 100, 100)
    circle = math.pi * 40**2  # of which the outline's ten sides keep 93.5 %
    assert 0.93 * circle < coverage.sum() < circle
    assert colour[30, 30].mean() > colour[70, 70].mean() + 20  # the lamp is up on the left
    assert coverage[5, 5] == 0 and coverage[50, 50] == 1


def test_a_figure_outside_the_picture_draws_nothing():
    figure = Figure.joined([ball((0, 0, 0), (1, 1, 1), plain((200, 200, 200), 4))])
    colour, coverage = draw(figure, figure.vertices - 500, figure.normals, Light(), 20, 30)
    assert not colour.any() and not coverage.any()


def test_skinning_blends_between_two_bones():
    points = np.zeros((2, 2, 3))
    points[1, :, 1], points[:, 1, 0] = -1, 1
    part = replace(
        sheet(points, plain((1, 1, 1), 2)),
        bones=np.tile(np.int32([0, 1]), (4, 1)),
        blend=np.float32([0, 0, 0.25, 1]),
    )
    eye = np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
    moved, _ = Figure.joined([part]).posed(eye, np.float32([[0, 0, 0], [0, 0, 8]]))
    np.testing.assert_allclose(moved[:, 2], [0, 0, 2, 8])
    np.testing.assert_allclose(moved[:, :2], part.vertices[:, :2])


# Sound and files ----------------------------------------------------------------------------------


def test_the_music_beats_in_time():
    beat = 0.55
    track = sound.dance_track(3, 8 * beat, beat)
    assert np.abs(track).max() <= 1
    energy = [np.square(track[round(k * beat * sound.RATE) :][:1500]).mean() for k in range(8)]
    before = [np.square(track[: round(k * beat * sound.RATE)][-1500:]).mean() for k in range(1, 8)]
    assert min(energy) > 2 * max(before)
    np.testing.assert_array_equal(track, sound.dance_track(3, 8 * beat, beat))


def test_the_voice_is_loud_when_the_mouth_is_open():
    openness = np.repeat(np.float32([0, 1, 0]), 25)
    shut, opened, _ = np.split(sound.voice(3, openness, 25.0), 3)
    assert np.square(opened[2000:-2000]).mean() > 50 * np.square(shut[:-2000]).mean()


def test_a_film_with_sound_has_both(tmp_path: Path):
    world = WORLDS["puppet"]
    motion = world.make_motion(1, 12)
    chunks = world.render(world.make_identity(1), motion, height=64, width=64)
    path = tmp_path / "dance.mp4"
    write_video_with_sound(path, chunks, fps=Fraction(25), samples=world.soundtrack(1, motion))
    with av.open(path) as file:
        assert sum(1 for _ in file.decode(video=0)) == 12
    with av.open(path) as file:
        heard = np.concatenate([f.to_ndarray().ravel() for f in file.decode(audio=0)])
        assert len(heard) / file.streams.audio[0].rate == pytest.approx(0.48, abs=0.1)
        assert np.abs(heard).max() > 0.1


def test_the_example_clips_are_what_the_script_makes():
    script = runpy.run_path(str(REPOSITORY / "examples" / "make_media.py"))
    sizes = {}
    for name, (world_name, person, moves, seconds) in script["CLIPS"].items():
        path = REPOSITORY / "examples" / "media" / f"{name}.mp4"
        sizes[name] = path.stat().st_size
        world, side = WORLDS[world_name], script["SIZE"]
        motion = world.make_motion(moves, script["FPS"] * seconds, script["FPS"])
        with av.open(path) as file:
            assert file.streams.video[0].frames == script["FPS"] * seconds and file.streams.audio
            first = next(file.decode(video=0)).to_ndarray(format="rgb24").astype(float)
        made = film(world, person, motion[:1], side, side)[0].permute(1, 2, 0).numpy()
        error = np.square(first - made).mean()
        assert 10 * np.log10(255**2 / error) > 30, f"{name} is not what make_media.py makes"
    assert sum(sizes.values()) < 3e6
