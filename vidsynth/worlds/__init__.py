"""Synthetic worlds with exact ground truth, for tests, benchmarks and demos on any machine.

A world films anyone doing anything: what "identity B doing motion A" really looks like is
`world.render(b, a)`, because motions are told in terms that fit every identity. In the street, an
identity is how it looks, and a motion is a drive along it. Shapes come in classes, with captions.

    puppet = WORLDS["puppet"]
    someone, dance = puppet.make_identity(1), puppet.make_motion(2, 100)
    for chunk in puppet.render(someone, dance, height=256, width=256): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidsynth.conditioning import Conditioning
from vidsynth.stream import Chunk
from vidsynth.worlds import head, puppet, shapes, street
from vidsynth.worlds.sound import Samples, write_video_with_sound

__all__ = ["WORLDS", "World", "write_video_with_sound"]


@dataclass(frozen=True, slots=True)
class World:
    """One world. Everything is a function of its arguments: the same seed, the same pixels."""

    name: str
    make_identity: Callable[[int], Any]
    """`make_identity(seed)`: a frozen description of someone and their surroundings."""
    make_motion: Callable[..., Any]
    """`make_motion(seed, num_frames, fps=25.0)`: slices like a list of frames."""
    render: Callable[..., Iterator[Chunk]]
    """`render(identity, motion, height=, width=)`: chunks of the film, each with a clip."""
    truth: Callable[..., Conditioning]
    """`truth(identity, motion, height=, width=)`: what a perfect tracker would say."""
    soundtrack: Callable[[int, Any], Samples]
    """`soundtrack(seed, motion)`: mono samples at `sound.RATE`, as long as the motion."""
    flow: Callable[..., Iterator[tuple[Tensor, Tensor]]] | None = None
    """`flow(motion, height=, width=)`, where the world knows it: for each frame but the last, where
    its pixels go, (2, H, W), and which are hidden in the next frame, (1, H, W) bool."""


WORLDS = {
    "puppet": World(
        "puppet",
        puppet.make_identity,
        puppet.make_motion,
        puppet.render,
        puppet.truth,
        puppet.soundtrack,
    ),
    "head": World(
        "head",
        head.make_identity,
        head.make_motion,
        head.render,
        head.truth,
        head.soundtrack,
    ),
    "street": World(
        "street",
        street.make_identity,
        street.make_motion,
        street.render,
        street.truth,
        street.soundtrack,
        street.flow,
    ),
    "shapes": World(
        "shapes",
        shapes.make_identity,
        shapes.make_motion,
        shapes.render,
        shapes.truth,
        shapes.soundtrack,
    ),
}
