"""Hostile artefacts: nothing in a subject folder, a cache or a weight file is ever executed."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import CONDITIONS, TinyGenerator, tiny_card

from vidsynth import registry, retarget, weights
from vidsynth.checkpoint import STATE, load_state
from vidsynth.checksums import checksum
from vidsynth.conditioning import Conditioning, FaceSequence
from vidsynth.errors import BadSubject, VidsynthError
from vidsynth.facemesh import load_face_mesh
from vidsynth.recipes import load_recipe
from vidsynth.several import Several, several
from vidsynth.subject import CARD, PluginRef, load_subject, save_card, save_weights
from vidsynth.testing import nodding_face, sliding_labels, waving_person
from vidsynth.testing.samples import SignalMaker
from vidsynth_plugins.face3d.model import EXPRESSIONS
from vidsynth_plugins.face3d.sequence import Face3D

CPU = torch.device("cpu")
TINY = EntryPoint("tiny", "tiny:TinyGenerator", registry.group("generator"))


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._place,)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound subject."""
    monkeypatch.setattr("vidsynth.subject.Subject.conditions", lambda self: CONDITIONS)
    place = tmp_path / "subject"
    square = PluginRef(name="square")
    card = tiny_card(extractor=square, height=48, width=64, window=(0, 0, 64, 48))
    save_card(place, card)
    generator = TinyGenerator(TinyGenerator.Options(width=4), conditions=CONDITIONS)
    save_weights(place, generator.network.state_dict())
    return place


def opened(folder: Path) -> None:
    with registry.only([TINY]):
        load_subject(folder).generator(CPU)


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "a pickle": lambda p: p.write_bytes(pickle.dumps(Payload(p.parent / "executed"))),
    "nothing": lambda p: p.write_bytes(b""),
    "a giant header": lambda p: p.write_bytes(header(b"{}", 1 << 62)),
    "a header of nothing": lambda p: p.write_bytes(header(b"{}")),
    "a tensor beyond the file": lambda p: p.write_bytes(
        header(b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}')
    ),
    "a shape that overflows": lambda p: p.write_bytes(
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}')
    ),
    "other names": lambda p: save_file({"../../x": torch.zeros(3)}, p),
    "other shapes": lambda p: save_file({"0.weight": torch.zeros(3)}, p),
    "no floats": lambda p: save_file({"0.weight": torch.zeros(3, dtype=torch.int64)}, p),
    "a folder": lambda p: p.mkdir(),
    "a link to itself": lambda p: p.symlink_to(p),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_hostile_weights_of_a_subject_are_refused(folder: Path, what: str) -> None:
    opened(folder)
    path = folder / "generator.safetensors"
    path.unlink()
    WEIGHTS[what](path)
    with pytest.raises(BadSubject):
        opened(folder)
    assert not (folder / "executed").exists()


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    generator = TinyGenerator(TinyGenerator.Options(width=4), conditions=CONDITIONS)
    state = generator.network.state_dict()
    state["0.bias"][1] = float("nan")
    save_weights(folder, state)
    with pytest.raises(BadSubject, match=r"0\.bias is no number"):
        opened(folder)


def test_no_checkpoint_and_no_weight_file_executes_anything(tmp_path: Path) -> None:
    payload = pickle.dumps(Payload(tmp_path / "executed"))
    (tmp_path / STATE).write_bytes(payload)
    with pytest.raises(BadSubject, match="damaged"):
        load_state(tmp_path, None, {}, None, CPU)  # pyright: ignore[reportArgumentType]
    torch.save({"w": Payload(tmp_path / "executed")}, tmp_path / "zipped.pth")
    (tmp_path / "bare.pth").write_bytes(payload)
    with zipfile.ZipFile(tmp_path / "out.pth", "w") as archive:
        archive.writestr("../outside", "x")
        archive.writestr("archive/data.pkl", payload)
    for name in ("zipped.pth", "bare.pth", "out.pth"):
        with pytest.raises(VidsynthError):
            weights.read(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path.parent / "outside").exists()
    torch.load(tmp_path / "zipped.pth", weights_only=False)  # the payload is a real one
    assert (tmp_path / "executed").exists()


ODD: tuple[Any, ...] = (
    None, -1, 0, 10**12, 1e999, float("nan"), "", "../../etc/passwd", "1/0", [], {}, [1], True,
    {"name": "../../x"}, {"name": "os:system", "options": {}}, [0, 0, 10**9, 10**9], "\x00",
)  # fmt: skip


