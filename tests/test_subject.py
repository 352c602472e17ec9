from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch
from tiny import CONDITIONS, TinyGenerator, tiny_card, weights_of

from vidsynth import registry
from vidsynth.errors import BadSubject, PluginError
from vidsynth.subject import (
    PluginRef,
    SubjectCard,
    build_generator,
    load_subject,
    save_card,
    save_plate,
    save_weights,
)

TINY = EntryPoint("tiny", "tiny:TinyGenerator", "vidsynth.generators")


def card(**changes) -> SubjectCard:
    made = tiny_card(
        background=True,
        height=20,
        width=30,
        fps="30000/1001",
        window=(0, 4, 16, 20),
        summary={"kind": "labels", "size": [20, 30]},
        scores=({"seconds": 60.0, "psnr": 20.0},),
        crop=(1, 2, 3, 4),
    )
    return replace(made, **changes)


def test_a_subject_survives_the_round_trip(tmp_path):
    save_card(tmp_path, card())
    loaded = load_subject(tmp_path).card
    assert loaded == card()
    assert (loaded.window_spec.height, loaded.window_spec.width) == (16, 16)


def test_the_plate_survives_to_the_bit(tmp_path):
    plate = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    save_card(tmp_path, card())
    save_plate(tmp_path, plate)
    assert torch.equal(load_subject(tmp_path).plate(), plate)


def test_a_plate_of_another_size_is_refused(tmp_path):
    save_card(tmp_path, card())
    save_plate(tmp_path, torch.zeros(3, 10, 30, dtype=torch.uint8))
    with pytest.raises(BadSubject, match=r"background\.png"):
        load_subject(tmp_path).plate()


def test_a_subject_of_a_newer_format_names_the_remedy(tmp_path):
    save_card(tmp_path, card(format=99))
    with pytest.raises(BadSubject, match=r"newer vidsynth.*upgrade"):
        load_subject(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": "x"}'])
def test_a_damaged_card_is_named(tmp_path, text):
    (tmp_path / "subject.json").write_text(text)
    with pytest.raises(BadSubject, match=r"subject\.json is damaged"):
        load_subject(tmp_path)


def test_a_card_with_a_missing_field_is_damaged(tmp_path):
    save_card(tmp_path, card())
    values = json.loads((tmp_path / "subject.json").read_text())
    del values["window"]
    (tmp_path / "subject.json").write_text(json.dumps(values))
    with pytest.raises(BadSubject, match="damaged"):
        load_subject(tmp_path)


def test_a_folder_that_is_no_subject_names_the_command(tmp_path):
    with pytest.raises(BadSubject, match="vidsynth train"):
        load_subject(tmp_path)


def test_a_missing_plugin_names_its_distribution():
    ref = PluginRef(name="gone", distribution="vidsynth-gone", version="1.2")
    with registry.only([]), pytest.raises(PluginError, match="pip install vidsynth-gone"):
        build_generator(ref, CONDITIONS)


def test_weights_are_loaded_or_what_is_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("vidsynth.subject.Subject.conditions", lambda self: CONDITIONS)
    save_card(tmp_path, card())
    cpu = torch.device("cpu")
    with registry.only([TINY]):
        with pytest.raises(BadSubject, match="first checkpoint"):
            load_subject(tmp_path).generator(cpu)
        trained = TinyGenerator(TinyGenerator.Options(width=4), conditions=CONDITIONS)
        save_weights(tmp_path, trained.network.state_dict())
        loaded = load_subject(tmp_path).generator(cpu)
        for name, value in weights_of(trained.network).items():
            assert torch.equal(loaded.network.state_dict()[name], value)
        (tmp_path / "generator.safetensors").write_bytes(b"nonsense")
        with pytest.raises(BadSubject, match="damaged"):
            load_subject(tmp_path).generator(cpu)
