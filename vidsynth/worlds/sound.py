"""Simple seeded soundtracks: a beat to dance to, a voice that hums when the mouth opens."""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidsynth.encode import write_video
from vidsynth.stream import Chunk
from vidsynth.worlds.texture import floats

Samples = NDArray[np.float32]
RATE = 44100
"""Samples per second."""
PENTATONIC = (0, 3, 5, 7, 10, 12)
"""Semitones of a scale in which nothing clashes."""


def dance_track(seed: int, seconds: float, beat_seconds: float) -> Samples:
    """(n,) mono samples in [-1, 1]: drum, hat, bass and a melody on the beat."""
    rng = np.random.default_rng((seed, 21))
    track = np.zeros(round(seconds * RATE) + RATE, np.float32)
    root = float(rng.uniform(98, 147))
    melody = rng.choice(PENTATONIC, 8)
    for half in range(int(seconds / beat_seconds * 2) + 1):
        at = half * beat_seconds / 2
        if half % 2 == 0:
            _add(track, at, 0.55 * _kick())
            _add(track, at, 0.16 * _tone(root * 2 ** (melody[half // 4 % 8] / 12) / 2, 0.3))
        else:
            _add(track, at, 0.10 * _hat(rng))
        note = melody[half % 8] if half % 16 < 12 else rng.choice(PENTATONIC)
        _add(track, at, 0.14 * _tone(root * 2 ** (note / 12) * 2, beat_seconds * 0.6))
    return np.clip(track[: round(seconds * RATE)], -1, 1)


def voice(seed: int, openness: NDArray[np.floating], fps: float) -> Samples:
    """(n,) mono samples in [-1, 1]: a hum as loud and as bright as the mouth is open.

    Args:
        seed: chooses the pitch.
        openness: (T,) in [0, 1], one per frame.
        fps: frames per second.
    """
    rng = np.random.default_rng((seed, 22))
    time = np.arange(round(len(openness) / fps * RATE)) / RATE
    opened = np.interp(time * fps, np.arange(len(openness)), openness)
    pitch = rng.uniform(110, 210) * (1 + 0.06 * np.sin(2 * np.pi * 0.7 * time) + 0.1 * opened)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    first_formant = 320 + 480 * opened
    sound = np.zeros_like(time)
    for harmonic in range(1, 14):
        strength = np.exp(-(((harmonic * pitch - first_formant) / 220) ** 2))
        strength += 0.25 * np.exp(-(((harmonic * pitch - 1400) / 300) ** 2))
        sound += strength * np.sin(harmonic * phase)
    return floats(np.clip(0.3 * sound * (0.04 + 0.96 * opened), -1, 1))


def hum(seed: int, seconds: float) -> Samples:
    """(n,) mono samples in [-1, 1]: one soft note of the scale."""
    note = np.random.default_rng((seed, 24)).choice(PENTATONIC)
    time = np.arange(round(seconds * RATE)) / RATE
    return floats(0.2 * np.sin(2 * np.pi * 220 * 2 ** (note / 12) * time))


def traffic_noise(seed: int, seconds: float) -> Samples:
    """(n,) mono samples in [-1, 1]: a hum that wavers, and hiss."""
    rng = np.random.default_rng((seed, 23))
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = rng.uniform(55, 80) * (1 + 0.08 * np.sin(2 * np.pi * 0.13 * time))
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    hum = sum(np.sin(n * phase) / n for n in (1, 2, 3))
    hiss = np.cumsum(rng.normal(size=len(time)))
    hiss -= np.convolve(hiss, np.full(64, 1 / 64), mode="same") if len(hiss) >= 64 else hiss
    return floats(np.clip(0.12 * hum + 0.02 * hiss, -1, 1))


def _add(track: Samples, at: float, sound: Samples) -> None:
    first = round(at * RATE)
    room = track[first : first + len(sound)]
    room += sound[: len(room)]


def _fading(seconds: float, decay: float) -> tuple[Samples, Samples]:
    time = np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    attack = np.minimum(time / 0.005, 1)
    return time, floats(attack * np.exp(-time / decay))


def _kick() -> Samples:
    time, volume = _fading(0.25, 0.07)
    return floats(np.sin(2 * np.pi * (48 * time + 2.2 * (1 - np.exp(-time / 0.03)))) * volume)


def _hat(rng: np.random.Generator) -> Samples:
    time, volume = _fading(0.06, 0.015)
    return floats(np.diff(rng.normal(size=len(time) + 1)) * volume)


def _tone(hertz: float, seconds: float) -> Samples:
    time, volume = _fading(seconds, seconds / 3)
    turn = 2 * np.pi * hertz * time
    return floats((np.sin(turn) + 0.35 * np.sin(2 * turn) + 0.12 * np.sin(3 * turn)) * volume)


def write_wav(path: Path | str, samples: Samples) -> None:
    """Write mono samples in [-1, 1] as 16-bit PCM at RATE."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.int16(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def write_video_with_sound(
    path: Path | str,
    chunks: Iterable[Chunk],
    *,
    fps: Fraction,
    samples: Samples,
    crf: int = 18,
    preset: str = "veryfast",
    overwrite: bool = False,
) -> None:
    """`vidsynth.write_video` with mono `samples` at RATE as its sound. Raises what that raises."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        write_wav(wav, samples)
        write_video(path, chunks, fps=fps, audio=wav, crf=crf, preset=preset, overwrite=overwrite)
