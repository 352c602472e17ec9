"""The parametric head: its directions, its renderer, its fit, and what it is good for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth import faces, raster, retarget
from vidsynth.errors import UnknownName
from vidsynth.facemesh import load_face_mesh
from vidsynth.retarget_face import resting, rotation_vectors
from vidsynth.testing import moving_squares
from vidsynth.worlds import WORLDS
from vidsynth.worlds.motion import turns
from vidsynth_plugins.face3d import Face3D, Face3DExtractor
from vidsynth_plugins.face3d.appearance import (
    Appearance,
    Crops,
    Readings,
    estimate_appearance,
    skin_triangles,
    texels,
    texture_coordinates,
)
from vidsynth_plugins.face3d.fitting import (
    Performance,
    Person,
    fit,
    learn,
    project,
    upright,
)
from vidsynth_plugins.face3d.model import (
    EXPRESSIONS,
    EYEBALL_CM,
    NUM_MESH,
    expression_basis,
    eye_centres,
    gaze_angles,
    gaze_directions,
    irises,
)
from vidsynth_plugins.face3d.refining import refine, synthesise
from vidsynth_plugins.face3d.rendering import (
    harmonics,
    light_direction,
    rasterise,
    vertex_normals,
)

MESH = load_face_mesh()
CANONICAL = torch.tensor(MESH.vertices, dtype=torch.float64)
PERSON = Person(CANONICAL, expression_basis(CANONICAL))
SQUARE = torch.tensor([[0, 2, 1], [0, 3, 2]])  # counter-clockwise in the picture


def performance(count: int, size: int) -> Performance:
    """Someone who turns, talks, smiles and looks about."""
    time = torch.linspace(0, 6, count, dtype=torch.float64)
    head = turns(*(0.3 * np.sin(time.numpy() * pace) for pace in (1.0, 1.7, 0.6)))
    expression = torch.zeros(count, len(EXPRESSIONS), dtype=torch.float64)
    for name, pace in (("jaw_open", 2.0), ("smile_left", 1.0), ("smile_right", 1.0)):
        expression[:, EXPRESSIONS.index(name)] = (time * pace).sin().square() * 0.8
    gaze = 0.2 * torch.stack([(time * p).sin() for p in (1.0, 2.0, 1.0, 2.0)], dim=1)
    return Performance(
        rotation=torch.diag(time.new_tensor([1.0, -1.0, -1.0])) @ torch.from_numpy(head).double(),
        scale=torch.full((count,), size / 26.0, dtype=torch.float64),
        translation=torch.tensor([[size / 2, size / 2]]).double() + 2 * time.sin()[:, None],
        expression=expression,
        gaze=gaze,
    )


def sequence(count: int = 4, size: int = 64, shape: Tensor = CANONICAL) -> Face3D:
    seen = performance(count, size)
    person = Person(shape, expression_basis(shape))
    light = torch.zeros(9, 3)
    light[0], light[2] = 2.0, 0.8
    return Face3D(
        landmarks=project(person, seen).float(),
        rotation=seen.rotation.float(),
        translation=seen.translation.float(),
        scale=seen.scale.float(),
        seen=torch.ones(count, dtype=torch.bool),
        frame_size=(size, size),
        parameters={
            "expression": seen.expression.float(),
            "gaze": seen.gaze.float(),
            "illumination": light.flatten().expand(count, -1).clone(),
        },
        shape=shape.float(),
        texture=torch.full((3, 128, 128), 0.5),
    )


def degrees_apart(one: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(rotation_vectors(one.double() @ other.double().mT).norm(dim=-1))


# The model


def test_left_and_right_are_mirror_images() -> None:
    mirror = (
        (CANONICAL[:, None] - CANONICAL * CANONICAL.new_tensor([-1, 1, 1])).norm(dim=2).argmin(1)
    )
    for name in EXPRESSIONS:
        if not name.endswith("_left"):
            continue
        left, right = (
            PERSON.basis[EXPRESSIONS.index(f"{name.removesuffix('_left')}_{side}"), :NUM_MESH]
            for side in ("left", "right")
        )
        expected = left[mirror] * left.new_tensor([-1, 1, 1])
        assert torch.allclose(right, expected, atol=0.02), name


def test_no_expression_repeats_the_others() -> None:
    values = torch.linalg.svdvals(PERSON.basis.flatten(1))
    assert float(values[-1]) > 0.1


@pytest.mark.parametrize("widened", [1.0, 1.6])
def test_a_full_blink_closes_the_eyes_of_any_shape(widened: float) -> None:
    shape = CANONICAL.clone()
    for ring, _ in faces.EYES:
        middle = shape[list(ring), 1].mean()
        shape[list(ring), 1] = middle + widened * (shape[list(ring), 1] - middle)
    basis = expression_basis(shape)
    for side, lids in (("right", (159, 145)), ("left", (386, 374))):
        closed = shape + basis[EXPRESSIONS.index(f"blink_{side}"), :NUM_MESH]
        before, after = (s[lids[0], 1] - s[lids[1], 1] for s in (shape, closed))
        assert abs(float(after)) < 0.05 * float(before)


def test_the_jaw_opens_the_mouth_and_leaves_nose_and_eyes() -> None:
    moved = CANONICAL + PERSON.basis[EXPRESSIONS.index("jaw_open"), :NUM_MESH]
    assert float(moved[13, 1] - moved[14, 1]) > 2.0
    assert torch.equal(moved[[1, 33, 263, 105]], CANONICAL[[1, 33, 263, 105]])


def test_gaze_angles_and_directions_are_inverse() -> None:
    gaze = torch.tensor([[0.3, -0.2, -0.4, 0.1]], dtype=torch.float64)
    assert torch.allclose(gaze_angles(gaze_directions(gaze)), gaze)
    ahead = irises(eye_centres(CANONICAL), gaze)[0, [0, 5]] - eye_centres(CANONICAL)
    assert torch.allclose(ahead.norm(dim=1), ahead.new_tensor(EYEBALL_CM))
    assert float(ahead[0, 0]) > 0 > float(ahead[1, 0]), "yaw turns to the right of the picture"


# The renderer


def test_a_plane_is_drawn_as_its_equation() -> None:
    corners = torch.tensor([[[1.0, 1, 5], [9, 1, 5], [9, 9, 5], [1, 9, 5]]], dtype=torch.float64)
    shown = rasterise(corners, SQUARE, 10, 12)
    drawn = shown.image(shown.interpolate(corners[0, :, :2], SQUARE), (1, 10, 12))[0]
    rows, columns = torch.meshgrid(torch.arange(10) + 0.5, torch.arange(12) + 0.5, indexing="ij")
    inside = (rows > 1) & (rows < 9) & (columns > 1) & (columns < 9)
    expected = torch.stack([columns, rows]) * inside
    assert torch.allclose(drawn, expected.double(), atol=1e-9)


def test_the_nearer_hides_and_the_back_is_not_drawn() -> None:
    far = torch.tensor([[1.0, 1, 5], [9, 1, 5], [9, 9, 5], [1, 9, 5]])
    near = far * torch.tensor([0.5, 0.5, 0.2])
    both = torch.cat([far, near])[None]
    triangles = torch.cat([SQUARE, SQUARE + 4])
    number = torch.tensor([1.0] * 4 + [2.0] * 4)[:, None]
    shown = rasterise(both, triangles, 10, 10)
    drawn = shown.image(shown.interpolate(number, triangles), (1, 10, 10))[0, 0]
    assert drawn[2, 2] == 2 and drawn[7, 7] == 1 and drawn[0, 9] == 0
    assert len(rasterise(both, triangles.flip(1), 10, 10).pixel) == 0


def test_it_draws_what_the_other_rasteriser_draws() -> None:
    face = sequence(2).landmarks[:, :NUM_MESH]
    triangles = torch.tensor(MESH.triangles.astype(np.int64))
    shown = rasterise(face, triangles, 64, 64)
    drawn = shown.image(shown.interpolate(texture_coordinates(), triangles), (2, 64, 64))
    for t in range(2):
        expected = raster.rasterise(face[t].numpy(), MESH.triangles, MESH.uv, 64, 64, cull=True)
        ours = drawn[t].permute(1, 2, 0).numpy()
        assert np.mean(np.abs(ours - expected.image).max(axis=2) > 0.01) < 0.002


def test_gradients_are_those_of_finite_differences() -> None:
    corners = torch.tensor([[[1.2, 1.1, 5], [8.7, 1.4, 4], [5.1, 8.8, 6]]], dtype=torch.float64)
    values = torch.tensor([[0.1, 0.9], [0.5, 0.2], [0.8, 0.4]], dtype=torch.float64)
    triangles = torch.tensor([[0, 2, 1]])

    def inner(vertices: Tensor, attributes: Tensor) -> Tensor:
        shown = rasterise(vertices, triangles, 10, 10)
        image = shown.image(shown.interpolate(attributes, triangles), (1, 10, 10))
        return image[0, :, 3:6, 4:6]  # well inside: no pixel changes hands

    corners.requires_grad_()
    values.requires_grad_()
    assert torch.autograd.gradcheck(inner, (corners, values), eps=1e-6, atol=1e-6)


def test_harmonics_are_orthonormal_and_normals_of_a_ball_point_outwards() -> None:
    heights, angles = torch.linspace(-1, 1, 201), torch.linspace(0, 2 * torch.pi, 65)[:-1]
    z = (heights[1:] + heights[:-1]) / 2
    radius = (1 - z**2).sqrt()
    ball = torch.stack(
        [radius[:, None] * angles.cos(), radius[:, None] * angles.sin(), z[:, None] + 0 * angles],
        -1,
    )
    basis = harmonics(ball.flatten(0, 1))
    gram = basis.T @ basis * (4 * torch.pi / len(basis))
    assert torch.allclose(gram, torch.eye(9), atol=1e-3)
    octahedron = torch.tensor(
        [[[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]]
    )
    sides = [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [1, 0, 5], [2, 1, 5], [3, 2, 5], [0, 3, 5]]
    assert torch.allclose(vertex_normals(octahedron, torch.tensor(sides)), octahedron, atol=1e-6)


def test_light_comes_from_where_a_lambertian_ball_says() -> None:
    towards = torch.nn.functional.normalize(torch.tensor([0.5, 0.4, 0.7]), dim=0)
    normals = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1)
    irradiance = (normals @ towards).clamp(min=0)[:, None].expand(-1, 3)
    light = torch.linalg.lstsq(harmonics(normals), irradiance).solution
    assert float(light_direction(light.flatten()[None])[0] @ towards) > np.cos(np.deg2rad(2))


# Fitting


def test_where_nobody_is_nothing_is_drawn() -> None:
    (found,) = Face3DExtractor().extract(iter([moving_squares(3, 64, 64)]))
    assert not found.present().any() and not found.draw(32, 32).any()
    assert found.landmarks.isfinite().all()


def test_what_the_model_did_is_found_again() -> None:
    seen = performance(6, 256)
    found = fit(project(PERSON, seen), PERSON, rounds=8)
    assert float(degrees_apart(found.rotation, seen.rotation).max()) < 0.2
    assert float(torch.rad2deg((found.gaze - seen.gaze).abs()).max()) < 1.0
    assert torch.allclose(found.scale, seen.scale, rtol=0.01)
    jaw = EXPRESSIONS.index("jaw_open")
    assert float((found.expression - seen.expression)[:, jaw].abs().max()) < 0.05


def test_a_shape_is_set_upright_and_the_way_back_is_told() -> None:
    turn = torch.from_numpy(turns(np.float32(0.1), np.float32(-0.2), np.float32(0.05))).double()
    crooked = 1.3 * CANONICAL @ turn.T + CANONICAL.new_tensor([1.0, 2.0, 0.0])
    shape, rotation, place, size = upright(crooked)
    assert torch.allclose(shape, CANONICAL, atol=1e-3)
    assert torch.allclose(size * shape @ rotation.T + place, crooked, atol=1e-6)


def test_heads_are_measured_from_exact_points() -> None:
    """Given the true points, pose, gaze and expression are within the goals of the bench."""
    world = WORLDS["head"]
    identity, motion = world.make_identity(3), world.make_motion(13, 64)
    truth = world.truth(identity, motion, height=256, width=256)
    person = learn(truth.landmarks[::4], rounds=4)  # pyright: ignore
    found = fit(truth.landmarks, person)  # pyright: ignore
    error = degrees_apart(found.rotation, truth.rotation)  # pyright: ignore
    assert float(error.median()) < 1.5
    wanted = truth.parameters["gaze"].repeat(1, 2)  # pyright: ignore
    assert float(torch.rad2deg((found.gaze - wanted).norm(dim=1) / 2**0.5).median()) < 3.0


def test_light_is_told_from_a_face_of_one_colour() -> None:
    normals = vertex_normals(CANONICAL.float()[None], torch.tensor(MESH.triangles.astype(np.int64)))
    heads = torch.from_numpy(turns(*np.float32([[-0.5, 0, 0.5], [0.2, 0, -0.2], [0, 0, 0]])))
    turned = torch.nn.functional.normalize(texels().of(normals @ heads.mT), dim=-1)
    light = torch.zeros(9, 3)
    light[0], light[3], light[1], light[2] = 2.0, -0.5, 0.5, 0.6
    basis = harmonics(turned)
    facing = (turned[..., 2] - 0.25).clamp(min=0)
    made = estimate_appearance(Readings(0.4 * basis @ light, facing, basis))
    towards = light_direction(light.flatten()[None])[0]
    assert float(light_direction(made.illumination[None])[0] @ towards) > np.cos(np.deg2rad(10))


def rendered(seen: Performance, size: int) -> tuple[Crops, Appearance]:
    """Pictures of the canonical face with a pattern on it, and what made them."""
    uv = (torch.arange(128) + 0.5) / 128
    pattern = 0.5 + 0.2 * (40 * uv).sin()[:, None] * (31 * uv).sin()
    light = torch.zeros(9, 3)
    light[0] = 3.5
    look = Appearance(pattern.expand(3, -1, -1).clone(), torch.ones(1, 128, 128), light.flatten())
    points = project(PERSON, seen)[:, :NUM_MESH].float()
    shown = rasterise(points, skin_triangles(), size, size)
    uv_M2 = shown.interpolate(texture_coordinates(), skin_triangles())
    grid = (uv_M2 * 2 - 1).view(1, -1, 1, 2)
    colours = torch.nn.functional.grid_sample(look.texture[None], grid, align_corners=False)
    made = colours[0, :, :, 0].T * 3.5 * harmonics(torch.tensor([[0.0, 0, 1]]))[0, 0]
    count = len(seen.scale)
    images = shown.image(made, (count, size, size))
    crops = Crops(
        images,
        torch.ones(count, 1, size, size),
        torch.zeros(count, 2, dtype=torch.float64),
        torch.ones(count, dtype=torch.float64),
    )
    return crops, look


def test_pixels_correct_what_landmarks_get_wrong() -> None:
    seen = performance(3, 64)[:1]
    crops, look = rendered(seen, 64)
    shaken = torch.randn(1, 478, 3, generator=torch.Generator().manual_seed(0)) * 0.8
    landmarks = project(PERSON, seen) + shaken
    begun = fit(landmarks, PERSON)
    before, after = (
        float((project(PERSON, p) - project(PERSON, seen))[:, :NUM_MESH, :2].norm(dim=2).mean())
        for p in (begun, refine(crops, landmarks, PERSON, begun, look))
    )
    assert after < 0.6 * before, f"{before:.3f} px before, {after:.3f} after"


@pytest.mark.parametrize("still", [True, False], ids=["still", "turning"])
def test_a_still_head_is_held_and_a_turning_one_does_not_lag(still: bool) -> None:
    seen = performance(96, 64)[:24]
    seen = seen[torch.zeros(24, dtype=torch.long)] if still else seen
    crops, look = rendered(seen, 64)
    noise = torch.randn(24, 478, 3, generator=torch.Generator().manual_seed(0)) * 0.8
    landmarks = project(PERSON, seen) + noise
    begun = fit(landmarks, PERSON)
    true = project(PERSON, seen)[:, :NUM_MESH, :2]
    tremble, off = {}, {}
    for steady in (True, False):
        found = refine(crops, landmarks, PERSON, begun, look, steady=steady)
        points = project(PERSON, found)[:, :NUM_MESH, :2]
        bent = points[1:-1] - (points[2:] + points[:-2]) / 2
        tremble[steady] = float(bent.norm(dim=2).mean())
        off[steady] = float((points - true).norm(dim=2).mean())
    assert off[True] < 1.05 * off[False], f"{off}"
    if still:
        assert tremble[True] < 0.6 * tremble[False], f"{tremble}"


def test_the_linearised_picture_predicts_the_rendered_one() -> None:
    """A small step explains the difference it makes: the error falls to second order."""
    seen = performance(3, 64)[:1]
    crops, look = rendered(seen, 64)
    moved = replace(seen, translation=seen.translation + 0.3)
    lights = look.illumination[None]
    found = synthesise(crops, PERSON, moved, look, lights)
    place = slice(4, 6)
    step = torch.linalg.solve(found.matrix[0, place, place], found.vector[0, place])
    assert torch.allclose(step * seen.scale, torch.full((2,), -0.3).double(), atol=0.08)


# The sequence


def test_maps_show_surface_coordinates_and_eyes() -> None:
    face = sequence(3)
    hidden = replace(face, seen=torch.tensor([True, True, False]))
    maps = hidden.draw(48, 64)
    assert maps.shape == (3, 9, 48, 64) and maps.dtype == torch.uint8
    assert not maps[2].any() and maps[0].any()
    covered = maps[0, 5] > 0
    assert set(maps[0, 5].unique().tolist()) == {0, 255}
    assert not maps[0, :5, ~covered].any()
    white, blue = maps[0, 6], maps[0, 8].int() - maps[0, 6].int()
    assert white.any() and (blue > 100).any(), "an opening, and an iris in it"


def test_light_from_one_side_lights_that_side() -> None:
    face = sequence(1)
    frontal = replace(face, rotation=torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None])
    for sign in (-1.0, 1.0):
        light = torch.zeros(9, 3)
        light[0], light[3] = 2.0, sign
        lit = replace(
            frontal, parameters={**face.parameters, "illumination": light.flatten()[None]}
        )
        drawn = lit.draw(64, 64)[0, 0].float()
        columns = drawn.sum(0) / (drawn > 0).sum(0).clamp(min=1)
        there = (drawn > 0).any(0).nonzero()[:, 0]
        left, right = columns[there[3]], columns[there[-4]]
        assert (right > left) == (sign > 0)


def test_looking_aside_moves_the_iris_in_the_picture() -> None:
    face = sequence(1)

    def middle(shift: float) -> float:
        looking = face.with_changes({"gaze_yaw": torch.tensor([shift])})
        maps = looking.draw(128, 128)[0].float()
        blue = (maps[8] - maps[6]).clamp(min=0)
        return float((blue.sum(0) * torch.arange(128)).sum() / blue.sum())

    assert middle(-0.3) < middle(0.0) < middle(0.3)


def test_it_survives_a_file(tmp_path: Path) -> None:
    face = sequence(3)
    face.save(tmp_path / "face.safetensors")
    back = Face3D.load(tmp_path / "face.safetensors")
    assert torch.equal(back.draw(32, 32), face.draw(32, 32))
    assert torch.equal(back.shape, face.shape) and back.kind == "face3d"


def test_a_face_driven_by_itself_stays_as_it_is() -> None:
    face = sequence(24)
    summary = retarget.summarise(face)
    made = retarget.retarget(face, summary, {"clip": False}).sequence
    assert isinstance(made, Face3D)
    assert torch.allclose(made.expression, face.expression, atol=1e-5)
    apart = (made.landmarks - face.landmarks)[..., :2].norm(dim=2)
    assert float(apart.max()) < 0.05 * 64


def test_another_shape_does_not_distort_the_target() -> None:
    """The source's face is half as wide again; at rest the target looks like itself."""
    target = sequence(24)
    wide = CANONICAL * CANONICAL.new_tensor([1.5, 1.1, 1.2])
    made = retarget.retarget(sequence(24, shape=wide), retarget.summarise(target)).sequence
    assert isinstance(made, Face3D)
    assert torch.allclose(made.shape, target.shape, atol=1e-3)
    jaw = EXPRESSIONS.index("jaw_open")
    assert torch.allclose(made.expression[:, jaw], target.expression[:, jaw], atol=0.02)


