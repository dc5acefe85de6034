"""Reading and writing sound files."""

from __future__ import annotations

import io
import logging
import math
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.containers import Content, Stream, View, mp3_stream, streams_of
from multidiff.config.option_set import OptionSet, option
from multidiff.utils.budgets import check_sound
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, write_error
from multidiff.utils.leftovers import visible_files
from multidiff.utils.readers import reading

logger = logging.getLogger(__name__)

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
WRITTEN = {".wav": "WAV", ".flac": "FLAC"}
# Full scale is 1. Beyond this the numbers are 16-bit integers stored as floats, or volts.
LOUDEST = 1.5
MOST_CHANNELS = 8  # of FLAC
BLOCK_SECONDS = 20
# A damaged file loses a whole decoded block at once.
DECODED_AT_ONCE = 4096
# Formats in which seeking is exact, so that the decoder can be asked for a whole block at once: it
# seeks at every call, which costs as much as decoding 2,000 samples.
SOUGHT_FORMATS = ("WAV", "WAVEX", "FLAC")
UNKNOWN_LENGTH = 1 << 48
# Fraction of clipped samples that is not reported.
MOST_CUT = 0.001
# Channels cancel if their mix has less than this fraction of the energy of unrelated ones.
CANCELLED = 0.1


@dataclass(frozen=True)
class SoundFormat(OptionSet):
    """Kind of the samples in written sound files.

    Attributes:
        subtype: libsndfile's name: PCM_16, PCM_24 or FLOAT (32 bits).
        channels: number of channels, all alike.

    Raises:
        InputError: if an option is out of range.
    """

    subtype: str = option(
        "PCM_16", "samples of sound files; FLOAT is for wav alone", group="Output",
        choices=("PCM_16", "PCM_24", "FLOAT"),
    )  # fmt: skip
    channels: int = option(
        1, "channels of sound files, all alike", group="Output", least=1, most=MOST_CHANNELS
    )

    def check(self, path: Path) -> None:
        """Reject a file that cannot hold such samples.

        Raises:
            InputError: if it cannot.
        """
        ending = path.suffix.lower()
        if ending not in WRITTEN:
            raise InputError(
                f"{path}: sound is written as {' or '.join(WRITTEN)}, not {path.suffix!r}"
            )
        if (self.subtype, ending) == ("FLOAT", ".flac"):
            raise InputError(f"{path}: FLAC has no floating-point samples; --subtype PCM_24 fits")


