"""Lists of items for bulk work, of any size, read by ranges without holding them in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import of_path
from multidiff.utils.leftovers import visible_files
from multidiff.utils.lines import decoded
from multidiff.utils.packages import needs
from multidiff.utils.readers import parse_json, reading

LISTS = (".txt", ".jsonl")
# The place of every STRIDE-th line is kept in memory.
STRIDE = 256
USUAL_COLUMN = "text"
Item = str | InputError


class Items(Protocol):
    """A numbered list; an item that cannot be read is the error that says why."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def texts(self, some: range) -> list[Item]:
        """Return consecutive items as texts."""
        ...

    def files(self, some: range, folder: Path) -> list[Path | InputError]:
        """Return consecutive items as files; those that lie in a table are written to a folder."""
        ...

    def part(self, some: range, folder: Path) -> Path:
        """Return a source of the same kind with these items alone, made in a folder."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the list."""
        ...


def items_of(
    source: Path, column: str | None = None, endings: Sequence[str] = ()
) -> LineItems | RowItems | FileItems:
    """Return the items of a source.

    Args:
        source: a list (``.txt``, an item a line; ``.jsonl``, an object a line), a parquet file, or
            a folder of files; a folder of parquet files is their rows.
        column: column of ``.jsonl`` and parquet; "text" by default, empty for none.
        endings: endings of the files of a folder that are items; all by default.

    Raises:
        InputError: if it cannot be read, is of another kind, or holds no items.
    """
    found: LineItems | RowItems | FileItems
    ending = source.suffix.lower()
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_dir():
        tables = sorted(one for one in visible_files(source) if one.suffix.lower() == ".parquet")
        found = RowItems(source, tables, column) if tables else FileItems(source, endings)
    elif ending == ".parquet":
        found = RowItems(source, [source], column)
    elif ending in LISTS:
        found = LineItems(source, column)
    elif ending in endings:
        found = FileItems(source, endings)
    else:
        raise InputError(
            f"{source}: is no list for bulk work; give a folder, .parquet, .jsonl or .txt"
        )
    if column and (isinstance(found, FileItems) or ending == ".txt"):
        raise InputError(f"--column {column}: {source} has no columns; remove it")
    if not len(found):
        known = f" ({', '.join(endings)})" if isinstance(found, FileItems) and endings else ""
        raise InputError(f"{source}: holds no items{known}")
    return found


