from __future__ import annotations

import math

import pytest
import torch

from vidsynth.scores import psnr, score, ssim


def frames(value: int, size: int = 32) -> torch.Tensor:
    return torch.full((2, 3, size, size), value, dtype=torch.uint8)


def test_psnr_equals_its_closed_form():
    assert psnr(frames(100), frames(110))[0] == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(frames(0), frames(255))[0] == pytest.approx(0.0)
    assert psnr(frames(7), frames(7))[0] == pytest.approx(100.0)


def test_ssim_of_flat_frames_equals_its_closed_form():
    c1 = (0.01 * 255) ** 2
    expected = (2 * 50 * 200 + c1) / (50**2 + 200**2 + c1)
    assert float(ssim(frames(50), frames(200))[0]) == pytest.approx(expected, rel=1e-4)
    # The published self-check: all black against all white.
    assert float(ssim(frames(0), frames(255))[0]) == pytest.approx(9.999e-05, rel=1e-3)


def test_ssim_is_one_for_equal_frames_and_falls_with_noise():
    torch.manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    assert float(ssim(picture, picture)) == pytest.approx(1.0, abs=1e-5)
    noisy = (picture.int() + torch.randint(-40, 41, picture.shape)).clamp(0, 255).to(torch.uint8)
    assert 0.3 < float(ssim(picture, noisy)) < 0.99


def test_ssim_agrees_with_a_direct_computation_at_one_pixel():
    torch.manual_seed(1)
    x, y = torch.randint(0, 256, (2, 1, 3, 11, 11), dtype=torch.uint8)
    taps = torch.exp(-(torch.arange(11.0) - 5).square() / 4.5)
    window = torch.outer(taps, taps) / torch.outer(taps, taps).sum()
    c1, c2, values = 6.5025, 58.5225, []
    for channel in range(3):
        a, b = x[0, channel].double(), y[0, channel].double()
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
        cov = (window * (a - ma) * (b - mb)).sum()
        values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert float(ssim(x, y)) == pytest.approx(float(torch.stack(values).mean()), abs=1e-4)


def test_scores_are_means_over_frames():
    result = score(frames(100), frames(110))
    assert result.l1 == pytest.approx(10.0)
    assert "PSNR 28.13 dB" in str(result)


def test_clips_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        score(frames(1), frames(1, size=16))
