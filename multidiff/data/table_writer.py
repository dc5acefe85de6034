"""Writing of tables of columns, in parts that several processes may make.

Each part is a folder of its own, written whole: ``00007/length``, ``00007/text``. Joining them
copies the columns of fixed width, and the offsets, into one file each; the values stay where
they are.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.data.checked_files import BLOCK, CHECKSUMS
from multidiff.data.columns import (
    FORMAT,
    HEADER,
    OFFSETS,
    dtype_of,
    is_variable,
    rendered_header,
)
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, atomic_write_dir
from multidiff.utils.readers import read_json

PART = "part.json"
SUMS = ".crc"
COPIED_BYTES = 1 << 22
Fault = tuple[str, str]


class ColumnWriter:
    """Append-only writer of the rows of one part.

    It is made by :func:`written_part`.

    Args:
        folder: folder of the part, which exists.
        kinds: kind of each column by name (:func:`multidiff.data.columns.dtype_of`).

    Attributes:
        rows: number of rows so far.
        faults: names and reasons of what could not be read.
        notes: JSON about the part, which the table's readers find in ``Columns.notes``.
    """

    def __init__(self, folder: Path, kinds: Mapping[str, str]):
        self.folder, self.kinds = folder, dict(kinds)
        self.rows = 0
        self.faults: list[Fault] = []
        self.notes: dict[str, Any] = {}
        # Columns of fixed width and offsets get their checksums when the parts are joined.
        variable = [name for name, kind in kinds.items() if is_variable(kind)]
        self._sinks: dict[str, _Sink] = {
            name: _Sink(folder / name, None if name in variable else io.BytesIO()) for name in kinds
        }
        self._ends = {name: _Sink(folder / (name + OFFSETS), io.BytesIO()) for name in variable}

    def append(self, **values: Any) -> None:
        """Append a row: a number, ``str``, ``bytes`` or array for each column.

        A column of variable length may be left out, if :meth:`add` gave its values before, or for
        an empty value.

        Raises:
            ValueError: if a column of fixed width is missing, or there is no such column.
        """
        missing = self.kinds.keys() - self._ends.keys() - values.keys()
        if missing or not values.keys() <= self.kinds.keys():
            raise ValueError(f"a row of {sorted(values)}: the columns are {self.kinds}")
        for name, value in values.items():
            self.add(name, value)
        for name, ends in self._ends.items():
            width = dtype_of(self.kinds[name]).itemsize
            ends.write(np.int64(self._sinks[name].size // width).tobytes())
        self.rows += 1

    def add(self, name: str, values: Any) -> None:
        """Add values to the open row of a column, which :meth:`append` closes."""
        if isinstance(values, str):
            values = values.encode()
        if not isinstance(values, bytes):
            values = np.ascontiguousarray(values, dtype_of(self.kinds[name]))
            values = values.reshape(-1).view(np.uint8).data
        self._sinks[name].write(values)

    def extend(self, lengths: Mapping[str, Any] | None = None, **columns: Any) -> None:
        """Append many rows at once.

        Args:
            lengths: numbers of values of each row, for each column of variable length.
            columns: values of all the rows, one after the other, for every column.

        Raises:
            ValueError: if the columns have different numbers of rows.
        """
        lengths = {name: np.asarray(value, np.int64) for name, value in (lengths or {}).items()}
        counts = {name: len(columns[name]) for name in self.kinds if name not in self._ends}
        counts |= {name: len(lengths[name]) for name in self._ends}
        if len(set(counts.values())) != 1:
            raise ValueError(f"columns of different length: {counts}")
        for name, own in lengths.items():
            width = dtype_of(self.kinds[name]).itemsize
            before = self._sinks[name].size // width
            self.add(name, columns[name])
            if before + own.sum() != self._sinks[name].size // width:
                raise ValueError(f"column {name}: lengths do not add up to the number of values")
            self._ends[name].write((before + np.cumsum(own)).astype("<i8").tobytes())
        for name in self.kinds.keys() - self._ends.keys():
            self.add(name, columns[name])
        self.rows += next(iter(counts.values()))

    def extend_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows at once, each with a value for every column.

        Args:
            rows: values by column: numbers, ``str``, ``bytes`` or arrays.
        """
        if not rows:
            return
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in self.kinds}
        lengths = {}
        for name in self._ends:
            values = columns[name]
            if self.kinds[name] == "text":
                values = [value.encode() for value in values]
            lengths[name] = [len(value) for value in values]
            is_bytes = self.kinds[name] in ("bytes", "text")
            columns[name] = b"".join(values) if is_bytes else np.concatenate(values)
        self.extend(lengths, **columns)

    def fault(self, name: str, reason: object) -> None:
        """Note an item that cannot be read; it has no row."""
        self.faults.append((name, str(reason)))

    def finish(self) -> None:
        """Write what is left, and the part's list of its files."""
        sinks = [*self._sinks.values(), *self._ends.values()]
        files = {sink.path.name: sink.finish() for sink in sinks}
        content = {"rows": self.rows, "files": files, "notes": self.notes, "faults": self.faults}
        (self.folder / PART).write_text(json.dumps(content), "utf-8")

    def close(self) -> None:
        """Close all files, finished or not."""
        for sink in (*self._sinks.values(), *self._ends.values()):
            sink.close()


