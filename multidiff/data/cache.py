"""The user's cache folder: prepared data, made once and shared by the processes of a machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multidiff.utils.files import atomic_write, write_error
from multidiff.utils.locks import lock_file
from multidiff.utils.readers import read_text

logger = logging.getLogger(__name__)

ENVIRONMENT = "MULTIDIFF_CACHE_DIR"
POLL_SECONDS = 0.1
MOST_TEXT = 1 << 30


def cache_dir() -> Path:
    r"""Return the cache folder: ``MULTIDIFF_CACHE_DIR``, else the system's place for caches.

    That is ``$XDG_CACHE_HOME/multidiff`` or ``~/.cache/multidiff``, on macOS
    ``~/Library/Caches/multidiff``, on Windows ``%LOCALAPPDATA%\multidiff\Cache``.
    """
    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"), "multidiff", "Cache")
    if sys.platform == "darwin":
        return home / "Library/Caches/multidiff"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache", "multidiff")


def use_cache_dir(folder: Path | str | None) -> None:
    """Set the cache folder of this process and of those that it starts; None leaves it."""
    if folder is not None:
        os.environ[ENVIRONMENT] = str(Path(folder).expanduser().resolve())


def cache_key(content: Mapping[str, Any]) -> str:
    """Return a name that follows from a JSON value, such as a fingerprint with options."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cached_text(kind: str, key: Mapping[str, Any], make: Callable[[], str]) -> str:
    """Return a text from the cache, made by one process if it is not there.

    Args:
        kind: kind of the text, the beginning of its name.
        key: JSON that identifies the content.
        make: function that makes it.

    Raises:
        InputError: if the cache cannot be read or written.
    """
    path = cache_dir() / f"{kind}-{cache_key(key)}.txt"
    if not path.is_file():
        with cache_turn(path):
            if not path.is_file():
                content = make()
                with atomic_write(path) as partial:
                    partial.write_text(content, "utf-8")
    return read_text(path, MOST_TEXT)


@contextmanager
def cache_turn(entry: Path) -> Iterator[None]:
    """Let one process at a time make an entry of the cache; others wait, and say so.

    A killed process releases its turn. Where the file system has no locks, nobody waits: entries
    are written whole in any case.

    Args:
        entry: path of the entry, beside which the lock lies.

    Raises:
        InputError: if the folder cannot be written.
    """
    lock = entry.with_name(f"{entry.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(lock, error) from error
    try:
        has_waited = False
        while True:
            try:
                lock_file(handle)
                break
            except BlockingIOError:
                if not has_waited:
                    logger.warning("%s: another run prepares it; waiting", entry)
                has_waited = True
                time.sleep(POLL_SECONDS)
        yield
        with suppress(OSError):  # whoever waits for it will find the entry
            lock.unlink()
    finally:
        os.close(handle)
