"""Every setting of the portrait network, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from vidsynth.losses import GanLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitOptions:
    """The defaults are the published ones.

    Attributes:
        filters: channels after the first halving; doubled by each, up to `most_filters`.
        most_filters: channels at the bottom.
        levels: halvings of the picture, and doublings back.
        dropout: share of activations dropped in the first three doublings, while training.
        window: conditioning frames seen at once, the current one and those before it.
        leave_out: pictures of the conditioning hidden from the network: "diffuse", "uv", "gaze",
            which are its first, second and third three channels. To find out what each is worth.
        background: where the stream has a background plate, paint only the subject and composite
            it over the plate under a soft mask.
        l1: weight of the L1 between frames.
        gan: adversarial loss: "lsgan", "hinge" or "vanilla".
        gan_weight: of the generator's adversarial loss.
        subject_weight: how many times more the L1 counts on the subject than on the background,
            less one.
        discriminator: a discriminator plugin, by name.
        d_filters: channels of the discriminator's first layer.
        d_layers: strided layers of the discriminator.
        learning_rate: of Adam for the generator, per step.
        d_learning_rate: of Adam for the discriminator, per step.
        decay_from: share of the training after which both learning rates fall linearly to 0.
    """

    filters: int = 64
    most_filters: int = 512
    levels: int = 8
    dropout: float = 0.5
    window: int = 11
    leave_out: tuple[str, ...] = ()
    background: bool = True
    l1: float = 100.0
    gan: GanLoss = "vanilla"
    gan_weight: float = 1.0
    subject_weight: float = 0.0
    discriminator: str = "multiscale_patch"
    d_filters: int = 64
    d_layers: int = 3
    learning_rate: float = 2e-4
    d_learning_rate: float = 2e-4
    decay_from: float = 1.0

    def __post_init__(self) -> None:
        for name in ("filters", "most_filters", "levels", "window", "d_filters", "d_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {self.dropout}")
        unknown = set(self.leave_out) - set(PICTURES)
        if unknown:
            raise ValueError(f"leave_out knows {', '.join(PICTURES)}; got {', '.join(unknown)}")


PICTURES = ("diffuse", "uv", "gaze")
"""Of three channels each, in the order of the conditioning."""
