"""Temporary names of unfinished files, and removal of what killed processes left.

An unfinished file or folder is called ``.NAME.PID-HOST.tmp`` beside its destination, and a
folder that is being replaced ``.NAME.aside``. Both names are hidden: code that reads folders
skips them.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from multidiff.utils.locks import lock_folder

HOST = f"{zlib.crc32(platform.node().encode()):08x}"
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d{1,10})(?:-(?P<host>[0-9a-f]{8}))?\.tmp(?:\.\w+)?")
ASIDE = re.compile(r"\.(?P<name>.+)\.aside")
# Processes of other machines cannot be checked; after a day without a change they count as dead.
ABANDONED_SECONDS = 24 * 3600
# Folders in which this process has removed leftovers already.
_seen: set[str] = set()


def is_hidden(name: str) -> bool:
    """Return whether a file's or folder's name is hidden, so that input folders skip it."""
    return name.startswith(".") or name == "__MACOSX"


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder that are not hidden and in no hidden folder, unsorted."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(root, name) for name in files if not is_hidden(name))


def temporary_name(name: str, suffix: str = "") -> str:
    """Return the temporary name under which this process writes a file or folder."""
    return f".{name}.{os.getpid()}-{HOST}.tmp{suffix}"


def aside_of(folder: Path) -> Path:
    """Return the path of a folder being replaced, on file systems without atomic swaps."""
    return folder.with_name(f".{folder.name}.aside")


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder; at most once for each process.

    A folder locked by a run is left alone: the run does it itself (see
    :func:`sweep`).
    """
    key = os.path.abspath(folder)
    if key in _seen:
        return
    _seen.add(key)
    with suppress(OSError), lock_folder(folder):  # locked by a run, or not writable
        _remove_temporary(folder)


def sweep(folder: Path) -> None:
    """Remove leftovers in a folder whose lock is held, and restore folders set aside."""
    if not folder.is_dir():
        return
    _remove_temporary(folder)
    for path in list(folder.iterdir()):
        match = ASIDE.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        if (folder / match["name"]).exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(folder / match["name"])


def _remove_temporary(folder: Path) -> None:
    for path in list(folder.iterdir()):
        match = TEMPORARY.fullmatch(path.name)
        if match is None or not _is_abandoned(path, int(match["pid"]), match["host"]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _is_abandoned(path: Path, pid: int, host: str | None) -> bool:
    if pid == os.getpid() and host in (None, HOST):
        return False  # another thread's
    if host in (None, HOST) and sys.platform != "win32":  # on Windows, signal 0 ends a process
        return not _is_alive(pid)
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return True
