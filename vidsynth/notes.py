"""What a plugin found out with effort, noted in order, so that a run that broke off and begins
again need not find it out again.

Whatever follows from the findings is computed anew: it gives the same again, and takes little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vidsynth.checksums import checksum
from vidsynth.errors import CannotWrite
from vidsynth.files import make_folder, save_tensors, writing

Finding = Mapping[str, Tensor]

EVERY = 2.0
"""Seconds from page to page, at least ..."""
MOST_BYTES = 64 << 20
"""... unless as much as this waits to be written."""
SUFFIX = ".safetensors"


class Notes:
    """A log of findings, read to its end first and then written on.

    Written pages end where the plugin is at `rest`: where nothing that it remembers, and does not
    compute anew from the findings, matters for what comes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """In a folder of their own; without one nothing is noted."""
        self._folder = folder
        self._pages = 0
        self._before = _nothing() if folder is None else self._read(folder)
        self._fresh: list[Finding] = []
        self._turned = time.monotonic()

    @property
    def begun(self) -> bool:
        """Whether there are any from before."""
        return self._folder is not None and any(self._folder.rglob(f"*{SUFFIX}"))

    def part(self, name: str) -> Notes:
        """Notes of their own, for one of several that do not take turns in a fixed order."""
        return Notes(None if self._folder is None else self._folder / name)

    def once(self, find: Callable[[], Finding]) -> Finding:
        """The next finding: as it was noted before, or else what `find` returns."""
        for noted in self._before:
            return noted
        found = find()
        if self._folder is not None:
            self._fresh.append(found)
        return found

    def rest(self) -> None:
        """Say that nothing but the findings matters for what comes."""
        if self._folder is None or not self._fresh:
            return
        late = time.monotonic() - self._turned >= EVERY
        if not late and sum(t.nbytes for found in self._fresh for t in found.values()) < MOST_BYTES:
            return
        try:
            make_folder(self._folder)
            with writing(_page(self._folder, self._pages)) as temporary:
                _write(temporary, self._fresh)
        except CannotWrite:  # a full disk is told of where the result is written
            self._folder = None
        self._pages += 1
        self._fresh = []
        self._turned = time.monotonic()

    def _read(self, folder: Path) -> Iterator[Finding]:
        """What was noted before, as far as it is whole."""
        while (page := _page(folder, self._pages)).exists():
            findings = _findings(page)
            if findings is None:
                break
            self._pages += 1
            yield from findings
        number = self._pages
        while (page := _page(folder, number)).exists():  # behind what is damaged
            page.unlink()
            number += 1


def _nothing() -> Iterator[Finding]:
    yield from ()


def _page(folder: Path, number: int) -> Path:
    return folder / f"{number:06}{SUFFIX}"


def _write(path: Path, findings: list[Finding]) -> None:
    named = {
        f"{number:06}/{name}": tensor.detach().cpu().contiguous()
        for number, finding in enumerate(findings)
        for name, tensor in sorted(finding.items())
    }
    save_tensors(path, named, {"findings": str(len(findings)), "checksum": checksum(named)})


def _findings(path: Path) -> list[Finding] | None:
    """None where the file is not what was written."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata()
            named = {name: file.get_tensor(name) for name in sorted(file.keys())}
        findings: list[dict[str, Tensor]] = [{} for _ in range(int(told["findings"]))]
        if checksum(named) != told["checksum"]:
            return None
        for number, names in groupby(named, lambda name: int(name.partition("/")[0])):
            findings[number] = {name.partition("/")[2]: named[name] for name in names}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError):
        return None
    return list(findings)
