"""Swapping two paths in one step of the file system, where it has one."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # renameat2 of Linux
RENAME_SWAP = 2  # renamex_np of macOS
# What a system or a file system without the operation answers.
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange_paths(one: Path, other: Path) -> bool:
    """Swap two files or folders: at every moment both names lead to something whole.

    Args:
        one: an existing path.
        other: an existing path on the same file system.

    Returns:
        False, with nothing changed, where the system or the file system cannot swap.

    Raises:
        OSError: if the swap is possible there but refused.
    """
    import ctypes  # seldom needed

    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, RENAME_SWAP)
        else:
            failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    except (AttributeError, OSError, TypeError):  # no such function, or no C library to ask
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
