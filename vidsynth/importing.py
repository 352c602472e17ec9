"""Weights of a method's published implementation, put into a subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vidsynth import registry
from vidsynth.subject import (
    PluginRef,
    Subject,
    build_generator,
    load_subject,
    save_card,
    save_weights,
)


def import_weights(weights: str | Path, subject: str | Path) -> Subject:
    """Replace a subject's generator by one that was trained elsewhere.

    The subject keeps its target: size, range of motion, conditioning. Its generator's options
    become those of the imported network; training it further needs those options too.

    Args:
        weights: a file of the published implementation, such as `latest_net_G.pth`.
        subject: folder of the subject, made by `vidsynth train` with the same generator plugin.

    Raises:
        BadSubject: either is none, or the network expects other conditioning maps.
    """
    opened = load_subject(subject)
    name = opened.card.generator.name
    plugin: Any = registry.load("generator", name)
    values, state = plugin.read_published(Path(weights))
    generator = PluginRef.of("generator", name, values)
    build_generator(generator, opened.conditions()).load_weights(state)  # refuses what cannot fit
    card = replace(opened.card, generator=generator)
    save_weights(opened.folder, state)
    save_card(opened.folder, card)
    return Subject(opened.folder, card)
