"""Every installed plugin keeps the promises of its kind; found by entry points, like a user's."""

from __future__ import annotations

from typing import Any

import pytest

from vidsynth import registry
from vidsynth.conditioning import FaceSequence, LabelMaps
from vidsynth.kinds import Generator, Metric
from vidsynth.testing import Case, checks_of
from vidsynth.testing.conformance import COMMON, expected_failures_of

SMALL = {"filters": 8, "downsamplings": 2, "blocks": 1, "d_filters": 8}
STEADY = {**SMALL, "reference_flow": "dis", "longest": 3}
CLIPS = {"num_frames": 4, "filters": 4, "d_filters": 4, "d_frames": 2, "blocks": 1, "d_steps": 1}
# Plugin -> variant -> conditions of the checks, where one variant does not tell all. The others are
# checked as they ask for themselves (`Plugin.checked`).
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "pix2pixhd": {
        "published": {"options": {**SMALL, "background": False}},
        "enhanced": {
            "options": {**SMALL, "local_enhancers": 1, "coarse_fraction": 0.3, "norm": "batch"}
        },
        "dance": {
            "options": {
                **SMALL,
                "stem": "shuffle",
                "skips": True,
                "previous": True,
                "face": True,
                "face_size": 16,
                "l1": 10.0,
                "subject_weight": 2.0,
            },
            "background": True,
        },
        "face": {"options": {**SMALL, "window": 3, "l1": 10.0}, "kinds": (FaceSequence,)},
        "labels": {
            "options": {**SMALL, "network": "spade", "background": False},
            "kinds": (LabelMaps,),
        },
    },
    "exemplar": {
        "dance": {"options": {**SMALL, "previous": True}, "background": True},
        "face": {"options": {**SMALL, "window": 3}, "kinds": (FaceSequence,)},
    },
    "vid2vid": {
        "dance": {
            "options": {
                **STEADY,
                "regions": ["face"],
                "region_size": 16,
                "temporal_scales": 1,
                "learnt": 2,
            },
            "background": True,
        },
        "face": {"options": {**STEADY, "start": "image"}, "kinds": (FaceSequence,)},
        "published": {
            "options": {
                **STEADY,
                "stem": "conv7",
                "skips": False,
                "norm": "affine",
                "levels": 2,
                "coarse_fraction": 0.3,
                "judge_raw": True,
                "foreground": [1],
            },
            "kinds": (LabelMaps,),
        },
    },
    "dvdgan": {
        "small": {"options": {**CLIPS, "learning_rate": 3e-3}},
        "first": {
            "options": {
                **CLIPS,
                "recurrence": "first",
                "noise_per": "frame",
                "statistics": "clip",
                "learning_rate": 3e-3,
            }
        },
    },
}


def checks(plugin: Any) -> tuple[Any, ...]:
    """All of them; of metrics and generators whose weights are not here, those that need none."""
    works_without = plugin.weights_licence.startswith("none needed")
    brings_weights = issubclass(plugin, Metric) or (
        issubclass(plugin, Generator) and plugin.pretrained
    )
    return checks_of(plugin) if works_without or not brings_weights else COMMON


def marks(plugin: Any, check: Any) -> list[Any]:
    reason = expected_failures_of(plugin).get(check.__name__)
    return [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]


def cases() -> list[Any]:
    return [
        pytest.param(
            check,
            kind,
            name,
            conditions,
            id=f"{name}-{variant}-{check.__name__}",
            marks=marks(plugin, check),
        )
        for kind in registry.KINDS
        for name in registry.names(kind)
        for plugin in [registry.load(kind, name)]
        for variant, conditions in SETTINGS.get(name, {"its own": {}}).items()
        for check in checks(plugin)
    ]


@pytest.mark.parametrize(("check", "kind", "name", "conditions"), cases())
def test_plugin_conforms(
    check: Any, kind: registry.Kind, name: str, conditions: dict[str, Any]
) -> None:
    check(Case.of(registry.load(kind, name), **conditions))


@pytest.mark.parametrize("name", registry.names("extractor"))
def test_extractors_see_someone_in_their_footage(name: str) -> None:
    """Else the checks above would compare nothing with nothing."""
    case = Case.of(registry.load("extractor", name))
    plugin: Any = case.plugin(case.built_options())
    (signal,) = plugin.extract(iter([case.footage(8)]))
    assert float(signal.present().float().mean()) >= 0.95


def test_in_tree_plugins_are_installed() -> None:
    installed = {(kind, name) for kind in registry.KINDS for name in registry.names(kind)}
    assert installed >= {
        ("extractor", "pose"),
        ("extractor", "face"),
        ("extractor", "labels"),
        ("generator", "pix2pixhd"),
        ("generator", "vid2vid"),
        ("generator", "dvdgan"),
        ("discriminator", "multiscale_patch"),
        ("discriminator", "video_patch"),
        ("metric", "psnr"),
        ("metric", "fvd"),
    }
