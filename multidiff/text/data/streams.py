"""Rows of text sources of any size, read piece by piece."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multidiff.data.archives import ENDINGS as ARCHIVES
from multidiff.data.archives import archives_of
from multidiff.text.data.archived import archived_rows
from multidiff.text.data.tables import (
    DELIMITERS,
    TABLE_ENDINGS,
    header_columns,
    load_rows,
    named_rows,
    records,
)
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import of_stats
from multidiff.utils.lines import decoded
from multidiff.utils.readers import parse_json, reading

if TYPE_CHECKING:
    from multidiff.text.data.listing import TextSource

BLOCK_BYTES = 1 << 20
PIECE_BYTES = 1 << 25
PIECE_ROWS = 50_000
# A row of a source with its number, or why it cannot be read.
NumberedRow = tuple[int, Mapping[str, Any] | InputError]


@dataclass(frozen=True)
class Piece:
    """A part of a source.

    Attributes:
        start: first byte of a file, or first row of a data set.
        stop: the byte or row after the last.
        archive: archive of which all is meant.
    """

    start: int
    stop: int
    archive: Path | None = None

    @property
    def size(self) -> int:
        """Return the number of bytes or rows."""
        return self.stop - self.start


def is_file_of_lines(source: TextSource) -> bool:
    """Return whether a source is a file that is read as text, not a data set."""
    path = resolve_path(source.path)
    return path.is_file() and path.suffix.lower() not in (*TABLE_ENDINGS, *ARCHIVES)


def pieces_of(source: TextSource) -> list[Piece]:
    """Return the pieces of a source: whole lines of a file, or rows of a data set.

    Tables with quotes are one piece: where their rows begin shows only from the start.

    Raises:
        InputError: if a data set cannot be loaded.
    """
    if archives := archives_of(resolve_path(source.path)):
        return [Piece(0, archive.stat().st_size, archive) for archive in archives]
    if not is_file_of_lines(source):
        count = len(_opened(source))
        return [Piece(a, min(a + PIECE_ROWS, count)) for a in range(0, count, PIECE_ROWS)]
    path = resolve_path(source.path)
    size = path.stat().st_size
    if path.suffix.lower() in DELIMITERS:
        return [Piece(0, size)]
    cuts = [0]
    with path.open("rb") as file:
        while cuts[-1] + PIECE_BYTES < size:
            file.seek(cuts[-1] + PIECE_BYTES)
            file.readline()
            cuts.append(file.tell())
    cuts.append(size)
    return [Piece(a, b) for a, b in pairwise(cuts) if b > a]


def dataset_bytes(source: TextSource) -> int:
    """Return the size of a data set of the ``datasets`` library.

    Raises:
        InputError: if it cannot be loaded.
    """
    return _opened(source).data.nbytes


def rows_of_piece(source: TextSource, piece: Piece) -> Iterator[NumberedRow]:
    """Yield the rows of a piece with their numbers: of lines and archives from 1, in the piece.

    A row that cannot be read is the error that says why.

    Raises:
        InputError: if the whole file is not of its kind.
    """
    if piece.archive is not None:
        yield from archived_rows(piece.archive, source.column)
        return
    if not is_file_of_lines(source):
        table = _opened(source)
        there = [column for column in source.columns() if column in table.column_names]
        _check_columns(source, table.column_names)
        part = table.select_columns(there).select(range(piece.start, piece.stop))
        yield from enumerate(named_rows(source.path, part), piece.start)
        return
    path = resolve_path(source.path)
    ending = path.suffix.lower()
    if ending in DELIMITERS:
        yield from _cells(source, path, ending, piece)
        return
    for number, line in _numbered_lines(source.path, path, piece):
        if isinstance(line, InputError):
            yield number, line
        elif line.strip():
            yield number, _row_of(source, path, piece, number, line, ending)


def text_blocks(source: TextSource, piece: Piece) -> Iterator[str]:
    """Yield the text of a piece of a ``.txt`` file, line ends of any system made newlines.

    Raises:
        InputError: if it is not UTF-8.
    """
    path = resolve_path(source.path)
    for block in _blocks(path, piece):
        text = decoded(source.path, block)
        yield io.StringIO(text, newline=None).read()


def line_name(source: TextSource, piece: Piece, number: int) -> str:
    """Return the name of a line in messages; the lines before its piece are counted."""
    before = _lines_before(resolve_path(source.path), piece.start)
    return f"{source.path}:{before + number}"


@lru_cache(maxsize=8)
def _lines_before(path: Path, start: int) -> int:
    """Return the number of lines of a file before a byte at which one begins."""
    return sum(count for count, _ in _counted(_blocks(path, Piece(0, start))))


def _counted(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield blocks with their numbers of line ends: of any system, as Python counts them."""
    for block in blocks:
        alone = block.count(b"\r") - block.count(b"\r\n") if b"\r" in block else 0
        yield block.count(b"\n") + alone, block


