"""Parquet files in an object store, read by row groups through a bounded local cache.

The footers of the files are read once and kept in the cache folder; then any row of any file can be
read by fetching the columns of its row group. Nothing else is read at the start of a run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from multidiff.data.cache import cache_dir
from multidiff.data.columns import Columns
from multidiff.data.group_cache import GroupCache
from multidiff.data.group_order import Grouping
from multidiff.data.object_store import ObjectStore
from multidiff.data.prepare import Plan, prepared
from multidiff.data.splits import files_of_split
from multidiff.data.table_writer import ColumnWriter
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.leftovers import is_hidden
from multidiff.utils.packages import needs
from multidiff.utils.readers import is_remote

logger = logging.getLogger(__name__)

VERSION = 1
FILES_OF_A_PART = 16
TAIL_BYTES = 1 << 16
KEPT_FOOTERS = 64
ENDING = ".parquet"
MAGIC = b"PAR1"
GIGABYTE = 10**9


@dataclass(frozen=True)
class RowGroups:
    """Reading of a source of parquet files by row groups.

    Attributes:
        streams: number of parts of an epoch that are read side by side; only as many as divide the
            batch are used. Processes on up to that many machines share no row group.
        window: number of row groups of a stream whose rows are shuffled together.
        cache_gb: gigabytes of the local cache; the windows of all streams must fit into it.
        store: connection to the object store.
    """

    streams: int = 8
    window: int = 4
    cache_gb: float = 20.0
    store: ObjectStore = field(default_factory=ObjectStore)

    def __post_init__(self) -> None:
        if self.streams < 1 or self.window < 1 or not self.cache_gb > 0:
            raise InputError(
                f"row_groups: streams {self.streams}, window {self.window}, cache_gb "
                f"{self.cache_gb:g}: all must be positive"
            )


def grouped_reading(path: str, given: RowGroups | None) -> RowGroups | None:
    """Return how a source is read by row groups; None if it is not.

    Args:
        path: its path, or URL.
        given: the reading that its recipe asks for.
    """
    return RowGroups() if given is None and is_remote(path) else given


@dataclass(frozen=True)
class File:
    """A parquet file.

    Attributes:
        name: its path in the file system of its store.
        bytes: its size.
        changed_ns: time of its last change.
    """

    name: str
    bytes: int
    changed_ns: int


class GroupedTable:
    """Rows of parquet files, read by row groups.

    Args:
        url: URL or path of a file, or of a folder of files, which are read in the order of their
            names.
        columns: columns to read; parts of nested ones are called ``a.b``.
        options: how it is read.
        split: split of the data set, where the names of the files say which one they belong to.

    Attributes:
        sizes: number of rows of each row group.

    Raises:
        InputError: if the files cannot be found or read, or lack a column.
    """

    def __init__(self, url: str, columns: Sequence[str], options: RowGroups, split: str = "train"):
        self.url, self.options, self.columns = url, options, list(columns)
        self._systems: dict[int, Any] = {}
        self._footers: OrderedDict[int, Any] = OrderedDict()
        files = files_of_split(self._list_files(), split)
        if not files:
            raise InputError(f"{url}: has no {ENDING} files of the split {split!r}; check the path")
        self._files, self._root = files, _root_of(files)
        described = [[file.name, file.bytes, file.changed_ns] for file in files]
        store = options.store
        plan = Plan(
            "row-groups",
            {"version": VERSION, "url": url, "endpoint": store.endpoint, "files": described},
            {"file": "int32", "rows": "int64", "footer": "bytes"},
            parts=lambda: [
                range(first, min(first + FILES_OF_A_PART, len(files)))
                for first in range(0, len(files), FILES_OF_A_PART)
            ],
            make=partial(_read_footers, url, store, files),
            size_of=len,
            source=url,
        )
        self._index: Columns = prepared(plan)
        self.sizes = self._index.fixed("rows")[:]
        self._of_file = self._index.fixed("file")[:]
        if not self.sizes.sum():
            raise InputError(f"{url}: has no rows; name files that have some")
        self._first = np.cumsum(self.sizes) - self.sizes
        self._typical = self._metadata(int(self._of_file[0]))
        self._check_columns()
        self._cache = GroupCache(
            cache_dir() / f"{plan.folder.name}-{_digest(self.columns)}.cache",
            int(options.cache_gb * GIGABYTE),
            self._fetched,
            2 * options.streams * options.window,
            url,
        )

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_systems": {}, "_footers": OrderedDict()}

    def label_names(self, column: str) -> tuple[str, ...]:
        """Return the names of the labels of a column that the data set declares; empty if none."""
        schema = self._typical.schema.to_arrow_schema()
        if b"huggingface" not in (schema.metadata or {}):
            return ()
        with needs("datasets", "labels of a data set"):
            import datasets  # takes seconds to import
        features = datasets.Features.from_arrow_schema(schema)
        return tuple(getattr(features.get(column), "names", None) or ())

    @property
    def group_bytes(self) -> int:
        """Return the decoded size of the first row group, about."""
        return self._bytes_of(self._typical, 0)

    def _bytes_of(self, metadata: Any, inner: int) -> int:
        group = metadata.row_group(inner)
        chunks = [group.column(number) for number in range(group.num_columns)]
        chosen = [one for one in chunks if self._is_chosen(one.path_in_schema)]
        return sum(one.total_uncompressed_size for one in chosen)

    def grouping(self, sizes: np.ndarray) -> Grouping:
        """Return the grouping of some of its groups, of these sizes, and check its cache.

        Raises:
            InputError: if the cache cannot hold the windows of all streams.
        """
        options = self.options
        held = min(options.streams * options.window, len(sizes)) * self.group_bytes
        if held > self._cache.limit:
            raise InputError(
                f"{self.url}: {options.streams} streams with windows of {options.window} row "
                f"groups take about {held / GIGABYTE:.3g} GB, more than the cache; raise "
                "row_groups.cache_gb, or lower streams or window"
            )
        return Grouping(sizes, options.streams, options.window)

    def row(self, number: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the values of a row by column.

        Args:
            number: number of the row.
            columns: some of the columns; all by default.

        Raises:
            InputError: if its row group cannot be read, naming the file.
        """
        group = int(np.searchsorted(self._first, number, side="right")) - 1
        place = int(number - self._first[group])
        table = self._cache.group(group)
        return {name: table.column(name)[place].as_py() for name in columns or self.columns}

    def name(self, number: int) -> str:
        """Return the name of a row in messages."""
        return f"{self.url}[{int(number)}]"

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of its files: names, sizes and footers."""
        whole = hashlib.sha256()
        for number, file in enumerate(self._files):
            name = posixpath.relpath(file.name, self._root)
            whole.update(f"{name}\0{file.bytes}\0".encode())
            whole.update(self._footer(number))
        total = sum(file.bytes for file in self._files)
        content = whole.hexdigest()
        return {"files": len(self._files), "bytes": total, "content": content, "sampled": True}

    def _system(self) -> Any:
        """Return the file system, which each process opens for itself."""
        process = os.getpid()
        if process not in self._systems:
            self._systems = {process: self.options.store.open(self.url)[0]}
        return self._systems[process]

    def _list_files(self) -> list[File]:
        system, path = self.options.store.open(self.url)

        def listed() -> list[File]:
            from pyarrow.fs import FileSelector, FileType

            (one,) = system.get_file_info([path])
            found = [one]
            if one.type == FileType.Directory:
                found = system.get_file_info(FileSelector(path, recursive=True))
            elif one.type != FileType.File:
                raise FileNotFoundError(f"{path} does not exist")
            names = [one.path.removeprefix(path).split("/") for one in found]
            return [
                File(one.path, one.size, one.mtime_ns or 0)
                for one, parts in zip(found, names, strict=True)
                if one.type == FileType.File
                and one.path.endswith(ENDING)
                and not any(map(is_hidden, filter(None, parts)))
            ]

        found = self.options.store.patiently(listed, self.url, "cannot be listed")
        return sorted(found, key=lambda file: file.name)

    def _footer(self, number: int) -> bytes:
        place = int(np.searchsorted(self._of_file, number))
        has_rows = place < len(self._of_file) and self._of_file[place] == number
        return self._index.variable("footer")[place] if has_rows else b""

    def _metadata(self, number: int) -> Any:
        """Return the metadata of a file; those of the files read last are kept."""
        import pyarrow
        import pyarrow.parquet

        if number not in self._footers:
            footer = pyarrow.BufferReader(self._footer(number))
            self._footers[number] = pyarrow.parquet.read_metadata(footer)
            while len(self._footers) > KEPT_FOOTERS:
                self._footers.popitem(last=False)
        return self._footers[number]

    def _is_chosen(self, path: str) -> bool:
        return any(path == name or path.startswith(f"{name}.") for name in self.columns)

    def _check_columns(self) -> None:
        schema = self._typical.schema
        there = [schema.column(number).path for number in range(len(schema))]
        for name in self.columns:
            if not any(path == name or path.startswith(f"{name}.") for path in there):
                raise InputError(f"{self.url}: no column {name!r}; it has {there}")

    def _fetched(self, group: int) -> Any:
        """Return a row group from the store."""
        number = int(self._of_file[group])
        file = self._files[number]
        name = f"{_scheme(self.url)}{file.name}"
        inner = group - int(np.searchsorted(self._of_file, number))
        problem = f"row group {inner} is damaged"
        return self.options.store.patiently(partial(self._read, number, inner, name), name, problem)

    def _read(self, number: int, inner: int, name: str) -> Any:
        import pyarrow.parquet

        metadata = self._metadata(number)
        size = self._bytes_of(metadata, inner)
        if size > self._cache.limit:
            raise InputError(
                f"{name}: row group {inner} has {size:,} bytes, more than the cache; raise "
                "row_groups.cache_gb, or write smaller row groups"
            )
        with _opened(self._system(), self._files[number], name) as source:
            reader = pyarrow.parquet.ParquetFile(
                source, metadata=metadata, pre_buffer=True, page_checksum_verification=True
            )
            table = reader.read_row_group(inner, columns=self.columns, use_threads=False)
        while not set(self.columns) <= set(table.column_names):  # parts of nested columns
            flat = table.flatten()
            if flat.num_columns == table.num_columns:
                raise ValueError(f"columns: {table.column_names}")
            table = flat
        return table.select(self.columns).combine_chunks()


class GroupedColumn(Sequence):
    """Values that are made of the rows of a table, when they are needed.

    Args:
        table: the table.
        make: function of the number of a row.
    """

    def __init__(self, table: GroupedTable, make: Callable[[int], Any]):
        self.table, self.make = table, make

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        return self.make(int(row))


@contextmanager
def _opened(system: Any, file: File, name: str) -> Iterator[Any]:
    with system.open_input_file(file.name) as source:
        if source.size() != file.bytes:
            raise InputError(
                f"{name}: has {source.size():,} bytes, but had {file.bytes:,} when it was listed; "
                "it was changed or cut short: copy it again, or start again"
            )
        yield source


def _read_footers(
    url: str, store: ObjectStore, files: Sequence[File], numbers: range, writer: ColumnWriter
) -> None:
    import pyarrow
    import pyarrow.parquet

    system, _ = store.open(url)
    for number in numbers:
        file = files[number]
        name = f"{_scheme(url)}{file.name}"
        footer = store.patiently(
            partial(_footer_of, system, file, name), name, "is no parquet file, or was cut short"
        )
        metadata = store.patiently(
            lambda footer=footer: pyarrow.parquet.read_metadata(pyarrow.BufferReader(footer)), name
        )
        groups = range(metadata.num_row_groups)
        sizes = [metadata.row_group(group).num_rows for group in groups]
        writer.extend_rows(
            [
                {"file": number, "rows": rows, "footer": b"" if group else footer}
                for group, rows in enumerate(sizes)
            ]
        )


def _footer_of(system: Any, file: File, name: str) -> bytes:
    """Return the end of a parquet file: its metadata, their length and the magic number."""
    with _opened(system, file, name) as source:
        first = max(file.bytes - TAIL_BYTES, 0)
        tail = source.read_at(file.bytes - first, first)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != MAGIC or not 8 < length <= file.bytes:
            raise ValueError("its end is missing")
        if length > len(tail):
            tail = source.read_at(length, file.bytes - length)
        return tail[-length:]


def _root_of(files: Sequence[File]) -> str:
    return posixpath.commonpath([posixpath.dirname(file.name) for file in files])


def _scheme(url: str) -> str:
    return url[: url.index("://") + 3] if is_remote(url) else ""


def _digest(columns: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(columns).encode()).hexdigest()[:8]