@pytest.mark.parametrize("mode", ["expression", "pose", "gaze"])
def test_a_mode_takes_its_part_from_the_source_and_the_rest_from_the_target(mode: str) -> None:
    target, source = sequence(24), sequence(24)[torch.arange(23, -1, -1)]
    summary = retarget.summarise(target)
    options = {"mode": mode, "clip": False}
    made = retarget.retarget(source, summary, options, rest=target).sequence
    assert isinstance(made, Face3D)
    parts = {
        "expression": (made.expression, source.expression, target.expression),
        "gaze": (made.gaze, source.gaze, target.gaze),
        "pose": (made.rotation, source.rotation, target.rotation),
    }
    for name, (ours, theirs, own) in parts.items():
        wanted = theirs if name == mode else own
        other = own if name == mode else theirs
        assert (ours - wanted).abs().mean() < 0.3 * (other - wanted).abs().mean(), name


def test_changes_have_names_and_stay_within_limits() -> None:
    face = sequence(2)
    changed = face.with_changes({"smile": torch.tensor([0.5, 9.0])})
    for side in ("left", "right"):
        index = EXPRESSIONS.index(f"smile_{side}")
        assert torch.allclose(changed.expression[0, index], face.expression[0, index] + 0.5)
        assert changed.expression[1, index] < 2
    with pytest.raises(UnknownName, match="smile"):
        face.with_changes({"smlie": torch.zeros(2)})


def test_a_subject_at_rest_is_its_summary() -> None:
    face = sequence(24)
    summary = retarget.summarise(face)
    still = Face3D.at_rest(summary, resting(summary, 2))
    assert torch.equal(still.landmarks[0], still.landmarks[1])
    assert float((still.landmarks[0] - face.landmarks.mean(dim=0))[:, :2].norm(dim=1).mean()) < 6
