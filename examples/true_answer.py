"""How close a transfer comes to the truth, in a world that knows it.

    python examples/true_answer.py --world puppet --minutes 4 --size 256 --frames 750 --driven 150

The world films a source (identity A, motion 1) and a target (identity B, motion 2); vidsynth makes
B do motion 1; and the world films what that really looks like. Beside the transfer stand the
answers that cost nothing: a still frame of the target, and for each moment the training frame
whose pose is nearest.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

import vidsynth
from vidsynth import drawing, retarget
from vidsynth.clip import Clip
from vidsynth.conditioning import Conditioning
from vidsynth.options import to_dict
from vidsynth.scores import score
from vidsynth.stages import clips_of
from vidsynth.subject import Subject
from vidsynth.tracking import track
from vidsynth.worlds import WORLDS, World, write_video_with_sound

RATE = Fraction(25)


def film(path: Path, world: World, identity: int, motion: int, frames: int, size: int) -> Path:
    someone, moves = world.make_identity(identity), world.make_motion(motion, frames)
    chunks = world.render(someone, moves, height=size, width=size)
    write_video_with_sound(path, chunks, fps=RATE, samples=world.soundtrack(motion, moves))
    return path


def read(path: Path, size: int) -> Tensor:
    frames = Clip.concat(list(clips_of(vidsynth.read_chunks(path)))).frames
    return drawing.resize(frames, size, size)


def tracked(path: Path, subject: Subject) -> Conditioning:
    """The same tracking that the job made, from the cache."""
    identity = to_dict(subject.card.extractor)
    return track(path, subject.extractor(), identity=identity).signal


def nearest(wanted: Conditioning, training: Conditioning) -> Tensor:
    """(T,) index of the training frame whose pose is nearest, place included."""
    theirs, ours = training.features(), wanted.features()
    return torch.cdist(ours, theirs).argmin(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a transfer against the truth.")
    parser.add_argument("--world", choices=sorted(WORLDS), default="puppet")
    parser.add_argument("--minutes", type=float, default=0.5, help="of training")
    parser.add_argument("--size", type=int, default=160, help="pixels")
    parser.add_argument("--frames", type=int, default=150, help="of the target film")
    parser.add_argument("--driven", type=int, default=50, help="frames of the source film")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs=4,
        default=[1, 2, 3, 4],
        metavar="N",
        help="source identity, target identity, source motion, target motion",
    )
    parser.add_argument("--keep", type=Path, help="folder to keep the films in")
    args = parser.parse_args()
    world = WORLDS[args.world]
    source_id, target_id, source_motion, target_motion = args.seeds

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        source = film(
            folder / "source.mp4", world, source_id, source_motion, args.driven, args.size
        )
        target = film(
            folder / "target.mp4", world, target_id, target_motion, args.frames, args.size
        )
        truth_film = film(
            folder / "truth.mp4", world, target_id, source_motion, args.driven, args.size
        )
        made = vidsynth.transfer(
            source,
            target,
            folder / "made.mp4",
            size=args.size,
            budget=60 * args.minutes,
            overwrite=True,
        )

        truth, frames = read(truth_film, args.size), read(target, args.size)
        training = tracked(target, made.subject)
        motion = retarget.retarget(tracked(source, made.subject), made.subject.card.summary)
        answers = {
            f"vidsynth, {made.subject.card.steps} steps": read(made.path, args.size),
            "nearest training frame by pose": frames[nearest(motion.sequence, training)],
            "still target frame": frames[:1].expand_as(truth),
        }
        weights = tracked(truth_film, made.subject).silhouette(args.size, args.size)
        print(f"{args.world} world, {args.size} px, {args.minutes:g} min of training")
        for name, frames in answers.items():
            print(f"  {name:32s} {score(frames, truth)}", end="")
            print(
                ""
                if weights is None
                else f"; on the subject {_subject_psnr(frames, truth, weights):.2f} dB"
            )


def _subject_psnr(made: Tensor, truth: Tensor, silhouette: Tensor) -> float:
    inside = (silhouette > 127).expand_as(truth)
    error = (made[inside].float() - truth[inside].float()).square().mean()
    return float(10 * torch.log10(255.0**2 / error))


if __name__ == "__main__":
    main()
