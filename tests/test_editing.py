"""Edits: curves in words and files, and what they do to a head."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch

from vidsynth import editing
from vidsynth.cli import main
from vidsynth.editing import Curve, edited, parse_edit, read_edit, turned
from vidsynth.errors import BadOption
from vidsynth.retarget_face import rotation_vectors
from vidsynth.testing import times
from vidsynth.testing.samples import nodding_face
from vidsynth.worlds import WORLDS
from vidsynth.worlds.motion import turns


def test_a_curve_goes_through_its_keys_and_rests_beyond_them() -> None:
    curve = Curve(((1.0, 0.0), (2.0, 4.0), (3.0, -2.0)))
    at = curve.at(torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0, 9.0]))
    assert at.tolist() == pytest.approx([0, 0, 2, 4, -2, -2])
    dense = curve.at(torch.linspace(0, 4, 401))
    assert float(dense.max()) <= 4 and float(dense.min()) >= -2, "no overshoot"


def test_words_and_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "edit.toml").write_text("yaw = 15\nsmile = [[0, 0], [1.5, 1]]\n")
    words = parse_edit(["yaw=15", "smile=0s:0,1.5s:1"])
    assert read_edit(tmp_path / "edit.toml") == words
    assert words["yaw"].at(torch.zeros(2)).tolist() == [15, 15]


@pytest.mark.parametrize("text", ["yaw", "yaw=much", "yaw=1s:0,0s:1", "yaw=0s:nan", "yaw=x:1"])
def test_a_bad_change_is_told(text: str) -> None:
    with pytest.raises(BadOption, match="yaw"):
        parse_edit([text])


def test_a_bad_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "edit.toml").write_text("yaw = [[0]]")
    with pytest.raises(BadOption, match=r"edit\.toml"):
        read_edit(tmp_path / "edit.toml")
    with pytest.raises(BadOption, match="cannot be read"):
        read_edit(tmp_path / "missing.toml")


def test_fifteen_degrees_of_yaw_are_fifteen_on_a_tilted_head() -> None:
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0])).double()
    zero = torch.zeros(1, dtype=torch.float64)
    angles = torch.tensor([0.2, -0.3, 0.25]).double()
    before = flip @ torch.from_numpy(turns(*angles.numpy()))[None].double()
    after = turned(before, zero + 0.26, zero + 0.1, zero - 0.2)
    wanted = turns(*(angles + torch.tensor([0.26, 0.1, -0.2])).numpy())
    assert torch.allclose(after, flip @ torch.from_numpy(wanted)[None].double(), atol=1e-5)


def test_an_edit_of_nothing_changes_nothing() -> None:
    face = nodding_face(4, 64, 64)
    same = edited(face, {"yaw": Curve(((0.0, 0.0),))}, times(4))
    assert torch.allclose(same.landmarks[..., :2], face.landmarks[..., :2], atol=1e-3)


def test_a_turned_head_is_where_the_world_has_it() -> None:
    """15 degrees of yaw and 5 of pitch added, against the same head filmed so."""
    world = WORLDS["head"]
    identity, motion = world.make_identity(1), world.make_motion(2, 8)
    face = world.truth(identity, motion, height=256, width=256)
    motion = replace(motion, turn=motion.turn + torch.tensor([[0.2618, 0.0873, 0]]).numpy())
    wanted = world.truth(identity, motion, height=256, width=256)
    made = edited(face, parse_edit(["yaw=15", "pitch=5"]), times(8))  # pyright: ignore
    apart = rotation_vectors(made.rotation @ wanted.rotation.mT).norm(dim=1)  # pyright: ignore
    assert float(torch.rad2deg(apart).max()) < 0.2
    off = (made.landmarks - wanted.landmarks)[:, :468, :2].norm(dim=2)  # pyright: ignore
    assert float(off.mean() / made.scale.mean()) < 0.5, "centimetres"


def test_the_command_takes_what_the_job_takes() -> None:
    command = main.get_command(click.Context(main), "edit")
    assert command is not None
    offered = {p.name for p in command.params if p.expose_value}
    assert offered == set(inspect.signature(editing.edit).parameters) - {"reporter"}


def test_points_cannot_smile_and_the_message_says_what_can() -> None:
    with pytest.raises(BadOption, match="portrait"):
        edited(nodding_face(2, 64, 64), parse_edit(["smile=1"]), times(2))


def test_an_edit_of_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="nothing is to be changed"):
        editing.edit(tmp_path / "subject", tmp_path / "out.mp4")
