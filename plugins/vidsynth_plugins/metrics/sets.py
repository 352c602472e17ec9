"""FID, KID and IS: how the frames of two videos are distributed, as Inception v3 sees them.

All frames of all videos make one set; neighbouring frames are much alike, so the true number of
samples is smaller than the count.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidsynth import devices
from vidsynth.distances import frechet_distance, kernel_distance
from vidsynth.errors import NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric
from vidsynth_plugins.metrics.common import blocks, given, published
from vidsynth_plugins.metrics.inception import FEATURES, Inception, for_inception

# N samples, D dimensions


@dataclass(frozen=True, kw_only=True)
class InceptionOptions:
    """How frames become features.

    Attributes:
        device: where the network runs: auto, cpu, cuda...
        weights: path of the weights; by default in the weights folder.
        stride: every so manieth frame is looked at.
    """

    device: str = "auto"
    weights: str = ""
    stride: int = 1


class InceptionMetric(Metric):
    """A number over sets of Inception features."""

    Options = InceptionOptions
    options: InceptionOptions
    weights_licence = "Apache-2.0"
    against = "looks"

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._network: Inception | None = None
        self._hash = ""
        self._made: list[Tensor] = []
        self._real: list[Tensor] = []

    def update(self, made: Film, real: Film | None) -> None:
        self._made.append(self._features(made))
        if self.against != "nothing":
            self._real.append(self._features(given(real)))

    def _loaded(self) -> Inception:
        if self._network is None:
            state, self._hash = published("inception", self.options.weights)
            device = devices.choose(self.options.device)
            self._network = Inception.from_published(state).to(device)
        return self._network

    @torch.inference_mode()
    def _features(self, film: Film) -> Tensor:
        """(N, 2048) on the CPU."""
        network, found, first = self._loaded(), [], 0
        device = devices.choose(self.options.device)
        for frames in blocks(film):
            chosen = frames[-first % self.options.stride :: self.options.stride]
            first += len(frames)
            if len(chosen):
                found.append(network(for_inception(chosen.to(device))).cpu())
        return torch.cat(found) if found else torch.empty(0, FEATURES)

    def compute(self) -> Measurement:
        ours, theirs = _joined(self._made), _joined(self._real)
        sets = (ours,) if self.against == "nothing" else (ours, theirs)
        fewest = min(map(len, sets))
        if fewest < 2:
            raise NotMeasurable("there are fewer than two frames to measure; give longer videos")
        return Measurement(
            value=self.judge(ours, theirs),
            count=fewest,
            protocol=f"{self.described()}; N {' and '.join(str(len(s)) for s in sets)}, "
            f"stride {self.options.stride}, 299x299 antialiased bicubic, Inception v3 (2015) "
            f"weights {self._hash}",
            caveat=self.doubt(fewest),
        )

    @abstractmethod
    def judge(self, ours_ND: Tensor, theirs_MD: Tensor) -> float:
        """The value, from the features of made and of real frames."""

    @abstractmethod
    def described(self) -> str:
        """Name, version and variant."""

    @abstractmethod
    def doubt(self, samples: int) -> str:
        """Why to distrust a value over so many samples."""


def _joined(features: Iterable[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0, FEATURES), *features])


class FID(InceptionMetric):
    """Frechet Inception distance between the frames of made and real videos."""

    paper = (
        "Heusel et al. 2017, 'GANs Trained by a Two Time-Scale Update Rule Converge to a Local "
        "Nash Equilibrium'"
    )
    unit = ""
    higher_is_better = False

    def judge(self, ours_ND: Tensor, theirs_MD: Tensor) -> float:
        return frechet_distance(ours_ND, theirs_MD)

    def described(self) -> str:
        return "fid 1: pool3, unbiased covariance"

    def doubt(self, samples: int) -> str:
        if samples >= 10_000:
            return ""
        rank = " and rank-deficient" if samples <= FEATURES else ""
        return f"FID of {samples} frames is biased upwards{rank}; compare at equal N only, see KID"


class KID(InceptionMetric):
    """Kernel Inception distance: unbiased, so that it can be used with fewer frames than FID."""

    paper = "Binkowski et al. 2018, 'Demystifying MMD GANs'"
    unit = ""
    higher_is_better = False

    def judge(self, ours_ND: Tensor, theirs_MD: Tensor) -> float:
        return kernel_distance(ours_ND, theirs_MD)

    def described(self) -> str:
        return "kid 1: pool3, cubic kernel, unbiased, all samples at once"

    def doubt(self, samples: int) -> str:
        return "" if samples >= 100 else f"KID of {samples} frames is noisy"


class InceptionScore(InceptionMetric):
    """How sure and how varied Inception's classes are; says little of one person's videos."""

    paper = "Salimans et al. 2016, 'Improved Techniques for Training GANs'"
    unit = ""
    higher_is_better = True
    against = "nothing"

    def judge(self, ours_ND: Tensor, theirs_MD: Tensor) -> float:
        network = self._loaded()
        logits = network.logits(ours_ND.to(network.fc.weight.device)).cpu()
        return inception_score(logits)

    def described(self) -> str:
        return "is 1: 1008 classes without bias, one split"

    def doubt(self, samples: int) -> str:
        return "IS knows the classes of ImageNet, not people; it means little for one subject"


def inception_score(logits_NC: Tensor) -> float:
    """exp of the mean KL divergence between each sample's classes and those of all samples."""
    logs = logits_NC.double().log_softmax(dim=1)
    chances = logs.exp()
    overall = chances.mean(dim=0, keepdim=True)
    return float((chances * (logs - overall.log())).sum(dim=1).mean().exp())
