"""Atomic swap of two paths, on file systems that support it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # renameat2 of Linux
RENAME_SWAP = 2  # renamex_np of macOS
# Errors of a system or a file system without the operation.
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange_paths(one: Path, other: Path) -> bool:
    """Swap two files or folders: at every moment both names refer to something whole.

    Args:
        one: an existing path.
        other: an existing path on the same file system.

    Returns:
        False, with nothing changed, if the system or the file system cannot swap.

    Raises:
        OSError: if the swap is supported but fails.
    """
    import ctypes  # rarely needed

    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, RENAME_SWAP)
        else:
            failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    except (AttributeError, OSError, TypeError):  # the function or the C library is missing
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
