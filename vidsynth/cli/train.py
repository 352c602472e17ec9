"""`vidsynth train`: learn a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("target", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Subject folder to write.")
@click.option(
    "--labels",
    type=FILE,
    help="A label map of every frame: a folder of PNGs (ids, or colours of a palette), or a video.",
)
@job_options("instances", "recipe", "preset", "generator", "size", "budget", "steps", "person")
@job_options("device", "seed", "consent", "fps", "settings", "debug")
def train(target: Path, output: Path, **options: Any) -> None:
    """Learn how the person in TARGET looks, into a subject folder for `vidsynth render`.

    TARGET is a video, or a folder of pictures that are its frames, in the order of their numbers.

    A street, or any other scene, is learnt from its label maps, which say of every pixel what it
    shows; the trained scene is then driven by other label maps:

    \b
        vidsynth train frames/ --labels labels/ --instances instances/ -o street/
        vidsynth render street/ other-labels/ --instances other-instances/ -o out.mp4

    Maps are paired with frames by their order. Their pixels are ids (grey PNGs, PNGs with a colour
    table), or colours of Cityscapes; -s extractor.palette=voc or =FILE names other colours.
    Without maps, a network makes them: --recipe street -s extractor.model=NAME.

    Clips of any length are learnt from many short ones by class: TARGET is then a folder with one
    folder of clips for each class, a .csv of paths and classes, or the synthetic world:shapes.

    \b
        vidsynth train clips/ --recipe dvdgan -o model/
        vidsynth generate --subject model/ --class walking -o out.mp4

    Or by their captions, in a captions.csv of paths and captions, or a .txt beside each clip:

    \b
        vidsynth train clips/ --recipe text2video-small -o model/
        vidsynth generate --subject model/ "a dog jumps" -o out.mp4

    A folder that an earlier run left unfinished is gone on with, exactly where it stopped. Run it
    under `accelerate launch -m vidsynth.cli train ...` to use several GPUs or machines.
    """
    from vidsynth import jobs
    from vidsynth.cli.progress import reporter

    with running():
        jobs.train(target, output, reporter=reporter(), **options)
