"""Plugins are listed from metadata, imported on use, and fail one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, PathDistribution, distributions
from pathlib import Path

import pytest

from vidsynth import registry
from vidsynth.errors import PluginError, UnknownName


def install(folder: Path, distribution: str, **plugins: str) -> None:
    """A distribution's metadata, as pip leaves it: name -> "module:Class" generators."""
    info = folder / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = "".join(f"{name} = {value}\n" for name, value in plugins.items())
    (info / "entry_points.txt").write_text(f"[vidsynth.generators]\n{lines}")


def offered(folder: Path) -> list[EntryPoint]:
    return [e for d in distributions(path=[str(folder)]) for e in d.entry_points]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules and metadata, on the import path."""
    (tmp_path / "good_module.py").write_text("class Good: ...\nnot_a_class = 3\n")
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no such operator')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("good_module", "broken_module"):
        sys.modules.pop(name, None)


def test_listing_imports_nothing(site: Path) -> None:
    install(site, "acme", good="good_module:Good", broken="broken_module:Broken")
    with registry.only(offered(site)):
        assert registry.names("generator") == ["broken", "good"]
        info = registry.describe("generator", "good")
    assert (info.distribution, info.version) == ("acme", "1.2")
    assert (info.module, info.attribute) == ("good_module", "Good")
    assert "good_module" not in sys.modules


def test_a_plugin_is_imported_on_first_use(site: Path) -> None:
    install(site, "acme", good="good_module:Good")
    with registry.only(offered(site)):
        assert registry.load("generator", "good") is sys.modules["good_module"].Good


def test_a_failed_import_keeps_its_cause_and_hurts_no_other(site: Path) -> None:
    install(site, "acme", good="good_module:Good", broken="broken_module:Broken")
    with registry.only(offered(site)):
        with pytest.raises(PluginError, match=r"'broken' of acme 1\.2.*no such operator") as caught:
            registry.load("generator", "broken")
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert registry.load("generator", "good").__name__ == "Good"


def test_a_missing_attribute_is_a_plugin_error(site: Path) -> None:
    install(site, "acme", gone="good_module:Gone")
    with registry.only(offered(site)), pytest.raises(PluginError, match="Gone"):
        registry.load("generator", "gone")


def test_what_is_no_class_is_refused(site: Path) -> None:
    install(site, "acme", odd="good_module:not_a_class")
    with registry.only(offered(site)), pytest.raises(PluginError, match="no class but 3"):
        registry.load("generator", "odd")


def test_a_clash_is_an_error_that_the_full_name_resolves(site: Path) -> None:
    install(site, "acme", paint="good_module:Good")
    install(site, "other", paint="broken_module:Broken", alone="good_module:Good")
    with registry.only(offered(site)):
        assert registry.names("generator") == ["acme:paint", "alone", "other:paint"]
        with pytest.raises(PluginError, match="'acme:paint' or 'other:paint'"):
            registry.load("generator", "paint")
        assert registry.load("generator", "acme:paint").__name__ == "Good"
        assert registry.load("generator", "other:alone").__name__ == "Good"


def test_an_unknown_name_proposes_the_nearest(site: Path) -> None:
    install(site, "acme", pix2pixhd="good_module:Good")
    with (
        registry.only(offered(site)),
        pytest.raises(UnknownName, match=r"no generator 'pix2pixdh'; did you mean 'pix2pixhd'\?"),
    ):
        registry.load("generator", "pix2pixdh")


def test_kinds_do_not_see_each_other(site: Path) -> None:
    install(site, "acme", good="good_module:Good")
    with registry.only(offered(site)):
        assert registry.names("extractor") == []
        with pytest.raises(UnknownName):
            registry.describe("extractor", "good")


def test_only_ends_with_its_block(site: Path) -> None:
    with registry.only([]):
        assert registry.names("generator") == []
    assert "pix2pixhd" in registry.names("generator")


def test_an_unknown_kind_is_misuse() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        registry.names("generators")  # pyright: ignore[reportArgumentType]


def test_listing_everything_reads_each_package_once(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "acme", **{f"plugin{n}": "good_module:Good" for n in range(20)})
    found = offered(site)
    reads = []
    real = PathDistribution.metadata
    monkeypatch.setattr(
        PathDistribution, "metadata", property(lambda d: (reads.append(d), real.fget(d))[1])
    )
    with registry.only(found):
        assert len(registry.installed()) == 20
    assert len(reads) <= 2  # the name and the rest


@pytest.mark.parametrize(
    ("listed", "may_run"),
    [
        ("", []),
        ("acme", ["alone", "paint"]),
        ("Other-Package", ["paint"]),
        ("acme:alone other.package:paint", ["alone", "paint"]),
        ("acme, other_package", ["acme:paint", "alone", "other_package:paint"]),
    ],
)
def test_only_packages_on_the_list_may_run(
    site: Path, monkeypatch: pytest.MonkeyPatch, listed: str, may_run: list[str]
) -> None:
    install(site, "acme", paint="good_module:Good", alone="good_module:Good")
    install(site, "other_package", paint="broken_module:Broken")
    monkeypatch.setenv(registry.ALLOWED, listed)
    with registry.only(offered(site)):
        assert registry.names("generator") == may_run
        assert len(registry.installed()) == 3  # all are shown
        refused = {"acme:alone", "acme:paint", "other_package:paint"} - {
            i.full_name for i in registry.installed() if i.allowed
        }
        for name in refused:
            with pytest.raises(PluginError, match="may not run; add"):
                registry.load("generator", name)
    assert "broken_module" not in sys.modules and "good_module" not in sys.modules


def test_our_own_plugins_always_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.ALLOWED, "")
    assert registry.load("metric", "psnr").__name__ == "PSNR"


def test_what_a_broken_plugin_lacks_is_named_with_the_command(site: Path) -> None:
    install(site, "acme", broken="lacking_module:Broken")
    (site / "lacking_module.py").write_text("import a_package_that_is_not_there\n")
    with (site / "acme-1.2.dist-info" / "METADATA").open("a") as file:
        file.write("Requires-Dist: a-package-that-is-not-there>=2\nRequires-Dist: pytest\n")
        file.write('Requires-Dist: never>=1; extra == "more"\nRequires-Dist: vidsynth<0.0.1\n')
    with registry.only(offered(site)):
        info = registry.describe("generator", "broken")
        assert registry.missing_requirements(info) == [
            "a-package-that-is-not-there>=2",
            "vidsynth<0.0.1",
        ]
        with pytest.raises(PluginError, match='pip install "a-package-that-is-not-there>=2"'):
            registry.load("generator", "broken")


def test_a_malformed_entry_point_hurts_no_other(site: Path) -> None:
    install(site, "acme", odd="not a module at all", good="good_module:Good")
    with registry.only(offered(site)):
        assert [i.name for i in registry.installed()] == ["good", "odd"]
        with pytest.raises(PluginError, match=r"'not a module at all'.*author of acme"):
            registry.load("generator", "odd")
        assert registry.load("generator", "good").__name__ == "Good"


def test_a_package_whose_entry_points_are_damaged_hides_no_other(site: Path) -> None:
    install(site, "acme", paint_well="good_module:Good")
    install(site, "damaged", gone="good_module:Good")
    (site / "damaged-1.2.dist-info" / "entry_points.txt").write_bytes(b"[\xff\xfe")
    assert "paint_well" in registry.names("generator")
    assert "pix2pixhd" in registry.names("generator")
    (complaint,) = registry.survey()[1]
    assert "damaged" in complaint and "pip install" in complaint
