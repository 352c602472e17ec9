"""`vidsynth extract`: what the tracker sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


@click.command()
@click.argument("video", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="File to write (.safetensors); with --for, a folder.",
)
@click.option(
    "--extractor",
    default="pose",
    show_default=True,
    metavar="NAME",
    help="Extractor plugin: pose, face, face3d, labels, or one you installed.",
)
@click.option("--preview", type=FILE, help="Also write a video with the tracking drawn over it.")
@click.option(
    "--for",
    "animator",
    metavar="NAME",
    help="Write what this animator takes instead: wan-animate.",
)
@click.option(
    "--reference",
    type=FILE,
    help="Picture that it shall animate: motion is fitted to who is on it.",
)
@click.option(
    "--mode",
    type=click.Choice(["animate", "replace"]),
    default="animate",
    show_default=True,
    help="For an animator: move the picture, or put who is on it into VIDEO.",
)
@job_options("start", "end", "person", "overwrite", "fps", "settings", "debug")
def extract(video: Path, output: Path, **options: Any) -> None:
    """Track the person or face in VIDEO and write what was found to OUTPUT.

    \b
    With --for wan-animate, OUTPUT is a folder of src_pose.mp4, src_face.mp4, src_ref.png, and to
    replace somebody src_bg.mp4 and src_mask.mp4: what Wan-Animate takes, in other tools too.
    """
    from vidsynth import animating, jobs
    from vidsynth.cli.progress import reporter

    with running():
        if options["animator"] is not None:
            chosen = animating.without_tracking(options)
            animating.extract_for(video, output, reporter=reporter(), **chosen)
            return
        chosen = animating.without_animator(options)
        jobs.extract(video, output, reporter=reporter(), **chosen)
