"""Fingerprints of data, to check that a resumed run reads the data it started with.

A fingerprint is plain JSON. For files it has their names relative to the source, their sizes and
a hash of their content, so that a moved folder counts as the same data; for a data set on the
hub its id and the library's own fingerprint, which follows from the revision.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from multidiff.utils.leftovers import visible_files

Fingerprint = dict[str, Any]

# Up to this size every byte is hashed; of larger data, this many bytes in evenly spaced blocks.
WHOLE_BYTES = 64 << 20
BLOCK_BYTES = 64 << 10
# Up to this many files, each is recorded by name, so that a message can name those that changed.
LISTED_FILES = 1000
SHOWN = 3


def of_files(files: Iterable[Path], root: Path) -> Fingerprint:
    """Return the fingerprint of files.

    Args:
        files: files in any order; those that do not exist are skipped.
        root: folder that their names are relative to.

    Returns:
        ``files`` and ``bytes``, their number and size; ``content``, a hash of names, sizes and
        content; ``sampled``, whether only blocks of the content were read; and ``each``, size
        and hash by name, if there are few.
    """
    found = sorted((_name(file, root), file) for file in set(files) if file.is_file())
    sizes = [file.stat().st_size for _, file in found]
    total, whole = sum(sizes), hashlib.sha256()
    each: dict[str, list[Any]] = {}
    first = 0
    for (name, file), size in zip(found, sizes, strict=True):
        own = hashlib.sha256()
        for block in _blocks(file, first, size, total):
            own.update(block)
        each[name] = [size, own.hexdigest()[:16]]
        whole.update(json.dumps([name, size, own.hexdigest()]).encode())
        first += size
    fingerprint: Fingerprint = {
        "files": len(found),
        "bytes": total,
        "content": whole.hexdigest(),
        "sampled": total > WHOLE_BYTES,
    }
    return {**fingerprint, "each": each} if len(each) <= LISTED_FILES else fingerprint


def of_stats(path: Path) -> Fingerprint:
    """Return the fingerprint of a file, or of all in a folder, by names, sizes and times alone.

    No content is read, so a million files take seconds; a copied file counts as changed.
    """
    files = visible_files(path) if path.is_dir() else [path]
    found, count, total = [], 0, 0
    for file in files:
        stat = file.stat()
        found.append(f"{_name(file, path.parent)}\0{stat.st_size}\0{stat.st_mtime_ns}")
        count, total = count + 1, total + stat.st_size
    content = hashlib.sha256("\n".join(sorted(found)).encode("utf-8", "surrogateescape"))
    return {"files": count, "bytes": total, "stats": content.hexdigest()}


def of_dataset(
    table: Any, name: str, config: str | None = None, split: str | None = None
) -> Fingerprint:
    """Return the fingerprint of a data set of the ``datasets`` library.

    Args:
        table: the loaded data set.
        name: id on the hub.
        config: configuration.
        split: split.
    """
    version = getattr(getattr(table, "info", None), "version", None)
    return {
        "id": name,
        "config": config,
        "split": split,
        "rows": len(table),
        "version": None if version is None else str(version),
        "revision": getattr(table, "_fingerprint", None),
    }


def of_path(path: Path) -> Fingerprint:
    """Return the fingerprint of a file, or of all files in a folder except hidden ones."""
    if path.is_dir():
        return of_files(visible_files(path), path)
    return of_files([path], path.parent)


def of_arrays(arrays: Iterable[tuple[str, memoryview]]) -> Fingerprint:
    """Return the fingerprint of named bytes in memory, up to the size limit."""
    found, left, count = hashlib.sha256(), WHOLE_BYTES, 0
    for name, content in arrays:
        found.update(json.dumps([name, len(content)]).encode())
        found.update(content[: max(left, 0)])
        left -= len(content)
        count += 1
    return {"arrays": count, "content": found.hexdigest(), "sampled": left < 0}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in a few words how data changed; empty if they did not."""
    if dict(before) == dict(now):
        return ""
    if "each" in before and "each" in now:
        return _by_name(before["each"], now["each"])
    if "files" in before and "files" in now:
        was, is_now = (f"{one['files']} files of {one['bytes']:,} bytes" for one in (before, now))
        return "the content of files changed" if was == is_now else f"was {was}, is {is_now}"
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "files" in now or "files" in before or "content" in keys:
        return "is different data"
    return ", ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in keys)


def _by_name(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changes = {
        "changed": [name for name in now if name in before and before[name] != now[name]],
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
    }
    return ", ".join(f"{_some(names)} {how}" for how, names in changes.items() if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _name(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


def _blocks(file: Path, first: int, size: int, total: int) -> Iterator[bytes]:
    """Yield the hashed bytes of a file that begins at ``first`` in ``total`` bytes of all files."""
    if total <= WHOLE_BYTES:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                yield block
        return
    stride = (total - BLOCK_BYTES) / (WHOLE_BYTES // BLOCK_BYTES - 1)
    number = -(-first // stride)  # the first block that begins in this file
    if int(number * stride) >= first + size:
        return  # none does: of a million files, few are opened
    with file.open("rb") as opened:
        while (start := int(number * stride)) < first + size:
            opened.seek(max(start - first, 0))
            yield opened.read(BLOCK_BYTES)
            number += 1
