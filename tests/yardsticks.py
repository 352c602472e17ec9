"""Small metrics for tests of the evaluation: each with an answer that can be worked out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import torch
from torch import Tensor

from vidsynth import scores, weights
from vidsynth.errors import MissingWeights, NotMeasurable
from vidsynth.kinds import Film, Measurement, Metric


@dataclass(frozen=True, kw_only=True)
class YardstickOptions:
    """Of a yardstick.

    Attributes:
        gain: what every value is multiplied with.
    """

    gain: float = 1.0


class PerFrame(Metric):
    """The mean of one number per frame."""

    Options = YardstickOptions
    options: YardstickOptions
    unit = ""
    higher_is_better = False

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self.found: list[Tensor] = []

    def of(self, made: Tensor, real: Tensor | None) -> Tensor:
        """(T,) from frames (T, 3, H, W)."""
        raise AssertionError

    def update(self, made: Film, real: Film | None) -> None:
        if real is None:
            parts = [self.of(clip.frames, None) for clip in made.read()]
        else:
            both = zip(made.read(), real.read(), strict=True)
            parts = [self.of(ours.frames, theirs.frames) for ours, theirs in both]
        self.found.append(torch.cat(parts).double() * self.options.gain)

    def compute(self) -> Measurement:
        values = torch.cat(self.found)
        return Measurement(
            value=float(values.mean()),
            count=len(values),
            protocol=f"{type(self).__name__} 1",
            per_frame=values,
        )


class Likeness(PerFrame):
    """PSNR."""

    unit = "dB"
    higher_is_better = True

    def of(self, made: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        return scores.psnr(made, real)


class Redness(PerFrame):
    """How much redder the made film is than the one whose motion is meant."""

    against = "motion"

    def of(self, made: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        return (made[:, 0].float().mean((1, 2)) - real[:, 0].float().mean((1, 2))).abs()


class Brightness(PerFrame):
    """Of the made film alone."""

    against = "nothing"

    def of(self, made: Tensor, real: Tensor | None) -> Tensor:
        assert real is None
        return made.float().mean((1, 2, 3))


class Palette(Metric):
    """Distance of the mean colours of two sets."""

    Options = YardstickOptions
    unit = ""
    higher_is_better = False
    against = "looks"

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self.value, self.count = 0.0, 0

    def update(self, made: Film, real: Film | None) -> None:
        assert real is not None
        ours, theirs = (
            torch.cat([clip.frames.float().mean((2, 3)) for clip in film.read()])
            for film in (made, real)
        )
        self.value += float((ours.mean(0) - theirs.mean(0)).abs().sum())
        self.count += len(ours)

    def compute(self) -> Measurement:
        caveat = "few frames" if self.count < 100 else ""
        return Measurement(value=self.value, count=self.count, protocol="Palette 1", caveat=caveat)


class Seen(PerFrame):
    """Share of frames in which the pose tracker sees someone."""

    unit = "%"
    higher_is_better = True
    against = "nothing"

    def update(self, made: Film, real: Film | None) -> None:
        self.found.append(made.track("pose").present().double() * 100)


class Unweighed(Likeness):
    """Needs weights that are nowhere."""

    def update(self, made: Film, real: Film | None) -> None:
        raise MissingWeights("net.pth (3 MB) is needed; get it from <there> & put it here")


class Picky(Likeness):
    """Never has enough."""

    def compute(self) -> Measurement:
        raise NotMeasurable("5 windows are too few; give a film of at least 60 s")


class Hungry(Likeness):
    """Wants weights from the one place where they are."""

    def update(self, made: Film, real: Film | None) -> None:
        weights.locate("vgg19")


class Short(Likeness):
    """Forgets a frame."""

    def compute(self) -> Measurement:
        return replace(super().compute(), per_frame=torch.cat(self.found)[1:])


def entry(name: str, attribute: str) -> EntryPoint:
    return EntryPoint(name, f"yardsticks:{attribute}", "vidsynth.metrics")


YARDSTICKS = [
    entry(one.__name__.lower(), one.__name__) for one in (Likeness, Redness, Brightness, Palette)
]
