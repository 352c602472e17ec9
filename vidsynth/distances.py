"""Distances between two sets of features, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# N, M samples, D dimensions


def frechet_distance(ours_ND: Tensor, theirs_MD: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets, covariances unbiased.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), after Heusel et al. 2017, "GANs Trained by a Two
    Time-Scale Update Rule Converge to a Local Nash Equilibrium". With S1 = A'A and S2 = B'B, the
    eigenvalues of S1 S2 are the squared singular values of AB', so that the trace of the root
    needs no matrix root and is exact for singular covariances too.

    Raises ValueError for fewer than two samples in a set.
    """
    if min(len(ours_ND), len(theirs_MD)) < 2:
        raise ValueError("a covariance needs at least two samples")
    mean_1, a = _mean_and_root(ours_ND)
    mean_2, b = _mean_and_root(theirs_MD)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    apart = (mean_1 - mean_2).square().sum()
    return float((apart + a.square().sum() + b.square().sum() - 2 * cross).clamp_min(0))


def _mean_and_root(samples_ND: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,), and a matrix A (at most D rows) with A'A the unbiased covariance."""
    samples_ND = samples_ND.double()
    mean = samples_ND.mean(dim=0)
    root = (samples_ND - mean) / (len(samples_ND) - 1) ** 0.5
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r").R
    return mean, root


def kernel_distance(ours_ND: Tensor, theirs_MD: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3; can be slightly negative.

    Binkowski et al. 2018, "Demystifying MMD GANs": what KID estimates from subsets of 1000, here
    from all samples at once, which has the same expectation and less noise.

    Raises ValueError for fewer than two samples in a set.
    """
    if min(len(ours_ND), len(theirs_MD)) < 2:
        raise ValueError("an unbiased estimate needs at least two samples")
    within = sum(_mean_kernel(x, x, without_self=True) for x in (ours_ND, theirs_MD))
    return within - 2 * _mean_kernel(ours_ND, theirs_MD)


def _mean_kernel(x_ND: Tensor, y_MD: Tensor, *, without_self: bool = False) -> float:
    """Mean over all pairs, in blocks of rows to bound memory; without a sample's pair with itself
    where both sets are the same."""
    total, dimensions = 0.0, x_ND.shape[1]
    y = y_MD.double()
    for rows in x_ND.double().split(1024):
        total += float(((rows @ y.T) / dimensions + 1).pow(3).sum())
    if without_self:
        own = x_ND.double().square().sum(dim=1)
        total -= float((own / dimensions + 1).pow(3).sum())
    return total / (len(x_ND) * (len(y_MD) - without_self))
