"""What a job asks of the files it is to write, and the settings that it leaves beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vidsynth import __version__, options, video
from vidsynth.errors import OutputExists
from vidsynth.files import check_free, writing
from vidsynth.subject import SubjectCard


def check_outputs(output: Path, codec: str, overwrite: bool, *, inputs: Iterable[Path]) -> None:
    """Refuse now what could not be written after hours of work.

    Raises:
        OutputExists: the video or its settings are there, or the video is one of the inputs.
        BadOption: the codec is not known.
        CannotWrite: as `video.check_output` says.
    """
    video.check_codec(codec)
    refuse_inputs(output, inputs)
    video.check_output(output, overwrite)
    check_free(settings_file(output), overwrite)


def refuse_inputs(output: Path, inputs: Iterable[Path]) -> None:
    """Raises OutputExists when an output would replace a video that is read."""
    for path in inputs:
        if output.resolve() == path.resolve():
            raise OutputExists(
                f"{output} is one of the videos to read and is never overwritten; name another "
                "output"
            )


def settings_file(output: Path) -> Path:
    """Where the settings that made a video stand: beside it."""
    return output.with_name(output.name + ".toml")


def write_settings(
    output: Path, card: SubjectCard, source: Path, settings: Mapping[str, Any], steadiness: float
) -> None:
    """Write the settings that made an output, as TOML, beside it."""
    facts = {
        "vidsynth": __version__,
        "source": source.name,
        "target": card.target,
        "recipe": card.recipe,
        "steps": card.steps,
        "size": [card.width, card.height],
        "steadiness": steadiness,
        "extractor": options.to_dict(card.extractor),
        "generator": options.to_dict(card.generator),
        "training": dict(card.settings.get("training", {})),
        "retarget": dict(settings.get("retarget", {})),
    }
    with writing(settings_file(output)) as temporary:
        temporary.write_text(options.to_toml(facts))
