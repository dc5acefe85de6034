r"""The guarded boundary around everything that is read from outside.

Every reader of the package goes through this module and :mod:`multidiff.utils.budgets`::

    with reading(path, "is not a tokenizer", "export it again"):
        tokenizer = Tokenizer.from_str(read_text(path))

Whatever a library raises in the block (including a panic of Rust code, which is not an
``Exception``) becomes one :class:`~multidiff.utils.errors.InputError` line with the file's name,
the reason and the fix; control characters in any of them are escaped. Keep the block around the
library's call alone: an error in the package's own code must not look like one in the file.

Sizes that a file declares are checked by :mod:`multidiff.utils.budgets` before anything is
decompressed or allocated: call ``check_npz``, ``check_zip``, ``check_pixels`` and so on first.
"""

from __future__ import annotations

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
# Errors whose text is meaningless without their type.
BARE = (LookupError, AssertionError, AttributeError, StopIteration)
FILE_ENDINGS = {
    *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst", ".lz4"),
    *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", ".arrow", ".yaml", ".yml"),
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".bin"),
    *(".safetensors", ".model", ".onnx", ".gguf", ".xml", ".html", ".pdf", ".md", ".py"),
}
SCHEMES = ("s3://", "gs://", "hf://")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
HUB_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}")


class DataWithheld(Exception):
    """Data would be read now, although only a recipe is being checked."""


# Exceptions that pass a guarded block unchanged: they are not caused by the file.
PASSING = (InputError, Interrupted, DataWithheld, KeyboardInterrupt, SystemExit, GeneratorExit)


@contextmanager
def reading(name: str | Path, problem: str = "cannot be read", fix: str = AGAIN) -> Iterator[None]:
    """Turn whatever a library raises in the block into one line about the file.

    Args:
        name: file name, for messages.
        problem: meaning of the failure, such as ``is not a sound file``.
        fix: what the user can do.

    Raises:
        InputError: ``NAME: PROBLEM (REASON); FIX`` for any exception, also one derived directly
            from ``BaseException``, as panics of Rust libraries are. An ``InputError`` in the block
            passes unchanged, and so do signals.
    """
    try:
        yield
    except PASSING:
        raise
    except BaseException as error:
        import asyncio  # here, because it takes a sixth of the time of --help

        if isinstance(error, asyncio.CancelledError):
            raise
        raise InputError(f"{name}: {problem} ({reason_of(error)}); {fix}") from error


_PANIC_LOCK = threading.Lock()


@contextmanager
def without_panic_report() -> Iterator[None]:
    """Suppress what a Rust library prints to the terminal before it raises its panic.

    The library writes the report, with a backtrace, past Python to file descriptor 2. It is
    dropped if the block raises, since the exception says the same; otherwise the output
    is passed on. Use it only to try a file: it takes a lock and a temporary file.
    """
    with _PANIC_LOCK, tempfile.TemporaryFile() as held:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no terminal
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
    """Return one line that explains an error of a library."""
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
    """Return the size of a regular file in bytes, if it is within a limit.

    Args:
        path: file.
        most: limit in bytes, or None.

    Raises:
        InputError: if the file is missing, a device or a pipe, or larger.
    """
    if not os.path.isfile(path):  # Path.is_file raises for overlong names
        kind = "is not a file" if os.path.exists(path) else "no such file"
        raise InputError(f"{path}: {kind}; check the path")
    size = path.stat().st_size
    if most is not None and size > most:
        raise InputError(f"{path}: has {size:,} bytes, more than the limit of {most:,}")
    return size


def read_bytes(path: Path, most: int = MOST_TEXT_BYTES) -> bytes:
    """Return the content of a file that is no larger than allowed.

    Args:
        path: file.
        most: largest size in bytes.

    Raises:
        InputError: if it is larger, or cannot be read.
    """
    check_file_size(path, most)
    with reading(path):
        return path.read_bytes()


