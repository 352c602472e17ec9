"""Locks of the operating system's: they end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidsynth.errors import InUse

NAME = ".lock"


def claim(handle: int) -> bool:
    """Lock an open file until it is closed; False when another process, or handle, has it.

    A file system without locks locks nothing, and everybody has it.
    """
    if sys.platform == "win32":  # there a file that is open cannot be deleted, which is as good
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Within the block no other process is within one on the same folder.

    Args:
        folder: exists.
        what: of the folder, for the message: "the subject".

    Raises:
        InUse: another process is; says which.
    """
    path = folder / NAME
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError:  # a folder that cannot be written to will say so where that matters
            yield
            return
        if not (_claimed_by_region(handle) if sys.platform == "win32" else claim(handle)):
            os.close(handle)
            raise InUse(
                f"{what} {folder} is being worked on by another process"
                f"{_told(path)}; wait until it has ended, or end it"
            )
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            break
        os.close(handle)  # the one who had it has just taken it away
    try:
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no open file; it does no harm there
            path.unlink()
        os.close(handle)


def _claimed_by_region(handle: int) -> bool:
    """Windows locks bytes, and nobody may read those: one far behind the process's number."""
    import msvcrt

    os.lseek(handle, 1 << 20, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    os.lseek(handle, 0, os.SEEK_SET)
    return True


def _told(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (number {int(path.read_text())})"
    return ""
