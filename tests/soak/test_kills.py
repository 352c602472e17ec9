"""Kill it anywhere: the same command again gives, bit for bit, what an undisturbed run gives."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import killing
import pytest
import torch
from killing import ENDS, LOOKED, End, Fate
from safetensors import safe_open

from vidsynth import stages, tracking, video
from vidsynth.clip import Clip
from vidsynth.files import writing
from vidsynth.stream import Chunk
from vidsynth.worlds import write_video_with_sound

Made = dict[str, object]


def film(path: Path, num_frames: int, pace: int) -> None:
    """A bright square that walks over grey, with a tone."""
    frames = torch.full((num_frames, 3, 32, 32), 90, dtype=torch.uint8)
    for t in range(num_frames):
        x = pace * t % 22
        frames[t, 0, 10:20, x : x + 10] = 230
    pts = torch.arange(num_frames, dtype=torch.float64) / 25
    tone = 0.2 * torch.sin(torch.arange(num_frames * 640) / 9).numpy()
    chunk = Chunk(pts, Clip(frames, pts))
    write_video_with_sound(path, iter([chunk]), fps=Fraction(25), samples=tone)


def begin(folder: Path) -> Path:
    (folder / "out").mkdir(parents=True)
    film(folder / "source.mp4", 40, 1)
    film(folder / "target.mp4", 60, 2)
    (folder / "square.toml").write_text(killing.RECIPE)
    return folder


def attempt(folder: Path, end: End | None, count: object = None) -> int:
    """Run the command; its exit code, negative for a signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killing", "handling"])
    process = context.Process(target=killing.run, args=(str(folder), end, count))
    process.start()
    process.join(600)
    if process.is_alive():
        process.kill()
        pytest.fail(f"hangs; it said: {said(folder)[-2000:]}")
    assert process.exitcode is not None
    return process.exitcode


def said(folder: Path) -> str:
    return (folder / killing.LOG).read_text()


def made(folder: Path) -> Made:
    """All that a transfer leaves, but for how long it took."""
    card = json.loads((folder / "subject/subject.json").read_text())
    for name in ("seconds", "trained"):
        card.pop(name)
    for row in card["scores"]:
        row.pop("seconds")
    state = torch.load(folder / "subject/training/state.pt", weights_only=True)
    for name in ("checksum", "seconds", "scores"):
        state.pop(name)
    files = ("out/out.mp4.toml", "subject/generator.safetensors")
    return {
        **{name: (folder / name).read_bytes() for name in files},
        "film": packets(folder / "out/out.mp4"),
        "card": card,
        "state": _plain(state),
    }


def packets(path: Path) -> list[object]:
    """Pictures and sound to the bit; a signature round them is another every time."""
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, p.dts, bytes(p)) for p in container.demux()]


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def left_over(folder: Path) -> list[str]:
    """Temporary files and locks; the part of a film that Ctrl-C kept is the user's."""
    names = [p for p in folder.rglob("*") if p.name.startswith(".")]
    for unfinished in (folder / "cache/rendering", folder / "cache" / tracking.NOTES):
        names += list(unfinished.iterdir()) if unfinished.exists() else []
    return [str(p.relative_to(folder)) for p in names]


def progress(folder: Path) -> tuple[int, int, int]:
    """Steps, frames and clips looked at that are safe by now."""
    state = folder / "subject/training/state.pt"
    steps = torch.load(state, weights_only=True)["step"] if state.exists() else 0
    chunks = 0
    for memory in (folder / "cache").glob("rendering/*/memory.safetensors"):
        with safe_open(memory, "pt") as file:  # a chunk counts when what follows it is known
            chunks = int(file.metadata()["chunks"])
    looked = 0
    for page in (folder / "cache" / tracking.NOTES).rglob("[0-9]*.safetensors"):
        with safe_open(page, "pt") as file:
            looked += int(file.metadata()["findings"])
    return steps, chunks * stages.CHUNK, looked


def test_a_job_that_is_killed_anywhere_ends_like_one_that_was_not(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(request.config.getoption("--soak-seed"))
    wanted = request.config.getoption("--soak-kills")
    count = multiprocessing.get_context("forkserver").Array("i", 2)
    whole = begin(tmp_path / "whole")
    assert attempt(whole, None, count) == 0, said(whole)
    requests, milliseconds = count[:]
    truth = made(whole)
    assert not left_over(whole)
    killed, lives = Counter[str](), 0
    while sum(killed.values()) < wanted:
        lives += 1
        folder = begin(tmp_path / f"life{lives}")
        code = 1
        while code != 0:
            how = ENDS[sum(killed.values()) % len(ENDS)]
            last = requests if how != "clock" else milliseconds
            end = End(how, rng.randrange(1, last), rng.getrandbits(30))
            safe, before = progress(folder), len(said(folder)) if killed and code != 1 else 0
            code = attempt(folder, end if sum(killed.values()) < wanted else None)
            assert code in (0, 130, -signal.SIGKILL), f"{end}: {code}; {said(folder)[-3000:]}"
            check_what_was_repeated(safe, said(folder)[before:], said(whole).count(LOOKED))
            killed[how] += code != 0
        assert made(folder) == truth, f"life {lives} after {killed}"
        assert not left_over(folder), left_over(folder)
        clip = Clip.concat([c.clip for c in video.read_chunks(folder / "out/out.mp4") if c.clip])
        assert len(clip) == 40
        print(f"{sum(killed.values())} kills in {lives} lives: {dict(killed)}", flush=True)
    record_property("killed", dict(killed))


def test_a_power_cut_spares_what_was_told_to_the_disk_and_not_the_rest(tmp_path: Path) -> None:
    lost = Counter[str]()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "old").write_text("as it was")
        os.utime(folder / "old", (0, 0))
        fate = Fate(folder, End("power", 10**9, seed))
        with fate.watched_disk(), writing(folder / "told") as temporary:
            temporary.write_text("whole")
        (folder / "loose").write_text("whole")
        (folder / "new").write_text("as it is")
        fate.disk.renamed(folder / "new", folder / "old")
        (folder / "new").rename(folder / "old")
        fate.disk.cut_power()
        assert (folder / "told").read_text() == "whole"
        lost["content"] += (folder / "loose").read_text() != "whole"
        lost["name"] += (folder / "old").read_text() == "as it was"
    assert lost["content"] > 10 and 0 < lost["name"] < 20


def check_what_was_repeated(safe: tuple[int, int, int], words: str, looks: int) -> None:
    """What was safe when a run began is gone on with; a whole run takes so many looks."""
    steps, frames, looked = safe
    assert words.count(LOOKED) <= looks - looked, words
    went_on = re.findall(r"going on from step (\d+)", words)
    assert all(int(step) >= steps for step in went_on), words
    frames_kept = re.findall(r"(\d+) frames are made already", words)
    assert all(int(n) >= frames for n in frames_kept), words
