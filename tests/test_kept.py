"""A rendering that broke off goes on behind its last chunk, and gives the same frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from tiny import CONDITIONS, TinyGenerator, moving_square
from torch import Tensor

from vidsynth import kept, stages, stream
from vidsynth.clip import Clip, VideoSpec
from vidsynth.kept import KeptFrames, kept_frames
from vidsynth.stream import Chunk

CPU = torch.device("cpu")
FRAMES = 44


class Dreaming(TinyGenerator):
    """Each frame follows from the one before and from chance."""

    def __init__(self) -> None:
        super().__init__(conditions=CONDITIONS)
        self.load_weights(self.network.state_dict())
        self.made = 0
        self.before: Tensor | None = None

    def memory(self) -> Mapping[str, Tensor]:
        assert self.before is not None
        return {"before": self.before}

    def go_on(self, memory: Mapping[str, Tensor]) -> None:
        self.before = memory["before"]

    def generate(
        self, chunks: Iterator[Chunk], spec: VideoSpec, *, rng: torch.Generator
    ) -> Iterator[Clip]:
        for chunk in chunks:
            maps = self.conditions.draw(chunk, spec.height, spec.width).float() / 255
            frames = []
            for fresh in self.network(maps):
                noise = torch.rand(fresh.shape, generator=rng)
                before = fresh if self.before is None else self.before
                self.before = 0.5 * before + 0.4 * fresh + 0.1 * noise
                frames.append(self.before)
            self.made += len(chunk)
            yield Clip.from_float(torch.stack(frames), chunk.pts)


class Broken(Exception):
    pass


def rendered(frames: KeptFrames | None, *, stop_after: int = FRAMES) -> tuple[Tensor, int]:
    torch.manual_seed(0)
    generator = Dreaming()
    clip, motion = moving_square(FRAMES)
    spec = VideoSpec(height=16, width=16, fps=25)
    line = stages.rendering(
        motion, generator, spec, (0, 0, 16, 16), None, None, device=CPU, kept=frames,
        steadiness=0.5,
    )  # fmt: skip
    made: list[Tensor] = []

    def sink(chunks: Iterator[Chunk]) -> None:
        for one in stages.clips_of(chunks):
            made.append(one.frames)
            if sum(map(len, made)) >= stop_after:
                raise KeyboardInterrupt

    try:
        stream.run(stages.timeline(clip.pts), line, sink, prefetch=0)
    except KeyboardInterrupt:
        if stop_after < FRAMES:
            raise
    return torch.cat(made), generator.made


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept, "WORTH", float("inf"))
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path))


def stop(at: int) -> None:
    with pytest.raises(KeyboardInterrupt), kept_frames("a film") as frames:
        rendered(frames, stop_after=at)


@pytest.mark.parametrize("at", [1, 16, 40])
def test_what_goes_on_is_bit_equal_and_repeats_nothing_but_the_last_chunk(at: int) -> None:
    whole, all_made = rendered(None)
    stop(at)
    with kept_frames("a film") as frames:
        assert frames is not None
        kept_before = frames.num_frames
        assert kept_before >= at // stages.CHUNK * stages.CHUNK
        again, made = rendered(frames)
    assert torch.equal(again, whole)
    assert all_made == FRAMES and made == FRAMES - kept_before
    assert not list(kept.cache_folder("rendering").iterdir())  # nothing is left of it


def test_other_settings_go_on_with_nothing() -> None:
    stop(24)
    with kept_frames("another film") as frames:
        assert frames is not None and frames.num_frames == 0


@pytest.mark.parametrize("name", ["000001", "memory"])
def test_damaged_chunks_are_made_again(name: str) -> None:
    whole, _ = rendered(None)
    stop(24)
    (path,) = kept.cache_folder("rendering").rglob(f"{name}*")
    path.write_bytes(path.read_bytes()[:-9])
    with kept_frames("a film") as frames:
        assert frames is not None and frames.num_frames == 0
        again, _ = rendered(frames)
    assert torch.equal(again, whole)


def test_nothing_is_kept_where_it_would_cost_more_than_it_saves(monkeypatch) -> None:
    monkeypatch.setattr(kept, "WORTH", 0.0)
    with kept_frames("a film") as frames:
        rendered(frames)
        assert frames is not None and not frames.folder.exists()


def test_a_second_process_renders_without_keeping() -> None:
    with kept_frames("a film") as ours, kept_frames("a film") as theirs:
        assert ours is not None and theirs is None


def test_what_nobody_went_on_with_goes_after_a_while() -> None:
    stop(24)
    (folder,) = kept.cache_folder("rendering").iterdir()
    os.utime(folder, (0, 0))
    with kept_frames("another film"):
        assert not folder.exists()
