"""`vidsynth generate`: clips that no video drives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from vidsynth.cli.common import FILE, job_options, running


class Size(click.ParamType):
    """Width and height in pixels, written like 832x480."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)[xX](\d+)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write it like 832x480", param, ctx)
        return int(match[1]), int(match[2])


@click.command()
@click.argument("prompt", required=False)
@click.option("--subject", type=FILE, help="Model folder, of vidsynth train CLIPS.")
@click.option(
    "--model",
    metavar="FOLDER|OWNER/NAME",
    help="A text-to-video model of diffusers; default: the small one that comes with vidsynth.",
)
@click.option("-o", "--output", type=FILE, help="Video file to write (.mp4, .mov, .mkv).")
@click.option("--negative", metavar="TEXT", help="What is not wanted, in words.")
@click.option("--steps", "denoising", type=click.IntRange(min=1), help="Steps of the diffusion.")
@click.option("--guidance", type=float, help="How much the prompt counts; 1 for no more.")
@click.option("--image", type=FILE, help="A picture to start from, where the model takes one.")
@click.option("--size", type=Size(), help="Width and height, like 832x480; default: the model's.")
@click.option("--fps", type=float, help="Frames per second; default: the model's.")
@click.option(
    "--frames", type=click.IntRange(min=1), help="Length; default: that of the clips it learnt."
)
@click.option("--schedule", type=FILE, help="TOML file of prompts and when each begins.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Make so many, keep the one that shows the prompt best.",
)
@click.option("--class", "class_name", metavar="NAME", help="What to show; see --list-classes.")
@click.option("--list-classes", is_flag=True, help="Print what the model can show, and stop.")
@click.option("--to-class", metavar="NAME", help="Change into this class on the way.")
@click.option("--to-seed", type=int, help="Change into this seed's clip on the way.")
@click.option(
    "--truncation", type=float, help="Noise within this only, like 0.7: more usual, less varied."
)
@click.option(
    "--sheet",
    type=FILE,
    help="Picture to write: many seeds of the class or prompt, or every class.",
)
@job_options("device", "seed", "codec", "overwrite", "provenance", "certificate", "settings")
@job_options("debug")
def generate(
    prompt: str | None,
    subject: Path | None,
    output: Path | None,
    list_classes: bool,
    **options: Any,
) -> None:
    """Make a clip of any length from words, or of a class.

    \b
        vidsynth generate "a red circle moves left" -o out.mp4
        vidsynth generate "a kite over the sea" --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers -o kite.mp4

    Without --subject or --model the small model makes it that comes with vidsynth; it knows moving
    shapes, in few words, and says which. A --schedule changes the prompt on the way:

    \b
        [[prompt]]
        at = "0s"
        text = "a red circle moves left"

    A model of clips by class, in the folder --subject, is asked for a class:

    \b
        vidsynth generate --subject model/ --list-classes
        vidsynth generate --subject model/ --class walking --frames 48 --seed 3 -o out.mp4
        vidsynth generate --subject model/ --sheet classes.png

    The same seed gives the same clip.
    """
    from vidsynth import generation
    from vidsynth.cli.progress import reporter
    from vidsynth.errors import BadOption
    from vidsynth.subject import load_subject

    with running():
        if list_classes:
            if subject is None:
                raise BadOption("--list-classes needs a model; name its folder with --subject")
            for name in generation.classes_of(load_subject(subject)):
                click.echo(name)
            return
        generation.generate(subject, output, prompt=prompt, reporter=reporter(), **options)
