"""Files that are read at random, and compared with their checksums at the first read."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from multidiff.utils.errors import InputError

CHECKSUMS = "checksums"
BLOCK = 1 << 16
MOST_OPEN_FILES = 64
AGAIN = "delete the folder, and it is made again"
_BINARY = getattr(os, "O_BINARY", 0)


def blocks_in(size: int) -> int:
    """Return the number of blocks of a file of ``size`` bytes."""
    return -(-size // BLOCK)


class OpenFiles:
    """Files that are read by ``pread``, which shares no position over a fork.

    The last used ones stay open; the object pickles as their paths.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._handles: dict[int, int] = {}

    def __reduce__(self):
        return OpenFiles, (self.paths,)

    def __del__(self):
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def __len__(self) -> int:
        return len(self._handles)

    def read(self, number: int, start: int, into: np.ndarray) -> int:
        """Read bytes into an array.

        Args:
            number: number of the file.
            start: position of the first byte.
            into: array of bytes.

        Returns:
            Number of bytes read: fewer if the file ends.

        Raises:
            InputError: if the file cannot be read.
        """
        handle = self._handles.pop(number, None)
        try:
            if handle is None:
                handle = os.open(self.paths[number], os.O_RDONLY | _BINARY)
            self._handles[number] = handle  # the last used one is last
            if len(self._handles) > MOST_OPEN_FILES:
                os.close(self._handles.pop(next(iter(self._handles))))
            return _read_at(handle, start, into.data)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"{self.paths[number]}: cannot be read ({reason}); is the disk still there?"
            ) from error


def _read_at(handle: int, start: int, into: memoryview) -> int:
    done = 0
    while done < len(into):
        if hasattr(os, "preadv"):
            count = os.preadv(handle, [into[done:]], start + done)
        else:  # Windows, where no process is forked
            os.lseek(handle, start + done, os.SEEK_SET)
            content = os.read(handle, len(into) - done)
            count = len(content)
            into[done : done + count] = content
        if count == 0:
            break
        done += count
    return done


class CheckedFiles:
    """The files of a table, and which of their blocks were compared with their checksums.

    Args:
        folder: folder of the table.
        listed: names and sizes of the files, in the order of their checksums.

    Raises:
        InputError: if a file is missing or has another size; by other methods, if a block differs
            from what was written.
    """

    def __init__(self, folder: Path, listed: Sequence[tuple[str, int]]):
        self.folder = folder
        self.names = [name for name, _ in listed]
        self.sizes = [size for _, size in listed]
        for name, size in listed:
            self._check_size(folder / name, size)
        counts = [blocks_in(size) for size in self.sizes]
        self._bases: list[int] = [0, *accumulate(counts)]
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._seen = np.zeros(self._bases[-1], bool)
        self._open = OpenFiles([folder / name for name in self.names])
        self._check_size(folder / CHECKSUMS, 4 * self._bases[-1])
        self._sums = _map(folder / CHECKSUMS).view("<u4")

    def number(self, name: str) -> int:
        """Return the number of a file."""
        return self._numbers[name]

    def mapped(self, number: int) -> np.ndarray:
        """Return the bytes of a file as a read-only memory map, not compared."""
        return _map(self.folder / self.names[number])

    def read(self, number: int, start: int, into: np.ndarray) -> None:
        """Read bytes into an array; their blocks are compared where that is still to do."""
        stop = start + len(into)
        first, last = start // BLOCK, blocks_in(stop)
        base = self._bases[number]
        if self._seen[base + first : base + last].all():
            self._pread(number, start, into)
            return
        begin, end = first * BLOCK, min(last * BLOCK, self.sizes[number])
        content = np.empty(end - begin, np.uint8)
        self._pread(number, begin, content)
        for block in range(first, last):
            place = (block - first) * BLOCK
            self._compare(number, block, content[place : place + BLOCK])
        into[:] = content[start - begin : stop - begin]

    def check(self, number: int, start: int, stop: int) -> None:
        """Compare the blocks of a range of bytes."""
        first, last = start // BLOCK, blocks_in(stop)
        base = self._bases[number]
        if stop > start and not self._seen[base + first : base + last].all():
            self._check_blocks(number, np.arange(first, last))

    def check_at(self, number: int, positions: np.ndarray) -> None:
        """Compare the blocks that have the bytes at some positions."""
        self._check_blocks(number, positions // BLOCK)

    def _check_blocks(self, number: int, blocks: np.ndarray) -> None:
        left = blocks[~self._seen[self._bases[number] + blocks]]
        for block in np.unique(left).tolist():
            begin = block * BLOCK
            content = np.empty(min(BLOCK, self.sizes[number] - begin), np.uint8)
            self._pread(number, begin, content)
            self._compare(number, block, content)

    def verify(self) -> None:
        """Compare all files."""
        for number, size in enumerate(self.sizes):
            self._seen[self._bases[number] : self._bases[number + 1]] = False
            self.check(number, 0, size)

    def _compare(self, number: int, block: int, content: np.ndarray) -> None:
        where = self._bases[number] + block
        if zlib.crc32(content.data) != self._sums[where]:
            raise InputError(
                f"{self.folder / self.names[number]}: bytes {block * BLOCK:,} and on differ from "
                f"what was written; {AGAIN}"
            )
        self._seen[where] = True

    def _pread(self, number: int, start: int, into: np.ndarray) -> None:
        if self._open.read(number, start, into) != len(into):
            raise InputError(f"{self.folder / self.names[number]}: was cut short; {AGAIN}")

    @staticmethod
    def _check_size(path: Path, size: int) -> None:
        try:
            found = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path}: is missing from its table; {AGAIN}") from error
        if found != size:
            raise InputError(f"{path}: has {found:,} of {size:,} bytes; {AGAIN}")


def _map(path: Path) -> np.ndarray:
    """Return the bytes of a file, mapped, without reading ahead where rows are read at random."""
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        pages.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(pages, np.uint8)
