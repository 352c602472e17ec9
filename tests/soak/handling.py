"""What vidsynth does with one hostile file, in a process of its own.

Every command that opens media is run on it. A command may succeed, or refuse with a sentence;
whatever else happens is a fault, named by the command.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from click.testing import CliRunner
from corpus import PLAIN, Case, Corpus, write

from vidsynth import video
from vidsynth.cli import main
from vidsynth.errors import VidsynthError
from vidsynth.stream import Chunk

ADDRESSES = 3 << 30
"""Bytes of address space that a case may take beyond what the process begins with."""

CPU_SECONDS = 30.0
"""That a case may compute; the clock on the wall says more of what else the machine does."""

Command = Callable[[Path, Path, Path], None]  # (hostile file, sound file, output folder)


def look(path: Path, sound: Path, output: Path) -> None:
    info = video.probe(path)
    video.content_hash(path)
    frames = 0
    for chunk in video.read_chunks(path, note=lambda _: None):
        assert chunk.clip is not None
        assert chunk.clip.frames.shape[1:] == (3, info.spec.height, info.spec.width)
        assert bool((chunk.pts.diff() > 0).all())
        frames += len(chunk)
    assert frames > 0


def look_inside(path: Path, sound: Path, output: Path) -> None:
    video.read_frames_at(path, [0.0, 0.2, 0.32, 3.0])
    for _ in video.read_chunks(path, chunk=3, start=0.2, end=0.4, note=lambda _: None):
        pass


def copy(path: Path, sound: Path, output: Path) -> None:
    """Its pictures and its own sound into a new file, frame by frame."""
    spec = video.probe(path).spec
    longest = max(spec.height, spec.width)
    scale = min(1.0, 200 / longest)  # x264 at 8K is not what is tried here
    size = max(2, round(spec.height * scale)), max(2, round(spec.width * scale))
    chunks = video.read_chunks(path, size=size, note=lambda _: None)
    audio = None if path.is_dir() else path
    made = video.write_video(output / "copy.mp4", chunks, fps=spec.fps, audio=audio)
    assert video.probe(made.path).num_frames == made.num_frames > 0


def hear(path: Path, sound: Path, output: Path) -> None:
    """Its sound under sound pictures."""

    def pictures() -> list[Chunk]:
        return list(video.read_chunks(sound))

    video.write_video(output / "heard.mp4", pictures(), fps=Fraction(25), audio=path)


def command(*arguments: str) -> Command:
    """`vidsynth ARGUMENTS`; CASE, SOUND and OUT stand for the three paths."""

    def run(path: Path, sound: Path, output: Path) -> None:
        named = {"CASE": str(path), "SOUND": str(sound), "OUT": str(output)}
        line = [named.get(a, a.replace("OUT/", f"{output}/")) for a in arguments]
        result = CliRunner().invoke(main, line)
        if result.exit_code == 0:
            return
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        said = result.output.strip()
        assert result.exit_code in (1, 2) and "error: " in said, said
        assert "Traceback" not in said and "Usage:" not in said, said
        raise VidsynthError(said[said.rindex("error: ") :])

    run.__name__ = " ".join(arguments[:1])
    return run


LABELS = ("--steps", "1", "--size", "32", "-s", "generator.filters=4", "-s", "generator.blocks=1")
ALWAYS: tuple[Command, ...] = (look, look_inside, copy, hear)
IN_TURN: tuple[Command, ...] = (
    command("extract", "-o", "OUT/a.safetensors", "--", "CASE"),
    command("eval", "--metric", "psnr", "--", "CASE", "SOUND"),
    command("train", "--labels", "CASE", "-o", "OUT/subject", *LABELS, "--", "CASE"),
    command("transfer", "--recipe", "dance", "-o", "OUT/a.mp4", "--", "CASE", "SOUND"),
    command("extract", "--extractor", "face", "-o", "OUT/a.safetensors", "--", "CASE"),
    command("transfer", "-o", "OUT/b.mp4", "--", "SOUND", "CASE"),
    command("render", "-o", "OUT/c.mp4", "--", "CASE", "SOUND"),
    command("import", "--", "CASE", "OUT"),
)


def handled(case: Case, number: int, sound: Path, output: Path) -> dict[str, str]:
    """Command -> "fine", "refused: a sentence", or "FAULT: what happened"."""
    found = {}
    in_turn = IN_TURN[number // 4 % len(IN_TURN)]
    for run in (*ALWAYS, *([in_turn] if number % 4 == 0 else [])):
        name = run.__name__
        into = output / name
        into.mkdir()
        try:
            run(case.path, sound, into)
            found[name] = "fine"
        except VidsynthError as error:
            said = str(error)
            whole = len(said) > 15 and ("; " in said or ": " in said)
            found[name] = f"refused: {said}" if whole else f"FAULT: no sentence: {said!r}"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            found[name] = (
                f"FAULT: {type(error).__name__}: {error} at {where.filename}:{where.lineno}"
            )
        kept = (into / "subject",) if run is not in_turn or found[name] == "fine" else ()
        left = [p.name for p in into.rglob("*") if p.is_file() and not {*kept} & {*p.parents}]
        if left and (found[name] != "fine" or any(".partial" in name for name in left)):
            found[f"{name} leaves"] = f"FAULT: {', '.join(left)}"
    return found


def work(connection: Connection, seed: int, folder: str) -> None:
    """Serve case numbers until told None; each answer is (name, outcomes, peak MB)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs chatter there
    os.environ["VIDSYNTH_CACHE"], os.environ["VIDSYNTH_OFFLINE"] = f"{folder}/cache", "1"
    torch.set_num_threads(1)
    if sys.platform == "linux":
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESSES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    place = Path(folder)
    corpus = Corpus(seed, place)
    sound = write(place / "sound.mp4", PLAIN)
    while (number := connection.recv()) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        with tempfile.TemporaryDirectory(dir=place) as inside:
            case_folder, output = Path(inside) / "in", Path(inside) / "out"
            case_folder.mkdir()
            output.mkdir()
            case = corpus.make(number, case_folder)
            before = sorted(case_folder.rglob("*"))
            outcomes = handled(case, number, sound, output)
            if sorted(case_folder.rglob("*")) != before:
                outcomes["beside the input"] = "FAULT: files were left there"
        if left := [p.name for p in (place / "cache").rglob("*.partial*")]:
            outcomes["the cache"] = f"FAULT: {left}"
        connection.send((case.name, outcomes, _peak_mb()))


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
