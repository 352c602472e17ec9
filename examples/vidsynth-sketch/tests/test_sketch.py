"""The package keeps its promises, and vidsynth trains with it without having heard of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from vidsynth_sketch import LineAgreement, Sketch, SketchExtractor, SketchPatch
from vidsynth_sketch.discriminator import lines_of
from vidsynth_sketch.metric import f_score

import vidsynth
from vidsynth import registry
from vidsynth.clip import Clip
from vidsynth.testing import conformance, times

HERE = Path(__file__).parents[1]
MEDIA = HERE.parent / "media"


@conformance(SketchExtractor, tolerance=0.0)
def test_the_extractor_conforms(check):
    check()


@conformance(SketchPatch)
def test_the_discriminator_conforms(check):
    check()


@conformance(LineAgreement)
def test_the_metric_conforms(check):
    check()


def test_a_square_is_drawn_by_its_outline():
    frames = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    frames[..., 8:24, 8:24] = 255
    (drawn,) = SketchExtractor().extract(iter([Clip(frames, times(1))]))
    rows, columns = (drawn.ink[0] > 127).nonzero(as_tuple=True)
    assert 6 <= rows.min() <= 9 and 22 <= columns.max() <= 25
    assert not (drawn.ink[0, 12:20, 12:20] > 127).any()


def test_a_sketch_survives_a_file_cropping_and_resizing(tmp_path):
    sketch = Sketch(ink=torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8))
    sketch.save(tmp_path / "s.safetensors")
    assert torch.equal(Sketch.load(tmp_path / "s.safetensors").ink, sketch.ink)
    assert sketch.crop((5, 2, 25, 18)).size == (16, 20)
    assert sketch.rescale(40, 60).draw(40, 60).shape == (3, 1, 40, 60)


def test_lines_within_the_tolerance_count():
    ours = torch.zeros(1, 9, 9, dtype=torch.uint8)
    ours[0, :, 4] = 255
    for shift, tolerance, expected in ((0, 0, 100.0), (1, 0, 0.0), (1, 1, 100.0), (2, 1, 0.0)):
        found = f_score(ours, ours.roll(shift, dims=2), tolerance)
        assert float(found) == pytest.approx(expected), (shift, tolerance)


def test_lines_are_where_brightness_changes_and_can_be_learnt_from():
    frames = torch.full((1, 1, 3, 8, 8), -1.0)
    frames[..., 4:] = 1.0
    frames.requires_grad_()
    lines = lines_of(frames)
    lines.sum().backward()
    lines = lines.detach()
    assert lines[0, 0, 0, 4].argmax() in (3, 4) and float(lines[..., 0].max()) < 0.05
    assert frames.grad is not None and bool(frames.grad.isfinite().all())


def test_vidsynth_trains_renders_and_measures_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))
    assert registry.describe("extractor", "sketch").distribution == "vidsynth-sketch"
    source, target = MEDIA / "dance_source.mp4", MEDIA / "dance_target.mp4"
    small = ("generator.filters=8", "generator.blocks=1", "generator.d_filters=8")
    subject = vidsynth.train(
        target, tmp_path / "scene", recipe=str(HERE / "sketch.toml"), size=64, steps=6,
        settings=small, device="cpu",
    )  # fmt: skip
    card = json.loads((tmp_path / "scene" / "subject.json").read_text())
    assert card["extractor"]["distribution"] == "vidsynth-sketch"
    assert card["generator"]["options"]["discriminator"] == "sketch_patch"
    assert card["summary"]["kind"] == "sketch" and card["channels"] == 1
    made = vidsynth.render(
        subject, source, tmp_path / "out.mp4", end=0.5, device="cpu", side_by_side=True
    )
    assert made.num_frames > 5
    seen = vidsynth.extract(
        source, tmp_path / "s.safetensors", extractor="sketch", end=0.5,
        preview=tmp_path / "seen.mp4",
    )  # fmt: skip
    assert isinstance(seen, Sketch) and len(seen) == made.num_frames
    found = vidsynth.evaluate(source, source, metrics=["line_agreement"])
    (row,) = found.tables[0].measured
    assert (row.metric, row.value) == ("line_agreement", pytest.approx(100.0))
