"""Hostile plugins in the small: the broken one is named, and everything else keeps working."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from time import monotonic

import hostile
import pytest
import torch
from click.testing import CliRunner
from tiny import CONDITIONS, moving_square

from vidsynth import pipeline, registry, stages, stream, video
from vidsynth.cli import main
from vidsynth.clip import Clip, VideoSpec
from vidsynth.errors import PluginError, StageFailed, VidsynthError
from vidsynth.stream import Chunk

EXTRACTORS = {
    "Raises": "KeyError.*lost",
    "TooShort": "gave 7 frames for a clip of 8",
    "EndsEarly": "nothing from 0.32 s on",
    "StopsAsking": "nothing from 0.32 s on",
    "TooOften": "gave 8 frames for a clip of 0",
    "AnotherKind": "gave FaceSequence instead of labels",
    "NoConditioning": "gave dict instead of labels",
    "PartsDiffer": "frames for a clip of 8",
    "NoNumbers": "numbers that are none",
    "OptionsNoDataclass": "no usable options.*frozen dataclass",
    "OptionsWithoutDefault": "cannot be built.*threshold.*a default",
    "OptionsOfNoType": "cannot be built.*Flaot",
    "OptionsThatRefuse": "cannot be built.*nothing is right",
    "Lacking": "lacks what every extractor has; define extract",
    "Nothing": "is no Extractor; derive",
    "gone": "cannot be imported.*no_such_module",
    "falls": "cannot be imported.*RuntimeError: no operator",
}


def offered(kind: registry.Kind, names: Iterator[str] | list[str]) -> list[EntryPoint]:
    where = {"gone": "no_such_module:Gone", "falls": "falls_on_import:Falls"}
    group = registry.group(kind)
    return [EntryPoint(n, where.get(n, f"hostile:{n}"), group) for n in names]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All the hostile plugins, beside vidsynth's own."""
    (tmp_path / "falls_on_import.py").write_text("raise RuntimeError('no operator')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ours = [e for kind in registry.KINDS for e in entry_points(group=registry.group(kind))]
    theirs = offered("extractor", ["Fine", *EXTRACTORS])
    theirs += offered("stage", ["Delays", "Swallows", "Doubles", "GivesClips"])
    theirs += offered("metric", ["Counts", "CountsNothing", "CountsAndFalls", "CountsLoosely"])
    with registry.only([*ours, *theirs]):
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    clip, _ = moving_square(24, 32)
    video.write_video(path, iter([Chunk(clip.pts, clip)]), fps=Fraction(25))
    return path


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_broken_extractor_is_named_in_a_sentence(film: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "seen.safetensors"
    said = CliRunner().invoke(main, ["extract", str(film), "-o", str(output), "--extractor", name])
    assert said.exit_code in (1, 2) and isinstance(said.exception, SystemExit), said.exception
    (line,) = [line for line in said.output.splitlines() if line.startswith("error: ")]
    assert name in line and "; " in line and "Traceback" not in said.output
    assert re.search(EXTRACTORS[name], line), line
    assert not output.exists() and not list(tmp_path.glob(".*"))
    # The next one, which is sound, is none the worse for it.
    fine = CliRunner().invoke(
        main, ["extract", str(film), "-o", str(output), "--extractor", "Fine"]
    )
    assert fine.exit_code == 0 and output.exists(), fine.output


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("PaintsFewer", PluginError, "PaintsFewer gave 7 frames for a chunk of 8"),
        ("PaintsSmaller", PluginError, "PaintsSmaller gave frames of 16x15 instead of 16x16"),
        ("PaintsTensors", PluginError, "PaintsTensors gave Tensor instead of a clip"),
        ("PaintsFloats", StageFailed, "PaintsFloats.*frames must be uint8"),
        ("PaintsOnce", PluginError, "PaintsOnce gave nothing from 0.32 s on"),
        ("PaintsAndFalls", StageFailed, "PaintsAndFalls.*at frame 0.*out of paint"),
    ],
)
def test_a_broken_generator_is_named(name: str, fault: type[VidsynthError], words: str) -> None:
    def painted(name: str) -> list[Clip]:
        generator = getattr(hostile, name)(conditions=CONDITIONS)
        clip, labels = moving_square(16)
        spec = VideoSpec(height=16, width=16, fps=Fraction(25))
        line = [
            stages.conditioning_on(labels),
            stages.generating(generator, spec, seed=0, device=torch.device("cpu")),
        ]
        made: list[Clip] = []
        stream.run(stages.timeline(clip.pts), line, lambda c: made.extend(stages.clips_of(c)))
        return made

    with pytest.raises(fault, match=words):
        painted(name)
    assert sum(map(len, painted("Paints"))) == 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Delays", "Delays gave frames of other times"),
        ("Swallows", "Swallows gave frames of other times"),
        ("Doubles", "Doubles gave frames of other times than it took, or more"),
        ("GivesClips", "GivesClips gave Clip instead of a chunk"),
    ],
)
def test_a_broken_stage_is_named(film: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        pipeline.run(film, [pipeline.stage(name)], tmp_path / "made.mp4", audio="none")
    assert [path.name for path in tmp_path.iterdir()] == ["falls_on_import.py"]


def test_a_broken_metric_is_named_and_the_others_measure(film: Path) -> None:
    names = ("CountsNothing", "CountsAndFalls", "CountsLoosely", "Counts")
    asked = [word for name in names for word in ("--metric", name)]
    said = CliRunner().invoke(main, ["eval", str(film), str(film), *asked]).output
    told = re.sub(r"\s+", " ", said)
    assert "Traceback" not in said
    assert "'CountsAndFalls' failed (ZeroDivisionError: by zero)" in told, said
    assert "'CountsNothing' gave" in told and "'CountsLoosely' gave 3 and no number" in told, said
    assert re.search(r"Counts \S +7", said), said


def test_the_doctor_names_what_is_broken_and_what_works() -> None:
    lines = CliRunner().invoke(main, ["plugins", "doctor"]).output.splitlines()
    broken = [line for line in lines if line.startswith("!")]
    for name in ("Lacking", "Nothing", "OptionsOfNoType", "gone", "falls"):
        assert any(f"'{name}'" in line for line in broken), name
    assert any(line.startswith("extractor 'Fine'") and line.endswith("works") for line in lines)
    assert any(line.startswith("extractor 'pose'") and line.endswith("works") for line in lines)


def test_who_does_not_ask_for_them_hears_nothing_of_them(tmp_path: Path) -> None:
    info = tmp_path / "noisy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1.0\n")
    lines = "".join(
        f"[{registry.group(kind)}]\nnoisy = noisy:Noisy\nend = ends:End\n"
        for kind in registry.KINDS
    )
    (info / "entry_points.txt").write_text(lines)
    (tmp_path / "noisy.py").write_text("print('NOISE')\nclass Noisy: ...\n")
    (tmp_path / "ends.py").write_text("import os\nos._exit(7)\n")
    for line in ("--help", "plugins list", "transfer --help"):
        done = subprocess.run(
            [sys.executable, "-m", "vidsynth.cli", *line.split()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "NOISE" not in done.stdout + done.stderr, line
        assert done.returncode == 0, (line, done.stderr)


def test_ctrl_c_ends_what_hangs_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "GRACE", 0.2)
    clip, _ = moving_square(40)
    chunks = (Chunk(clip.pts[n : n + 8], clip[n : n + 8]) for n in range(0, 40, 8))
    interrupt = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, 2))
    interrupt.start()
    began = monotonic()
    with pytest.raises(KeyboardInterrupt) as stopped:
        stream.run(chunks, [stages.extracting(hostile.Hangs())])
    hostile.RELEASED.set()
    assert monotonic() - began < 10
    (note,) = stopped.value.__notes__
    assert re.match(r"stage 'extract by Hangs' at frame 8 \(0\.00 s\) has given nothing for", note)
