"""A dancing puppet: an articulated, dressed, shaded person in a room, with known joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vidsynth.clip import Clip
from vidsynth.conditioning import PoseSequence
from vidsynth.stream import Chunk
from vidsynth.worlds.body import Clothes, build, landmarks
from vidsynth.worlds.dance import Dance, make_dance
from vidsynth.worlds.face import Look, random_look
from vidsynth.worlds.figure import Array, Light, draw
from vidsynth.worlds.room import FLOORINGS, WALLPAPERS, Camera, Room, paint
from vidsynth.worlds.skeleton import FOOT, PELVIS, SIDES, THIGH, Body, limb, pose, rest
from vidsynth.worlds.sound import Samples, dance_track
from vidsynth.worlds.texture import PATTERNS, floats, hsv

# T frames, H, W pixels

CHUNK_FRAMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Puppet:
    """Someone, their clothes, and the room they are filmed in."""

    body: Body
    look: Look
    clothes: Clothes
    room: Room
    camera: Camera


def make_identity(seed: int) -> Puppet:
    """Someone; different seeds give clearly different people in different rooms."""
    rng = np.random.default_rng((seed, 11))
    look = random_look(rng)
    feminine = look.hair_length > 0
    hue = rng.random()
    return Puppet(
        body=Body(
            height=rng.uniform(1.60, 1.74) if feminine else rng.uniform(1.70, 1.86),
            legs=rng.uniform(0.96, 1.05),
            arms=rng.uniform(0.96, 1.05),
            shoulders=rng.uniform(0.90, 0.98) if feminine else rng.uniform(1.02, 1.14),
            hips=rng.uniform(0.98, 1.10) if feminine else rng.uniform(0.90, 1.0),
            girth=rng.uniform(0.86, 1.02) if feminine else rng.uniform(0.95, 1.15),
            bust=rng.uniform(0.6, 1.2) if feminine else 0.0,
            head=rng.uniform(1.03, 1.10),
        ),
        look=look,
        clothes=Clothes(
            top=hsv(hue, rng.uniform(0.45, 0.85), rng.uniform(0.55, 0.9)),
            top_trim=hsv(hue + rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.6), 0.92),
            pattern=PATTERNS[rng.integers(len(PATTERNS))],
            bottom=hsv(
                hue + rng.uniform(0.35, 0.65), rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.6)
            ),
            shoes=hsv(rng.random(), 0.12, float(rng.choice([0.14, 0.92]))),
            sleeve=float(rng.choice([0.28, 0.32, 0.95])),
            leg=float(rng.choice([0.45, 0.97, 0.97])),
            skirt=bool(feminine and rng.random() < 0.5),
            seed=int(rng.integers(1 << 30)),
        ),
        room=Room(
            wall=hsv(hue + rng.uniform(0.2, 0.8), rng.uniform(0.06, 0.28), rng.uniform(0.62, 0.9)),
            wall_trim=hsv(rng.random(), 0.15, rng.uniform(0.55, 0.85)),
            wallpaper=WALLPAPERS[rng.integers(len(WALLPAPERS))],
            floor=hsv(rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.75)),
            flooring=FLOORINGS[rng.integers(len(FLOORINGS))],
            picture=hsv(rng.random(), 0.5, 0.6),
            seed=int(rng.integers(1 << 30)),
        ),
        camera=Camera(field=rng.uniform(2.34, 2.60)),
    )


def make_motion(seed: int, num_frames: int, fps: float = 25.0) -> Dance:
    """A dance that any identity can do."""
    return make_dance(seed, num_frames, fps)


def render(identity: Puppet, motion: Dance, *, height: int, width: int) -> Iterator[Chunk]:
    """Film the identity doing the motion, a few frames at a time."""
    plate = paint(identity.room, identity.camera, height, width)
    scale = min(height, width) / identity.camera.field  # pixels per metre
    figure = build(identity.body, identity.look, identity.clothes, round(scale * 0.6))
    rotation, place = pose(identity.body, motion)
    shift = place - np.einsum("tnij,nj->tni", rotation, rest(identity.body).joints)
    for start in range(0, len(motion), CHUNK_FRAMES):
        frames = []
        for t in range(start, min(start + CHUNK_FRAMES, len(motion))):
            vertices, normals = figure.posed(rotation[t], shift[t])
            projected = identity.camera.project(vertices, height, width)
            colour, coverage = draw(figure, projected, normals, Light(), height, width)
            ground = plate * _shadow(identity, place[t], height, width)
            frames.append(np.rint(colour + (1 - coverage) * ground).astype(np.uint8))
        pts = torch.arange(start, start + len(frames), dtype=torch.float64) / motion.fps
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        yield Chunk(pts, Clip(pixels, pts))


def _shadow(identity: Puppet, place_N3: Array, height: int, width: int) -> Array:
    """(H, W, 1) soft contact shadows under the feet and the trunk, 1 where there is none."""
    coarse = 2
    h, w = -(-height // coarse), -(-width // coarse)
    dark = np.zeros((h, w), np.float32)
    spots = [(place_N3[limb(FOOT, s)] + (0, 0, 0.04), 0.17, 0.5) for s in SIDES]
    for at, radius, strength in [*spots, (place_N3[PELVIS], 0.40, 0.28)]:
        lifted = max(float(at[1]) - 0.09, 0.0) if radius < 0.3 else 0.0
        x, y, _ = identity.camera.project(at * (1, 0, 1), height, width) / coarse
        across = radius * min(height, width) / identity.camera.field / coarse
        spot = np.zeros_like(dark)
        size = round(across * 16), round(across * 0.38 * 16)
        cv2.ellipse(
            spot, (round(x * 16), round(y * 16)), size, 0, 0, 360, (1.0,), -1, cv2.LINE_AA, 4
        )
        spot = cv2.GaussianBlur(spot, (0, 0), max(across * 0.22, 0.5))
        dark = 1 - (1 - dark) * (1 - strength * spot / (1 + 6 * lifted))
    return 1 - cv2.resize(dark, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]


def truth(identity: Puppet, motion: Dance, *, height: int, width: int) -> PoseSequence:
    """The true joints of every frame of `render`; every visibility is 1."""
    rotation, place = pose(identity.body, motion)
    points = landmarks(identity.body, identity.look, rotation, place)
    pixels = identity.camera.project(points, height, width)
    hips = place[:, [limb(THIGH, s) for s in SIDES]].mean(axis=1, keepdims=True)
    keypoints = np.concatenate([pixels[..., :2], np.ones_like(pixels[..., :1])], axis=-1)
    return PoseSequence(
        keypoints=torch.from_numpy(keypoints).float()[:, None],
        world=torch.from_numpy((points - hips) * floats([1, -1, -1]))[:, None],
        seen=torch.ones(len(motion), 1, dtype=torch.bool),
        frame_size=(height, width),
    )


def soundtrack(seed: int, motion: Dance) -> Samples:
    """Music on the beat of the dance."""
    return dance_track(seed, len(motion) / motion.fps, motion.beat_seconds)
