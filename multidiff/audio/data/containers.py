"""Actual contents of sound files, where they differ from what the headers declare.

The decoding library trusts headers: of two files in one it decodes the first, a stream whose
header gives no length ends in an error, and without a header of its own the length of an MP3 of
variable bit rate is a guess. Here the structure of a file is read without decoding it, and the
decoder is given views of it: its streams one by one, with a header that states their length.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from multidiff.audio.data.mp3 import scan, with_length

Segment = bytes | range
Content = bytes | mmap.mmap
RIFFS = (b"RIFF", b"RIFX")
UNKNOWN_SIZES = (0, 0xFFFFFFFF)
FLAC_HEADERS = (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22")  # the first block, as the last or not
# A larger difference from the declared length of an MP3 is not trimming of its ends.
MP3_SLACK = 6_000
FRAMES_TRIED = 1000
LARGEST_FRAME = 1 << 18


@dataclass(frozen=True)
class Stream:
    """One stream of a file, as a file of its own.

    Attributes:
        segments: bytes, and ranges of the file, that make it up.
        missing: number of samples that its header declares beyond what it can contain.
        lacks: other evidence that it is truncated; empty without any.
    """

    segments: tuple[Segment, ...]
    missing: int = 0
    lacks: str = ""


def streams_of(content: Content) -> list[Stream] | None:
    """Return the streams of a WAV, FLAC or Ogg file; None for other formats."""
    start = bytes(content[:12])
    if start[:4] in RIFFS:
        return list(_wav(content, ">" if start[:4] == b"RIFX" else "<"))
    if start[:4] == b"fLaC":
        return list(_flac(content))
    if start[:4] == b"OggS":
        return list(_ogg(content))
    return None


# -------------------------------------------------------------------------------- WAV


def _wav(content: Content, order: str) -> Iterator[Stream]:
    """Yield the RIFF files in a file; chunks other than sound are skipped."""
    first = 0
    while content[first : first + 4] in RIFFS:
        position, data, align = first + 12, None, 1
        while position < len(content) and content[position : position + 4] not in RIFFS:
            chunk = _chunk(content, position, order)
            if chunk is None:  # more sound than the header declares, or the rest of a chunk
                position = len(content)
                break
            kind, size = chunk
            if kind == b"fmt ":
                field = content[position + 20 : position + 22]
                align = int.from_bytes(field, "little" if order == "<" else "big")
            if kind == b"data":
                data = (position, size)
            position += 8 + (len(content) if size in UNKNOWN_SIZES and data else size + size % 2)
        position = min(position, len(content))
        yield _riff(content, first, position, data, max(align, 1), order)
        first = position


def _chunk(content: Content, position: int, order: str) -> tuple[bytes, int] | None:
    """Return the type and size of the chunk at a position; None if none can begin there."""
    kind = bytes(content[position : position + 4])
    if position + 8 > len(content) or not (kind.isascii() and kind.decode().isprintable()):
        return None
    (size,) = struct.unpack(f"{order}I", content[position + 4 : position + 8])
    is_sound = kind in (b"data", b"fmt ")
    return (kind, size) if is_sound or position + 8 + size <= len(content) + 1 else None


def _riff(
    content: Content, first: int, last: int, data: tuple[int, int] | None, align: int, order: str
) -> Stream:
    if data is None:
        return Stream((range(first, last),))
    position, size = data
    present = last - position - 8
    if size in UNKNOWN_SIZES:
        size = present
    after = position + 8 + size + size % 2
    if after + 8 <= last and _chunk(content, after, order) is None:
        size = present
    head = (range(first, position + 4), struct.pack(f"{order}I", min(size, present)))
    missing = max(size - present, 0) // align
    return Stream((*head, range(position + 8, last)), missing)


# ------------------------------------------------------------------------------- FLAC


def _flac(content: Content) -> Iterator[Stream]:
    starts, position = [0], 0
    while (position := content.find(b"fLaC", position + 4)) > 0:
        if content[position + 4 : position + 8] in FLAC_HEADERS:
            starts.append(position)
    for first, last in zip(starts, [*starts[1:], len(content)], strict=True):
        yield _flac_stream(content, first, last)


def _flac_stream(content: Content, first: int, last: int) -> Stream:
    """Return a stream whose header gives the number of samples it contains."""
    field = int.from_bytes(content[first + 18 : first + 26], "big")
    counted = None if field & ((1 << 36) - 1) else _flac_samples(content, first, last)
    if not counted:
        return Stream((range(first, last),))
    header = (field + counted).to_bytes(8, "big")
    return Stream((range(first, first + 18), header, range(first + 26, last)))


def _flac_samples(content: Content, first: int, last: int) -> int | None:
    """Return the number of samples up to the end of the last whole frame."""
    position = last
    fixed = int.from_bytes(content[first + 10 : first + 12], "big")
    for _ in range(FRAMES_TRIED):
        found = [content.rfind(sync, first, position) for sync in (b"\xff\xf8", b"\xff\xf9")]
        position = max(found)
        if position < first + 42:
            return None
        frame = _flac_frame(bytes(content[position : position + 16]), fixed)
        if frame is not None:
            start, size = frame
            is_short = last - position <= LARGEST_FRAME
            is_whole = is_short and _crc16(bytes(content[position:last])) == 0
            return start + size if is_whole else start
    return None


def _flac_frame(header: bytes, fixed: int) -> tuple[int, int] | None:
    """Return the first sample and the size of a frame; None if this is not a frame header."""
    if len(header) < 6 or header[1] not in (0xF8, 0xF9):
        return None
    code, rate = header[2] >> 4, header[2] & 15
    count = 1 if header[4] < 0x80 else 8 - (header[4] ^ 0xFF).bit_length()
    if code == 0 or rate == 15 or header[4] == 0xFF or (header[4] >= 0x80 and count < 2):
        return None
    number = header[4] if count == 1 else header[4] & (0x7F >> count)
    for byte in header[5 : 4 + count]:
        number = number << 6 | byte & 0x3F
    position = 4 + count
    if code in (6, 7):
        size = int.from_bytes(header[position : position + code - 5], "big") + 1
        position += code - 5
    else:
        size = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    position += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if position >= len(header) or _crc8(header[:position]) != header[position]:
        return None
    return (number if header[1] & 1 else number * fixed), size


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005) & 0xFFFF if value & 0x8000 else value << 1
    return value


# -------------------------------------------------------------------------------- Ogg


def _ogg(content: Content) -> Iterator[Stream]:
    """Yield the links of an Ogg chain, each up to its last whole page."""
    position, first, flags, in_head = 0, 0, 0, True
    while position + 27 <= len(content) and content[position : position + 4] == b"OggS":
        segments = content[position + 26]
        size = 27 + segments + sum(content[position + 27 : position + 27 + segments])
        if position + size > len(content):
            break
        begins = bool(content[position + 5] & 2)
        if begins and not in_head:
            yield _link(first, position, flags)
            first = position
        in_head, flags = begins, content[position + 5]
        position += size
    yield _link(first, position, flags)


def _link(first: int, last: int, flags: int) -> Stream:
    lacks = "" if flags & 4 else "the final page"
    return Stream((range(first, last),), lacks=lacks)


# -------------------------------------------------------------------------------- MP3


def mp3_stream(content: Content, length: int) -> Stream:
    """Return the sound of an MP3 file.

    Args:
        content: content of the file.
        length: number of samples according to the decoder.
    """
    found = scan(content)
    if found is None:
        return Stream((range(len(content)),))
    missing = max((found.declared or 0) - found.samples, 0)
    if abs(length - found.samples) <= MP3_SLACK or missing:
        return Stream((range(found.size),), missing)
    return Stream((with_length(found), *found.frames))


# ------------------------------------------------------------------------------- views


class View(io.RawIOBase):
    """A file made of bytes and of ranges of another file.

    Args:
        file: the other file.
        segments: its parts.
    """

    def __init__(self, file: BinaryIO, segments: Sequence[Segment]):
        self._file, self._segments, self._position = file, segments, 0
        self._size = sum(len(one) for one in segments)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        self._position = max(offset + (0, self._position, self._size)[whence], 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the segment."""
        start = self._position
        for segment in self._segments:
            if start < len(segment):
                wanted = segment[start : start + len(buffer)]
                if isinstance(wanted, range):
                    self._file.seek(wanted.start)
                    wanted = self._file.read(len(wanted))
                buffer[: len(wanted)] = wanted
                self._position += len(wanted)
                return len(wanted)
            start -= len(segment)
        return 0

    def close(self) -> None:
        """Close the other file as well."""
        self._file.close()
        super().close()
