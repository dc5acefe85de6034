"""Rows of text archives: tar, zip and WebDataset shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multidiff.data.archives import ArchiveReader, Member, by_sample
from multidiff.utils.errors import InputError
from multidiff.utils.lines import decoded
from multidiff.utils.readers import parse_json

TEXT, JSON = "txt", "json"
MOST_TEXT_BYTES = 16 << 20


def archived_rows(path: Path, column: str) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yield the samples of an archive by column, numbered from 1.

    ``key.txt`` is a whole text, ``key.NAME.txt`` the column ``NAME``, and ``key.json`` has further
    columns. Samples without any are left out; one that cannot be read is the error that says why.

    Args:
        path: the archive.
        column: column of ``key.txt``.

    Raises:
        InputError: if the archive cannot be read, or has no texts.
    """
    reader, number = ArchiveReader([path]), 0
    for key, members in by_sample(path).items():
        kinds = {end.lower(): one for end, one in members.items() if _is_text(end.lower())}
        if not kinds:
            continue
        number += 1
        try:
            yield number, _row(reader, f"{path}:{key}", column, kinds)
        except InputError as fault:
            yield number, fault
    if not number:
        raise InputError(f"{path}: has no texts: pack them as files .txt or .json")


def _is_text(ending: str) -> bool:
    return ending in (TEXT, JSON) or ending.endswith(f".{TEXT}")


def _row(
    reader: ArchiveReader, name: str, column: str, members: dict[str, Member]
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for ending, member in sorted(members.items(), key=lambda one: one[0] != JSON):
        where = f"{name}.{ending}"
        if member.size > MOST_TEXT_BYTES:
            raise InputError(
                f"{where}: has {member.size:,} bytes; a file in an archive is one text, not one a "
                "line: unpack it"
            )
        text = decoded(where, reader.read(0, member))
        if ending != JSON:
            row[column if ending == TEXT else ending.removesuffix(f".{TEXT}")] = text
            continue
        found = parse_json(text, where, "correct it")
        if not isinstance(found, dict):
            raise InputError(f"{where}: is not a JSON object; write one, in braces")
        row |= found
    return row
