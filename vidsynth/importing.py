"""Weights of a method's published implementation, put into a subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vidsynth import loading
from vidsynth.errors import OutputExists
from vidsynth.subject import (
    WEIGHTS,
    PluginRef,
    Subject,
    build_generator,
    load_subject,
    save_card,
    save_weights,
)


def import_weights(weights: str | Path, subject: str | Path, *, overwrite: bool = False) -> Subject:
    """Replace a subject's generator by one that was trained elsewhere.

    The subject keeps its target: size, range of motion, conditioning. Its generator's options
    become those of the imported network; training it further needs those options too.

    Args:
        weights: a file of the published implementation, such as `latest_net_G.pth`.
        subject: folder of the subject, made by `vidsynth train` with the same generator plugin.
        overwrite: whether weights that the subject has may go.

    Raises:
        BadWeights: the file holds no weights.
        BadSubject: the folder is none, or the network expects other conditioning maps.
        OutputExists: the subject has weights and `overwrite` is false.
    """
    opened = load_subject(subject)
    if (opened.folder / WEIGHTS).exists() and not overwrite:
        raise OutputExists(
            f"{opened.folder} has weights already, of {opened.card.steps} steps of training; copy "
            "the folder if you want to keep them, and add --overwrite to replace them"
        )
    name = opened.card.generator.name
    plugin: Any = loading.load("generator", name)
    values, state = plugin.read_published(Path(weights))
    generator = PluginRef.of("generator", name, values)
    build_generator(generator, opened.conditions()).load_weights(state)  # refuses what cannot fit
    card = replace(opened.card, generator=generator)
    save_weights(opened.folder, state)
    save_card(opened.folder, card)
    return Subject(opened.folder, card)