def _blocks(path: Path, piece: Piece) -> Iterator[bytes]:
    """Yield the bytes of a piece in blocks of whole lines."""
    with path.open("rb") as file:
        file.seek(piece.start)
        left = piece.size
        while left:
            with reading(path, fix="check its permissions"):
                block = file.read(min(BLOCK_BYTES, left))
                if len(block) < left:
                    block += file.readline(left - len(block))
            if not block:
                raise InputError(f"{path}: became shorter while it was read; start again")
            left -= len(block)
            yield block


def _numbered_lines(where: str, path: Path, piece: Piece) -> Iterator[tuple[int, str | InputError]]:
    number = 0
    for block in _blocks(path, piece):
        try:
            lines: Iterable[str | InputError] = io.StringIO(decoded(where, block), newline=None)
        except InputError:
            lines = map(_line_or_fault, block.splitlines(keepends=True))
        for line in lines:
            number += 1
            yield number, line if isinstance(line, InputError) else line.removesuffix("\n")


def _line_or_fault(line: bytes) -> str | InputError:
    try:
        return decoded("the line", line.rstrip(b"\r\n"))
    except InputError as fault:
        return fault


def _row_of(
    source: TextSource, path: Path, piece: Piece, number: int, line: str, ending: str
) -> Mapping[str, Any] | InputError:
    if ending != ".jsonl":
        return {source.column: line}
    try:
        row = parse_json(line, "the line", "correct it")
    except InputError as fault:
        return fault
    if not isinstance(row, dict):
        return InputError("the line is not a JSON object; write one, in braces, on each line")
    return row


def _cells(source: TextSource, path: Path, ending: str, piece: Piece) -> Iterator[NumberedRow]:
    blocks = (decoded(source.path, block) for block in _blocks(path, piece))
    lines = chain.from_iterable(io.StringIO(block, newline="") for block in blocks)
    rows = records(source.path, lines, ending)
    first, cells = next(rows)
    columns = header_columns(source.path, first, cells, source.header)
    _check_columns(source, columns)
    for line, record in rows if source.header else chain([(first, cells)], rows):
        if len(record) != len(columns):
            yield line, InputError(f"has {len(record)} fields, but line {first} {len(columns)}")
        else:
            yield line, dict(zip(columns, record, strict=True))


def _check_columns(source: TextSource, columns: Iterable[str]) -> None:
    known = list(columns)
    for column in source.columns():
        if column not in known:
            raise InputError(f"{source.path}: no column {column!r}; it has {known}")


def _opened(source: TextSource) -> Any:
    path = resolve_path(source.path)
    return _kept_open(source, json.dumps(of_stats(path)) if path.exists() else "")


@lru_cache(maxsize=2)
def _kept_open(source: TextSource, stamp: str) -> Any:
    return load_rows(source.path, source.split, source.config).flatten()
