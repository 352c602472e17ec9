"""One filter for trackers and for motion that is already known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth.conditioning import Conditioning, LabelMaps
from vidsynth.smoothing import Smoother, smoothed
from vidsynth.testing import nodding_face, times, waving_person

FPS = 25.0


def test_smoothing_calms_a_still_point_and_follows_a_moving_one() -> None:
    rng = np.random.default_rng(0)
    smoother = Smoother(0.1, agility=10.0)
    noise = rng.normal(0, 0.005, (100, 1, 2)).astype(np.float32)
    still = np.array([smoother(n, t / FPS, 1.0) for t, n in enumerate(noise)])
    assert still[10:].std() < 0.6 * noise[10:].std()

    smoother = Smoother(0.1, agility=10.0)
    places = [np.array([[2.0 * t / FPS, 0.0]], np.float32) for t in range(50)]
    lag = [float(p[0, 0] - smoother(p, t / FPS, 1.0)[0, 0]) for t, p in enumerate(places)]
    assert max(lag[25:]) < 2.0 * 0.02  # two hundredths of a second behind


def test_smoothing_depends_on_time_not_on_the_frame_rate() -> None:
    ends = []
    for fps in (25, 50):
        smoother = Smoother(0.2, agility=0.0)
        smoother(np.zeros((1, 2), np.float32), 0.0, 10.0)
        steps = [
            smoother(np.ones((1, 2), np.float32), (t + 1) / fps, 10.0) for t in range(fps // 5)
        ]
        ends.append(float(steps[-1][0, 0]))
    assert ends[0] == pytest.approx(1 - np.exp(-1), abs=0.06)  # one time constant has passed
    assert ends[1] == pytest.approx(ends[0], abs=0.04)


def test_smoothing_does_not_drag_a_point_across_a_leap_or_an_absence() -> None:
    for then, place in ((0.04, 8.0), (2.0, 0.3)):
        smoother = Smoother(0.2, agility=0.0)
        smoother(np.zeros((3, 2), np.float32), 0.0, 1.0)
        there = np.full((3, 2), place, np.float32)
        assert np.array_equal(smoother(there, then, 1.0), there)


def test_no_smoothing_changes_nothing() -> None:
    points = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    smoother = Smoother(0.0, agility=10.0)
    smoother(points, 0.0, 1.0)
    assert np.array_equal(smoother(points * 0.9, 0.04, 1.0), points * 0.9)


def test_frames_without_the_subject_stay_and_do_not_count() -> None:
    points = np.arange(8, dtype=np.float32).reshape(8, 1, 1).repeat(2, axis=2) * 0.01
    there = [True, True, False, True, True, False, False, True]
    seconds = [t / FPS for t in range(8)]
    made = smoothed(points, seconds, there, [1.0] * 8, rest_seconds=0.2, agility=0.0)
    others = np.flatnonzero(there)
    alone = smoothed(
        points[others], [seconds[t] for t in others], [True] * 5, [1.0] * 5,
        rest_seconds=0.2, agility=0.0,
    )  # fmt: skip
    assert np.array_equal(made[others], alone)
    assert np.array_equal(made[~np.array(there)], points[~np.array(there)])


def trembling(signal: Conditioning, name: str, levels: float) -> tuple[Conditioning, Tensor]:
    """The first frame held, its points trembling; and the points it trembles about."""
    held = signal[torch.zeros(len(signal), dtype=torch.int64)]
    still = getattr(held, name)
    noise = torch.randn(still.shape, generator=torch.Generator().manual_seed(0)) * levels
    noise[..., 2:] = 0
    return replace(held, **{name: still + noise}), still  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("signal", "name"),
    [(waving_person(50, 128, 128), "keypoints"), (nodding_face(50, 128, 128), "landmarks")],
    ids=["body", "face"],
)
def test_a_subject_at_rest_trembles_less_when_steadied(signal: Conditioning, name: str) -> None:
    shaky, still = trembling(signal, name, 0.2)
    steady = getattr(shaky.steadied(times(50), 0.1), name)
    before = (getattr(shaky, name) - still)[10:, ..., :2].std()
    assert float((steady - still)[10:, ..., :2].std()) < 0.6 * float(before)


@pytest.mark.parametrize("kind", [waving_person, nodding_face], ids=["body", "face"])
def test_steadying_is_causal_and_without_time_changes_nothing(kind) -> None:
    signal = kind(20, 128, 128)
    same = signal.steadied(times(20), 0.0)
    torch.testing.assert_close(same.draw(64, 64), signal.draw(64, 64))
    whole, part = signal.steadied(times(20), 0.1), signal[:12].steadied(times(12), 0.1)
    assert torch.equal(whole[:12].draw(64, 64), part.draw(64, 64))


def test_a_steadied_heads_pose_is_a_rotation_and_stays_with_its_mesh() -> None:
    signal = nodding_face(20, 128, 128)
    steady = signal.steadied(times(20), 0.2)
    eye = torch.eye(3).expand(20, 3, 3)
    torch.testing.assert_close(steady.rotation @ steady.rotation.mT, eye, atol=1e-5, rtol=0)
    assert float(torch.linalg.det(steady.rotation).min()) > 0.999

    # The mesh in the head's own axes is as before, but for what lags in each frame.
    def own(face) -> Tensor:
        offset = face.landmarks[..., :2] - face.translation[:, None]
        return offset / face.scale[:, None, None]

    assert float((own(steady) - own(signal)).abs().mean()) < 0.1 * float(own(signal).abs().mean())


def test_kinds_that_do_not_tremble_stay() -> None:
    labels = LabelMaps(labels=torch.zeros(3, 8, 8, dtype=torch.uint8), num_classes=2)
    assert labels.steadied(times(3), 1.0) is labels
