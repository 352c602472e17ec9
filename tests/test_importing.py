"""Published weights take the place of a subject's own, or are refused and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny import tiny_card
from torch import Tensor

from vidsynth.cli import main
from vidsynth.errors import BadSubject, BadWeights
from vidsynth.importing import import_weights
from vidsynth.kinds import Generator
from vidsynth.subject import PluginRef, load_subject, save_card, save_weights

OLD = {"old": torch.zeros(1)}


def published_generator(channels: int = 3) -> dict[str, Tensor]:
    """A global generator of 8 filters, 1 downsampling and 1 block, in the published naming."""
    shapes = {
        "model.1": (8, channels, 7, 7),
        "model.4": (16, 8, 3, 3),
        "model.7.conv_block.1": (16, 16, 3, 3),
        "model.7.conv_block.5": (16, 16, 3, 3),
        "model.8": (16, 8, 3, 3),  # transposed: in, out
        "model.12": (3, 8, 7, 7),
    }
    rng = torch.Generator().manual_seed(0)
    weights = {f"{n}.weight": torch.randn(s, generator=rng) / 20 for n, s in shapes.items()}
    widths = {n: s[1] if n == "model.8" else s[0] for n, s in shapes.items()}
    return weights | {f"{n}.bias": torch.full((w,), 0.01) for n, w in widths.items()}


def checksum(weights: Tensor) -> float:
    return float(weights.double().sum())


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A subject that the pose extractor conditions, with weights to be replaced."""
    painter = PluginRef(name="pix2pixhd", options={"filters": 4})
    card = tiny_card(recipe="reference", generator=painter, channels=3)
    folder = tmp_path / "dancer"
    save_card(folder, card)
    save_weights(folder, OLD)
    return folder


def test_imported_weights_render(subject: Path, tmp_path: Path) -> None:
    file = tmp_path / "latest_net_G.pth"
    torch.save(published_generator(), file)
    refused = CliRunner().invoke(main, ["import", str(file), str(subject)])
    assert refused.exit_code == 2 and "--overwrite" in refused.output
    assert list(load_file(subject / "generator.safetensors")) == list(OLD)
    result = CliRunner().invoke(main, ["import", str(file), str(subject), "--overwrite"])
    assert result.exit_code == 0, result.output
    imported = load_subject(subject)
    assert imported.card.generator.options["filters"] == 8
    assert imported.card.generator.options["downsamplings"] == 1
    imported.generator(torch.device("cpu"))
    stored = load_file(subject / "generator.safetensors")
    given = published_generator()
    assert sorted(map(checksum, stored.values())) == sorted(map(checksum, given.values()))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (published_generator(channels=35), "not of the pix2pixhd"),
        ({"fc.weight": torch.zeros(2, 2)}, "no pix2pixHD generator"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    subject: Path, tmp_path: Path, weights: dict[str, Tensor], message: str
) -> None:
    file = tmp_path / "net.pth"
    torch.save(weights, file)
    before = (subject / "subject.json").read_bytes()
    with pytest.raises(BadSubject, match=message):
        import_weights(file, subject, overwrite=True)
    assert (subject / "subject.json").read_bytes() == before
    assert list(load_file(subject / "generator.safetensors")) == list(OLD)


def test_a_file_that_is_no_weights_is_said_to_be_none(subject: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_text("this is no network\n" * 50)
    with pytest.raises(BadWeights, match="cannot be read as weights"):
        import_weights(file, subject, overwrite=True)


def test_a_method_without_published_weights_says_so() -> None:
    with pytest.raises(BadSubject, match=r"net\.pth: Generator reads no published weights"):
        Generator.read_published(Path("net.pth"))
