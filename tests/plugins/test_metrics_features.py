"""Distances of what networks see: closed forms, random weights, and the published answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vidsynth import weights
from vidsynth.clip import Clip
from vidsynth.distances import frechet_distance, kernel_distance
from vidsynth.errors import BadWeights, MissingWeights, NotMeasurable
from vidsynth.kinds import Film
from vidsynth.testing import moving_squares, times
from vidsynth.testing.metrics import film_of
from vidsynth_plugins.metrics.common import fill, published
from vidsynth_plugins.metrics.fvd import FVD, FVDOptions, windows
from vidsynth_plugins.metrics.i3d import I3D, for_i3d
from vidsynth_plugins.metrics.identity import IdentitySimilarity
from vidsynth_plugins.metrics.inception import Inception, for_inception
from vidsynth_plugins.metrics.lpips import LPIPS, LPIPSNetwork
from vidsynth_plugins.metrics.sets import FID, KID, InceptionScore, inception_score

# N samples, D dimensions


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def with_moments(mean: Tensor, covariance: Tensor, samples: int, seed: int = 0) -> Tensor:
    """Samples whose own mean and unbiased covariance are exactly these."""
    raw = normal(samples, len(mean), seed=seed)
    raw = raw - raw.mean(dim=0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(raw.T @ raw / (samples - 1)), raw.T, upper=False
    )
    return (torch.linalg.cholesky(covariance) @ white).T + mean


def film(num_frames: int, side: int = 32, seed: int = 0, chunk: int = 16) -> Film:
    return film_of(moving_squares(num_frames, side, side, seed=seed), chunk=chunk)


def test_frechet_distance_of_gaussians_has_its_closed_form() -> None:
    """For covariances that commute: |m1 - m2|^2 + sum (sqrt(a) - sqrt(b))^2."""
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.25]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    ours = with_moments(torch.zeros(3).double(), a.diag(), 50)
    theirs = with_moments(shift, b.diag(), 80, seed=1)
    expected = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(theirs, ours) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("samples", [(40, 60), (5, 60), (4, 6)], ids=["full", "singular", "both"])
def test_frechet_distance_is_that_of_the_matrix_root(samples: tuple[int, int]) -> None:
    from scipy.linalg import sqrtm

    ours, theirs = normal(samples[0], 10), normal(samples[1], 10, seed=1) * 2 + 1
    s1, s2 = np.cov(ours.numpy().T), np.cov(theirs.numpy().T)
    root = sqrtm((s1 + 1e-12 * np.eye(10)) @ (s2 + 1e-12 * np.eye(10)))
    apart = ours.numpy().mean(axis=0) - theirs.numpy().mean(axis=0)
    expected = apart @ apart + np.trace(s1 + s2 - 2 * np.real(root))
    assert frechet_distance(ours, theirs) == pytest.approx(float(expected), rel=1e-4)


def test_kernel_distance_is_the_unbiased_double_sum() -> None:
    ours, theirs = normal(7, 4), normal(9, 4, seed=1) + 0.5

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 4 + 1) ** 3

    within = [
        sum(kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j)
        / (len(x) * (len(x) - 1))
        for x in (ours, theirs)
    ]
    between = sum(kernel(a, b) for a in ours for b in theirs) / 63
    assert kernel_distance(ours, theirs) == pytest.approx(sum(within) - 2 * between, rel=1e-9)


def test_kernel_distance_is_zero_on_average_for_one_distribution() -> None:
    found = [kernel_distance(normal(50, 8, seed=s), normal(50, 8, seed=s + 99)) for s in range(40)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(40)
    assert kernel_distance(normal(50, 8), normal(50, 8, seed=1) + 1) > 10 * np.std(found)


def test_inception_score_counts_the_classes_that_are_told_apart() -> None:
    assert inception_score(torch.zeros(5, 8)) == pytest.approx(1.0)
    assert inception_score(1000 * torch.eye(8)) == pytest.approx(8.0)


def test_too_few_samples_are_refused() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="two samples"):
            distance(normal(1, 3), normal(5, 3))


def test_networks_take_the_published_files() -> None:
    """Names and shapes of some layers of the published state dicts."""
    shapes = {n: tuple(w.shape) for n, w in Inception().state_dict().items()}
    assert shapes["Mixed_6b.branch7x7dbl_2.conv.weight"] == (128, 128, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3a.conv.weight"] == (384, 384, 1, 3)
    assert shapes["fc.weight"] == (1008, 2048)
    shapes = {n: tuple(w.shape) for n, w in I3D().state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_5c.b2b.bn.running_var"] == (128,)
    assert shapes["logits.conv3d.bias"] == (400,)
    assert tuple(LPIPSNetwork().state_dict()["features.3.weight"].shape) == (192, 64, 5, 5)


def test_sizes_of_networks_are_the_published_ones() -> None:
    def parameters(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    # AlexNet's convolutions; torchvision's Inception v3 without its auxiliary head, with eight more
    # classes; I3D as its authors count it, 12.3 M up to the logits.
    assert parameters(LPIPSNetwork().features) == 2_469_696
    assert parameters(Inception()) == 21_785_568 + 2048 * 1008 + 1008
    assert parameters(I3D()) - 400 * 1025 == pytest.approx(12.29e6, rel=0.01)


def test_frames_for_inception_are_resized_as_pil_does() -> None:
    from PIL import Image

    frames = torch.randint(0, 256, (1, 3, 411, 350), generator=rng()).byte()
    ours = for_inception(frames)[0] * 128 + 128
    for channel, made in zip(frames[0], ours, strict=True):
        picture = Image.fromarray(channel.float().numpy(), mode="F")
        expected = np.asarray(picture.resize((299, 299), Image.Resampling.BICUBIC))
        assert np.abs(made.numpy() - expected).max() < 0.01


def test_lpips_is_a_distance() -> None:
    torch.manual_seed(0)
    network = LPIPSNetwork()
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1)
        for k, c in enumerate((64, 192, 384, 256, 256))
    }
    network = LPIPSNetwork.from_published(network.state_dict(), heads)
    a, b = torch.rand(2, 2, 3, 64, 64, generator=rng()) * 2 - 1
    assert network(a, a).tolist() == [0, 0]
    assert torch.allclose(network(a, b), network(b, a), rtol=1e-5)
    assert (network(a, b) > network(a, a + 0.05 * (b - a))).all()


class StandIn(torch.nn.Module):
    """Logits that tell something of the windows, quickly."""

    def forward(self, clips: Tensor) -> Tensor:
        means = clips.mean(dim=(3, 4)).flatten(1)
        return torch.cat([means, clips.new_zeros(len(clips), 400 - means.shape[1])], dim=1)


def fvd(made: Film, real: Film, **options: Any) -> FVD:
    metric = FVD(FVDOptions(device="cpu", window=10, stride=2, **options))
    metric._network, metric._hash = StandIn(), "0"  # type: ignore[assignment]
    metric.update(made, real)
    return metric


def test_windows_are_whole_and_overlap_whatever_the_clips() -> None:
    frames = moving_squares(53, 16, 16).frames
    for chunk, length, stride in ((1, 16, 8), (53, 16, 8), (7, 10, 13)):
        found = list(windows(film(53, 16, chunk=chunk), length, stride))
        starts = range(0, 53 - length + 1, stride)
        assert len(found) == len(starts)
        for window, start in zip(found, starts, strict=True):
            assert torch.equal(window, frames[start : start + length])


def test_fvd_is_zero_for_itself_symmetric_and_blind_to_the_batch() -> None:
    made, real = film(42), film(40, seed=3)
    there, back = (fvd(*pair).compute() for pair in ((made, real), (real, made)))
    assert there.value == pytest.approx(back.value, rel=1e-9) and there.value > 1e-3
    assert fvd(made, real, batch=1).compute().value == pytest.approx(there.value, rel=1e-6)
    assert fvd(made, made).compute().value == pytest.approx(0, abs=1e-6)
    assert there.count == 16 and "N 17 and 16 windows" in there.protocol


def test_fvd_of_few_windows_is_refused_or_loudly_qualified() -> None:
    with pytest.raises(NotMeasurable, match="at least 16 windows"):
        fvd(film(38), film(40)).compute()
    caveat = fvd(film(40), film(40)).compute().caveat
    assert "NOT COMPARABLE" in caveat and "fewer than its 400 dimensions" in caveat


def test_i3d_gives_each_clip_its_own_logits() -> None:
    torch.manual_seed(0)
    network = I3D().eval()
    for parameter in network.parameters():
        if parameter.ndim == 5:
            torch.nn.init.kaiming_normal_(parameter)
    clips = torch.randint(0, 256, (2, 10, 3, 40, 48), generator=rng()).byte()
    with torch.inference_mode():
        both = network(for_i3d(clips))
        alone = network(for_i3d(clips[1:]))
    assert both.shape == (2, 400)
    assert torch.allclose(both[1:], alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(both[:1], alone, rtol=1e-4, atol=1e-6)


def test_fid_and_kid_compare_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way from films to values, with features that are quickly made."""

    def features(self: Any, film: Film) -> Tensor:
        frames = torch.cat([clip.frames for clip in film.read()]).float()
        return torch.nn.functional.adaptive_avg_pool2d(frames, 4).flatten(1).repeat(1, 43)[:, :2048]

    monkeypatch.setattr(FID, "_features", features)
    monkeypatch.setattr(KID, "_features", features)
    for metric in (FID, KID):
        same, other = metric(), metric()
        same.update(film(20), film(20))
        other.update(film(20), film_of(brighter(film(20))))
        assert same.compute().count == 20 and "20 frames" in same.compute().caveat
        assert other.compute().value > 100 * abs(same.compute().value)
    identical = FID()
    identical.update(film(20), film(20))
    assert identical.compute().value == pytest.approx(0, abs=1e-3)


