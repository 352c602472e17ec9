"""Triangles to pixels against closed forms."""

import numpy as np
import pytest

from vidsynth import raster
from vidsynth.facemesh import load_face_mesh
from vidsynth.raster import rasterise


def quad(x0: float, y0: float, x1: float, y1: float, z: float = 0.0) -> np.ndarray:
    return np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], np.float32)


HALVES = np.array([[0, 1, 2], [0, 2, 3]])


def test_a_plane_of_colour_is_reproduced_exactly():
    vertices = quad(2.3, 1.7, 37.2, 28.9)
    linear = vertices[:, :2] @ np.array([[0.5, -2.0], [0.25, 3.0]]) + np.array([7.0, -1.0])
    image, mask, _ = rasterise(vertices, HALVES, linear, 32, 40)
    rows, columns = np.nonzero(mask)
    at = np.stack([columns + 0.5, rows + 0.5], axis=1)
    expected = at @ np.array([[0.5, -2.0], [0.25, 3.0]]) + np.array([7.0, -1.0])
    np.testing.assert_allclose(image[mask], expected, atol=2e-4)


def test_exactly_the_pixels_whose_centres_are_inside_are_drawn():
    _, mask, _ = rasterise(quad(2.3, 1.7, 37.2, 28.4), HALVES, np.ones((4, 1)), 32, 40)
    expected = np.zeros((32, 40), bool)
    expected[2:28, 2:37] = True
    np.testing.assert_array_equal(mask, expected)


def test_coverage_of_a_triangle_is_its_area():
    vertices = np.array([[10, 20, 0], [480, 60, 0], [200, 500, 0]], np.float32)
    _, mask, _ = rasterise(vertices, np.array([[0, 1, 2]]), np.ones((3, 1)), 512, 512)
    area = 0.5 * abs(470 * 480 - 40 * 190)
    assert mask.sum() == pytest.approx(area, rel=2e-3)


def test_neighbouring_triangles_leave_no_seam():
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 60))
    rim = 60 + 55 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.concatenate([[[61.3, 58.7]], rim])
    vertices = np.concatenate([vertices, np.zeros((61, 1))], axis=1)
    fan = np.array([[0, 1 + i, 1 + (i + 1) % 60] for i in range(60)])
    _, mask, _ = rasterise(vertices, fan, np.ones((61, 1)), 120, 120)
    inner_y, inner_x = np.mgrid[:120, :120] + 0.5
    assert mask[np.hypot(inner_x - 60, inner_y - 60) < 40].all()


def test_the_nearer_triangle_hides_the_farther_in_any_order():
    near, far = quad(5, 5, 15, 15, z=1.0), quad(0, 0, 20, 20, z=2.0)
    vertices = np.concatenate([near, far])
    value = np.repeat([[1.0], [2.0]], 4, axis=0)
    expected = np.full((20, 20), 2.0)
    expected[5:15, 5:15] = 1.0
    for triangles in (np.concatenate([HALVES, HALVES + 4]), np.concatenate([HALVES + 4, HALVES])):
        image, _, depth = rasterise(vertices, triangles, value, 20, 20)
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-5)
        np.testing.assert_allclose(depth, expected, atol=1e-5)


def test_crossing_planes_swap_where_their_depths_do():
    tilted = quad(0, 0, 20, 20)
    tilted[:, 2] = tilted[:, 0]  # z = x, against the other plane's z = 8
    vertices = np.concatenate([tilted, quad(0, 0, 20, 20, z=8.0)])
    value = np.repeat([[1.0], [2.0]], 4, axis=0)
    image, _, _ = rasterise(vertices, np.concatenate([HALVES, HALVES + 4]), value, 20, 20)
    np.testing.assert_allclose(image[:, :8, 0], 1.0, atol=1e-5)
    np.testing.assert_allclose(image[:, 8:, 0], 2.0, atol=1e-5)


def test_culling_drops_the_back_of_a_closed_surface_only():
    mesh = load_face_mesh()
    front = mesh.vertices * np.array([10, -10, -10]) + np.array([100, 100, 0])
    behind = front * np.array([-1, 1, -1]) + np.array([200, 0, 0])  # turned by half a turn
    ones = np.ones((len(front), 1))
    whole = rasterise(front, mesh.triangles, ones, 200, 200).mask.sum()
    assert rasterise(front, mesh.triangles, ones, 200, 200, cull=True).mask.sum() == whole
    assert rasterise(behind, mesh.triangles, ones, 200, 200, cull=True).mask.sum() < 0.05 * whole


def test_what_leaves_the_picture_is_clipped():
    _, mask, _ = rasterise(quad(-30, -30, 100, 4), HALVES, np.ones((4, 1)), 10, 20)
    assert mask[:4].all() and not mask[4:].any()


def test_nothing_to_draw_gives_an_empty_picture():
    flat = np.zeros((3, 3), np.float32)
    for triangles in (np.array([[0, 1, 2]]), np.zeros((0, 3), int)):
        image, mask, depth = rasterise(flat, triangles, np.ones((3, 2)), 4, 5)
        assert image.shape == (4, 5, 2) and not image.any()
        assert not mask.any() and np.isinf(depth).all()


def test_the_result_does_not_depend_on_the_batching(monkeypatch: pytest.MonkeyPatch):
    mesh = load_face_mesh()
    vertices = mesh.vertices * np.array([10, -10, -10]) + np.array([100, 100, 0])
    whole = rasterise(vertices, mesh.triangles, mesh.uv, 200, 200)
    monkeypatch.setattr(raster, "MOST_FRAGMENTS", 500)
    parts = rasterise(vertices, mesh.triangles, mesh.uv, 200, 200)
    np.testing.assert_array_equal(whole.depth, parts.depth)
    np.testing.assert_allclose(whole.image, parts.image, atol=1e-6)


def test_the_face_mesh_is_the_canonical_one():
    mesh = load_face_mesh()
    assert mesh.vertices.shape == (468, 3) and mesh.triangles.shape == (898, 3)
    assert len(np.unique(mesh.triangles)) == 468
    # Outer eye corners (33 and 263) mirror each other; the chin (152) is the lowest point.
    np.testing.assert_allclose(mesh.vertices[33] * (-1, 1, 1), mesh.vertices[263], atol=1e-4)
    assert mesh.vertices[:, 1].argmin() == 152
    # The tip of the nose (4) is the nearest to the viewer; v points down.
    assert mesh.vertices[:, 2].argmax() == 4
    assert np.corrcoef(mesh.vertices[:, 1], mesh.uv[:, 1])[0, 1] < -0.95
