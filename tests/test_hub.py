"""Models of many files: where they are looked for, and what is said of those that are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidsynth import hub
from vidsynth.errors import MissingWeights

KNOWN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    assert hub.locate(str(tmp_path), option="model") == tmp_path


def test_the_weights_folder_comes_before_the_network(tmp_path: Path):
    assert not hub.available(KNOWN)
    kept = tmp_path / "kept" / KNOWN
    kept.mkdir(parents=True)
    assert hub.available(KNOWN)
    assert hub.locate(KNOWN, option="model", offline=False) == kept


def test_what_the_hubs_cache_holds_is_found_offline(tmp_path: Path):
    """In the layout of huggingface_hub's cache: a revision by name, its files in a snapshot."""
    stored = tmp_path / "hub" / "models--some--body"
    snapshot = stored / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a" * 40)
    (snapshot / "model_index.json").write_text("{}")
    found = hub.locate("some/body", option="model")
    assert (found / "model_index.json").is_file()


@pytest.mark.parametrize("model", hub.MODELS.values(), ids=lambda m: m.name)
def test_what_is_missing_is_named_with_size_licence_and_place(model: hub.Model, tmp_path: Path):
    with pytest.raises(MissingWeights) as caught:
        hub.locate(model.name, option="generator.model")
    for part in (model.licence, f"{model.size_gb:.3g} GB", model.url, str(tmp_path / "kept")):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["nothing", "./here", "/no/where", "a/b/c", "~/models"])
def test_what_is_neither_a_folder_nor_a_name_is_told(name: str):
    with pytest.raises(MissingWeights, match="no OWNER/NAME"):
        hub.locate(name, option="generator.model")
