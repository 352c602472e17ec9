"""Make the small clips of examples/media: the same files' content every time.

python examples/make_media.py [folder]
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

from vidsynth.worlds import WORLDS, write_video_with_sound

FPS = 25
SIZE = 256
# name: (world, seed of the identity, seed of the motion, seconds). The motions were chosen so that
# the target shows about what the source will ask for.
CLIPS = {
    "dance_source": ("puppet", 8, 108, 8),
    "dance_target": ("puppet", 0, 8, 12),
    "face_source": ("head", 2, 102, 8),
    "face_target": ("head", 1, 1, 12),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (world_name, person, moves, seconds) in CLIPS.items():
        world = WORLDS[world_name]
        motion = world.make_motion(moves, FPS * seconds, FPS)
        path = folder / f"{name}.mp4"
        write_video_with_sound(
            path,
            world.render(world.make_identity(person), motion, height=SIZE, width=SIZE),
            fps=Fraction(FPS),
            samples=world.soundtrack(moves, motion),
            crf=20,
            preset="slow",
            overwrite=True,
        )
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "media")
