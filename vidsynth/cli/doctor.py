"""`vidsynth doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import click

from vidsynth import __version__
from vidsynth.errors import VidsynthError


@click.command()
def doctor() -> None:
    """Say what is installed, what hardware there is, what is missing and how to get it."""
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "vidsynth": _versions,
        "packages": _packages,
        "hardware": _hardware,
        "video": _video,
        "plugins": _plugins,
        "pretrained weights (none is needed for the main job)": _weights,
        "cache": _cache,
    }
    for title, lines in sections.items():
        click.echo(title)
        try:
            for line in lines():
                click.echo(f"  {line}")
        except (ImportError, OSError, VidsynthError) as error:  # a broken package is a finding
            click.echo(f"  ! cannot be examined: {type(error).__name__}: {error}")


def _versions() -> Iterator[str]:
    yield f"vidsynth {__version__}, Python {platform.python_version()}, {platform.platform()}"


def _packages() -> Iterator[str]:
    """Declared requirements, the core's first, with what is installed of each."""
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("vidsynth") or ():
        name = re.split(r"[^\w.-]", requirement)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if name == "vidsynth" or (extra and extra[1] == "all"):
            continue
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.setdefault(extra[1] if extra else "", []).append(name)
        else:
            if not extra:
                yield f"{name} {installed}"
    for extra, absent in missing.items():
        package = f"vidsynth[{extra}]" if extra else "vidsynth"
        yield f"! not installed: {', '.join(absent)}; pip install '{package}'"


def _hardware() -> Iterator[str]:
    import torch

    from vidsynth.devices import has_fast_bf16

    cpu = torch.device("cpu")
    memory = f"{_memory_gib():.0f} GiB of memory" if _memory_gib() else "memory unknown"
    yield f"{_cores()} CPU cores, {memory}, {_bf16(has_fast_bf16(cpu))}"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        fast = _bf16(has_fast_bf16(torch.device("cuda", index)))
        yield f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {fast}"
    if torch.backends.mps.is_available():
        yield "mps (Apple GPU)"
    elif not torch.cuda.is_available():
        built = "is a CPU build" if torch.version.cuda is None else "finds no CUDA device or driver"
        yield f"no GPU: torch {torch.__version__} {built}; jobs run on the CPU"


def _bf16(fast: bool) -> str:
    return "fast bfloat16" if fast else "no fast bfloat16 (float32 is used)"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # the cores this process may use, not all there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # no POSIX system
        return 0.0


def _video() -> Iterator[str]:
    import av
    import torch
    from av.codec.hwaccel import hwdevices_available

    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    yield f"PyAV {av.__version__} (libavcodec {libavcodec})"
    yield _there("encoder libx264 (H.264 on the CPU)", "libx264" in av.codecs_available)
    if torch.cuda.is_available():
        yield _there("encoder h264_nvenc (H.264 on the GPU)", "h264_nvenc" in av.codecs_available)
        yield _there("decoding on the GPU", "cuda" in hwdevices_available())


def _there(what: str, there: bool) -> str:
    return f"{what}: there" if there else f"! {what}: missing from this build of PyAV"


def _plugins() -> Iterator[str]:
    from vidsynth.cli.plugins import findings

    yield from findings()


def _weights() -> Iterator[str]:
    from vidsynth import hub, weights

    for name, model in hub.MODELS.items():
        if hub.available(name):
            yield f"{model}: there"
        else:
            yield f"- {model}: not here; get {model.url} and put it at {weights.folder() / name}"
    for name, about in weights.WEIGHTS.items():
        if weights.available(name):
            yield f"{about}: there"
        else:
            yield f"- {about}: not here; get {about.url} and put it into {weights.folder()}"


def _cache() -> Iterator[str]:
    from vidsynth.files import cache_folder

    folder = cache_folder()
    yield f"{folder}: {_size(folder) / 2**20:.0f} MiB; deleting it costs no more than time"


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