class LineItems:
    """The lines of a file: texts, or objects with a column.

    Args:
        path: the file.
        column: column of a ``.jsonl`` file.
    """

    def __init__(self, path: Path, column: str | None = None):
        self.path = path
        named = USUAL_COLUMN if column is None else column
        self.column = named if path.suffix.lower() == ".jsonl" else None
        starts, position, number = [0], 0, 0
        with reading(path, fix="check its permissions"), path.open("rb") as file:
            for number, line in enumerate(file, 1):
                position += len(line)
                if number % STRIDE == 0:
                    starts.append(position)
        self._starts, self._count = np.array(starts, np.int64), number

    def __len__(self) -> int:
        return self._count

    def _lines(self, some: range) -> list[bytes]:
        with reading(self.path), self.path.open("rb") as file:
            file.seek(int(self._starts[some.start // STRIDE]))
            for _ in range(some.start % STRIDE):
                file.readline()
            return [file.readline() for _ in some]

    def texts(self, some: range) -> list[Item]:
        """See :class:`Items`."""
        return [self._text(*one) for one in zip(some, self._lines(some), strict=True)]

    def _text(self, number: int, line: bytes) -> Item:
        where = f"{self.path}:{number + 1}"
        try:
            text = decoded(where, line).rstrip("\r\n")
            if not text.strip():
                raise InputError(f"{where}: is blank")
            if self.column is not None:
                text = _cell(parse_json(text, where, "correct the line"), self.column, where)
        except InputError as fault:
            return fault
        return text

    def files(self, some: range, folder: Path) -> list[Path | InputError]:
        """See :class:`Items`; names are relative to the list."""
        return [
            one if isinstance(one, InputError) else self.path.parent / one
            for one in self.texts(some)
        ]

    def part(self, some: range, folder: Path) -> Path:
        """See :class:`Items`; lines that name files beside the list stay valid."""
        path = folder / f"items{self.path.suffix.lower()}"
        lines = []
        for line in self._lines(some):
            beside = self.path.parent / os.fsdecode(line.rstrip(b"\r\n"))
            is_file = self.column is None and len(line) < 4096 and beside.is_file()
            lines.append(os.fsencode(beside.resolve()) + b"\n" if is_file else line)
        path.write_bytes(b"".join(lines))
        return path

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`Items`."""
        return {**of_path(self.path), "column": self.column}


class RowItems:
    """The rows of parquet files.

    Args:
        source: the file or folder.
        tables: the files.
        column: column of the items.

    Raises:
        InputError: if a file cannot be read, or has no such column.
    """

    def __init__(self, source: Path, tables: Sequence[Path], column: str | None = None):
        self.source, self.tables = source, list(tables)
        self.column = USUAL_COLUMN if column is None else column
        firsts = [0]
        for table in self.tables:
            metadata = _parquet(table).metadata
            known = metadata.schema.to_arrow_schema().names
            if self.column and self.column not in known:
                raise InputError(
                    f"{table}: no column {self.column!r}; name one by --column: {known}"
                )
            for group in range(metadata.num_row_groups):
                firsts.append(firsts[-1] + metadata.row_group(group).num_rows)
        self._firsts = np.array(firsts, np.int64)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @cached_property
    def _groups(self) -> list[tuple[Path, int]]:
        return [
            (table, group)
            for table in self.tables
            for group in range(_parquet(table).metadata.num_row_groups)
        ]

    def _rows(self, some: range, columns: list[str] | None) -> Any:
        """Return consecutive rows as a table."""
        import pyarrow

        first = int(np.searchsorted(self._firsts, some.start, "right")) - 1
        last = int(np.searchsorted(self._firsts, some.stop, "left"))
        parts = []
        for table, group in self._groups[first:last]:
            with reading(table, "has a row group that cannot be read"):
                parts.append(_parquet(table).read_row_group(group, columns, use_threads=False))
        return pyarrow.concat_tables(parts).slice(some.start - int(self._firsts[first]), len(some))

    def _cells(self, some: range) -> list[Any]:
        return self._rows(some, [self.column]).column(0).to_pylist()

    def _name(self, number: int) -> str:
        return f"{self.source}[{number}]"

    def texts(self, some: range) -> list[Item]:
        """See :class:`Items`."""
        found: list[Item] = []
        for number, cell in zip(some, self._cells(some), strict=True):
            try:
                found.append(_cell({self.column: cell}, self.column, self._name(number)))
            except InputError as fault:
                found.append(fault)
        return found

    def files(self, some: range, folder: Path) -> list[Path | InputError]:
        """See :class:`Items`; a cell is a name, bytes, or both as ``datasets`` stores them."""
        found: list[Path | InputError] = []
        for number, cell in zip(some, self._cells(some), strict=True):
            kind = "path" if isinstance(cell, str) else "bytes"
            cell = cell if isinstance(cell, dict) else {kind: cell}
            content, name = cell.get("bytes"), Path(cell.get("path") or "item.wav")
            if isinstance(content, bytes):
                path = folder / f"{number:09d}-{name.name}"
                path.write_bytes(content)
                found.append(path)
            elif cell.get("path"):
                found.append(self.source.parent / name)
            else:
                found.append(
                    InputError(f"{self._name(number)}: column {self.column!r} has no file")
                )
        return found

    def part(self, some: range, folder: Path) -> Path:
        """See :class:`Items`."""
        import pyarrow.parquet

        path = folder / "items.parquet"
        pyarrow.parquet.write_table(self._rows(some, None), path)
        return path

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`Items`."""
        return {**of_path(self.source), "column": self.column}


class FileItems:
    """The files of a folder, in the order of their names; or a single file.

    Args:
        folder: the folder, or file.
        endings: endings of the files that are items; all by default.
    """

    def __init__(self, folder: Path, endings: Sequence[str] = ()):
        self.folder = folder if folder.is_dir() else folder.parent
        files = visible_files(folder) if folder.is_dir() else [folder]
        start = len(os.fspath(self.folder)) + 1
        self.names = sorted(
            os.fspath(one)[start:] for one in files if not endings or one.suffix.lower() in endings
        )

    def __len__(self) -> int:
        return len(self.names)

    def texts(self, some: range) -> list[Item]:
        """Return consecutive items as paths."""
        return [str(self.folder / name) for name in self.names[some.start : some.stop]]

    def files(self, some: range, folder: Path) -> list[Path | InputError]:
        """See :class:`Items`."""
        return [self.folder / name for name in self.names[some.start : some.stop]]

    def part(self, some: range, folder: Path) -> Path:
        """See :class:`Items`; of links to the files, and to texts beside them."""
        for name in self.names[some.start : some.stop]:
            file, link = self.folder / name, folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            for one in (file, file.with_suffix(".txt")):
                beside = link.with_suffix(one.suffix)
                if one.is_file() and not beside.is_symlink():
                    beside.symlink_to(one.resolve())
        return folder

    def fingerprint(self) -> dict[str, Any]:
        """Return the hash of names and sizes."""
        hashed = hashlib.sha256()
        for name in self.names:
            size = (self.folder / name).stat().st_size
            hashed.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return {"files": len(self.names), "names": hashed.hexdigest()}


def _cell(row: Any, column: str, where: str) -> str:
    """Return a text of a row.

    Raises:
        InputError: if it has no text.
    """
    cell = row.get(column) if isinstance(row, dict) else None
    if not isinstance(cell, str) or not cell.strip():
        raise InputError(f"{where}: column {column!r} has no text")
    return cell


def _parquet(table: Path) -> Any:
    with needs("pyarrow", "a parquet file"):
        import pyarrow.parquet
    with reading(table, "is not a parquet file"):
        return pyarrow.parquet.ParquetFile(table)
