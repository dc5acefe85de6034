"""Recordings on disk, decoded once: 16-bit samples at one rate, read by segment.

The store is a table of columns (:mod:`multidiff.data.columns`) in the cache folder, one row for
each readable recording. With ``seek``, WAV and FLAC files are decoded for their lengths and
bands alone, and read where they are; only other formats are stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.pcm import FFT, BandEnergy, band_edge_hz, dequantized, quantized, scale_of
from multidiff.audio.data.reading import (
    SampleReader,
    SeekableSound,
    resampled_length,
    segment_with_mel,
    silenced,
)
from multidiff.audio.data.sound import SOUGHT_FORMATS, SoundFile
from multidiff.audio.data.sources import AudioSource, open_place
from multidiff.audio.data.survey import Survey, relative_name
from multidiff.audio.mel import MelPreset
from multidiff.data.columns import Columns, VariableColumn
from multidiff.data.prepare import Plan
from multidiff.data.table_writer import ColumnWriter
from multidiff.utils.errors import InputError
from multidiff.utils.packages import PackageError

# Raised whenever the same recordings are stored in another way.
VERSION = 3
QUIETEST_PEAK = 1e-4
# Sound of a part, and the most parts where recordings are few and short.
PART_SECONDS, MOST_PARTS = 1200, 4096
# Bytes of a decoded recording that are kept in memory until its peak is known.
MEMORY_BYTES = 32 << 20
# Samples that are worked on at once: they stay in a core's cache.
SAMPLES_AT_ONCE = 1 << 16
STORED, MIXED = -2, -1
COLUMNS = {
    "number": "int64",
    "name": "text",
    "length": "int64",
    "samples": "int16[]",
    "scale": "float32",
    "band_hz": "float64",
    "content": "uint64",
    "source_rate_hz": "int32",
    "source_length": "int64",
    "channel": "int32",
}


@dataclass(frozen=True)
class _Piece:
    """Consecutive recordings of a source: the number of the first, and where they are."""

    first: int
    places: Sequence[Any]
    seconds: float


def sound_plan(source: AudioSource, found: Survey, preset: MelPreset, seek: bool) -> Plan:
    """Return the work that makes a source's store.

    Args:
        source: source of the recordings, of both sides of its split.
        found: survey of the source.
        preset: the mel, for rate and hop; stores of the same ones are shared.
        seek: whether WAV and FLAC files are read where they are.
    """
    rate, hop = preset.sample_rate_hz, preset.hop_length
    seconds = max(PART_SECONDS, float(found.seconds.sum()) / MOST_PARTS)

    def parts() -> list[_Piece]:
        places = source.places()
        return [
            _Piece(cut.start, places[cut], float(found.seconds[cut].sum()))
            for cut in found.pieces(seconds)
        ]

    return Plan(
        "sound",
        {"version": VERSION, "data": found.stamp, "rate_hz": rate, "hop": hop, "seek": seek},
        COLUMNS,
        parts,
        partial(_make, root=source.root, rate_hz=rate, hop=hop, seek=seek),
        size_of=lambda piece: piece.seconds,
        source=source.path,
    )


def _make(
    piece: _Piece, writer: ColumnWriter, root: str, rate_hz: int, hop: int, seek: bool
) -> None:
    for number, where in enumerate(piece.places, start=piece.first):
        try:
            sound = open_place(where)
            row = _stored(sound, writer, rate_hz, hop, seek)
            writer.append(number=number, name=relative_name(sound.name, root), **row)
        except PackageError:
            raise
        except InputError as fault:
            writer.fault(str(where if isinstance(where, Path) else number), fault)


def _stored(
    sound: SoundFile, writer: ColumnWriter, rate_hz: int, hop: int, seek: bool
) -> dict[str, Any]:
    """Add a recording's samples to the open row of a table and return the row's other values."""
    with tempfile.SpooledTemporaryFile(1, dir=str(writer.folder)) as spool:
        decoded = DecodedSound(sound, rate_hz, hop, spool)
        channel = _sought_channel(sound, decoded.length, rate_hz) if seek else STORED
        if channel == STORED:
            decoded.write_to(writer)
    return {
        "length": decoded.length,
        "scale": decoded.scale,
        "band_hz": decoded.band_hz,
        "content": decoded.content,
        "source_rate_hz": sound.rate_hz,
        "source_length": sound.length,
        "channel": channel,
    }


class DecodedSound:
    """A recording that is decoded block by block, so that its scale is known before it is stored.

    Of long ones all but the beginning lies in a temporary file meanwhile.

    Args:
        sound: the recording.
        rate_hz: rate of the stored samples.
        hop: silence follows the recording up to a multiple of this.
        spool: file for what does not stay in memory.

    Raises:
        InputError: if it cannot be read, is truncated, or is silent.
    """

    def __init__(self, sound: SoundFile, rate_hz: int, hop: int, spool: Any):
        self._spool, self._beginning = spool, list[np.ndarray]()
        lowest = highest = 0.0
        self.length = 0
        band, content = BandEnergy(), xxhash.xxh3_64()
        for piece in _pieces(sound.blocks(rate_hz, whole=True)):
            if piece.itemsize * (self.length + len(piece)) <= MEMORY_BYTES:
                self._beginning.append(piece)
            else:
                spool.write(piece)
            band.add(piece)
            content.update(piece.data)
            lowest = min(lowest, float(piece.min()))
            highest = max(highest, float(piece.max()))
            self.length += len(piece)
        if max(-lowest, highest) < QUIETEST_PEAK:
            raise InputError(f"{sound.name}: is silent")
        self.scale = scale_of(lowest, highest)
        band.add(np.zeros(max(-self.length % hop, FFT - self.length), np.float32))
        self.band_hz = min(band.edge_hz(rate_hz), sound.rate_hz / 2)
        self.content = content.intdigest()

    def write_to(self, writer: ColumnWriter) -> None:
        """Add the samples to the open row of a table."""
        for piece in self._beginning:
            writer.add("samples", quantized(piece, self.scale))
        self._spool.seek(0)
        while content := self._spool.read(4 * SAMPLES_AT_ONCE):
            writer.add("samples", quantized(np.frombuffer(content, np.float32), self.scale))


def _pieces(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield blocks in pieces that stay in a core's cache."""
    for block in blocks:
        for first in range(0, len(block), SAMPLES_AT_ONCE):
            yield block[first : first + SAMPLES_AT_ONCE]


