"""What has no landmarks follows the face as it did in the film, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidsynth.blocks import warp
from vidsynth.conditioning import FaceSequence, LabelMaps
from vidsynth.correspondence import AROUND
from vidsynth.errors import BadSubject
from vidsynth.exemplars import IMAGES, Before, Gallery, plan
from vidsynth.following import COMPONENTS, FARTHEST, LEAST_PAIRS, Following, Seen, learn
from vidsynth.several import Several, several
from vidsynth.testing import nodding_face, sliding_labels, times, waving_person
from vidsynth.worlds import WORLDS

# N known frames, T wanted frames, P pairs, H, W pixels

SIZE = 96
SHARE = 0.5
"""How much of the face's way all around it goes along."""


def at(shifts_T2: Tensor, size: int = SIZE) -> FaceSequence:
    """One face, a third of the picture high, moved by so many pixels."""
    face = nodding_face(1, size // 2, size // 2)[torch.zeros(len(shifts_T2), dtype=torch.long)]
    points, shifts_T2 = face.landmarks.clone(), shifts_T2 + size / 4
    points[..., :2] += shifts_T2[:, None]
    translation = face.translation + shifts_T2
    return replace(face, landmarks=points, translation=translation, frame_size=(size, size))


def shifts(count: int, seed: int, *, most: float = 6.0) -> Tensor:
    return most * (2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) - 1)


def pictures(shifts_T2: Tensor) -> Tensor:
    """(T, 3, SIZE, SIZE) uint8: a texture that goes SHARE of the way."""
    rng = torch.Generator().manual_seed(5)
    noise = F.interpolate(torch.rand(1, 3, 24, 24, generator=rng), (SIZE, SIZE), mode="bicubic")
    flow_T2HW = (-SHARE * shifts_T2)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    moved = warp(noise.expand(len(shifts_T2), -1, -1, -1), flow_T2HW)
    return (255 * moved.clamp(0, 1)).round().byte()


def every_pair(known: int, wanted: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(known), torch.arange(wanted))


def learnt() -> Following:
    known, wanted = shifts(12, 0), shifts(30, 1)
    found = learn(
        Seen(pictures(known), at(known)), Seen(pictures(wanted), at(wanted)), every_pair(12, 30)
    )
    assert found is not None
    return found


def wrong_around(following: Following | None, size: int) -> float:
    """Mean distance in pixels to where the surroundings of poses never seen really went."""
    zoom = size / SIZE
    known, wanted = zoom * shifts(8, 2), zoom * shifts(8, 3)
    faces = at(known, size), at(wanted, size)
    found = faces[0].warp_to(faces[1], size, size)
    around = (found.valid_T1HW - AROUND).abs() < 0.01  # neither the mesh, nor beyond the edge
    if following is not None:
        found = following.corrected(found, *faces)
    truth = SHARE * (known - wanted)[:, :, None, None]
    apart = (found.flow_T2HW - truth).norm(dim=1, keepdim=True)
    return float(apart[around].mean())


def test_surroundings_follow_as_far_as_they_did_in_the_film() -> None:
    assert wrong_around(None, SIZE) > 2.0
    assert wrong_around(learnt(), SIZE) < 0.8


def test_what_was_learnt_holds_at_any_size() -> None:
    assert wrong_around(learnt(), 2 * SIZE) < 2 * 0.8


def test_on_the_mesh_nothing_moves_further() -> None:
    known, wanted = at(shifts(4, 6)), at(shifts(4, 7))
    plain = known.warp_to(wanted, SIZE, SIZE)
    found = learnt().corrected(plain, known, wanted)
    assert torch.equal(found.valid_T1HW, plain.valid_T1HW)
    sure = (plain.valid_T1HW > 0.999).float()
    inside = -F.max_pool2d(-sure, 13, stride=1, padding=6) > 0  # away from its edge
    moved = (found.flow_T2HW - plain.flow_T2HW).abs().amax(dim=1, keepdim=True)
    assert int(inside.sum()) > 1000
    assert float(moved[inside].max()) < 1e-5 < 1.0 < float(moved.max())


def test_a_face_among_several_is_followed_as_it_would_be_alone() -> None:
    known, wanted = shifts(12, 0), shifts(30, 1)

    def with_maps(shifts_T2: Tensor) -> Several:
        maps = sliding_labels(len(shifts_T2), SIZE, SIZE)
        return several(FaceSequence, LabelMaps)(members=(at(shifts_T2), maps))

    found = learn(
        Seen(pictures(known), with_maps(known)),
        Seen(pictures(wanted), with_maps(wanted)),
        every_pair(12, 30),
    )
    assert found is not None
    for name, tensor in learnt().tensors().items():
        assert torch.equal(tensor, found.tensors()[name])


def test_beyond_what_the_film_shows_nothing_is_made_up() -> None:
    """A face far from all that were seen is followed as far as the farthest of those."""
    following = learnt()
    here = at(torch.zeros(1, 2))
    moves = []
    for far in (40.0, 80.0):
        there = at(torch.tensor([[far, 0.0]]))
        still = here.warp_to(here, SIZE, SIZE)
        moves.append(following.corrected(still, here, there).flow_T2HW - still.flow_T2HW)
    torch.testing.assert_close(moves[0], moves[1])
    spread = (shifts(12, 0)[:, None] - shifts(30, 1)).flatten(0, 1).std(dim=0).max()
    assert float(moves[1].abs().max()) < 2 * FARTHEST * float(spread)


