"""What MediaPipe saw: where it is, at once; its points, when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vidsynth.notes import Notes
from vidsynth.worlds import WORLDS
from vidsynth_plugins import mediapipe_models
from vidsynth_plugins.mediapipe_models import Picture, Tracker, open_face, open_pose
from vidsynth_plugins.sighting import Clouds, Sighting, Sightings, box_around
from vidsynth_plugins.tracking import pictures


def film(world: str, num_frames: int) -> Iterator[Picture]:
    made = WORLDS[world]
    motion = made.make_motion(3, num_frames)
    for chunk in made.render(made.make_identity(3), motion, height=192, width=192):
        assert chunk.clip is not None
        yield from (picture.copy() for picture in pictures(chunk.clip))


def tracker_of(world: str) -> Tracker:
    if world == "head":
        return open_face(bundle=None, confidence=0.5, notes=Notes())
    return open_pose(bundle=None, confidence=0.5, details=False, notes=Notes())


@pytest.mark.parametrize("world", ["head", "puppet"])
def test_a_box_reaches_about_as_far_as_the_points_do(world: str) -> None:
    tracker = tracker_of(world)
    found = [tracker.track(picture, t / 25) for t, picture in enumerate(film(world, 40))]
    tracker.close()
    seen = [sighting for sighting in found if sighting]
    assert len(seen) > 30
    for sighting in seen:
        clear = sighting.clouds.points[sighting.clouds.points[:, 3] >= 0.5]
        reach = np.concatenate([clear[:, :2].min(axis=0), clear[:, :2].max(axis=0)])
        size = (reach[2:] - reach[:2]).max()
        assert np.abs(reach - sighting.box).max() < 0.08 * size


@pytest.mark.parametrize("world", ["head", "puppet"])
def test_a_picture_gets_the_answer_that_process_gives_and_so_do_those_after_it(world: str) -> None:
    solutions = mediapipe_models._solutions()
    if solutions is None:
        pytest.skip("this mediapipe has no `solutions`")
    kind = solutions.face_mesh.FaceMesh if world == "head" else solutions.pose.Pose
    names = ["multi_face_landmarks"] if world == "head" else ["pose_landmarks"]
    with kind() as plain, kind() as quick:
        for picture in [*film(world, 8), np.zeros((192, 192, 3), np.uint8)]:
            wanted, got = plain.process(picture), mediapipe_models._processed(quick, picture)
            for name in names:
                assert repr(coordinates(got, name)) == repr(coordinates(wanted, name))


def coordinates(answer: object, name: str) -> list[tuple[float, float, float]]:
    found = getattr(answer, name)
    one = found[0] if isinstance(found, list) else found
    return [(p.x, p.y, p.z) for p in one.landmark] if one else []


def test_points_are_read_once_and_not_before_they_are_asked_for() -> None:
    asked = []

    def read() -> Clouds:
        asked.append(True)
        return Clouds(points=np.ones((4, 4), np.float32))

    sighting = Sighting((0.0, 0.0, 2.0, 2.0), read)
    moved = sighting.moved(10, 20)
    assert moved.box == (10.0, 20.0, 12.0, 22.0) and not asked
    assert moved.clouds.points[0].tolist() == [11.0, 21.0, 1.0, 1.0]
    assert sighting.clouds is sighting.clouds and len(asked) == 1


def test_a_box_leaves_out_what_is_hidden_unless_nearly_all_is() -> None:
    hidden = [(9.0, 9.0, 0.1)]
    assert box_around([(1, 2, 0.9), (3, 5, 0.9), *hidden]) == (1, 2, 3, 5)
    assert box_around([(1, 2, 0.9), *hidden]) == (1, 2, 9, 9)


def test_a_finding_that_was_noted_is_what_was_seen() -> None:
    cloud = np.arange(16, dtype=np.float32).reshape(4, 4)
    seen = Sightings([Sighting((1.0, 2.0, 3.5, 4.0), lambda: Clouds(points=cloud, world=cloud))])
    (again,) = Sightings.of(dict(seen)).found
    assert again.box == (1.0, 2.0, 3.5, 4.0)
    assert np.array_equal(again.clouds.points, cloud) and again.clouds.hands is None
    assert torch.equal(seen["0/world"], torch.from_numpy(cloud)) and len(seen) == 3
