"""Taking the tremble out of frames, and leaving what really changes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from vidsynth import stages, stream
from vidsynth.clip import Clip
from vidsynth.steady import REST_SECONDS, rest_seconds, sampled, steadier
from vidsynth.testing import times

SIZE = 64


def texture(shift: int = 0) -> Tensor:
    """(3, H, W) uint8: smooth noise, moved to the right."""
    noise = np.random.default_rng(0).uniform(0, 255, (SIZE, SIZE + 40, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * 200 + 25
    cut = smooth[:, 20 - shift : 20 - shift + SIZE].astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(cut.transpose(2, 0, 1)))


def grained(frame: Tensor, seed: int, levels: float = 4.0) -> Tensor:
    noise = torch.randn(frame.shape, generator=torch.Generator().manual_seed(seed)) * levels
    return (frame.float() + noise).round().clamp(0, 255).to(torch.uint8)


def through(frames: Tensor, steadiness: float, sizes: tuple[int, ...]) -> Tensor:
    clip = Clip(frames, times(len(frames)))

    def chunks():
        start = 0
        for size in sizes:
            part = clip[start : start + size]
            yield stream.Chunk(part.pts, part)
            start += size

    made = [c.clip.frames for c in stages.steadying(steadiness)(chunks()) if c.clip is not None]
    return torch.cat(made)


def test_a_still_picture_with_grain_becomes_steadier_and_a_moving_one_stays_sharp() -> None:
    for speed in (0, 2):
        truth = torch.stack([texture(speed * t) for t in range(8)])
        shaky = torch.stack([grained(frame, t) for t, frame in enumerate(truth)])
        made = through(shaky, 1.0, (8,))
        inner = (..., slice(8, -8), slice(20, -8))
        error = [float((x[4:].float() - truth[4:].float())[inner].std()) for x in (made, shaky)]
        assert error[0] < 0.7 * error[1]


def test_what_really_changes_is_shown_at_once() -> None:
    before, now = texture(), 255 - texture(7).flip(2)
    made = steadier(before, now, 1.0)
    assert float((made.float() - now.float()).abs().mean()) < 1.5


def test_what_stands_still_stays_as_it_is_beside_what_moves() -> None:
    frames = [texture().clone() for _ in range(6)]
    for t, frame in enumerate(frames):
        frame[:, 24:40, 8 + 3 * t : 24 + 3 * t] = 255
    made = through(torch.stack(frames), 1.0, (6,))
    for t in range(6):
        assert torch.equal(made[t, :, :16], frames[t][:, :16])


def test_more_steadiness_is_steadier_and_none_is_the_frames_themselves() -> None:
    shaky = torch.stack([grained(texture(), t) for t in range(10)])
    tremble = [
        float(through(shaky, s, (10,))[2:].float().diff(dim=0).abs().mean())
        for s in (0.0, 0.3, 0.6, 1.0)
    ]
    assert tremble == sorted(tremble, reverse=True) and tremble[-1] < 0.5 * tremble[0]
    assert torch.equal(through(shaky, 0.0, (10,)), shaky)


def test_it_does_not_matter_how_a_video_is_cut_into_chunks() -> None:
    shaky = torch.stack([grained(texture(t), t) for t in range(9)])
    whole = through(shaky, 0.5, (9,))
    assert torch.equal(through(shaky, 0.5, (1, 0, 5, 3)), whole)
    assert torch.equal(through(shaky, 0.5, (1,) * 9), whole)


def test_a_picture_looked_up_along_its_own_motion_is_the_picture_before() -> None:
    first, second = (np.ascontiguousarray(texture(s).permute(1, 2, 0).numpy()) for s in (0, 3))
    moved = np.zeros((SIZE, SIZE, 2), np.float32)
    moved[..., 0] = 3
    assert np.array_equal(sampled(second, moved)[:, :-4], first[:, :-4])


def test_motion_is_left_alone_up_to_the_middle_of_the_knob() -> None:
    assert [rest_seconds(s) for s in (0.0, 0.3, 0.5)] == [0.0, 0.0, 0.0]
    assert 0 < rest_seconds(0.75) < rest_seconds(1.0) == REST_SECONDS
