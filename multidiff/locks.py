"""Locks on folders, which the system takes back from a process that is killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_held = threading.local()


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock while the block runs; the thread that holds it may take it again.

    Yields:
        Whether it is locked: not on systems and file systems without such locks.

    Raises:
        BlockingIOError: if another process or thread holds it.
        OSError: if the folder cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    mine = _held.__dict__.setdefault("folders", set())
    found = os.fstat(handle)
    key = found.st_dev, found.st_ino
    again = key in mine
    try:
        locked = again or _locked(handle)
        mine.add(key)
        yield locked
    finally:
        if not again:
            mine.discard(key)
        os.close(handle)


def _locked(handle: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True
