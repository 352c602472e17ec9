"""Small made-up videos and signals: moving squares, a waving skeleton, a nodding face, labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from vidsynth.classes import ClassLabel, Prompt
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning, FaceSequence, LabelMaps, PoseSequence
from vidsynth.facemesh import load_face_mesh
from vidsynth.stream import Chunk
from vidsynth.worlds import WORLDS

# T frames, H, W pixels


class ClipMaker(Protocol):
    """Makes test footage; a video with the thing that an extractor tracks, for example."""

    def __call__(
        self, num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
    ) -> Clip: ...


class SignalMaker(Protocol):
    """Makes conditioning up, as `moving_squares` makes pictures up."""

    def __call__(self, num_frames: int, height: int, width: int) -> Conditioning: ...


NUM_SQUARES = 3

# Eleven face points, then shoulders, elbows, wrists, three points of each hand, hips, knees,
# ankles, heels, toes: x, y in shares of the picture, in BlazePose's order (left, right, left...).
_STANDING = (
    *((0.50, 0.18),) * 7, (0.54, 0.18), (0.46, 0.18), (0.52, 0.21), (0.48, 0.21),
    (0.60, 0.30), (0.40, 0.30), (0.66, 0.42), (0.34, 0.42), (0.70, 0.54), (0.30, 0.54),
    *((0.71, 0.57), (0.29, 0.57)) * 3,
    (0.56, 0.56), (0.44, 0.56), (0.57, 0.74), (0.43, 0.74), (0.57, 0.92), (0.43, 0.92),
    (0.57, 0.94), (0.43, 0.94), (0.60, 0.95), (0.40, 0.95),
)  # fmt: skip
_ARMS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22)


def times(num_frames: int, *, fps: float = 25.0, variable: bool = False, seed: int = 0) -> Tensor:
    """(T,) float64 timestamps in seconds, from 0; `variable` makes each gap another one."""
    if not variable:
        return torch.arange(num_frames, dtype=torch.float64) / fps
    rng = torch.Generator().manual_seed(seed)
    gaps = (0.5 + torch.rand(num_frames, generator=rng, dtype=torch.float64)) / fps
    return gaps.cumsum(0) - gaps[:1]


def moving_squares(
    num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
) -> Clip:
    """Coloured squares that drift over a dark gradient and bounce off the edges.

    Args:
        num_frames: T; 0 gives an empty clip.
        height, width: pixels.
        pts: (T,) timestamps; 25 frames per second by default.
        seed: other squares, other speeds.
    """
    rng = torch.Generator().manual_seed(seed)
    side = max(1, min(height, width) // 4)
    colours = torch.randint(64, 256, (NUM_SQUARES, 3), generator=rng, dtype=torch.uint8)
    begin, speed = torch.rand(2, NUM_SQUARES, 2, generator=rng)
    gradient = torch.linspace(0, 60, width).to(torch.uint8)
    frames = gradient.expand(num_frames, 3, height, width).clone()
    for t in range(num_frames):
        # A triangle wave in [0, 1]: there and back again, about every two seconds.
        place = 1 - (((begin + (speed + 0.5) * t / 25) % 2) - 1).abs()
        for square, (y, x) in enumerate(place.tolist()):
            top, left = round(y * (height - side)), round(x * (width - side))
            patch = frames[t, :, top : top + side, left : left + side]
            patch.copy_(colours[square, :, None, None].expand_as(patch))
    return Clip(frames, times(num_frames) if pts is None else pts)


@cache
def filmed(world: str) -> ClipMaker:
    """Footage of a synthetic world: someone whom trackers know for what it is."""

    @cache
    def frames(num_frames: int, height: int, width: int, seed: int) -> Tensor:
        film = WORLDS[world]
        identity, motion = film.make_identity(seed), film.make_motion(seed, num_frames)
        chunks = film.render(identity, motion, height=height, width=width)
        return Clip.concat([chunk.clip for chunk in chunks if chunk.clip]).frames

    def make(
        num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
    ) -> Clip:
        made = frames(num_frames, height, width, seed)
        return Clip(made, times(num_frames) if pts is None else pts)

    return make


def waving_person(num_frames: int, height: int, width: int) -> PoseSequence:
    """One person who stands and waves both arms, seen in every frame."""
    standing = torch.tensor(_STANDING)
    points = standing.repeat(num_frames, 1, 1)
    wave = torch.sin(torch.arange(num_frames) * (2 * math.pi / 25))
    points[:, _ARMS, 1] -= 0.1 * wave[:, None]
    visible = torch.ones(num_frames, 33, 1)
    metres = torch.cat([points - torch.tensor([0.5, 0.56]), torch.zeros_like(visible)], dim=2) * 2
    pixels = points * torch.tensor([float(width), float(height)])
    return PoseSequence(
        keypoints=torch.cat([pixels, visible], dim=2)[:, None],
        world=metres[:, None],
        seen=torch.ones(num_frames, 1, dtype=torch.bool),
        frame_size=(height, width),
    )


def nodding_face(num_frames: int, height: int, width: int) -> FaceSequence:
    """One average face that nods gently in the middle of the picture, seen in every frame."""
    frontal = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    mesh = torch.from_numpy(load_face_mesh().vertices.copy()) @ frontal
    eyes = mesh[[33, 133, 159, 145, 33, 263, 362, 386, 374, 263]]  # irises: between the lids
    irises = torch.cat([eyes[:4].mean(0).expand(5, 3), eyes[5:9].mean(0).expand(5, 3)])
    face = torch.cat([mesh, irises])
    angle = 0.2 * torch.sin(torch.arange(num_frames) * (2 * math.pi / 25))
    rotation = torch.eye(3).repeat(num_frames, 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 2, 1] = angle.sin()
    rotation[:, 1, 2] = -angle.sin()
    scale = min(height, width) / 24.0  # pixels per centimetre: the face is about 16 cm high
    centre = torch.tensor([width / 2, height / 2])
    landmarks = scale * face @ rotation.transpose(1, 2)
    landmarks[..., :2] += centre
    return FaceSequence(
        landmarks=landmarks,
        rotation=rotation @ frontal,
        translation=centre.repeat(num_frames, 1),
        scale=torch.full((num_frames,), scale),
        seen=torch.ones(num_frames, dtype=torch.bool),
        frame_size=(height, width),
    )


def sliding_labels(num_frames: int, height: int, width: int) -> LabelMaps:
    """A class-1 square that slides over class 0, each its own instance."""
    labels = torch.zeros(num_frames, height, width, dtype=torch.uint8)
    side = max(1, min(height, width) // 3)
    for t in range(num_frames):
        left = t % max(1, width - side)
        labels[t, height // 3 : height // 3 + side, left : left + side] = 1
    return LabelMaps(labels=labels, num_classes=2, instances=labels.int() + 1)


def one_class(num_frames: int, height: int, width: int) -> ClassLabel:
    """The second of three classes; the size of the pictures does not matter."""
    return ClassLabel.of("b", ("a", "b", "c"), num_frames)


def one_prompt(num_frames: int, height: int, width: int) -> Prompt:
    """The same words for every frame; the size of the pictures does not matter."""
    return Prompt.of("a red circle moves left", num_frames)


SIGNALS: dict[type[Conditioning], SignalMaker] = {
    PoseSequence: waving_person,
    FaceSequence: nodding_face,
    LabelMaps: sliding_labels,
    ClassLabel: one_class,
    Prompt: one_prompt,
}
"""Kinds of conditioning that the kit can make."""


def chunked(
    pts: Tensor,
    sizes: Sequence[int],
    *,
    clip: Clip | None = None,
    signals: Sequence[Conditioning] = (),
) -> Iterator[Chunk]:
    """A stream of chunks of these sizes, which must add up to T."""
    if sum(sizes) != len(pts):
        raise ValueError(f"sizes add up to {sum(sizes)} for {len(pts)} frames")
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        span = slice(end - size, end)
        chunk = Chunk(pts[span], clip[span] if clip is not None else None)
        for signal in signals:
            chunk = chunk.with_signal(signal[span])
        yield chunk


def sizes(total: int, size: int) -> list[int]:
    """`total` frames in pieces of `size`, the last one shorter."""
    return [min(size, total - start) for start in range(0, total, size)]
