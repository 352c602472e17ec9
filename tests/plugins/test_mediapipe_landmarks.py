"""Landmarks come out of mediapipe's messages as they went in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vidsynth_plugins.mediapipe_landmarks import values

landmark_pb2 = pytest.importorskip("mediapipe.framework.formats.landmark_pb2")
NAMES = ("x", "y", "z", "visibility")
TRUTH = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)


def message(fields: int, rows: np.ndarray = TRUTH):
    landmarks = landmark_pb2.NormalizedLandmarkList()
    for row in rows.tolist():
        landmarks.landmark.add(**dict(zip(NAMES[:fields], row, strict=False)))
    return landmarks


@pytest.mark.parametrize("sent", [3, 4])
@pytest.mark.parametrize("asked", [3, 4])
def test_fields_are_read_as_sent_and_absent_ones_are_zero(sent: int, asked: int) -> None:
    expected = TRUTH[:, :asked].copy()
    expected[:, sent:] = 0
    np.testing.assert_array_equal(values(message(sent), NAMES[:asked]), expected)


def test_landmarks_of_unequal_fields_are_read_too() -> None:
    landmarks = message(4)
    landmarks.landmark[7].ClearField("y")
    expected = TRUTH.copy()
    expected[7, 1] = 0
    np.testing.assert_array_equal(values(landmarks, NAMES), expected)


def test_plain_objects_are_read_as_messages_are() -> None:
    objects = [SimpleNamespace(**dict(zip(NAMES, row, strict=True))) for row in TRUTH.tolist()]
    np.testing.assert_array_equal(values(objects, NAMES), values(message(4), NAMES))


def test_no_landmarks_are_an_empty_table() -> None:
    assert values(message(4, TRUTH[:0]), NAMES).shape == (0, 4)
