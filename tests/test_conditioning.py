"""What every kind of conditioning promises: slicing, joining, cropping, saving."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vidsynth.classes import ClassLabel, Noise, Prompt, TextEmbedding
from vidsynth.conditioning import VOID, Conditioning, FaceSequence, LabelMaps, PoseSequence
from vidsynth.errors import UnsupportedVideo
from vidsynth.plate import BackgroundPlate
from vidsynth.testing import nodding_face, sliding_labels, waving_person

T = 5


def with_hands() -> PoseSequence:
    pose = waving_person(T, 60, 80)
    hands = torch.rand(T, 1, 42, 3, generator=torch.Generator().manual_seed(0)) * 60
    return replace(pose, hands=hands)


def with_parameters() -> FaceSequence:
    face = nodding_face(T, 60, 80)
    return replace(face, parameters={"expression": torch.arange(T * 3.0).reshape(T, 3)})


def with_instances() -> LabelMaps:
    maps = sliding_labels(T, 60, 80)
    return replace(maps, instances=maps.labels.to(torch.int32) * 7)


KINDS: dict[str, Conditioning] = {
    "pose": with_hands(),
    "pose without hands": waving_person(T, 60, 80),
    "face": with_parameters(),
    "labels": with_instances(),
    "background": BackgroundPlate(
        image=torch.arange(36, dtype=torch.uint8).reshape(3, 3, 4), frame_index=torch.arange(T)
    ),
    "text": TextEmbedding(pooled=torch.rand(T, 4), tokens=torch.rand(2, 4), prompt="a walk"),
    "class": ClassLabel.of("run", ("walk", "run"), T),
    "prompt": Prompt.of("a red kite over the sea", T),
    "noise": Noise(values=torch.rand(T, 6)),
}
every_kind = pytest.mark.parametrize("signal", KINDS.values(), ids=KINDS.keys())


def tensors(signal: Conditioning) -> dict[str, Tensor]:
    found = {}
    for field in fields(signal):  # pyright: ignore[reportArgumentType]
        value = getattr(signal, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif isinstance(value, dict):
            found |= {f"{field.name}.{name}": member for name, member in value.items()}
    return found


def assert_same(one: Conditioning, other: Conditioning) -> None:
    assert type(one) is type(other)
    assert tensors(one).keys() == tensors(other).keys()
    for name, value in tensors(one).items():
        assert torch.equal(value, tensors(other)[name]), name
    assert one.size == other.size


@every_kind
def test_parts_join_to_the_whole(signal: Conditioning) -> None:
    assert_same(signal.concat([signal[:2], signal[2:2], signal[2:]]), signal)


@every_kind
def test_frames_are_chosen_by_index(signal: Conditioning) -> None:
    chosen = signal[torch.tensor([4, 0, 0])]
    assert len(chosen) == 3
    assert_same(chosen, signal.concat([signal[4:5], signal[0:1], signal[0:1]]))


@every_kind
def test_saving_loses_nothing(signal: Conditioning, tmp_path: Path) -> None:
    path = tmp_path / "signal.safetensors"
    signal.save(path, source="clip.mp4")
    again = type(signal).load(path)
    assert_same(again, signal)
    plain = [f.name for f in fields(signal) if f.name not in tensors(signal)]  # pyright: ignore
    for name in set(plain) - {"parameters"}:
        assert getattr(again, name) == getattr(signal, name)


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "signal.safetensors"
    waving_person(2, 32, 32).save(path)
    with pytest.raises(UnsupportedVideo, match="'pose' conditioning, not 'face'"):
        FaceSequence.load(path)


@pytest.mark.parametrize("name", ["pose", "face", "labels", "background"])
def test_cropping_then_drawing_is_drawing_then_cropping(name: str) -> None:
    signal = KINDS[name]
    if isinstance(signal, LabelMaps):
        signal = replace(signal, instances=None)  # an edge of the window is no instance edge
    height, width = signal.size
    x0, y0, x1, y1 = 1, 1, width - 1, height - 1
    cropped = signal.crop((x0, y0, x1, y1)).draw(y1 - y0, x1 - x0)
    whole = signal.draw(height, width)[:, :, y0:y1, x0:x1]
    assert cropped.shape == whole.shape
    a_pixel_off = (whole.int() - whole.roll(1, dims=3).int()).abs().float().mean()
    assert (cropped.int() - whole.int()).abs().float().mean() < 0.05 * a_pixel_off


def test_rescaled_labels_hold_only_ids_that_were_there() -> None:
    maps = replace(with_instances(), labels=with_instances().labels * 9, num_classes=10)
    for height, width in ((17, 23), (60, 80), (150, 31)):
        scaled = maps.rescale(height, width)
        assert scaled.size == (height, width) and scaled.labels.dtype == torch.uint8
        assert set(scaled.labels.unique().tolist()) <= {0, 9}
        assert scaled.instances is not None and scaled.instances.dtype == torch.int32


def test_pixels_of_no_class_are_drawn_as_none() -> None:
    labels = torch.tensor([[[0, 1, VOID]]], dtype=torch.uint8)
    drawn = LabelMaps(labels=labels, num_classes=2).draw(1, 3)
    assert drawn[0, :, 0].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_a_frame_of_background_or_of_no_class_shows_nothing() -> None:
    labels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    labels[1] = VOID
    labels[2, 0, 0] = 1
    assert LabelMaps(labels=labels, num_classes=2).present().tolist() == [False, False, True]


def test_features_of_labels_are_the_shares_of_classes_in_each_cell() -> None:
    labels = torch.zeros(2, 8, 12, dtype=torch.uint8)
    labels[1, :2, :3] = 1  # the whole first of 4 x 4 cells
    features = LabelMaps(labels=labels, num_classes=2).features().unflatten(1, (16, 2))
    assert torch.equal(features[0], torch.tensor([1.0, 0.0]).expand(16, 2))
    assert features[1, 0].tolist() == [0.0, 1.0]
    assert torch.equal(features[1, 1:], features[0, 1:])


def test_the_summary_of_labels_tells_what_was_shown() -> None:
    summary = with_instances().summarise()
    assert (summary["num_classes"], summary["classes"], summary["instances"]) == (2, [0, 1], True)


@pytest.mark.parametrize("name", ["text", "noise"])
def test_what_has_no_picture_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="no picture"):
        KINDS[name].draw(8, 8)
    with pytest.raises(ValueError, match="cannot be cropped"):
        KINDS[name].crop((0, 0, 1, 1))


def test_plate_is_the_same_in_every_frame() -> None:
    drawn = KINDS["background"].draw(6, 8)
    assert drawn.shape == (T, 3, 6, 8)
    assert torch.equal(drawn[0], drawn[-1])


@every_kind
def test_summary_is_json_able(signal: Conditioning) -> None:
    import json

    summary = json.loads(json.dumps(signal.summarise()))
    assert summary["kind"] == signal.kind
    assert summary["frames"] == T