def test_a_card_with_odd_values_is_opened_or_refused(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    sound = json.loads((folder / "subject.json").read_text())
    rng = random.Random(request.config.getoption("--soak-seed"))
    refused = 0
    for number in range(300):
        values = json.loads(json.dumps(sound))
        for name in rng.sample(sorted(values), rng.choice((1, 1, 2))):
            values[name] = rng.choice(ODD)
        (folder / "subject.json").write_text(json.dumps(values))
        try:
            opened(folder)
        except VidsynthError as error:
            refused += 1
            assert "; " in str(error), (number, values)
    assert refused > 100
    text = json.dumps(sound)
    for broken in ("[" * 100_000, text[:50], text.replace("dance", "\ud800")):
        (folder / "subject.json").write_bytes(broken.encode(errors="surrogatepass"))
        with pytest.raises(BadSubject):
            opened(folder)


def some_face3d(num_frames: int, height: int, width: int) -> Face3D:
    """A nodding face that a 3D model was fitted to."""
    face = nodding_face(num_frames, height, width)
    numbers = {"expression": len(EXPRESSIONS), "gaze": 4, "illumination": 27}
    parameters = {name: torch.full((num_frames, n), 0.1) for name, n in numbers.items()}
    return Face3D(
        **{name: getattr(face, name) for name in (*FaceSequence.per_frame, "frame_size")}
        | {"parameters": parameters, "shape": torch.from_numpy(load_face_mesh().vertices.copy())}
    )


def some_of_both(num_frames: int, height: int, width: int) -> Several:
    members = tuple(make(num_frames, height, width) for make in (nodding_face, sliding_labels))
    return several(*map(type, members))(members=members)


def damaged(value: Any, rng: random.Random) -> Any:
    """A copy of JSON-able `value` in which one thing, wherever it is, is odd or gone."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice((*ODD, "AAAA", [0.5] * 3, -value if isinstance(value, float) else 1e30))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    chosen = rng.choice(keys)
    if rng.random() < 0.1:
        rest = [key for key in keys if key != chosen]
        return {k: value[k] for k in rest} if isinstance(value, dict) else [value[k] for k in rest]
    changed = {key: damaged(value[key], rng) if key == chosen else value[key] for key in keys}
    return changed if isinstance(value, dict) else list(changed.values())


MAKERS = [waving_person, nodding_face, sliding_labels, some_face3d, some_of_both]


@pytest.mark.parametrize("make", MAKERS)
def test_a_damaged_summary_is_a_sentence_or_does_no_harm(
    folder: Path, make: SignalMaker, request: pytest.FixtureRequest
) -> None:
    signal = make(26, 48, 64)
    sound = json.loads((folder / CARD).read_text()) | {"summary": retarget.summarise(signal)}
    rng = random.Random(request.config.getoption("--soak-seed"))
    refused = 0
    for number in range(-1, request.config.getoption("--soak-cases") // 4):
        summary = sound["summary"] if number < 0 else damaged(sound["summary"], rng)
        (folder / CARD).write_text(json.dumps({**sound, "summary": summary}))
        try:
            fitted = retarget.retarget(signal, load_subject(folder).card.summary).sequence
            fitted[:1].draw(16, 16)
        except VidsynthError as error:
            refused += 1
            assert number >= 0 and "; " in str(error), (number, str(error))
    assert refused > 0.5 * number


@pytest.mark.parametrize("make", MAKERS)
def test_saved_conditioning_that_is_damaged_is_never_believed(
    tmp_path: Path, make: SignalMaker, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "a.safetensors"
    signal = make(4, 8, 8)
    signal.save(path, pts="[0.0, 0.04, 0.08, 0.12]")
    sound = path.read_bytes()
    assert len(type(signal).load(path)) == 4
    rng = random.Random(request.config.getoption("--soak-seed"))
    (length,) = struct.unpack("<Q", sound[:8])
    for number in range(request.config.getoption("--soak-cases")):
        data = bytearray(sound)
        where = rng.randrange(length + 8) if number % 2 else rng.randrange(length + 8, len(sound))
        data[where] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = type(signal).load(path)
            assert checksum(parts(found)) == checksum(parts(signal))  # what was hit is no part
        except VidsynthError as error:
            assert "; " in str(error)


def parts(signal: Conditioning) -> list[object]:
    return list(signal.packed())


def test_a_recipe_is_data(tmp_path: Path) -> None:
    for text in ("summary = 1", "[generator]\nplugin = 3", "x = [" * 5000, "\x00", "size = -1"):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(VidsynthError):
            load_recipe(str(tmp_path / "a.toml"))
