"""Locks on folders, which the system releases when a process is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


@contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock while the block runs.

    Yields:
        Whether it is locked: False on systems and file systems without such locks.

    Raises:
        BlockingIOError: if it is held already.
        OSError: if the folder cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield lock_file(handle)
    finally:
        os.close(handle)


def lock_file(handle: int) -> bool:
    """Lock an open file until it is closed.

    Returns:
        Whether it is locked: False on systems and file systems without such locks.

    Raises:
        BlockingIOError: if another process holds the lock.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return False
    return True
