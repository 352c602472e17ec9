"""Any length, frame-exact: as many frames out as in, at their times, with the sound in step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vidsynth import video
from vidsynth.clip import Clip
from vidsynth.stream import Chunk
from vidsynth.worlds import write_video_with_sound
from vidsynth.worlds.sound import RATE

FPS = Fraction(30000, 1001)
EVERY = 47  # frames between two flashes, each with a click

COPY = """
import sys
from fractions import Fraction
from pathlib import Path
from vidsynth import stages, stream, video
source, output = sys.argv[1:]
chunks = video.read_chunks(source, chunk=8)
stream.run(chunks, [stages.steadying(0.2)], lambda chunks: video.write_video(
    output, chunks, fps=Fraction(30000, 1001), audio=source, preset="ultrafast"))
from vidsynth.bench.measure import peak_memory
print(peak_memory())
"""


def flashing(path: Path, num_frames: int) -> Path:
    """A film that flashes and clicks at once, every EVERY frames."""

    def chunks() -> Iterator[Chunk]:
        for begin in range(0, num_frames, 100):
            index = torch.arange(begin, min(begin + 100, num_frames))
            level = torch.where(index % EVERY == 0, 235, 40).to(torch.uint8)
            frames = level[:, None, None, None].expand(-1, 3, 32, 48).contiguous()
            pts = index.double() / float(FPS)
            yield Chunk(pts, Clip(frames, pts))

    samples = np.zeros(round(num_frames / FPS * RATE), np.float32)
    for frame in range(0, num_frames, EVERY):
        at = round(frame / FPS * RATE)
        click = np.sin(np.arange(round(0.002 * RATE)) * 2 * np.pi * 2000 / RATE)
        samples[at : at + len(click)] = 0.8 * click[: len(samples) - at]
    write_video_with_sound(path, chunks(), fps=FPS, samples=samples, preset="ultrafast")
    return path


def flashes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of every frame, and of those that flash."""
    pts, bright = [], []
    for chunk in video.read_chunks(path, chunk=50):
        assert chunk.clip is not None
        pts.append(chunk.pts)
        bright.append(chunk.clip.frames.float().mean(dim=(1, 2, 3)) > 128)
    seconds = torch.cat(pts)
    return seconds.numpy(), seconds[torch.cat(bright)].numpy()


def loudness(path: Path) -> tuple[np.ndarray, int]:
    """Samples per second of the soundtrack, rectified, as players hear it."""
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        rate, pieces = track.rate, []
        for frame in container.decode(track):
            wave = np.abs(frame.to_ndarray().astype(np.float32)).reshape(-1)
            first = round(frame.time * rate)
            pieces.append(wave[max(0, -first) :])
    return np.concatenate(pieces), rate


def lag(sound: np.ndarray, rate: int, moments: np.ndarray) -> float:
    """Seconds that clicks come after the flashes, by cross-correlation, within a tenth."""
    reach = rate // 10
    expected = np.zeros(len(sound) + 2 * reach, np.float32)
    expected[np.round(moments * rate).astype(int) + reach] = 1
    padded = np.pad(sound, reach)
    length = 1 << int(np.ceil(np.log2(2 * len(padded))))
    spectrum = np.fft.rfft(padded, length) * np.conj(np.fft.rfft(expected, length))
    found = np.fft.irfft(spectrum, length)
    shifts = np.concatenate([np.arange(reach), np.arange(-reach, 0)])
    return float(shifts[np.argmax(found[shifts])]) / rate


def test_a_long_film_comes_out_frame_exact_and_in_step(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seconds = request.config.getoption("--soak-seconds")
    peaks = []
    for length in (10, seconds):
        source = flashing(tmp_path / f"{length}.mp4", round(length * FPS))
        output = tmp_path / f"{length}-out.mp4"
        command = [sys.executable, "-c", COPY, str(source), str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    (told_in, bright_in), (told_out, bright_out) = flashes(source), flashes(output)
    assert len(told_out) == len(told_in) == round(seconds * FPS)
    assert np.abs(told_out - told_in).max() < 1e-6
    np.testing.assert_array_equal(bright_in, bright_out)
    sound, rate = loudness(output)
    at_the_end = bright_out[bright_out > seconds - 8]
    begin = round((at_the_end[0] - 0.5) * rate)
    tail = lag(sound[begin:], rate, at_the_end - begin / rate)
    whole = lag(sound, rate, bright_out)
    print(f"\n{seconds} s: {len(told_out)} frames, sound {1000 * whole:.1f} ms late over all, "
          f"{1000 * tail:.1f} ms at the end, peaks {peaks}")  # fmt: skip
    assert abs(whole) < 0.005 and abs(tail) < 0.005
    assert peaks[1] <= 1.05 * peaks[0]


def test_the_measure_of_the_sound_finds_a_lag(tmp_path: Path) -> None:
    path = flashing(tmp_path / "a.mp4", 300)
    sound, rate = loudness(path)
    _, bright = flashes(path)
    late = np.concatenate([np.zeros(rate // 50, np.float32), sound])
    assert lag(late, rate, bright) - lag(sound, rate, bright) == pytest.approx(0.02, abs=1e-3)
