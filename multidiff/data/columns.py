"""Tables of columns on disk that many processes read at random.

A table is a folder. Columns of fixed width are one file each; columns of variable length are
``int64`` offsets and the values of all rows one after the other, in the files of the parts that
they were made in (:mod:`multidiff.data.table_writer`). Nothing is loaded: fixed columns are
memory-mapped, values are read by ``pread``, which shares no position over a fork, and a pickled
table is its path. So memory does not grow with the rows, nor with the processes that read them.

Every block of 64 KiB has a CRC-32, which is compared when a process reads the block first: a
damaged file is named, never delivered.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from multidiff.data.checked_files import AGAIN, CheckedFiles
from multidiff.utils.errors import InputError
from multidiff.utils.readers import parse_json, read_text

FORMAT = 1
HEADER = "columns.json"
OFFSETS = ".offsets"


@cache
def dtype_of(kind: str) -> np.dtype:
    """Return the type of a column's values.

    Args:
        kind: a numpy type such as ``float32`` for one value a row, ``uint16[]`` for any number of
            them, ``bytes`` or ``text`` (UTF-8).
    """
    name = "uint8" if kind in ("bytes", "text") else kind.removesuffix("[]")
    return np.dtype(name).newbyteorder("<")


def is_variable(kind: str) -> bool:
    """Return whether rows of such a column differ in length."""
    return kind in ("bytes", "text") or kind.endswith("[]")


def rendered_header(content: Mapping[str, Any]) -> str:
    """Return the text of a header, which holds a checksum of itself."""
    plain = json.dumps(content, indent=1)
    return json.dumps({**content, "crc32": zlib.crc32(plain.encode())}, indent=1) + "\n"


class Columns:
    """A table of columns on disk, read at random.

    A table pickles as its path, and may be read after a fork or in a spawned process; one object
    is not for several threads. Arrays that it returns are copies.

    Args:
        folder: folder of the table.

    Attributes:
        kinds: kind of each column, by name (:func:`dtype_of`).
        info: whatever else the maker of the table noted, as JSON.
        first_rows: first row of each part that the table was made in, and the number of all rows.
        notes: what the makers of the parts noted, as JSON.

    Raises:
        InputError: if the folder is no table, has another format, or a file is missing or has
            another size than it was written with.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        header = _read_header(self.folder)
        self.kinds: dict[str, str] = header["columns"]
        self.info: dict[str, Any] = header["info"]
        self._rows, self._parts = header["rows"], header["parts"]
        self.first_rows: list[int] = [0, *accumulate(header["part_rows"])]
        self.notes: list[dict[str, Any]] = header["notes"]
        self._files = CheckedFiles(self.folder, header["files"])
        self._opened: dict[str, FixedColumn | VariableColumn] = {}

    def __reduce__(self) -> Any:
        return Columns, (self.folder,)

    def __len__(self) -> int:
        return self._rows

    def __contains__(self, name: str) -> bool:
        return name in self.kinds

    def fixed(self, name: str) -> FixedColumn:
        """Return a column with one value a row.

        Raises:
            KeyError: if there is no such column.
        """
        return cast(FixedColumn, self._column(name, variable=False))

    def variable(self, name: str) -> VariableColumn:
        """Return a column of texts, bytes or arrays.

        Raises:
            KeyError: if there is no such column.
        """
        return cast(VariableColumn, self._column(name, variable=True))

    def part_of(self, row: int) -> int:
        """Return the number of the part that has a row."""
        return bisect_right(self.first_rows, row) - 1

    def verify(self) -> None:
        """Compare all files with their checksums.

        Raises:
            InputError: if one differs, naming it.
        """
        self._files.verify()

    def _column(self, name: str, variable: bool) -> FixedColumn | VariableColumn:
        if name not in self.kinds or is_variable(self.kinds[name]) != variable:
            raise KeyError(f"{self.folder}: no such column {name!r}; it has {self.kinds}")
        if name not in self._opened:
            kind = self.kinds[name]
            if variable:
                offsets = FixedColumn(self._files, name + OFFSETS, "int64")
                names = [f"{part}/{name}" for part in self._parts]
                self._opened[name] = VariableColumn(self._files, name, names, kind, offsets)
            else:
                self._opened[name] = FixedColumn(self._files, name, kind)
        return self._opened[name]


