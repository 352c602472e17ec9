"""What the puppet does: a seeded dance, in terms that fit any body.

Directions are in the axes of the part that carries them; places are in leg lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidsynth.worlds.figure import Array, unit
from vidsynth.worlds.motion import eased, spline, wandering
from vidsynth.worlds.texture import floats

# T frames, K keys (one per beat); sides: 0 is the dancer's left, 1 the right

# Upper arm and forearm of the left arm as (outwards, up, forwards) of the chest.
ARM_POSES = {
    "hanging": ((0.30, -0.95, 0.05), (0.15, -0.95, 0.28)),
    "low side": ((0.72, -0.68, 0.10), (0.85, -0.50, 0.15)),
    "out": ((1.00, 0.00, 0.10), (1.00, 0.06, 0.15)),
    "raised": ((0.40, 0.90, 0.10), (0.18, 0.98, 0.10)),
    "vee": ((0.72, 0.68, 0.10), (0.66, 0.74, 0.10)),
    "cactus": ((1.00, 0.05, 0.10), (0.15, 1.00, 0.15)),
    "scarecrow": ((1.00, 0.05, 0.05), (0.20, -0.98, 0.20)),
    "on hip": ((0.80, -0.58, -0.20), (-0.62, -0.62, 0.48)),
    "at chest": ((0.78, -0.45, 0.30), (-0.72, 0.30, 0.60)),
    "behind head": ((0.80, 0.58, 0.10), (-0.72, 0.62, -0.10)),
    "wave": ((0.85, -0.20, 0.20), (0.55, 0.82, 0.20)),
    "flexed": ((0.80, 0.25, 0.15), (-0.10, 0.98, 0.20)),
    "forwards": ((0.45, -0.15, 0.85), (0.25, 0.35, 0.90)),
}
# How far to the side, how far forwards and how high a foot goes.
STANCES = (0.10, 0.16, 0.26, 0.38)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dance:
    """A motion, frame by frame."""

    fps: float
    upper_arms: Array
    """(T, 2, 3) unit vectors outwards, up, forwards of the chest."""
    forearms: Array
    """(T, 2, 3) likewise."""
    pelvis: Array
    """(T, 3) yaw, pitch, roll in radians, see `motion.turns`."""
    chest: Array
    """(T, 3) against the pelvis."""
    head: Array
    """(T, 3) against the chest."""
    root: Array
    """(T, 2) where the pelvis is over the floor: x to the right, z towards the viewer."""
    squat: Array
    """(T,) how much lower the pelvis is than standing, in [0, 0.4]."""
    feet: Array
    """(T, 2, 3) where each ankle is: x from its own hip outwards, height over standing, z."""
    toes: Array
    """(T, 2) outward turn of each foot in radians."""
    beat_seconds: float
    """Time between two keys, for the soundtrack."""

    def __len__(self) -> int:
        return len(self.squat)

    def __getitem__(self, key: slice) -> Dance:
        arrays: dict[str, Any] = {
            f.name: value[key]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)


def make_dance(seed: int, num_frames: int, fps: float = 25.0) -> Dance:
    """A dance of any length; the first frames of a longer one are the same."""
    rng = np.random.default_rng((seed, 1))
    beat = float(rng.uniform(0.50, 0.64))
    seconds = np.arange(num_frames) / fps
    at = seconds / beat + 1
    # Keys are drawn one beat at a time, so that a longer dance begins like a shorter one.
    num_keys = int(at[-1] if num_frames else 0) + 3
    steps = _Choreography(rng)
    keys = [steps.next_key() for _ in range(num_keys)]
    arms = spline(np.array([k.arms for k in keys]), at)
    body = spline(np.array([k.body for k in keys]), at)
    feet = eased(np.array([k.feet for k in keys]), at)
    feet[..., 1] += _lift(np.array([k.feet for k in keys]), at)

    drift = wandering(np.random.default_rng((seed, 2)), 9, seconds, 0.7)
    bounce = 0.5 - 0.5 * np.cos(2 * np.pi * at)
    arms = arms + 0.06 * drift[:, :3, None].transpose(0, 2, 1)[:, :, None]
    pelvis, chest, head = body[:, 0:3].copy(), body[:, 3:6].copy(), body[:, 6:9].copy()
    chest += 0.05 * drift[:, 3:6]
    head += 0.10 * drift[:, 6:9]
    head[:, 1] += 0.05 * bounce
    # The weight is over the feet, but for a sway of the hips.
    standing = feet[..., 0] * (1, -1)
    root = np.stack([standing.mean(1) * 0.5 + body[:, 9], feet[..., 2].mean(1) * 0.5], axis=1)
    return Dance(
        fps=fps,
        upper_arms=unit(arms[:, :, 0]),
        forearms=unit(arms[:, :, 1]),
        pelvis=pelvis,
        chest=chest,
        head=head,
        root=root.astype(np.float32),
        squat=np.clip(body[:, 10] + 0.025 * bounce, 0, 0.4).astype(np.float32),
        feet=feet,
        toes=floats([0.25, 0.25]) + 0 * feet[..., 0],
        beat_seconds=beat,
    )


def _lift(feet_K23: NDArray, at: NDArray) -> Array:
    """(T, 2) height of feet on their way from one place to another."""
    gone = np.linalg.norm(np.diff(feet_K23[..., [0, 2]], axis=0), axis=-1)
    index = np.clip(at.astype(int), 0, len(gone) - 1)
    t = np.clip((at - index) * 1.6 - 0.3, 0, 1)[:, None]
    return (4 * t * (1 - t) * np.minimum(gone[index], 0.3) * 0.45).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Key:
    arms: Array
    """(2, 2, 3) side, upper or fore, direction."""
    body: Array
    """(11,) pelvis, chest, head angles; sway; squat."""
    feet: Array
    """(2, 3)."""


class _Choreography:
    """Chooses one key per beat; figures of arms last two beats, steps come one foot at a time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.beat = 0
        self.arms = self._arms("hanging", "hanging")
        self.feet = floats([[0.05, 0, 0], [0.05, 0, 0]])
        self.style = rng.uniform(0.7, 1.0)

    @staticmethod
    def _arms(left: str, right: str) -> Array:
        return floats([ARM_POSES[left], ARM_POSES[right]])

    def next_key(self) -> _Key:
        rng = self.rng
        # Always the same number of draws, so that choices stay independent of one another.
        chosen = rng.choice(list(ARM_POSES), 2).tolist()
        symmetric, both, stance, move, level = rng.random(5)
        angles, which = rng.uniform(-1, 1, 10), int(rng.integers(2))
        if self.beat % 2 == 0:
            if symmetric < 0.45:
                self.arms = self._arms(chosen[0], chosen[0])
            elif both < 0.6:
                self.arms = self._arms(*chosen)
            else:
                self.arms = self.arms.copy()
                self.arms[which] = ARM_POSES[chosen[0]]
        feet = self.feet = self.feet * (1, 0, 1)
        if move < 0.55 and self.beat:
            feet[which] = STANCES[int(stance * len(STANCES))] - 0.05, 0, 0.12 * angles[9]
            if move < 0.12:
                feet[which, 1] = 0.22 + 0.2 * level  # a raised knee, for this beat
        squat = 0.24 * level**2 * self.style if feet[:, 1].max() == 0 else 0.03
        body = np.concatenate(
            [
                angles[:3] * (0.40, 0.06, 0.08),
                angles[3:6] * (0.30, 0.14, 0.16),
                angles[6:9] * (0.35, 0.16, 0.16),
                [0.06 * angles[9] * self.style, squat],
            ]
        )
        if feet[:, 1].max() > 0:  # stand over the other foot
            side = 1 if feet[1, 1] > 0 else -1
            body[9] = side * 0.14
        self.beat += 1
        return _Key(self.arms, body.astype(np.float32), feet.astype(np.float32))