@contextmanager
def written_part(folder: Path, kinds: Mapping[str, str]) -> Iterator[ColumnWriter]:
    """Write a part whole: its folder appears when the block succeeds, else nothing is left.

    The disk is not waited for: what a power cut leaves unwritten, the checksums show.

    Args:
        folder: folder of the part.
        kinds: kind of each column by name.

    Raises:
        InputError: if the system refuses (full disk, permissions), naming the folder and why.
    """
    with atomic_write_dir(folder, flush=False) as partial:
        writer = ColumnWriter(partial, kinds)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


def read_part(folder: Path) -> dict[str, Any]:
    """Return a part's number of rows, files and faults.

    Raises:
        InputError: if it is not a part, or a file has another size than it was written with.
    """
    content = read_json(folder / PART)
    for name, size in content["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"{path}: is missing or was cut short; delete {folder}")
    return content


def join_parts(
    folder: Path,
    parts: Sequence[str],
    kinds: Mapping[str, str],
    info: Mapping[str, Any],
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Make a table of parts that lie in its folder; its header is written last.

    Args:
        folder: folder of the table.
        parts: names of the parts' folders, in the order of their rows.
        kinds: kind of each column by name.
        info: further JSON for the header.
        extra: more columns of fixed width, one value for each row of all parts.

    Raises:
        InputError: if a part is damaged, or a file cannot be written.
        ValueError: if an extra column has another length.
    """
    found = [read_part(folder / part) for part in parts]
    rows = [part["rows"] for part in found]
    for name, values in (extra or {}).items():
        if len(values) != sum(rows):
            raise ValueError(f"column {name} of {len(values)} rows for a table of {sum(rows)}")
    files: list[tuple[str, int]] = []
    with atomic_write(folder / CHECKSUMS) as sums_path, sums_path.open("wb") as sums:

        def copy(name: str, pieces: Iterable[bytes]) -> None:
            with atomic_write(folder / name) as partial:
                sink = _Sink(partial, sums)
                for piece in pieces:
                    sink.write(piece)
                files.append((name, sink.finish()))

        for name, kind in kinds.items():
            if is_variable(kind):
                copy(name + OFFSETS, _shifted_ends(folder, parts, found, name, kind))
            else:
                copy(name, (piece for part in parts for piece in _pieces(folder / part / name)))
        for name, values in (extra or {}).items():
            copy(name, [np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()])
        for part, content in zip(parts, found, strict=True):
            for name in (one for one, kind in kinds.items() if is_variable(kind)):
                files.append((f"{part}/{name}", content["files"][name]))
                sums.write((folder / part / (name + SUMS)).read_bytes())
    header = {
        "format": FORMAT,
        "rows": sum(rows),
        "columns": {**kinds, **{name: value.dtype.name for name, value in (extra or {}).items()}},
        "parts": list(parts),
        "part_rows": rows,
        "notes": [part["notes"] for part in found],
        "files": files,
        "info": dict(info),
    }
    with atomic_write(folder / HEADER) as partial:
        partial.write_text(rendered_header(header), "utf-8")


def _pieces(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while piece := file.read(COPIED_BYTES):
            yield piece


def _shifted_ends(
    folder: Path, parts: Sequence[str], found: Sequence[Mapping[str, Any]], name: str, kind: str
) -> Iterable[bytes]:
    """Yield the offsets of all rows among the values of all parts."""
    yield np.int64(0).tobytes()
    before = 0
    for part, content in zip(parts, found, strict=True):
        for piece in _pieces(folder / part / (name + OFFSETS)):
            yield (np.frombuffer(piece, "<i8") + before).tobytes()
        before += content["files"][name] // dtype_of(kind).itemsize


class _Sink:
    """A file that is written with a checksum for each block.

    Args:
        path: the file.
        sums: file that takes the checksums; one beside it by default.
    """

    def __init__(self, path: Path, sums: Any = None):
        self.path, self.size = path, 0
        self._file = path.open("wb")
        self._sums = path.with_name(path.name + SUMS).open("wb") if sums is None else sums
        self._owns_sums = sums is None
        self._tail = bytearray()

    def write(self, content: bytes | memoryview) -> None:
        self.size += len(content)
        if len(self._tail) + len(content) < BLOCK:
            self._tail += content
            return
        view = memoryview(content)
        if self._tail:  # fill its block
            missing = BLOCK - len(self._tail)
            self._flush(self._tail + view[:missing])
            view = view[missing:]
        whole = len(view) // BLOCK * BLOCK
        self._flush(view[:whole])  # as it is, without a copy
        self._tail[:] = view[whole:]

    def finish(self) -> int:
        """Write what is left and return the size of the file."""
        self._flush(self._tail)
        self.close()
        return self.size

    def close(self) -> None:
        self._file.close()
        if self._owns_sums:
            self._sums.close()

    def _flush(self, content: bytes | bytearray | memoryview) -> None:
        blocks = (content[first : first + BLOCK] for first in range(0, len(content), BLOCK))
        self._sums.write(np.array([zlib.crc32(one) for one in blocks], "<u4").tobytes())
        self._file.write(content)