def brighter(of: Film) -> Clip:
    frames = torch.cat([clip.frames for clip in of.read()])
    return Clip((frames.float() * 0.5 + 120).byte(), times(len(frames)))


@pytest.mark.parametrize("metric", [LPIPS, FID, KID, InceptionScore, FVD, IdentitySimilarity])
def test_missing_weights_are_named_with_size_licence_and_place(
    metric: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"MB, licence.*put it at") as error:
        metric().update(film(20, 64), None if metric.against == "nothing" else film(20, 64))
    assert str(tmp_path) in str(error.value)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    for name, content in {"text.pth": b"no", "list.pth": None}.items():
        path = tmp_path / name
        path.write_bytes(content) if content else torch.save([1, 2], path)
        with pytest.raises(BadWeights, match=name):
            published("inception", str(path))
    with pytest.raises(MissingWeights, match=r"AlexNet lack '0\.weight'"):
        fill(torch.nn.Sequential(torch.nn.Linear(2, 2)), {}, "AlexNet")


def _zeros_and_ones() -> tuple[Tensor, Tensor]:
    return torch.zeros(8, 30, 3, 64, 64).byte(), torch.full((8, 30, 3, 64, 64), 255).byte()


def _needs(*names: str) -> Any:
    lacking = [name for name in names if not weights.available(name)]
    reason = f"weights {', '.join(lacking)} are not in {weights.folder()}"
    return lambda test: pytest.mark.needs_weights(
        pytest.mark.skipif(bool(lacking), reason=reason)(test)
    )


@_needs("i3d")
def test_fvd_of_zeros_and_ones_is_the_published_value() -> None:
    network = I3D.from_published(published("i3d")[0])
    with torch.inference_mode():
        ours, theirs = (
            torch.cat([network(for_i3d(clip)) for clip in clips.split(2)])
            for clips in _zeros_and_ones()
        )
    assert frechet_distance(ours, theirs) == pytest.approx(151.256, abs=1)


@_needs("alexnet", "lpips")
def test_lpips_of_zeros_and_ones_is_the_published_value() -> None:
    made, real = (film_of(Clip(v[0], times(30))) for v in _zeros_and_ones())
    metric = LPIPS()
    metric.update(made, real)
    assert metric.compute().value == pytest.approx(0.81401, abs=1e-4)