def _sought_channel(sound: SoundFile, length: int, rate_hz: int) -> int:
    """Return the channel of a file that may be read by seeking, or that it is to be stored."""
    if not isinstance(sound.source, Path):
        return STORED
    declared = soundfile.info(sound.source)
    if (
        declared.format not in SOUGHT_FORMATS
        or declared.frames != sound.length
        or resampled_length(declared.frames, sound.rate_hz, rate_hz) != length
    ):
        return STORED
    weights = sound.weights
    return MIXED if np.ptp(weights) == 0 else int(weights.argmax())


@dataclass(frozen=True)
class StoredSound:
    """A recording in a store.

    Attributes:
        samples: column of the samples.
        row: its row.
        length: number of its samples.
        scale: value of full scale.
        gain: factor of the samples that are returned.
    """

    samples: VariableColumn
    row: int
    length: int
    scale: float
    gain: float = 1.0

    def read(self, start: int, stop: int) -> Float[np.ndarray, " samples"]:
        """See :class:`~multidiff.audio.data.reading.SampleReader`."""
        return self.gain * dequantized(self.samples.part(self.row, start, stop), self.scale)


class StoredRecordings:
    """Recordings of one side of a source's split, in its store.

    Args:
        table: the store.
        source: the source.
        preset: the mel.
        held_out: whether these are the recordings kept for validation.
        least_frames: frames that each has at least; shorter ones end in silence.

    Attributes:
        frames: mel frames of each recording.
        contents: hash of each one's samples.
    """

    def __init__(
        self,
        table: Columns,
        source: AudioSource,
        preset: MelPreset,
        held_out: bool,
        least_frames: int,
    ):
        self.table, self.root, self.preset = table, source.root, preset
        columns = ("number", "length", "scale", "band_hz", "content", "source_rate_hz",
                   "source_length", "channel")  # fmt: skip
        for name in columns:
            table.fixed(name)[:]  # compared with its checksums, once
        self.fixed = {name: table.fixed(name).mapped() for name in columns}
        every, numbers = source.held_out_every, self.fixed["number"]
        kept = numbers % every == every // 2 if every > 0 else np.zeros(len(numbers), bool)
        self.rows = np.flatnonzero(kept == held_out)
        hop = preset.hop_length
        self._shortest = max(least_frames, preset.n_fft // hop) * hop
        padded = -(-self.fixed["length"][self.rows] // hop) * hop
        samples: Any = np.maximum(padded, self._shortest)
        self.frames = np.asarray(preset.num_frames(samples))
        self.contents = self.fixed["content"][self.rows]
        preset.filters(torch.zeros(()))  # kept, so that no worker computes them

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, number: int) -> str:
        """Return the name of a recording in messages."""
        name = self.table.variable("name")[self.rows[number]]
        return str(Path(self.root, name)) if self.root else name

    def frames_of(self, number: int) -> int:
        """Return the mel frames of a recording."""
        return int(self.frames[number])

    def band_hz(self, number: int) -> float:
        """Return the upper edge of a recording's band."""
        row = self.rows[number]
        if self.fixed["length"][row] > self._shortest:
            return float(self.fixed["band_hz"][row])
        wave = torch.from_numpy(silenced(self._reader(number), 0, self._shortest))
        edge = band_edge_hz(wave, self.preset.sample_rate_hz)
        return min(edge, int(self.fixed["source_rate_hz"][row]) / 2)

    def cut(self, number: int, first: int, hops: int) -> tuple[Tensor, Tensor]:
        """Return a segment of a recording and its part of the mel of the whole."""
        total = self.preset.num_samples(int(self.frames[number]))
        return segment_with_mel(self._reader(number), self.preset, first, hops, total)

    def _reader(self, number: int) -> SampleReader:
        row, fixed = int(self.rows[number]), self.fixed
        channel = int(fixed["channel"][row])
        if channel == STORED:
            length, scale = int(fixed["length"][row]), float(fixed["scale"][row])
            return StoredSound(self.table.variable("samples"), row, length, scale)
        return SeekableSound(
            Path(self.name(number)),
            int(fixed["source_rate_hz"][row]),
            int(fixed["source_length"][row]),
            self.preset.sample_rate_hz,
            None if channel == MIXED else channel,
        )
