from __future__ import annotations

import pytest
import torch

from vidsynth.plate import cut_out, estimate_plate

HEIGHT, WIDTH = 40, 60


def scene() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(30, 220, (3, HEIGHT, WIDTH), dtype=torch.uint8)


def walked_over(background: torch.Tensor, num_frames: int = 30):
    """A white walker of 10 px over `background`, with its silhouettes."""
    frames = background.expand(num_frames, -1, -1, -1).clone()
    covered = torch.zeros(num_frames, 1, HEIGHT, WIDTH, dtype=torch.uint8)
    for t in range(num_frames):
        frames[t, :, 10:30, t : t + 10] = 255
        covered[t, :, 9:31, max(0, t - 1) : t + 11] = 255
    return frames, covered


def test_the_plate_is_what_stands_behind_the_walker():
    background = scene()
    frames, covered = walked_over(background)
    plate = estimate_plate(frames, lambda index: covered[index])
    assert plate is not None
    assert torch.equal(plate, background)


def test_sensor_noise_does_not_hide_a_still_camera():
    frames, covered = walked_over(scene())
    torch.manual_seed(1)
    noise = torch.randint(-4, 5, frames.shape)
    noisy = (frames.int() + noise).clamp(0, 255).to(torch.uint8)
    plate = estimate_plate(noisy, lambda index: covered[index])
    assert plate is not None
    assert (plate.int() - scene().int()).abs().float().mean() < 1.5


def test_a_camera_that_pans_gives_no_plate():
    torch.manual_seed(0)
    wide = torch.randint(30, 220, (3, HEIGHT, WIDTH + 60), dtype=torch.uint8)
    frames = torch.stack([wide[:, :, t : t + WIDTH] for t in range(30)])
    covered = torch.zeros(30, 1, HEIGHT, WIDTH, dtype=torch.uint8)
    assert estimate_plate(frames, lambda index: covered[index]) is None


def test_a_subject_that_fills_the_picture_gives_no_plate():
    frames, covered = walked_over(scene())
    covered[:, :, :, : int(WIDTH * 0.8)] = 255
    assert estimate_plate(frames, lambda index: covered[index]) is None


def test_what_was_never_uncovered_is_filled_from_its_surroundings():
    background = torch.full((3, HEIGHT, WIDTH), 120, dtype=torch.uint8)
    frames, covered = walked_over(background)
    frames[:, :, 34:38, 20:30] = 255  # always there, always covered
    covered[:, :, 33:39, 19:31] = 255
    plate = estimate_plate(frames, lambda index: covered[index])
    assert plate is not None
    assert (plate[:, 33:39, 19:31].int() - 120).abs().max() <= 2


def test_the_walker_is_cut_out_of_a_noisy_background():
    background = scene()
    frames, covered = walked_over(background)
    torch.manual_seed(1)
    noise = torch.randint(-4, 5, frames.shape)
    noisy = (frames.int() + noise).clamp(0, 255).to(torch.uint8)
    found = cut_out(noisy[[15]], background, covered[[15]])
    assert found.dtype == torch.uint8 and found.shape == (1, 1, HEIGHT, WIDTH)
    inside, outside = found[0, 0, 11:29, 16:24], found[0, 0, :, 40:]
    assert float((inside > 200).float().mean()) > 0.95  # the noise in the scene is as bright
    assert int(outside.max()) == 0


def test_what_changes_beyond_the_silhouette_is_no_part_of_the_subject():
    background = scene()
    frames, covered = walked_over(background)
    frames[:, :, 32:38, 40:50] = 0  # a dog
    assert int(cut_out(frames[:1], background, covered[:1])[..., 32:38, 40:50].max()) == 0
    assert int(cut_out(frames[:1], background, None)[..., 33:37, 41:49].max()) == 255


def stander(between: torch.Tensor):
    """Someone whose two legs sway, with `between` (3, H, W) in the gap that the silhouette hides,
    before a wall of two colours."""
    wall = torch.full((3, HEIGHT, WIDTH), 120, dtype=torch.uint8)
    wall[2, HEIGHT // 2 :] = 60
    frames = wall.expand(30, -1, -1, -1).clone()
    covered = torch.zeros(30, 1, HEIGHT, WIDTH, dtype=torch.uint8)
    core = torch.zeros_like(covered)
    for t in range(30):
        left = 18 + t % 3
        frames[t, :, 10:, left : left + 24] = between[:, 10:, left : left + 24]
        covered[t, :, 8:, left - 2 : left + 26] = 255
        for x in (left, left + 18):
            frames[t, :, 10:, x : x + 6] = torch.tensor([220, 30, 40])[:, None, None].byte()
            core[t, :, 10:, x : x + 6] = 255
    return wall, frames, covered, core


def test_the_background_between_legs_is_found_though_a_silhouette_always_hides_it():
    wall, _, _, _ = stander(torch.zeros(3, HEIGHT, WIDTH))
    wall, frames, covered, core = stander(wall)
    plate = estimate_plate(frames, lambda i: covered[i], lambda i: core[i])
    assert plate is not None
    assert torch.equal(plate[:, 12:, 28:34], wall[:, 12:, 28:34])


@pytest.mark.parametrize("colour", [(220, 30, 40), (30, 200, 60)], ids=["as the legs", "another"])
def test_a_skirt_between_the_legs_is_not_background(colour: tuple[int, int, int]):
    skirt = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, HEIGHT, WIDTH)
    wall, frames, covered, core = stander(skirt)
    plate = estimate_plate(frames, lambda i: covered[i], lambda i: core[i])
    assert plate is not None
    gap, expected = plate[:, 14:, 28:34].int(), wall[:, 14:, 28:34].int()
    assert int((gap - expected).abs().max()) <= 60  # the wall's other colour at most
    assert float((gap - expected).abs().float().mean()) < 15
