"""Parsing of MP3 frames without decoding."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

Content = bytes | mmap.mmap
# Kilobits a second by index, for layer III of MPEG 1 and of MPEG 2 and 2.5.
RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
TAGS = (b"Xing", b"Info", b"VBRI")
SEARCHED = 1 << 20
HEADER_RATE = 9  # bit rate index of the frame that is made: large enough for its content


@dataclass(frozen=True)
class Mpeg:
    """Frames of an MP3 file.

    Attributes:
        header: the four bytes of the first frame.
        samples: number of samples of all frames except those that only describe the file.
        declared: number of samples that such a frame declares; None without one.
        frames: ranges of the file with frames of sound, neighbours joined.
        size: size of the file in bytes.
    """

    header: bytes
    samples: int
    declared: int | None
    frames: list[range]
    size: int


@dataclass(frozen=True)
class _Frame:
    size: int
    samples: int
    side: int
    kind: int


def scan(content: Content) -> Mpeg | None:
    """Return the frames of a file; None if it is not an MP3."""
    position = _after_tag(content, 0)
    header, samples, declared, last = b"", 0, None, 0
    frames: list[range] = []
    while position + 4 <= len(content):
        frame = _frame(content, position)
        if frame is None or (header and frame.kind != last):
            position = _next(content, _after_tag(content, position), last if header else None)
            if position is None:
                break
            continue
        end = position + frame.size
        if end > len(content):
            break
        described = _described(content, position, frame)
        if not header:
            header, last = bytes(content[position : position + 4]), frame.kind
        if described is None:
            samples += frame.samples
            if frames and frames[-1].stop == position:
                frames[-1] = range(frames[-1].start, end)
            else:
                frames.append(range(position, end))
        elif declared is None and samples == 0:
            declared = described * frame.samples
        position = end
    return Mpeg(header, samples, declared or None, frames, len(content)) if frames else None


def with_length(found: Mpeg) -> bytes:
    """Return a silent frame that declares the number of frames behind it."""
    head = bytes((found.header[0], found.header[1] | 1, HEADER_RATE << 4 | found.header[2] & 12,
                  found.header[3]))  # fmt: skip
    frame = _frame(head, 0)
    if frame is None:
        return b""
    count = found.samples // frame.samples
    body = head + bytes(frame.side) + b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return body.ljust(frame.size, b"\0")


def _frame(content: Content, position: int) -> _Frame | None:
    """Return the layer III frame that begins at a position; None if none does."""
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer != 1 or rate in (0, 15) or sample_rate == 3:
        return None
    is_mono = head[3] >> 6 == 3
    samples = 1152 if version == 3 else 576
    kilobits = (RATES_1 if version == 3 else RATES_2)[rate]
    size = samples // 8 * kilobits * 1000 // SAMPLE_RATES[version][sample_rate] + (head[2] >> 1 & 1)
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    return _Frame(size, samples, side, version << 2 | sample_rate)


def _described(content: Content, position: int, frame: _Frame) -> int | None:
    """Return the number of frames that an info frame declares, 0 if missing; None for sound."""
    start = position + 4 + frame.side
    for where in (start, position + 36):
        tag = bytes(content[where : where + 4])
        if tag in TAGS[:2] and where == start:
            has_count = int.from_bytes(content[where + 4 : where + 8], "big") & 1
            return int.from_bytes(content[where + 8 : where + 12], "big") if has_count else 0
        if tag == TAGS[2]:
            return int.from_bytes(content[where + 14 : where + 18], "big")
    return None


def _after_tag(content: Content, position: int) -> int:
    """Return the end of an ID3 tag at a position."""
    if content[position : position + 3] != b"ID3":
        return position
    size = 0
    for byte in content[position + 6 : position + 10]:
        size = size << 7 | byte & 0x7F
    return position + 10 + size


def _next(content: Content, position: int, kind: int | None) -> int | None:
    """Return the start of the next frame that is followed by another one, or None."""
    last = min(len(content), position + SEARCHED)
    while True:
        position = content.find(b"\xff", position + 1, last)
        if position < 0:
            return None
        frame = _frame(content, position)
        if frame is not None and kind in (None, frame.kind):
            follower = _frame(content, position + frame.size)
            if follower is not None and follower.kind == frame.kind:
                return position