class FixedColumn(Sequence):
    """A column with one value a row, memory-mapped.

    It is read like an array: ``column[5]``, ``column[2:9]``, ``column[indices]``; the result is a
    copy. ``np.searchsorted`` and the like work on :meth:`mapped`. A pickled column is the path of
    its table.
    """

    def __init__(self, files: CheckedFiles, name: str, kind: str):
        self.dtype = dtype_of(kind)
        self._files, self._name, self._number = files, name, files.number(name)
        self._array: np.ndarray | None = None

    def __reduce__(self) -> Any:
        return _reopened, (self._files.folder, self._name, False)

    def __len__(self) -> int:
        return self._files.sizes[self._number] // self.dtype.itemsize

    def __getitem__(self, index: Any) -> Any:
        width = self.dtype.itemsize
        if isinstance(index, int | np.integer):
            if not 0 <= index < len(self):  # ends an iteration
                raise IndexError(f"row {index} of {len(self)}")
            self._files.check(self._number, index * width, (index + 1) * width)
            return self.mapped()[index]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            self._files.check(self._number, start * width, stop * width)
        else:
            index = np.asarray(index)
            self._files.check_at(self._number, index * width)
        return np.array(self.mapped()[index])

    def mapped(self) -> np.ndarray:
        """Return all rows as a read-only memory map, not compared with the checksums."""
        if self._array is None:
            self._array = self._files.mapped(self._number).view(self.dtype)
        return self._array


class VariableColumn(Sequence):
    """A column of texts, bytes or arrays, of any length each, read by ``pread``.

    ``column[5]`` is the whole value: ``str``, ``bytes`` or a new array; a slice is a list. A
    pickled column is the path of its table.
    """

    def __init__(
        self, files: CheckedFiles, name: str, names: Sequence[str], kind: str, offsets: FixedColumn
    ):
        self._name = name
        self.dtype, self._kind = dtype_of(kind), kind
        self._files, self._offsets = files, offsets
        self._numbers = [files.number(name) for name in names]
        counts = [files.sizes[number] // self.dtype.itemsize for number in self._numbers]
        self._bounds: list[int] = [0, *accumulate(counts)]

    def __reduce__(self) -> Any:
        return _reopened, (self._files.folder, self._name, True)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            first, last, step = row.indices(len(self))
            if step != 1:
                return [self[one] for one in range(first, last, step)]
            return self._consecutive(first, max(first, last))
        if not 0 <= row < len(self):  # ends an iteration
            raise IndexError(f"row {row} of {len(self)}")
        start, stop = self._offsets[row : row + 2].tolist()
        return self._value(self.values(start, stop))

    def _consecutive(self, first: int, last: int) -> list[Any]:
        """Return rows that follow each other, read at once."""
        offsets = self._offsets[first : last + 1]
        values = self.values(int(offsets[0]), int(offsets[-1]))
        ends = (offsets - offsets[0]).tolist()
        return [self._value(values[a:b]) for a, b in pairwise(ends)]

    def _value(self, values: np.ndarray) -> Any:
        if self._kind == "text":
            return values.tobytes().decode()
        return values.tobytes() if self._kind == "bytes" else values

    @property
    def total(self) -> int:
        """Return the number of values of all rows together."""
        return self._bounds[-1]

    def lengths(self, rows: Any) -> np.ndarray:
        """Return the number of values of some rows: bytes of a text, items of an array.

        Args:
            rows: an array of row numbers, or a slice.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return np.diff(self._offsets[start : max(stop, start) + 1])
        rows = np.asarray(rows)
        return self._offsets[rows + 1] - self._offsets[rows]

    def row_at(self, position: int) -> int:
        """Return the row that has the value at a position among those of all rows."""
        return int(np.searchsorted(self._offsets.mapped(), position, side="right")) - 1

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return values ``start`` to ``stop`` of a row, clipped to the row as slices are."""
        first, last = self._offsets[row : row + 2].tolist()
        start, stop, _ = slice(start, stop).indices(last - first)
        return self.values(first + start, first + max(start, stop))

    def values(self, start: int, stop: int) -> np.ndarray:
        """Return values by their position among those of all rows."""
        width = self.dtype.itemsize
        found = np.empty(max(stop - start, 0), self.dtype)
        into, done = found.view(np.uint8), 0
        part = bisect_right(self._bounds, start) - 1
        while done < len(found):
            base, end = self._bounds[part : part + 2]
            count = min(stop, end) - start - done
            if count > 0:
                where = (start + done - base) * width
                target = into[done * width : (done + count) * width]
                self._files.read(self._numbers[part], where, target)
                done += count
            part += 1
        return found


class ParsedColumn(Sequence):
    """A column of texts that are JSON, as the values.

    Args:
        column: the column.
        kind: function that is applied to each value, such as ``tuple``.
    """

    def __init__(self, column: VariableColumn, kind: Callable[[Any], Any] | None = None):
        self.column, self.kind = column, kind

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        value = json.loads(self.column[row])
        return value if self.kind is None else self.kind(value)


def _reopened(folder: Path, name: str, variable: bool) -> FixedColumn | VariableColumn:
    table = Columns(folder)
    return table.variable(name) if variable else table.fixed(name)


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{folder}: is not a table of columns, or was not finished; {AGAIN}")
    text = read_text(path)
    content = parse_json(text, path, AGAIN)
    plain = {key: value for key, value in content.items() if key != "crc32"}
    if content.get("format") != FORMAT:
        raise InputError(
            f"{folder}: has format {content.get('format')!r}, this version reads {FORMAT}; {AGAIN}"
        )
    if rendered_header(plain) != text:
        raise InputError(f"{path}: differs from what was written; {AGAIN}")
    return plain
