"""The benches of parametric faces: their yardsticks, and a small run of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vidsynth.bench import Asked, portrait
from vidsynth.bench.face3d import GOALS, UNITS, Settings, bench, jitter, on_heads, true_light
from vidsynth.bench.likeness import film_of
from vidsynth.errors import BadOption
from vidsynth.report import Reporter
from vidsynth.testing.samples import nodding_face
from vidsynth.worlds import WORLDS
from vidsynth.worlds.figure import Light

CPU = torch.device("cpu")


def test_the_true_light_is_the_lamps_where_the_room_is_dark() -> None:
    towards = (0.5, 0.3, 0.8)
    found = true_light(Light(towards=towards, room=(0.0, 0.0, 0.0)))
    lamp = torch.tensor(towards) / float(np.linalg.norm(towards))
    assert float(found @ lamp) > np.cos(np.deg2rad(6)), "a wrapped lamp is nearly a harmonic one"
    lifted = true_light(Light(towards=towards))
    assert float(lifted[1]) > float(found[1]), "the sky adds light from above"


def test_jitter_is_what_was_added_and_none_of_the_motion() -> None:
    still = replace(nodding_face(1, 512, 512)[torch.zeros(40, dtype=torch.long)])
    assert jitter(still) == 0
    gliding = still.landmarks + torch.arange(40)[:, None, None] * 0.5
    assert jitter(replace(still, landmarks=gliding)) == pytest.approx(0, abs=1e-3)
    signs = torch.tensor([1.0, -1.0]).repeat(20)[:, None, None]
    shaken = replace(still, landmarks=still.landmarks + signs * torch.tensor([0.3, 0.4, 0.0]))
    assert jitter(shaken) == pytest.approx(1.0, rel=1e-3)


def test_a_small_run_tells_every_error_and_what_refinement_gains() -> None:
    rows = {row.name: row for row in on_heads(Settings(people=(1,), frames=12, size=128), Asked())}
    assert set(rows) == {
        f"{stage}.{name}" for stage in ("landmarks", "refined", "refinement") for name in UNITS
    }
    assert rows["landmarks.rotation"].value < 8
    assert {name for name in UNITS if rows[f"refined.{name}"].goal is not None} == set(GOALS)


def test_only_the_world_with_the_truth_is_measured() -> None:
    with pytest.raises(BadOption, match="head"):
        list(bench(Asked(world="puppet")))


@pytest.mark.slow
def test_every_way_to_paint_a_face_is_scored(tmp_path: Path) -> None:
    settings = portrait.Settings(
        size=64, film_size=192, film_frames=40, minutes=0.01, sheet=tmp_path / "sheet.png"
    )
    rows = {row.name: row for row in portrait.measured(settings, CPU, Reporter())}
    for arm in portrait.ARMS:
        assert rows[f"head: {arm} 0.01 min, PSNR"].value > 5
        assert f"head: {arm}, landmark_distance" in rows
    assert (tmp_path / "sheet.png").exists()


def test_portraits_are_of_faces() -> None:
    with pytest.raises(BadOption, match="faces"):
        list(portrait.bench(Asked(world="street")))


def test_what_is_made_is_tracked_as_real_footage_is() -> None:
    someone, moves = WORLDS["head"].make_identity(1), WORLDS["head"].make_motion(1, 8)
    shot = WORLDS["head"].render(someone, moves, height=192, width=192)
    frames = torch.cat([chunk.clip.frames for chunk in shot if chunk.clip])
    film = film_of("made", frames)
    seen, truth = film.track("face"), WORLDS["head"].truth(someone, moves, height=192, width=192)
    assert film.track("face") is seen, "once"
    off = (seen.landmarks[:, :468, :2] - truth.landmarks[:, :468, :2]).norm(dim=2).median()  # pyright: ignore
    assert float(off) < 4
