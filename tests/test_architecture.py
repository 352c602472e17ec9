"""Dependencies run one way, plugins stay outside, and looking around costs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module (or package) of the core imports only from its left.
ORDER = (
    "errors", "report", "options", "registry", "recipes", "locks", "files", "scaffold", "weights",
    "devices", "compiling", "processes", "clip", "raster", "facemesh", "drawing", "smoothing",
    "hub", "bodies", "faces", "correspondence", "limbs", "checksums", "conditioning", "several",
    "classes", "animation", "blocks", "steady", "following", "exemplars", "regions", "stream",
    "objectives", "notes", "kinds", "loading", "pixels", "sound", "encode", "pictures", "video",
    "worlds",
    "clips", "captions", "distances", "losses", "plate", "parametric", "retarget_body",
    "retarget_face", "retarget", "summaries", "kept", "portions", "stages", "subject", "outputs",
    "provenance", "filming", "importing", "tracking", "dataset", "given", "scores", "watching",
    "checkpoint", "training", "choosing", "fitting", "making", "prompting", "generation",
    "clipmodels", "editing", "animating", "jobs", "pipeline", "evaluation", "testing", "bench",
    "cli",
)  # fmt: skip

HEAVY = {"torch", "numpy", "cv2", "av", "mediapipe", "scipy", "pydantic", "vidsynth_plugins"}


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """(module, name or "", line) of every import that runs, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            yield from ((node.module or "", alias.name, node.lineno) for alias in node.names)


def part(path: Path) -> str:
    """The core module or package that a file belongs to."""
    return path.relative_to(ROOT / "vidsynth").parts[0].removesuffix(".py")


def imported_part(module: str, name: str) -> str | None:
    """The part of the core that an import takes from; None for the outside and the root."""
    if module != "vidsynth" and not module.startswith("vidsynth."):
        return None
    _, _, inner = module.partition(".")
    inner = inner or name
    exists = (ROOT / "vidsynth" / inner.split(".")[0]).exists()
    exists = exists or (ROOT / "vidsynth" / f"{inner.split('.')[0]}.py").exists()
    return inner.split(".")[0] if inner and exists else None


CORE = [p for p in modules(ROOT / "vidsynth") if p != ROOT / "vidsynth" / "__init__.py"]


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    here = part(path)
    assert here in ORDER, f"{here} has no place in the order of dependencies yet"
    for module, name, line in imports(path):
        there = imported_part(module, name)
        if there is not None and there != here:
            left = ORDER[: ORDER.index(here)]
            assert there in left, f"{path.name}:{line}: {here} must not import {there}"


def test_registry_and_options_import_only_errors() -> None:
    for name in ("registry", "options"):
        parts = {imported_part(m, n) for m, n, _ in imports(ROOT / "vidsynth" / f"{name}.py")}
        assert parts - {None} == {"errors"}


def test_the_core_never_imports_a_plugin() -> None:
    culprits = [
        f"{path}:{line}"
        for path in modules(ROOT / "vidsynth")
        for module, _, line in imports(path)
        if module.split(".")[0] == "vidsynth_plugins"
    ]
    assert culprits == []


def test_plugins_use_the_public_api_only() -> None:
    culprits = [
        f"{path}:{line}: {module} {name}"
        for path in modules(ROOT / "plugins")
        for module, name, line in imports(path)
        if module.split(".")[0] == "vidsynth"
        and (name.startswith("_") or imported_part(module, name) in ("jobs", "cli", "bench"))
    ]
    assert culprits == []


@pytest.mark.parametrize(
    "action",
    [
        "import vidsynth; dir(vidsynth)",
        "from vidsynth.cli import main; main(['--help'], standalone_mode=False)",
        "from vidsynth.cli import main; main(['transfer', '--help'], standalone_mode=False)",
        "from vidsynth.cli import main; main(['plugins', 'list'], standalone_mode=False)",
        "from vidsynth.cli import main; main(['recipes', 'list'], standalone_mode=False)",
        "from vidsynth.cli import main; main(['new', 'plugin', '--help'], standalone_mode=False)",
        "from vidsynth.cli import main; main(['run', '--help'], standalone_mode=False)",
    ],
)
def test_looking_around_imports_nothing_heavy(action: str) -> None:
    check = f"{action}\nimport sys\nfound = {HEAVY!r} & set(sys.modules)\nassert not found, found"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_names_resolve() -> None:
    import vidsynth

    for name in vidsynth.__all__:
        assert getattr(vidsynth, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'transfre'"):
        _ = vidsynth.transfre  # pyright: ignore[reportAttributeAccessIssue]
