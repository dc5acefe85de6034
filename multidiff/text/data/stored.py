"""Texts of large sources, prepared once as tables on disk (:mod:`multidiff.data.columns`)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from multidiff.data.archives import archives_of
from multidiff.data.columns import Columns, FixedColumn, ParsedColumn
from multidiff.data.order import SplitRows
from multidiff.data.prepare import Plan, prepared
from multidiff.data.table_writer import ColumnWriter
from multidiff.text.data.listing import Texts, TextSource, text_row
from multidiff.text.data.streams import (
    Piece,
    dataset_bytes,
    is_file_of_lines,
    line_name,
    pieces_of,
    rows_of_piece,
    text_blocks,
)
from multidiff.text.data.tables import can_be_id
from multidiff.text.data.words import PIECE, plain
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import of_stats

logger = logging.getLogger(__name__)

VERSION = 1
# Sources of up to this size are lists in the memory of each process: about four times as much.
MOST_IN_MEMORY = 32 << 20
ROWS_AT_ONCE = 4096
ROWS_OF_A_PART = 1 << 20
CHARACTERS = 1024  # of a row of running text


def is_large(source: TextSource) -> bool:
    """Return whether the texts of a source stay on disk."""
    if source.grouped is not None:
        return False
    path = resolve_path(source.path)
    if not path.exists():  # reading it reports what no data set can be called
        return can_be_id(path) and dataset_bytes(source) > MOST_IN_MEMORY
    return of_stats(path)["bytes"] > MOST_IN_MEMORY


def texts_plan(source: TextSource) -> Plan[Piece]:
    """Return the plan that makes a table of a source's texts, or of its running text."""
    path = resolve_path(source.path)
    found = of_stats(path) if path.exists() else source.fingerprint()
    columns = {"text": "text"}
    if not source.running:
        columns |= {"line": "int64", "words": "int32", "digest": "uint64"}
        columns |= {"source": "text"} if source.source_column is not None else {}
        columns |= {"meaning": "text"} if source.has_meanings else {}
        columns |= {"group_digest": "uint64"} if source.grouped_by is not None else {}
    key = {
        "version": VERSION,
        "source": found,
        "columns": source.columns(),
        "kinds": [source.source_column, source.meaning_column, *source.attribute_columns],
        "options": [source.header, source.grouped_by, source.split, source.config],
    }
    return Plan(
        "running-text" if source.running else "texts",
        key,
        columns,
        parts=partial(pieces_of, source),
        make=partial(_write_running if source.running else _write_texts, source),
        size_of=lambda piece: piece.size,
        source=source.path,
        finish=None if source.running else partial(_finish, source),
    )


def stored_texts(source: TextSource) -> Texts:
    """Return the texts of a source, on disk.

    Raises:
        InputError: if the source cannot be read, or the cache folder not written.
    """
    table = prepared(texts_plan(source))
    if source.running:
        return Texts([StoredText(table, 0, _characters(table)[-1] - 1)], [source.path])  # type: ignore[list-item]
    meanings = ParsedColumn(table.variable("meaning")) if "meaning" in table else None
    return StoredTexts(
        table.variable("text"),
        Names(source.path, table, is_file_of_lines(source), _is_archived(source)),
        table.variable("source") if "source" in table else None,
        meanings,
        table=table,
    )


@dataclass(frozen=True)
class StoredTexts(Texts):
    """Texts on disk.

    Attributes:
        table: their table: ``text``, ``words``, ``digest``, and what else the source has.
    """

    table: Columns = None  # type: ignore[assignment]

    def split(self, held_out_every: int, held_out: bool) -> Sequence[int]:
        """Return the rows of one side of a split."""
        if "group" not in self.table:
            return SplitRows(len(self.table), held_out_every, held_out)
        sides = [
            first + np.flatnonzero(_side(group, held_out_every, held_out))
            for first, group in _chunks(self.table.fixed("group"))
        ]
        return np.concatenate(sides)  # type: ignore[return-value]


