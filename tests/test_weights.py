import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vidsynth import weights
from vidsynth.errors import MissingWeights, UnknownName

CONTENT = b"not really VGG19"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A "vgg19" served from a local file, with its right checksum, and an empty weights folder."""
    served = tmp_path / "served.pth"
    served.write_bytes(CONTENT)
    entry = replace(
        weights.WEIGHTS["vgg19"],
        url=served.as_uri(),
        sha256=hashlib.sha256(CONTENT).hexdigest()[:8],
    )
    monkeypatch.setattr(weights, "WEIGHTS", {"vgg19": entry})
    monkeypatch.setenv("VIDSYNTH_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.delenv("VIDSYNTH_OFFLINE", raising=False)
    return served


def test_a_download_is_checked_and_kept(published: Path):
    assert not weights.available("vgg19")
    place = weights.locate("vgg19")
    assert place == weights.folder() / "vgg19-dcbb9e9d.pth"
    assert place.read_bytes() == CONTENT
    assert weights.available("vgg19")

    published.unlink()
    assert weights.locate("vgg19") == place  # not fetched again


def test_a_damaged_download_is_refused_and_leaves_nothing(published: Path):
    published.write_bytes(CONTENT[:-1])
    with pytest.raises(MissingWeights, match="not that file"):
        weights.locate("vgg19")
    assert list(weights.folder().iterdir()) == []


def test_an_unreachable_publisher_is_told_with_size_licence_and_place(published: Path):
    published.unlink()
    with pytest.raises(MissingWeights) as caught:
        weights.locate("vgg19")
    for fact in ("575 MB", "BSD-3-Clause", str(weights.folder() / "vgg19-dcbb9e9d.pth")):
        assert fact in str(caught.value)
    assert list(weights.folder().iterdir()) == []


@pytest.mark.parametrize("value, refused", [("1", True), ("yes", True), ("0", False), ("", False)])
def test_offline_by_environment(
    published: Path, monkeypatch: pytest.MonkeyPatch, value: str, refused: bool
):
    monkeypatch.setenv("VIDSYNTH_OFFLINE", value)
    if refused:
        with pytest.raises(MissingWeights, match="not on this machine"):
            weights.locate("vgg19")
        assert weights.locate("vgg19", offline=False).is_file()
    else:
        assert weights.locate("vgg19").is_file()


def test_a_copy_of_the_user_is_used_as_it_is(published: Path, tmp_path: Path):
    own = tmp_path / "mine.pth"
    own.write_bytes(b"anything")
    assert weights.locate("vgg19", path=own) == own
    with pytest.raises(MissingWeights, match=r"gone\.pth is no file"):
        weights.locate("vgg19", path=tmp_path / "gone.pth")


def test_an_unknown_name_proposes_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'vgg19'"):
        weights.locate("vgg91")


def test_every_entry_has_a_checksum_a_licence_and_an_https_address():
    for name, entry in weights.WEIGHTS.items():
        assert entry.name == name
        assert len(entry.sha256) in (8, 64) and int(entry.sha256, 16)
        assert entry.licence and entry.size_mb > 0
        assert entry.url.startswith("https://") and entry.url.endswith(entry.file)


def test_importing_weights_imports_no_torch():
    code = "import sys, vidsynth.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
