"""What `vidsynth new plugin` writes installs, passes its own tests and does real work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner

from vidsynth.cli import main
from vidsynth.scaffold import KINDS

ROOT = Path(__file__).parents[1]


def scratch_environment(folder: Path) -> Path:
    """An environment of its own that sees ours, but for what is installed into it. Its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    ours = sysconfig.get_path("purelib")
    # Not a plain path: then the editable installs of ours, themselves paths, would not count.
    line = f"import site; site.addsitedir({ours!r})\n"
    (Path(site.stdout.strip()) / "ours.pth").write_text(line)
    for command, module in {"vidsynth": "vidsynth.cli", "pip": "pip", "pytest": "pytest"}.items():
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n')
        script.chmod(0o755)
    return python


def call(*command: object, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin of each kind, named after it."""
    folder = tmp_path_factory.mktemp("written")
    for kind in KINDS:
        arguments = ["new", "plugin", f"my_{kind}", "--kind", kind, "-o", str(folder)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def python(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment in which all of them are installed, by pip."""
    python = scratch_environment(tmp_path_factory.mktemp("scratch") / "env")
    install = (python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation")
    call(*install, "--no-index", *sorted(written.iterdir()))
    return python


def test_a_plugin_of_each_kind_passes_its_own_tests(written: Path, python: Path) -> None:
    # What imports in a fresh process the tutorial below tells, of one: it takes seconds each.
    options = ("-q", "-p", "no:cacheprovider", "-k", "not imports_without_a_gpu")
    told = call(python, "-m", "pytest", *options, written, cwd=written)
    assert " passed" in told and "failed" not in told and "skipped" not in told


WORK = """
import sys
from pathlib import Path
import torch
import vidsynth
from vidsynth import pipeline, registry
from vidsynth.checkpoint import STATE

media, folder = map(Path, sys.argv[1:])
for kind in ("extractor", "generator", "discriminator", "metric", "stage"):
    about = registry.describe(kind, f"my_{kind}")
    assert about.distribution == f"vidsynth-my-{kind}", about
    assert Path(registry.load(kind, about.name).__module__).name == f"vidsynth_my_{kind}"

source, target = media / "dance_source.mp4", media / "dance_target.mp4"
both = dict(size=64, end=0.4, audio="none", device="cpu")
small = {"filters": 8, "blocks": 1, "d_filters": 8, "downsamplings": 1, "background": False}
first = vidsynth.transfer(
    source, target, folder / "first.mp4", recipe="street", generator="my_generator", steps=4,
    settings={"extractor": {"plugin": "my_extractor"}}, **both,
)
second = vidsynth.transfer(
    source, target, folder / "second.mp4", recipe="street", steps=2,
    settings={
        "extractor": {"plugin": "my_extractor"},
        "generator": {**small, "discriminator": "my_discriminator"},
    }, **both,
)
assert first.num_frames == second.num_frames > 5
assert first.subject.card.generator.distribution == "vidsynth-my-generator"
assert second.subject.card.extractor.distribution == "vidsynth-my-extractor"
state = torch.load(second.subject.folder / "training" / STATE, weights_only=True)
judged_by = [name for module in state["modules"].values() for name in module]
assert any("parametrizations.weight.original" in name for name in judged_by), judged_by

found = vidsynth.evaluate(first.path, second.path, metrics=["my_metric", "psnr"])
(edges,) = [row for row in found.tables[0].measured if row.metric == "my_metric"]
assert -100 <= edges.value <= 100 and edges.count == first.num_frames

links = [pipeline.extract("my_extractor"), pipeline.stage("my_stage", keep=0.5)]
assert pipeline.run(source, links, folder / "trails.mp4", end=0.4).num_frames == first.num_frames
print("done")
"""


def test_they_do_real_work(python: Path, tmp_path: Path) -> None:
    media = ROOT / "examples" / "media"
    assert call(python, "-c", WORK, media, tmp_path, cwd=tmp_path).endswith("done\n")


def test_what_is_written_is_as_tidy_as_our_own(written: Path) -> None:
    rules = ("--line-length", "100", "--no-cache")
    for arguments in (("check", "--select", "E,F,W,I,B,UP,SIM"), ("format", "--check")):
        call(sys.executable, "-m", "ruff", *arguments, *rules, ".", cwd=written)


@pytest.mark.parametrize("name", ["2fast", "my-plugin", "Mine", "", "a b"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    arguments = ["new", "plugin", name, "--kind", "metric", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "cannot name a plugin" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "vidsynth-mine").mkdir()
    arguments = ["new", "plugin", "mine", "--kind", "metric", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "exists already" in result.output
    assert list((tmp_path / "vidsynth-mine").iterdir()) == []


def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- tutorial: (.+?) -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert [what for what, _ in blocks].count("run") == 3 and len(blocks) == 5
    folder = scratch_environment(tmp_path / "env").parent
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_BUILD_ISOLATION": "0",  # which means yes: what pip would fetch is here
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
    }
    told = {}
    for what, block in blocks:
        if what == "run":
            for line in block.splitlines():
                told[line] = call("sh", "-c", line, cwd=tmp_path, **environment)
        else:
            assert (tmp_path / what).exists(), "the tutorial changes what the template wrote"
            (tmp_path / what).write_text(block)
    assert re.search(r"1[0-9] passed", told["vidsynth plugins check lamps"])
    assert " passed" in told["pytest vidsynth-lamps"]
    for made in ("lamps.safetensors", "lamps.mp4", "out.mp4"):
        assert (tmp_path / made).stat().st_size > 1000