class Names(Sequence):
    """Names of rows: ``path:line`` or ``path[row]``."""

    def __init__(self, path: str, table: Columns, has_lines: bool, is_archived: bool = False):
        self.path, self.table = path, table
        self.has_lines, self.is_archived = has_lines, is_archived
        self.first_lines = [0, *accumulate(note["lines"] for note in table.notes)]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        number = int(self.table.fixed("line")[row])
        if self.has_lines or self.is_archived:  # counted from the beginning of a part
            number += self.first_lines[self.table.part_of(row)]
        return f"{self.path}:{number}" if self.has_lines else f"{self.path}[{number}]"


class StoredText:
    """Running text on disk: sliced without reading, read by ``str``."""

    def __init__(self, table: Columns, start: int, stop: int):
        self.table, self.start, self.stop = table, start, stop
        self._ends = _characters(table)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> StoredText:
        start, stop, _ = part.indices(len(self))
        return StoredText(self.table, self.start + start, self.start + max(start, stop))

    def __str__(self) -> str:
        column, found, position = self.table.variable("text"), [], self.start
        while position < self.stop:
            part = int(np.searchsorted(self._ends, position, side="right"))
            before = int(self._ends[part - 1]) if part else 0
            row, offset = divmod(position - before, CHARACTERS)
            text = column[int(self.table.first_rows[part]) + row]
            found.append(text[offset : offset + self.stop - position])
            position += len(found[-1])
        return "".join(found)


def selection_of(
    source: TextSource, texts: StoredTexts, longest: int | None, held_out: bool
) -> Columns:
    """Return a table of the rows of one side of a split that are not too long.

    Args:
        source: source of the texts.
        texts: its texts.
        longest: largest number of words; None keeps all.
        held_out: whether to take the texts kept for validation.

    Returns:
        Columns ``row`` and ``length``, and notes with ``side``, the rows before long ones are
        skipped.
    """
    table, every = texts.table, source.held_out_every
    plan = Plan(
        "rows",
        {"texts": table.folder.name, "split": [every, held_out], "longest": longest},
        {"row": "int64", "length": "int32"},
        parts=partial(_ranges, len(table)),
        make=partial(_select, table, every, held_out, longest),
        source=source.path,
    )
    return prepared(plan)


def count_repeats(held_out: Columns, trained: Columns, texts: Sequence[Columns]) -> tuple[int, int]:
    """Return how many held-out texts are among the trained ones, and how many there are.

    Args:
        held_out: selection of the held-out texts.
        trained: selection of the training texts.
        texts: tables of both.
    """
    plan = Plan(
        "repeats",
        {"rows": [held_out.folder.name, trained.folder.name]},
        {"count": "int64", "total": "int64"},
        parts=lambda: [None],
        make=partial(_count_repeats, held_out, trained, texts),
    )
    found = prepared(plan, workers=1)
    return int(found.fixed("count")[0]), int(found.fixed("total")[0])


def text_digest(text: str, source: str = "") -> int:
    """Return 64 bits that identify a text with its source, white space aside."""
    content = f"{plain(text)}\0{plain(source)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _write_texts(source: TextSource, piece: Piece, writer: ColumnWriter) -> None:
    rows: list[dict[str, Any]] = []
    number, blank, named = 0, 0, set()
    for number, row in rows_of_piece(source, piece):
        try:
            if isinstance(row, InputError):
                raise row
            named |= row.keys()
            found = text_row(source, "the row", row)
        except InputError as fault:
            writer.fault(_name_of(source, piece, number), fault)
            continue
        if found is None:
            blank += 1
            continue
        values: dict[str, Any] = {"text": found.text, "line": number}
        values["words"] = len(PIECE.findall(found.text))
        values["digest"] = text_digest(found.text, found.source or "")
        if found.source is not None:
            values["source"] = found.source
        if found.meaning is not None:
            values["meaning"] = json.dumps(found.meaning)
        if found.group is not None:
            values["group_digest"] = text_digest(found.group)
        rows.append(values)
        if len(rows) == ROWS_AT_ONCE:
            writer.extend_rows(rows)
            rows.clear()
    writer.extend_rows(rows)
    writer.notes = {"lines": number, "blank": blank, "columns": sorted(map(str, named))}


def _is_archived(source: TextSource) -> bool:
    return bool(archives_of(resolve_path(source.path)))


