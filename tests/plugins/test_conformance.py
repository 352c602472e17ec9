"""Every installed plugin keeps the promises of its kind; found by entry points, like a user's."""

from __future__ import annotations

from typing import Any

import pytest

from vidsynth import registry
from vidsynth.testing import Case, checks_of

# Small networks, and pictures that the plugin can do something with.
SETTINGS: dict[str, dict[str, Any]] = {
    "pix2pixhd": {
        "options": {"filters": 8, "downsamplings": 2, "blocks": 1, "d_filters": 8, "l1": 10.0},
    },
    "multiscale_patch": {"options": {"filters": 8}},
}
EXPECTED_FAILURES: dict[tuple[str, str], str] = {}


def cases() -> list[Any]:
    return [
        pytest.param(kind, name, check, id=f"{name}-{check.__name__}")
        for kind in registry.KINDS
        for name in registry.names(kind)
        for check in checks_of(registry.load(kind, name))
    ]


@pytest.mark.parametrize(("kind", "name", "check"), cases())
def test_plugin_conforms(kind: registry.Kind, name: str, check: Any) -> None:
    check(Case(plugin=registry.load(kind, name), **SETTINGS.get(name, {})))


def test_in_tree_plugins_are_installed() -> None:
    installed = {(kind, name) for kind in registry.KINDS for name in registry.names(kind)}
    assert installed >= {
        ("extractor", "pose"),
        ("extractor", "face"),
        ("generator", "pix2pixhd"),
        ("discriminator", "multiscale_patch"),
    }
