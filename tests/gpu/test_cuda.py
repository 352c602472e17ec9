"""What only a CUDA machine can tell. Skipped with its reason elsewhere."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from vidsynth import stages, stream
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import PoseSequence
from vidsynth.kinds import Conditions
from vidsynth.objectives import TrainBatch
from vidsynth.processes import Processes
from vidsynth.testing.samples import waving_person
from vidsynth.training import Run, train_step
from vidsynth_plugins.pix2pixhd import Pix2PixHD, Pix2PixHDOptions

pytestmark = pytest.mark.needs_cuda

SPEC = VideoSpec(height=64, width=64, fps=Fraction(25))
OPTIONS = Pix2PixHDOptions(
    filters=8, downsamplings=2, blocks=2, d_filters=8, perceptual=0.0, l1=10.0, background=False
)
CONDITIONS = Conditions(kinds=(PoseSequence,), channels=3)


def generator() -> Pix2PixHD:
    torch.manual_seed(0)
    return Pix2PixHD(OPTIONS, conditions=CONDITIONS)


def batch(device: str) -> TrainBatch:
    torch.manual_seed(1)
    return TrainBatch(
        frames_BTCHW=(torch.rand(2, 1, 3, 64, 64) * 2 - 1).to(device),
        maps_BTCHW=torch.rand(2, 1, 3, 64, 64).to(device),
    )


def test_a_training_step_on_the_gpu_gives_the_losses_of_the_cpu():
    values = []
    for device in ("cpu", "cuda"):
        objective = generator().objective(SPEC)
        for phase in objective.phases:
            phase.module.to(device)
        values.append(train_step(objective, batch(device), Run(), Processes()))
    for name, on_cpu in values[0].items():
        assert values[1][name] == pytest.approx(on_cpu, rel=2e-2), name


def test_frames_rendered_on_the_gpu_are_those_of_the_cpu():
    motion = waving_person(12, 64, 64)
    pts = torch.arange(12, dtype=torch.float64) / 25
    frames = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        painter = generator()
        weights = painter.objective(SPEC).generator.state_dict()
        painter.load_weights({name: value.to(device) for name, value in weights.items()})
        line = stages.rendering(motion, painter, SPEC, (0, 0, 64, 64), None, None, device=device)
        clips: list[Clip] = []
        stream.run(stages.timeline(pts), line, lambda c: clips.extend(stages.clips_of(c)))  # noqa: B023
        frames.append(Clip.concat(clips).frames.float())
    assert (frames[0] - frames[1]).abs().mean() < 2.0