def _name_of(source: TextSource, piece: Piece, number: int) -> str:
    if not is_file_of_lines(source):
        return f"{piece.archive or source.path}[{number}]"
    return line_name(source, piece, number)


def _write_running(source: TextSource, piece: Piece, writer: ColumnWriter) -> None:
    """Write rows of ``CHARACTERS`` characters; a newline follows the text of each row."""
    left, total = "", 0
    for block in _running_blocks(source, piece, writer):
        left += block
        whole = len(left) // CHARACTERS * CHARACTERS
        for first in range(0, whole, CHARACTERS):
            writer.append(text=left[first : first + CHARACTERS])
        left, total = left[whole:], total + len(block)
    if left:
        writer.append(text=left)
    writer.notes = {"characters": total}


def _running_blocks(source: TextSource, piece: Piece, writer: ColumnWriter) -> Iterator[str]:
    path = resolve_path(source.path)
    if path.is_file() and path.suffix.lower() == ".txt":
        yield from text_blocks(source, piece)
        if piece.stop == path.stat().st_size:
            yield "\n"  # dropped again at the end of the whole, as that of the last row is
        return
    for number, row in rows_of_piece(source, piece):
        try:
            if isinstance(row, InputError):
                raise row
            found = text_row(source, "the row", row)
        except InputError as fault:
            writer.fault(_name_of(source, piece, number), fault)
            continue
        if found is not None:
            yield f"{found.text}\n"


def _characters(table: Columns) -> np.ndarray:
    """Return the number of characters up to the end of each part of running text."""
    return np.cumsum([note["characters"] for note in table.notes], dtype=np.int64)


def _finish(
    source: TextSource, table: Columns
) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    named = {name for note in table.notes for name in note["columns"]}
    is_checked = is_file_of_lines(source) or _is_archived(source)
    for column in source.columns() if is_checked else ():
        if column not in named:
            raise InputError(f"{source.path}: no column {column!r}; it has {sorted(named)}")
    if len(table) == 0:
        raise InputError(f"{source.path}: has no texts; name a file or column that has some")
    blank = sum(note["blank"] for note in table.notes)
    if blank:
        logger.warning("%s: %d rows have no text; they are skipped", source.path, blank)
    if "group_digest" not in table:
        return {}, {}
    _, first, inverse = np.unique(
        table.fixed("group_digest")[:], return_index=True, return_inverse=True
    )
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))  # in order of first appearance
    return {"group": number[inverse]}, {}


def _ranges(count: int) -> list[Piece]:
    return [
        Piece(a, min(a + ROWS_OF_A_PART, count)) for a in range(0, max(count, 1), ROWS_OF_A_PART)
    ]


def _chunks(column: FixedColumn) -> Iterator[tuple[int, np.ndarray]]:
    for piece in _ranges(len(column)):
        yield piece.start, column[piece.start : piece.stop]


def _side(groups: np.ndarray, every: int, held_out: bool) -> np.ndarray:
    kept = groups % every == every // 2 if every > 0 else np.zeros(len(groups), bool)
    return kept == held_out


def _select(
    table: Columns,
    every: int,
    held_out: bool,
    longest: int | None,
    piece: Piece,
    writer: ColumnWriter,
) -> None:
    rows = np.arange(piece.start, piece.stop)
    groups = table.fixed("group")[piece.start : piece.stop] if "group" in table else rows
    words = table.fixed("words")[piece.start : piece.stop]
    side = _side(groups, every, held_out)
    kept = side if longest is None else side & (words <= longest)
    writer.extend(row=rows[kept], length=words[kept])
    writer.notes = {"side": int(side.sum())}


def _count_repeats(
    held_out: Columns, trained: Columns, texts: Sequence[Columns], piece: None, writer: ColumnWriter
) -> None:
    wanted = texts[0].fixed("digest")[held_out.fixed("row")[:]]
    there = np.zeros(0, np.uint64)
    for _, rows in _chunks(trained.fixed("row")):
        found = texts[1].fixed("digest")[rows]
        there = np.union1d(there, found[np.isin(found, wanted)])
    writer.append(count=int(np.isin(wanted, there).sum()), total=len(wanted))
