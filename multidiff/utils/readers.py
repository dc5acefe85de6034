r"""The guarded boundary of everything that is read from outside.

Every reader of the package goes through this module and :mod:`multidiff.utils.budgets`::

    with reading(path, "is not a tokenizer", "export it again"):
        tokenizer = Tokenizer.from_str(read_text(path))

Whatever a library raises in the block (a panic of Rust code included, which is no ``Exception``)
becomes one :class:`~multidiff.utils.errors.InputError` line with the file's name, the reason and
the fix; control characters in any of them are escaped. Keep the block around the library's call
alone: an error of the package's own code must not pass for a fault of the file.

Sizes that a file declares are checked by :mod:`multidiff.utils.budgets` before anything is
inflated or allocated: call ``check_npz``, ``check_torch_zip``, ``check_pixels`` and so on first.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from multidiff.utils.errors import InputError, Interrupted
from multidiff.utils.files import REASONS, resolve_path

AGAIN = "copy or download it again"
LONGEST_REASON = 300
MOST_TEXT_BYTES = 64 << 20
# A value of a few bytes in the file takes about a hundred in memory.
MOST_JSON_VALUES = 4_000_000
# Errors whose text says nothing without their kind.
BARE = (LookupError, AssertionError, AttributeError, StopIteration)
FILE_ENDINGS = {
    *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".lz4"),
    *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".arrow", ".yaml", ".yml"),
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".bin"),
    *(".safetensors", ".model", ".onnx", ".gguf", ".xml", ".html", ".pdf", ".md", ".py"),
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


class DataWithheld(Exception):
    """Data would be read now, where only the check of a recipe is wanted."""


# These pass a guarded block as they are: they are no fault of the file.
PASSING = (InputError, Interrupted, DataWithheld, KeyboardInterrupt, SystemExit, GeneratorExit)


@contextmanager
def reading(name: str | Path, problem: str = "cannot be read", fix: str = AGAIN) -> Iterator[None]:
    """Turn whatever a library raises in the block into one line about the file.

    Args:
        name: of the file, as messages call it.
        problem: what the failure means, such as ``is not a sound file``.
        fix: what the user can do.

    Raises:
        InputError: ``NAME: PROBLEM (REASON); FIX`` for any exception, also one that derives from
            ``BaseException`` alone as panics of Rust libraries do. An ``InputError`` of the block
            passes as it is, and so do signals.
    """
    try:
        yield
    except (*PASSING, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise InputError(f"{name}: {problem} ({reason_of(error)}); {fix}") from error


_PANIC_LOCK = threading.Lock()


@contextmanager
def without_panic_report() -> Iterator[None]:
    """Keep off the terminal what a Rust library prints before it raises its panic.

    The library writes the report, with a backtrace, past Python to file descriptor 2. It is
    dropped if the block raises, since the exception says the same; otherwise what was written
    meanwhile is passed on. Enter it only for a trial of a file: it takes a lock and a file.
    """
    with _PANIC_LOCK, tempfile.TemporaryFile() as held:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no terminal to keep it off
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            raise
        else:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
        finally:
            os.close(kept)


def reason_of(error: BaseException) -> str:
    """Return one line that says what an error of a library means."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError) and error.errno in REASONS:
        return REASONS[error.errno]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    text = next((line for line in lines if line), "")
    if not text or isinstance(error, BARE):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def check_file_size(path: Path, most: int | None = None) -> int:
    """Return the size of a regular file in bytes, if that is not beyond a limit.

    Args:
        path: of the file.
        most: the limit in bytes, if there is one.

    Raises:
        InputError: if there is no such file, it is a device or a pipe, or it is larger.
    """
    if not os.path.isfile(path):  # which Path.is_file is not asked, since it fails of long names
        kind = "is not a file" if os.path.exists(path) else "no such file"
        raise InputError(f"{path}: {kind}; check the path")
    size = path.stat().st_size
    if most is not None and size > most:
        raise InputError(f"{path}: has {size:,} bytes where at most {most:,} are read")
    return size


def read_bytes(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """Return the content of a file that is no larger than allowed.

    Args:
        path: of the file.
        most: the largest size in bytes.

    Raises:
        InputError: if it is larger, or cannot be read.
    """
    check_file_size(path, most)
    with reading(path):
        return path.read_bytes()


def read_text(path: Path, most: int = MOST_TEXT_BYTES) -> str:
    """Return the content of a text file in UTF-8, without a byte order mark.

    Args:
        path: of the file.
        most: the largest size in bytes.

    Raises:
        InputError: if it is larger than allowed, cannot be read, or is not UTF-8.
    """
    content = read_bytes(path, most)
    with reading(path, "is no text in UTF-8", "save it as UTF-8, or " + AGAIN):
        return content.decode("utf-8-sig")


def parse_json(text: str, name: str | Path, fix: str = AGAIN) -> Any:
    """Return what a text in JSON holds.

    Args:
        text: the JSON.
        name: of the file or line, for the message.
        fix: what the user can do.

    Raises:
        InputError: if it is no JSON, is nested too deeply, or holds too many values.
    """
    if text.count(",") + text.count("[") + text.count("{") > MOST_JSON_VALUES:
        raise InputError(f"{name}: holds more than {MOST_JSON_VALUES} values; {fix}")
    with reading(name, "is no JSON", fix):
        return json.loads(text)


def read_json(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: of the file.
        most: the largest size in bytes.

    Raises:
        InputError: if it cannot be read or holds anything else.
    """
    content = parse_json(read_text(path, most), path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; {AGAIN}")
    return content


def is_plausible_hub_id(name: str) -> bool:
    """Return whether a name can be that of a repository on the Hugging Face hub.

    ``name`` or ``owner/name`` of letters, digits, ``-``, ``_`` and ``.``, without ``--`` or
    ``..``, and without an ending that names a kind of file.
    """
    if not HUB_ID.fullmatch(name) or "--" in name or ".." in name or name.endswith((".", "-")):
        return False
    return Path(name).suffix.lower() not in FILE_ENDINGS


_WITHHELD: ContextVar[bool] = ContextVar("withheld", default=False)


@contextmanager
def withheld_data() -> Iterator[None]:
    """Let no source be read in the block: :func:`open_source` raises :class:`DataWithheld`."""
    token = _WITHHELD.set(True)
    try:
        yield
    finally:
        _WITHHELD.reset(token)


def open_source(name: str, what: str = "data") -> Path:
    """Return the path of a source that is about to be read; of a data set, its name as a path.

    Args:
        name: a path, ``starter:NAME``, or the id of a data set on the hub.
        what: what it should hold, for the message.

    Raises:
        InputError: if it is neither here nor can be on the hub.
        DataWithheld: in a block of :func:`withheld_data`.
    """
    if _WITHHELD.get():
        raise DataWithheld(name)
    check_source(name, what)
    return resolve_path(name)


def check_source(name: str, what: str = "data") -> None:
    """Refuse a source that is neither here nor can be on the hub, before any network call.

    Args:
        name: a path, ``starter:NAME``, or the id of a data set on the hub.
        what: what it should hold, for the message.

    Raises:
        InputError: if it is neither.
    """
    path = resolve_path(name)
    if path.exists():
        return
    if str(path) != name or not is_plausible_hub_id(name):
        raise InputError(f"{name}: no such file or folder of {what}; check the path")
