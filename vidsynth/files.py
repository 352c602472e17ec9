"""Where things are kept, and the only way files are written: a temporary name, then a rename."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidsynth import __version__, locks
from vidsynth.errors import CannotWrite, OutputExists, VidsynthError

if TYPE_CHECKING:
    from torch import Tensor


def cache_folder(*parts: str) -> Path:
    """A folder of vidsynth's cache, made if need be. `VIDSYNTH_CACHE` moves the whole cache."""
    import platformdirs

    root = os.environ.get("VIDSYNTH_CACHE") or platformdirs.user_cache_dir("vidsynth")
    folder = Path(root).expanduser().joinpath(*parts)
    make_folder(folder)
    return folder


def cache_key(*parts: Any) -> str:
    """A file name for what this version of vidsynth makes of these JSON-able values alone."""
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises CannotWrite."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_free(path: Path, overwrite: bool) -> None:
    """Whether a file could be written there, found out before any work starts.

    Raises:
        OutputExists: something is there and `overwrite` is false.
        CannotWrite: the folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise CannotWrite(f"{path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already; name another output or add --overwrite")
    if not path.parent.is_dir():
        raise CannotWrite(f"{path}: the folder {path.parent} does not exist; make it first")
    try:
        # Permissions alone do not tell of read-only disks, quotas or access lists.
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def writing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    Readers see the old file or the whole new one, never a part, and after a power cut too: the
    file is on the disk before it has its name, and has its name on the disk before this returns.
    What processes that were killed left of the same file is cleared away.

    Args:
        path: the file.
        keep: a name for the file that was there before; by default it goes.

    Raises:
        CannotWrite: the operating system refused.
    """
    make_folder(path.parent)
    try:
        _clear_abandoned(path)
        handle, temporary = _new_temporary(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        if os.name == "posix":
            _flush_to_disk(path.parent)
    except VidsynthError:
        raise
    except Exception as error:
        refusal = _refusal_behind(error)
        if refusal is None:
            raise
        raise cannot_write(path, refusal) from error
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    """Write a .safetensors file, whose bytes follow from what it holds: the library itself leaves
    the order of what is told to chance."""
    from safetensors.torch import save_file

    save_file(dict(tensors), path, dict(told))
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def is_temporary(path: Path) -> bool:
    """Whether the file is one that `writing` has not finished, or never will."""
    return path.name.startswith(".") and path.stem.endswith(".partial")


def _new_temporary(path: Path) -> tuple[int, Path]:
    """A file for `writing`, and a handle whose lock says that somebody is at it."""
    while True:
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent
        )
        locks.claim(handle)
        if os.path.exists(name):  # else it was cleared away before it was claimed
            return handle, Path(name)
        os.close(handle)


def tidy(folder: Path) -> None:
    """Clear away what processes that were killed left unfinished anywhere in a folder."""
    for left in folder.rglob(".*"):
        if is_temporary(left):
            _clear_if_abandoned(left)


def _clear_abandoned(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.partial{glob.escape(path.suffix)}"):
        _clear_if_abandoned(left)


def _clear_if_abandoned(left: Path) -> None:
    with contextlib.suppress(OSError), open(left, "rb") as file:
        if locks.claim(file.fileno()):
            left.unlink()


def _refusal_behind(error: BaseException | None) -> OSError | None:
    """What the operating system said: torch buries it, safetensors only words it."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """The operating system's refusal as one sentence of fact and one of remedy."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return CannotWrite(f"{path}: the disk is full; free some space and run this again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return CannotWrite(f"{path}: not writable; choose another place for it")
        case _:
            reason = error.strerror or str(error)
            return CannotWrite(f"{path}: could not be written ({reason}); choose another place")


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
