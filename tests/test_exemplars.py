"""Which frames stand in for a frame: alike, steady, of other moments, good at different things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidsynth.blocks import warp
from vidsynth.conditioning import FaceSequence, PoseSequence
from vidsynth.errors import BadSubject
from vidsynth.exemplars import (
    APART_SECONDS,
    FADE_FRAMES,
    IMAGES,
    Before,
    Exemplars,
    Gallery,
    cover,
    plan,
)
from vidsynth.objectives import Recalled
from vidsynth.testing import moving_squares, nodding_face, times, waving_person

# T frames, N images of the gallery, H, W pixels

SIZE = 48


class Told(FaceSequence):
    """A face whose features are what a test says they are."""

    def features(self) -> Tensor:
        return self.parameters["told"]

    def part_features(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.parameters.get("parts")


def told(rows: Tensor, parts: Tensor | None = None) -> Told:
    """(T, D) features of the whole, and of its parts if it has any."""
    face = nodding_face(1, SIZE, SIZE)[torch.zeros(len(rows), dtype=torch.long)]
    values = {name: getattr(face, name) for name in face.per_frame if name != "parameters"}
    said = {"told": rows} if parts is None else {"told": rows, "parts": parts}
    return Told(**values, frame_size=face.frame_size, parameters=said)


def gallery_of(rows: Tensor, pts: Tensor | None = None, *, parts: Tensor | None = None) -> Gallery:
    images, signal = moving_squares(len(rows), SIZE, SIZE).frames, told(rows, parts)
    return Gallery(images=images, signal=signal, pts=times(len(rows)) if pts is None else pts)


def faces_of(count: int) -> Gallery:
    images, face = moving_squares(count, SIZE, SIZE).frames, nodding_face(count, SIZE, SIZE)
    return Gallery(images=images, signal=face, pts=times(count))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_a_cover_leaves_no_row_far_from_it() -> None:
    rows = torch.cat([torch.randn(300, 2), torch.tensor([[9.0, 9.0], [-8.0, 7.0]])])
    index = cover(rows, 40)
    assert len(index) == len(set(index.tolist())) == 40
    assert index.tolist() == sorted(index.tolist())
    assert {300, 301} <= set(index.tolist())
    random = torch.randperm(300)[:40]
    apart = [float(torch.cdist(rows, rows[i]).amin(dim=1).max()) for i in (index, random)]
    assert apart[0] < apart[1] / 2
    assert len(cover(rows[:5], 40)) == 5


def test_the_most_alike_image_stands_in() -> None:
    gallery = gallery_of(column(0, 10, 20, 30))
    found = plan(gallery, told(column(29, 29, 1, 1)), 1)
    assert found.chosen[:, 0].tolist() == [3, 3, 0, 0]


def test_choices_are_steady_in_time() -> None:
    """Between two images that are about as good, the choice does not flicker."""
    gallery = gallery_of(column(-1, 1))
    rng = torch.Generator().manual_seed(0)
    motion = 0.1 * torch.randn(200, 1, generator=rng)
    motion[100:] += 0.3
    chosen = plan(gallery, told(motion), 1).chosen[:, 0]
    nearest = torch.cdist(motion, gallery.signal.features()).argmin(dim=1)
    assert int((nearest[1:] != nearest[:-1]).sum()) > 20
    assert int((chosen[1:] != chosen[:-1]).sum()) <= 2


def test_a_lasting_change_is_followed_and_fades() -> None:
    gallery = gallery_of(column(0, 10))
    motion = column(*([0.5] * 20), *([9.5] * 20))
    found = plan(gallery, told(motion), 1)
    assert found.chosen[:, 0].tolist() == [0] * 20 + [1] * 20
    strength = found.strength[:, 0]
    assert float(strength.min()) == float(strength[19]) == float(strength[20]) < 0.7
    assert torch.equal(strength[: 20 - FADE_FRAMES], torch.ones(20 - FADE_FRAMES))
    assert torch.equal(strength[:20], strength[20:].flip(0))


def test_the_second_image_is_good_where_the_first_is_not() -> None:
    """Eyes of one, mouth of another; not the second best of the same."""
    eyes_right, nearly_the_same, mouth_right = [1.0, 0.0, 5.0], [1.1, 0.0, 5.0], [4.0, 4.0, 9.0]
    gallery = gallery_of(torch.tensor([eyes_right, nearly_the_same, mouth_right]))
    found = plan(gallery, told(torch.tensor([[1.0, 0.0, 9.0]])), 2)
    assert found.chosen.tolist() == [[0, 2]]


def test_the_second_image_stands_in_for_parts_however_unlike_the_rest_is() -> None:
    gallery = gallery_of(column(0, 1, 50), parts=column(5, 5, 0))
    found = plan(gallery, told(column(0.0), column(0.0)), 2)
    assert found.chosen.tolist() == [[0, 2]]


def test_the_second_image_changes_sooner_than_the_first() -> None:
    """It shows parts, which are quick; a change of the whole picture is what would be seen."""
    gallery = gallery_of(column(0, 1, 40, 41), parts=column(90, 91, 0, 1))
    blinking = column(*[0.0, 0.0, 0.0, 1.0, 1.0, 1.0] * 5)
    chosen = plan(gallery, told(blinking, blinking), 2).chosen
    assert (chosen[1:] != chosen[:-1]).sum(dim=0).tolist() == [0, 9]


def test_frames_of_the_target_are_made_from_other_moments() -> None:
    rows = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    pts = times(100)
    gallery = gallery_of(rows, pts)
    chosen = plan(gallery, gallery.signal, 2, at=pts).chosen
    assert float((pts[chosen] - pts[:, None]).abs().min()) >= APART_SECONDS
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert (plan(gallery, gallery.signal, 1).chosen[:, 0] == torch.arange(100)).float().mean() > 0.5


def test_a_gallery_smaller_than_the_slots_repeats_itself() -> None:
    found = plan(gallery_of(column(3)), told(column(1, 2)), 3)
    assert found.chosen.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_recalled_images_lie_on_the_wanted_pose() -> None:
    face = nodding_face(8, SIZE, SIZE)
    gallery = Gallery(
        images=moving_squares(8, SIZE, SIZE).frames[:4], signal=face[:4], pts=times(4)
    )
    chosen = plan(gallery, face[:4], 2)
    found = gallery.recall(face[:4], chosen, "cpu")
    assert isinstance(found, Exemplars)
    assert found.flow.shape == (4, 2, 2, SIZE, SIZE) and found.valid.shape == (4, 2, 1, SIZE, SIZE)
    for slot in (0, 1):
        expected = face[chosen.chosen[:, slot]].warp_to(face[:4], SIZE, SIZE)
        torch.testing.assert_close(found.flow[:, slot], expected.flow_T2HW)
        weaker = expected.valid_T1HW * chosen.strength[:, slot, None, None, None]
        torch.testing.assert_close(found.valid[:, slot], weaker)
    recalled = Recalled.of(found, torch.device("cpu"))
    assert recalled.images.shape == (4, 2, 3, SIZE, SIZE)
    back = warp(recalled.images[:, 0], torch.zeros(4, 2, SIZE, SIZE))
    levels = ((back + 1) * 127.5).round().byte()
    assert torch.equal(levels, gallery.images[chosen.chosen[:, 0]])


def test_the_frame_before_is_brought_along_unless_there_is_none() -> None:
    face = nodding_face(8, SIZE, SIZE)
    gallery = Gallery(
        images=moving_squares(8, SIZE, SIZE).frames[:4], signal=face[:4], pts=times(4)
    )
    index = torch.tensor([0, 1, 5])
    chosen = plan(gallery, face, 2)[index]
    alone = gallery.recall(face[index], chosen, "cpu")
    found = gallery.recall(face[index], chosen, "cpu", before=Before.of(face, index))
    assert torch.equal(found.flow[:, :2], alone.flow) and torch.equal(
        found.valid[:, :2], alone.valid
    )
    onward = face[torch.tensor([0, 4])].warp_to(face[torch.tensor([1, 5])], SIZE, SIZE)
    torch.testing.assert_close(found.flow[1:, 2], onward.flow_T2HW)
    torch.testing.assert_close(found.valid[1:, 2], onward.valid_T1HW)
    assert not found.valid[0, 2].any()


def test_a_gallery_survives_its_files(tmp_path: Path) -> None:
    gallery = faces_of(3)
    gallery.save(tmp_path)
    back = Gallery.load(tmp_path, FaceSequence)
    assert torch.equal(back.images, gallery.images) and torch.equal(back.pts, gallery.pts)
    assert torch.equal(back.signal.features(), gallery.signal.features())
    assert back.outlines is None


def test_outlines_survive_with_their_gallery(tmp_path: Path) -> None:
    images, pose = moving_squares(8, SIZE, SIZE).frames, waving_person(8, SIZE, SIZE)
    covers = pose.silhouette(SIZE, SIZE)
    gallery = Gallery(
        images=torch.cat([images, covers], dim=1),
        signal=pose,
        pts=times(8),
        outlines=pose.outlines(covers),
    )
    gallery.save(tmp_path)
    back = Gallery.load(tmp_path, PoseSequence)
    chosen = plan(gallery, pose, 1)
    found, again = (g.recall(pose, chosen, "cpu") for g in (gallery, back))
    assert torch.equal(found.valid, again.valid) and torch.equal(found.flow, again.flow)
    without = replace(gallery, outlines=None).recall(pose, chosen, "cpu")
    assert float(without.valid[:, :, :, 0, 0].min()) > 0.2  # the scene, which a plate shows better
    assert not found.valid[:, :, :, 0, 0].any()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_gallery_is_said_to_be_one(tmp_path: Path, damage: str) -> None:
    gallery = faces_of(3)
    gallery.save(tmp_path)
    file = tmp_path / IMAGES
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadSubject, match=r"exemplars .* missing or damaged"):
        Gallery.load(tmp_path, FaceSequence)


def test_plans_are_cut_like_the_motion() -> None:
    gallery = gallery_of(column(0, 10))
    whole = plan(gallery, told(column(*([0] * 9), *([10] * 9))), 1)
    part = whole[torch.tensor([8, 9])]
    assert part.chosen.tolist() == [[0], [1]]
    assert replace(part).strength.shape == (2, 1)


def test_strays_are_as_many_as_asked_and_follow_the_seed() -> None:
    gallery = gallery_of(torch.arange(50.0)[:, None])
    whole = plan(gallery, told(torch.full((2000, 1), 7.0)), 2)
    torch.manual_seed(0)
    strayed = gallery.stray(whole, 0.25)
    share = (strayed.chosen != whole.chosen).float().mean()
    assert float(share) == pytest.approx(0.25 * 49 / 50, abs=0.03)
    assert torch.equal(strayed.strength, whole.strength)
    torch.manual_seed(0)
    assert torch.equal(gallery.stray(whole, 0.25).chosen, strayed.chosen)
    assert torch.equal(gallery.stray(whole, 0.0).chosen, whole.chosen)