class SoundFile:
    """A sound file, read block by block as one channel at one rate.

    Its length is that of its contents, whatever its header declares: streams without a length, or
    several files in one, are read to their end.

    Args:
        source: a path, or the bytes of a file.
        name: name in messages; the path by default.

    Attributes:
        rate_hz: its sample rate.
        channels: number of channels.
        length: number of samples of each channel, as far as known before they are read.

    Raises:
        InputError: if it is not a readable sound file, or empty.
    """

    def __init__(self, source: Path | bytes, name: str | None = None):
        self.source = source
        self.name = str(source) if name is None and not isinstance(source, bytes) else str(name)
        if isinstance(source, Path) and not os.path.isfile(source):
            raise InputError(f"{self.name}: no such sound file")
        self._streams = self._find_streams()
        with self._open(self._streams[0]) as file:
            self.rate_hz, self.channels, self.length = file.samplerate, file.channels, file.frames
        check_sound(self.name, self.rate_hz, self.channels)
        for stream in self._streams[1:]:
            with self._open(stream) as file:
                if (file.samplerate, file.channels) != (self.rate_hz, self.channels):
                    raise InputError(
                        f"{self.name}: holds several sounds of different rates or channels; "
                        "split it, or export it again"
                    )
                self.length += file.frames
        if self.length == 0 and any(stream.lacks for stream in self._streams):
            raise InputError(f"{self.name}: is truncated before its first sample")
        if self.length == 0:
            raise InputError(f"{self.name}: holds no samples; record or export it again")

    def _find_streams(self) -> list[Stream]:
        if isinstance(self.source, bytes):
            return self._structure(self.source)
        if self.source.stat().st_size == 0:
            return [Stream((range(0),))]
        with (
            reading(self.name),
            self.source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return self._structure(content)

    def _structure(self, content: Content) -> list[Stream]:
        found = streams_of(content)
        if found is not None:
            return found
        whole = Stream((range(len(content)),))
        with self._open(whole) as file:
            return [mp3_stream(content, file.frames) if file.format == "MP3" else whole]

    def _open(self, stream: Stream) -> soundfile.SoundFile:
        source = self.source
        with reading(self.name, "is not a sound file", "use wav, flac, ogg or mp3"):
            if isinstance(source, bytes):
                file: Any = io.BytesIO(source)
            else:
                file = source.open("rb")
                whole = (range(os.fstat(file.fileno()).st_size),)
                if os.name == "posix" and stream.segments == whole:
                    # Read by its number, without Python; of a name libsndfile would guess a format.
                    return soundfile.SoundFile(_given_up(file), closefd=True)
            view = io.BufferedReader(View(file, stream.segments), 1 << 16)
            try:
                return soundfile.SoundFile(view)
            except BaseException:
                view.close()
                raise

    def blocks(
        self, rate_hz: int, *, whole: bool = False
    ) -> Iterator[Float[np.ndarray, " samples"]]:
        """Yield the sound as blocks of float32 in [-1, 1], mixed to one channel and resampled.

        Channels are averaged; if they cancel each other, the loudest is used, which is logged.

        Args:
            rate_hz: target sample rate.
            whole: whether to reject a file of which a part is missing, instead of logging it.

        Raises:
            InputError: if it has invalid values, or is truncated and ``whole`` is set.
        """
        same = rate_hz == self.rate_hz
        stream = None if same else soxr.ResampleStream(self.rate_hz, rate_hz, 1, "float32", "VHQ")
        weights = self.weights
        for block in self._raw_blocks(whole):
            mixed = block[:, 0] if self.channels == 1 else (block @ weights).astype(np.float32)
            if stream is not None:
                mixed = stream.resample_chunk(mixed)
            if len(mixed):
                yield mixed
        if stream is not None:
            rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
            if len(rest):
                yield rest

    def _raw_blocks(self, whole: bool | None) -> Iterator[np.ndarray]:
        """Yield blocks ``(samples, channels)``; reports missing parts unless ``whole`` is None."""
        read, missing, lacks = 0, 0, ""
        for stream in self._streams:
            lacks = lacks or stream.lacks
            with self._open(stream) as file:
                declared = file.frames
                for block in _decoded(
                    file, BLOCK_SECONDS * self.rate_hz, partial(self._open, stream)
                ):
                    read += len(block)
                    declared -= len(block)
                    yield self._checked(block)
                left = declared if declared < UNKNOWN_LENGTH else 0  # unknown ones are huge
                missing += max(stream.missing, left, 0)
        if whole is not None and (missing or lacks):
            self._report_missing(read, missing, lacks, whole)

    def _report_missing(self, read: int, missing: int, lacks: str, whole: bool) -> None:
        there = f"{read / self.rate_hz:.2f}"
        if missing:
            there += f" of {(read + missing) / self.rate_hz:.2f}"
        reason = f" ({lacks} is missing)" if lacks and not missing else ""
        text = f"{self.name}: is truncated or damaged: {there} s of sound can be read{reason}"
        if whole or read == 0:
            raise InputError(f"{text}; copy or export it again")
        logger.warning("%s; the rest is missing", text)

    @cached_property
    def weights(self) -> np.ndarray:
        """The weight of each channel in the mix."""
        mean = np.full(self.channels, 1 / self.channels)
        if self.channels == 1:
            return mean
        energies, mixed = np.zeros(self.channels), 0.0
        for block in self._raw_blocks(None):
            energies += np.square(block, dtype=np.float64).sum(axis=0)
            mixed += float(np.square(block @ mean).sum())
        # Unrelated channels add up to this.
        if mixed >= CANCELLED * energies.mean() / self.channels or energies.max() == 0:
            return mean
        loudest = int(energies.argmax())
        logger.warning(
            "%s: its %d channels cancel each other; only channel %d is used",
            self.name, self.channels, loudest + 1,
        )  # fmt: skip
        return np.eye(self.channels)[loudest]

    def _checked(self, block: np.ndarray) -> np.ndarray:
        lowest, highest = float(block.min(initial=0)), float(block.max(initial=0))
        peak = max(-lowest, highest)
        if not math.isfinite(lowest + highest):  # both are NaN if a sample is
            raise InputError(f"{self.name}: has values that are not finite (NaN or infinite)")
        if peak > LOUDEST:
            raise InputError(
                f"{self.name}: peaks at {peak:g}, but full scale is 1; divide it (16-bit integers "
                "stored as floats by 32768)"
            )
        return block

    def read(self, rate_hz: int, *, whole: bool = False) -> Float[Tensor, " samples"]:
        """Return the whole sound.

        Args:
            rate_hz: target sample rate.
            whole: see :meth:`blocks`.

        Raises:
            InputError: see :meth:`blocks`.
        """
        blocks = list(self.blocks(rate_hz, whole=whole))
        if not blocks:
            raise InputError(f"{self.name}: none of its samples can be read; export it again")
        return torch.from_numpy(np.concatenate(blocks))


def _decoded(
    file: soundfile.SoundFile, samples: int, reopen: Callable[[], soundfile.SoundFile]
) -> Iterator[np.ndarray]:
    """Yield the decodable part of a file, in blocks of about that many samples."""
    whole = -(-samples // DECODED_AT_ONCE) * DECODED_AT_ONCE
    if file.format not in SOUGHT_FORMATS:
        yield from _decoded_by_parts(file, whole, 0)
        return
    done = 0
    with suppress(soundfile.LibsndfileError):  # damaged: a part of the block can be read
        while len(block := file.read(whole, "float32", always_2d=True)):
            done += len(block)
            yield block
            if done >= file.frames:  # asking again would seek again
                return
        return
    with reopen() as again:  # nothing is decoded after an error, wherever the file is sought
        yield from _decoded_by_parts(again, whole, done)


def _decoded_by_parts(file: soundfile.SoundFile, whole: int, skipped: int) -> Iterator[np.ndarray]:
    """Yield what can be decoded in small parts, joined to blocks, without its beginning."""
    parts: list[np.ndarray] = []
    while True:
        block = np.empty((DECODED_AT_ONCE, file.channels), np.float32)
        try:
            block = file.read(out=block)
        except soundfile.LibsndfileError:  # damaged from here on
            block = block[:0]
        ends = len(block) == 0
        skipped, block = max(skipped - len(block), 0), block[skipped:]
        if len(block):
            parts.append(block)
        if parts and (ends or len(parts) * DECODED_AT_ONCE >= whole):
            yield np.concatenate(parts)
            parts = []
        if ends:
            return


def _given_up(file: Any) -> int:
    """Return a new number of an open file, after closing it."""
    with file:
        return os.dup(file.fileno())


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def find_sounds(folder: Path) -> list[Path]:
    """Return the sound files of a folder and its subfolders, sorted, without hidden ones.

    Raises:
        InputError: if there are none.
    """
    found = sorted(p for p in visible_files(folder) if p.suffix.lower() in EXTENSIONS)
    if not found:
        raise InputError(f"{folder}: holds no sound files ({', '.join(EXTENSIONS)})")
    return found


def write_sound(
    path: Path, blocks: Iterator[Any], rate_hz: int, sound_format: SoundFormat | None = None
) -> int:
    """Write blocks of samples to a wav or flac file, atomically.

    Integer samples are clipped at full scale, which is logged; floating-point ones are not.

    Args:
        path: file to write.
        blocks: samples of one channel.
        rate_hz: their rate.
        sound_format: kind of the samples and number of channels; 16 bits and one by default.

    Returns:
        Number of samples written of each channel.

    Raises:
        InputError: if the format cannot be written, or the system refuses.
    """
    sound_format = SoundFormat() if sound_format is None else sound_format
    sound_format.check(path)
    floats = sound_format.subtype == "FLOAT"
    written = cut = 0
    with atomic_write(path) as partial:
        try:
            with soundfile.SoundFile(
                partial, "w", rate_hz, sound_format.channels, sound_format.subtype,
                format=WRITTEN[path.suffix.lower()],
            ) as file:  # fmt: skip
                for block in blocks:
                    values = np.asarray(block)
                    if not floats:
                        cut += int((np.abs(values) > 1).sum())
                        values = np.clip(values, -1, 1)
                    file.write(np.tile(values[:, None], sound_format.channels))
                    written += len(values)
        except soundfile.LibsndfileError as error:
            raise _cannot_write(path, error) from error
    if cut > MOST_CUT * written:
        ratio = 100 * cut / written
        logger.warning("%s: %.1f %% of its samples were beyond full scale and clipped", path, ratio)
    return written


def _cannot_write(path: Path, error: soundfile.LibsndfileError) -> InputError:
    folder = path.parent
    if not folder.is_dir():
        return InputError(f"{path}: {folder} is not a folder; choose another path")
    return write_error(path, OSError(0, _reason(error)))