def test_a_head_is_brought_nearer_to_the_truth() -> None:
    """Frames of the world `head` that were not learnt from, with their exact landmarks."""
    world, count = WORLDS["head"], 300
    identity, motion = world.make_identity(3), world.make_motion(3, count)
    film = world.render(identity, motion, height=SIZE, width=SIZE)
    frames = torch.cat([chunk.clip.frames for chunk in film if chunk.clip])
    face = world.truth(identity, motion, height=SIZE, width=SIZE)
    assert isinstance(face, FaceSequence)
    usable, unseen = torch.arange(250), torch.arange(260, count)
    gallery = Gallery(images=frames[:250:2], signal=face[:250:2], pts=times(250)[::2])
    chosen = plan(gallery, face, 1).chosen[:, 0]
    choices = torch.cat([chosen[usable], 7 * usable % len(gallery.images)])
    following = learn(
        Seen(gallery.images, gallery.signal),
        Seen(frames[usable], face[usable]),
        torch.stack([choices, usable.repeat(2)], dim=1),
    )
    assert following is not None

    def error(flow_T2HW: Tensor) -> float:
        known = gallery.images[chosen[unseen]].float()
        made = warp(known, flow_T2HW, mode="bicubic")
        return float((made - frames[unseen].float()).square().mean())

    known, wanted = gallery.signal[chosen[unseen]], face[unseen]
    plain = known.warp_to(wanted, SIZE, SIZE)
    better = following.corrected(plain, known, wanted)
    assert error(better.flow_T2HW) < 0.8 * error(plain.flow_T2HW)


def test_the_frame_before_is_brought_along_the_same_way() -> None:
    following, index = learnt(), torch.tensor([1, 2])
    face = at(shifts(3, 8))
    gallery = Gallery(
        images=pictures(shifts(4, 9)), signal=at(shifts(4, 9)), pts=times(4), following=following
    )
    before = Before.of(face, index)
    found = gallery.recall(face[index], plan(gallery, face, 1)[index], "cpu", before=before)
    onward = before.signal.warp_to(face[index], SIZE, SIZE)
    expected = following.corrected(onward, before.signal, face[index])
    torch.testing.assert_close(found.flow[:, 1], expected.flow_T2HW)


def test_nothing_is_learnt_from_nothing() -> None:
    known = shifts(6, 0)
    faces, people = Seen(pictures(known), at(known)), waving_person(6, SIZE, SIZE)
    assert learn(faces, faces, every_pair(6, 6).repeat(6, 1)[: LEAST_PAIRS - 1]) is None
    still = Seen(faces.images, faces.signal[torch.zeros(6, dtype=torch.long)])
    assert learn(still, still, every_pair(6, 6).repeat(6, 1)) is None
    bodies = Seen(faces.images, people)
    assert people.posture() is None and learn(bodies, bodies, every_pair(6, 6).repeat(6, 1)) is None


def test_only_so_much_is_learnt_as_tells_other_parts_of_the_film() -> None:
    """What follows nothing is left alone, however many pairs there are of it."""
    known = shifts(12, 0)
    seen = Seen(pictures(known), at(known))
    found = learn(seen, seen, every_pair(12, 12).repeat(2, 1))
    assert found is not None and found.components_DK.shape[1] <= 2 < COMPONENTS  # x and y

    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (LEAST_PAIRS, 3, SIZE, SIZE), dtype=torch.uint8, generator=rng)
    known, wanted = at(shifts(LEAST_PAIRS, 1)), at(shifts(LEAST_PAIRS, 2))
    apart = torch.arange(LEAST_PAIRS)[:, None].repeat(1, 2)  # each picture in one pair only
    assert learn(Seen(noise, known), Seen(noise.flip(0), wanted), apart) is None


def test_it_survives_the_subjects_files(tmp_path: Path) -> None:
    following = learnt()
    gallery = Gallery(images=pictures(shifts(4, 9)), signal=at(shifts(4, 9)), pts=times(4))
    gallery.save(tmp_path)
    assert Gallery.load(tmp_path, FaceSequence).following is None
    replace(gallery, following=following).save(tmp_path)
    back = Gallery.load(tmp_path, FaceSequence).following
    assert back is not None
    assert torch.equal(back.components_DK, following.components_DK)
    assert torch.equal(back.response_K2hw, following.response_K2hw)


@pytest.mark.parametrize("lost", ["images", "following.response"])
def test_a_subjects_file_that_lacks_a_part_is_refused(tmp_path: Path, lost: str) -> None:
    shown = shifts(4, 9)
    Gallery(images=pictures(shown), signal=at(shown), pts=times(4), following=learnt()).save(
        tmp_path
    )
    with safe_open(tmp_path / IMAGES, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name != lost}  # noqa: SIM118
        told = file.metadata()
    save_file(kept, tmp_path / IMAGES, told)
    with pytest.raises(BadSubject, match=r"exemplars .* missing or damaged"):
        Gallery.load(tmp_path, FaceSequence)
