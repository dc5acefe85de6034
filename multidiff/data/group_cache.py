"""A folder of decoded row groups, of limited size, shared by the processes of a machine.

An entry is an Arrow stream behind a header with its checksum, read through a memory map. What was
used longest ago is removed first, so that the files never exceed the limit; one process fetches an
entry while the others wait for it.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multidiff.utils.errors import InputError
from multidiff.utils.files import write_error
from multidiff.utils.locks import lock_file

logger = logging.getLogger(__name__)

HEADER = struct.Struct("<8sIQ44x")  # 64 bytes: the Arrow stream stays aligned
MAGIC = b"rowgroup"
ENDING, UNFINISHED = ".arrow", ".part"
LOCKS = 64
POLL_SECONDS = 0.02


class GroupCache:
    """Decoded row groups in a folder.

    Args:
        folder: the folder; several caches of one folder, in any process, share its entries.
        limit: largest size of all entries, in bytes.
        fetch: function that returns the group of a number, as a ``pyarrow.Table``.
        most_open: number of entries that this process keeps open.
        name: name of the source, for messages.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        fetch: Callable[[int], Any],
        most_open: int,
        name: str,
    ):
        self.folder, self.limit, self.name = folder, limit, name
        self._fetch, self._most_open = fetch, most_open
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def group(self, number: int) -> Any:
        """Return a row group, from the cache or fetched now.

        Raises:
            InputError: if it cannot be fetched, or the folder cannot be written.
        """
        path = self.folder / f"{number:08d}{ENDING}"
        with suppress(OSError):  # it was removed meanwhile, or was never there
            os.utime(path)
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        table = self._opened(path)
        if table is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with _locked(self.folder / f"{number % LOCKS:02d}.lock"):
                    table = self._opened(path)
                    if table is None:
                        fetched = self._fetch(number)
                        self._write(path, fetched)
                        table = self._opened(path)
                        table = fetched if table is None else table  # removed at once
            except OSError as error:
                raise write_error(path, error) from error
        self._open[number] = table
        while len(self._open) > self._most_open:
            self._open.popitem(last=False)
        return table

    def _opened(self, path: Path) -> Any:
        """Return an entry; None if it is not there, or damaged."""
        import pyarrow

        try:
            content = pyarrow.memory_map(str(path)).read_buffer()
        except OSError:
            return None
        stream = content[HEADER.size :]
        if len(content) > HEADER.size:
            magic, checksum, length = HEADER.unpack(content[: HEADER.size].to_pybytes())
            if (magic, checksum, length) == (MAGIC, zlib.crc32(stream), len(stream)):
                return pyarrow.ipc.open_stream(stream).read_all()
        logger.warning("%s: is damaged; it is fetched again", path)
        return None

    def _write(self, path: Path, table: Any) -> None:
        import pyarrow

        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        stream = sink.getvalue()
        header = HEADER.pack(MAGIC, zlib.crc32(stream), len(stream))
        with _locked(self.folder / "room.lock"):
            self._make_room(len(header) + len(stream))
            partial = path.with_suffix(UNFINISHED)
            try:
                with partial.open("wb") as file:
                    file.write(header)
                    file.write(stream)
                partial.replace(path)
            finally:
                with suppress(OSError):
                    partial.unlink()

    def _make_room(self, size: int) -> None:
        """Remove the entries that were used longest ago; only the process with the lock writes."""
        found = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(UNFINISHED):  # of a process that was killed
                os.unlink(entry.path)
            elif entry.name.endswith(ENDING):
                state = entry.stat()
                found.append((state.st_mtime_ns, state.st_size, entry.path))
        total = size + sum(one for _, one, _ in found)
        if size > self.limit:
            raise InputError(
                f"{self.name}: a row group takes {size / 1e6:,.0f} MB, more than the cache of "
                f"{self.limit / 1e6:,.0f} MB; raise row_groups.cache_gb, or write smaller groups"
            )
        for _, one, path in sorted(found):
            if total <= self.limit:
                return
            os.unlink(path)
            total -= one


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while True:
            with suppress(BlockingIOError):
                lock_file(handle)
                break
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)
