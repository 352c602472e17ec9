from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from tiny import CONDITIONS, TinyGenerator, moving_square

from vidsynth import stages, stream
from vidsynth.clip import Clip, VideoSpec
from vidsynth.conditioning import LabelMaps
from vidsynth.errors import PluginError, VidsynthError
from vidsynth.kinds import Extractor
from vidsynth.plate import BackgroundPlate

SPEC = VideoSpec(height=16, width=16, fps=Fraction(25))


class Thresholder(Extractor):
    """Labels what is red."""

    from tiny import TinyOptions as Options

    produces = LabelMaps
    lose_a_frame = False

    def extract(self, clips):
        for clip in clips:
            labels = (clip.frames[:, 0] > 150).to(torch.uint8)
            yield LabelMaps(labels=labels[self.lose_a_frame :], num_classes=2)


def chunks_of(clip: Clip, size: int):
    for start in range(0, len(clip), size):
        part = clip[start : start + size]
        yield stream.Chunk(part.pts, part)


def collected(source, line):
    chunks: list[stream.Chunk] = []
    stream.run(source, line, chunks.extend)
    return chunks


def test_extracting_adds_the_signal_and_keeps_the_clip():
    clip, labels = moving_square(10)
    chunks = collected(chunks_of(clip, 4), [stages.extracting(Thresholder())])
    found = LabelMaps.concat([c.require(LabelMaps) for c in chunks])
    assert torch.equal(found.labels, labels.labels)
    assert torch.equal(Clip.concat([c.clip for c in chunks]).frames, clip.frames)


def test_an_extractor_that_loses_a_frame_is_reported():
    broken = Thresholder()
    broken.lose_a_frame = True
    clip, _ = moving_square(4)
    with pytest.raises(PluginError, match="gave 3 frames for a clip of 4"):
        collected(chunks_of(clip, 4), [stages.extracting(broken)])


def test_motion_enters_the_stream_in_step_whatever_the_chunks():
    _, labels = moving_square(10)
    pts = torch.arange(10, dtype=torch.float64)
    for size in (1, 3, 10):
        line = [stages.conditioning_on(labels)]
        chunks = collected(stages.timeline(pts, chunk=size), line)
        found = LabelMaps.concat([c.require(LabelMaps) for c in chunks])
        assert torch.equal(found.labels, labels.labels)
        assert torch.equal(torch.cat([c.pts for c in chunks]), pts)


def test_generated_frames_carry_the_timestamps_and_need_no_gradient():
    _, labels = moving_square(6)
    pts = torch.tensor([0.0, 0.1, 0.15, 0.4, 0.5, 0.9], dtype=torch.float64)
    generator = TinyGenerator(conditions=CONDITIONS)
    cpu = torch.device("cpu")
    line = [
        stages.conditioning_on(labels),
        stages.generating(generator, SPEC, seed=0, device=cpu),
    ]
    chunks = collected(stages.timeline(pts, chunk=4), line)
    clip = Clip.concat([c.clip for c in chunks])
    assert torch.equal(clip.pts, pts)
    assert not clip.frames.requires_grad


def test_the_window_is_pasted_into_the_plate_and_nowhere_else():
    clip, _ = moving_square(3)
    plate = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    chunks = collected(chunks_of(clip, 2), [stages.compositing(plate, (8, 4, 24, 20))])
    frames = Clip.concat([c.clip for c in chunks]).frames
    assert torch.equal(frames[:, :, 4:20, 8:24], clip.frames)
    outside = torch.ones(40, 50, dtype=torch.bool)
    outside[4:20, 8:24] = False
    assert torch.equal(frames[2][:, outside], plate[:, outside])


def test_the_plate_is_a_signal_like_any_other():
    clip, _ = moving_square(3)
    plate = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    (chunk,) = collected(chunks_of(clip, 3), [stages.over_plate(plate)])
    assert torch.equal(chunk.require(BackgroundPlate).draw(16, 16)[2], plate)


def test_side_by_side_scales_the_other_video_to_the_same_height():
    clip, _ = moving_square(4)
    other = Clip(torch.full((4, 3, 32, 64), 7, dtype=torch.uint8), clip.pts)
    (chunk,) = collected(chunks_of(clip, 4), [stages.beside(iter([other]), height=16)])
    assert (chunk.clip.height, chunk.clip.width) == (16, 32 + 16)
    assert (chunk.clip.frames[:, :, :, :32] == 7).all()
    with pytest.raises(VidsynthError, match="changed"):
        collected(chunks_of(clip, 4), [stages.beside(iter([]), height=16)])


def test_the_average_rate_of_ntsc_is_exact():
    pts = torch.arange(100, dtype=torch.float64) * 1001 / 30000
    assert stages.average_rate(pts) == Fraction(30000, 1001)
    assert stages.average_rate(pts[:1]) == Fraction(25)