def read_text(path: Path, most: int = MOST_TEXT_BYTES) -> str:
    """Return the content of a text file in UTF-8, without a byte order mark.

    Args:
        path: file.
        most: largest size in bytes.

    Raises:
        InputError: if it is larger than allowed, cannot be read, or is not UTF-8.
    """
    content = read_bytes(path, most)
    with reading(path, "is not UTF-8 text", "save it as UTF-8, or " + AGAIN):
        return content.decode("utf-8-sig")


def parse_json(text: str, name: str | Path, fix: str = AGAIN) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the JSON.
        name: file or line, for messages.
        fix: what the user can do.

    Raises:
        InputError: if it is not JSON, is nested too deeply, or holds too many values.
    """
    if text.count(",") + text.count("[") + text.count("{") > MOST_JSON_VALUES:
        raise InputError(f"{name}: holds more than {MOST_JSON_VALUES} values; {fix}")
    with reading(name, "is not JSON", fix):
        return json.loads(text)


def read_json(path: Path, most: int = MOST_TEXT_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: file.
        most: largest size in bytes.

    Raises:
        InputError: if it cannot be read or holds anything else.
    """
    content = parse_json(read_text(path, most), path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a JSON object; {AGAIN}")
    return content


def is_plausible_hub_id(name: str) -> bool:
    """Return whether a name can be that of a repository on the Hugging Face hub.

    ``name`` or ``owner/name`` of letters, digits, ``-``, ``_`` and ``.``, without ``--`` or
    ``..``, and without a file extension.
    """
    if not HUB_ID.fullmatch(name) or "--" in name or ".." in name or name.endswith((".", "-")):
        return False
    return Path(name).suffix.lower() not in FILE_ENDINGS


def is_hub_name(name: str) -> bool:
    """Return whether a name can be that of a model on the hub, ``owner/name``.

    A revision may follow it: ``owner/name@REVISION``.
    """
    repository, at, revision = name.partition("@")
    is_one = repository.count("/") == 1 and is_plausible_hub_id(repository)
    return is_one and (not at or is_hub_revision(revision))


def is_hub_revision(revision: str) -> bool:
    """Return whether a revision can be a branch, a tag or a commit on the Hugging Face hub."""
    return HUB_REVISION.fullmatch(revision) is not None and ".." not in revision


_WITHHELD: ContextVar[bool] = ContextVar("withheld", default=False)


@contextmanager
def withheld_data() -> Iterator[None]:
    """Let no data be read in the block: :func:`open_source` raises :class:`DataWithheld`."""
    token = _WITHHELD.set(True)
    try:
        yield
    finally:
        _WITHHELD.reset(token)


def open_source(name: str, what: str = "data") -> Path:
    """Return the path of a source that is about to be read; of a data set, its name as a path.

    Args:
        name: a path, ``starter:NAME``, or the id of a data set on the hub.
        what: expected content, for the message.

    Raises:
        InputError: if it does not exist and cannot be a hub id.
        DataWithheld: in a block of :func:`withheld_data`.
    """
    if _WITHHELD.get():
        raise DataWithheld(name)
    check_source(name, what)
    return resolve_path(name)


def check_source(name: str, what: str = "data") -> None:
    """Reject a source that does not exist and cannot be a hub id, before any network call.

    Args:
        name: a path, ``starter:NAME``, the URL of an object store, or the id of a data set on the
            hub.
        what: expected content, for the message.

    Raises:
        InputError: if it is neither.
    """
    if is_remote(name):
        check_url(name)
        return
    path = resolve_path(name)
    if path.exists():
        return
    if str(path) != name or not is_plausible_hub_id(name):
        raise InputError(f"{name}: no such file or folder of {what}; check the path")


def is_remote(name: str) -> bool:
    """Return whether a source is the URL of an object store."""
    return name.startswith(SCHEMES)


def check_url(url: str) -> None:
    """Reject the URL of an object store that names no bucket.

    Raises:
        InputError: if it does not.
    """
    scheme, path = url.split("://", 1)
    if not path.strip("/") or path.startswith("/"):
        place = "datasets/OWNER/NAME" if scheme == "hf" else "BUCKET/PATH"
        raise InputError(f"{url}: names no bucket; write {scheme}://{place}")
