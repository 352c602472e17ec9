"""Every installed plugin keeps the promises of its kind; found by entry points, like a user's."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from torch import Tensor

from vidsynth import registry
from vidsynth.clip import Clip
from vidsynth.conditioning import FaceSequence, LabelMaps
from vidsynth.kinds import Metric
from vidsynth.testing import Case, checks_of, times
from vidsynth.testing.conformance import COMMON, ClipMaker
from vidsynth.worlds import WORLDS


def filmed(world: str) -> ClipMaker:
    """Footage of someone whom the trackers know for what it is."""

    @cache
    def frames(num_frames: int, height: int, width: int, seed: int) -> Tensor:
        film = WORLDS[world]
        identity, motion = film.make_identity(seed), film.make_motion(seed, num_frames)
        chunks = film.render(identity, motion, height=height, width=width)
        return Clip.concat([chunk.clip for chunk in chunks if chunk.clip]).frames

    def make(
        num_frames: int, height: int, width: int, *, pts: Tensor | None = None, seed: int = 0
    ) -> Clip:
        made = frames(num_frames, height, width, seed)
        return Clip(made, times(num_frames) if pts is None else pts)

    return make


SMALL = {"filters": 8, "downsamplings": 2, "blocks": 1, "d_filters": 8}
STEADY = {**SMALL, "reference_flow": "dis", "longest": 3}
# Plugin -> variant -> conditions of the checks: small networks, and footage it can work on.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "pose": {"puppet": {"clip": filmed("puppet"), "height": 160, "width": 160}},
    "face": {"head": {"clip": filmed("head"), "height": 128, "width": 128}},
    "face3d": {"head": {"clip": filmed("head"), "height": 128, "width": 128}},
    "labels": {"person": {"clip": filmed("puppet"), "height": 160, "width": 160}},
    "multiscale_patch": {"small": {"options": {"filters": 8}}},
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
    "portrait": {
        "face": {
            "options": {"filters": 8, "levels": 3, "window": 3, "d_filters": 8},
            "kinds": (FaceSequence,),
        }
    },
    "video_patch": {"small": {"options": {"filters": 8}}},
    "flow_warp": {"dis": {"options": {"flow": "dis"}}},
    "ms_ssim": {"large": {"height": 176, "width": 176}},
    **{f"{part}_psnr": {"large": {"height": 64, "width": 64}} for part in ("mouth", "eyes")},
}


def checks(plugin: Any) -> tuple[Any, ...]:
    """All of them; of metrics whose weights are not here, those that need none."""
    works_without = plugin.weights_licence.startswith("none needed")
    return checks_of(plugin) if works_without or not issubclass(plugin, Metric) else COMMON


def cases() -> list[Any]:
    return [
        pytest.param(check, kind, name, conditions, id=f"{name}-{variant}-{check.__name__}")
        for kind in registry.KINDS
        for name in registry.names(kind)
        for variant, conditions in SETTINGS.get(name, {"defaults": {}}).items()
        for check in checks(registry.load(kind, name))
    ]


@pytest.mark.parametrize(("check", "kind", "name", "conditions"), cases())
def test_plugin_conforms(
    check: Any, kind: registry.Kind, name: str, conditions: dict[str, Any]
) -> None:
    check(Case(plugin=registry.load(kind, name), **conditions))


@pytest.mark.parametrize("name", registry.names("extractor"))
def test_extractors_see_someone_in_their_footage(name: str) -> None:
    """Else the checks above would compare nothing with nothing."""
    for conditions in SETTINGS.get(name, {}).values():
        case = Case(plugin=registry.load("extractor", name), **conditions)
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
        ("discriminator", "multiscale_patch"),
        ("discriminator", "video_patch"),
        ("metric", "psnr"),
        ("metric", "fvd"),
    }
