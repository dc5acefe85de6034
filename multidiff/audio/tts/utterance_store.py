"""Utterances on disk: their recordings, phones and durations, made once on all cores.

Unlike :mod:`multidiff.audio.tts.utterance_cache`, nothing of it is loaded: the mel of a crop is
computed from its samples. Durations are estimated over the recordings of a part of the store, some
minutes of one speaker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidiff.audio.data.pcm import quantized, scale_of
from multidiff.audio.data.reading import mel_frames
from multidiff.audio.data.store import StoredSound
from multidiff.audio.data.survey import Survey, relative_name, survey
from multidiff.audio.mel import MelPreset
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.phones import parse_phones
from multidiff.audio.tts.transcripts import Part, TranscribedSource, Transcript
from multidiff.audio.tts.utterance import (
    LevelledSound,
    SpokenUtterance,
    aligned,
    levelled_sound,
    padded_speech,
    read_phones,
)
from multidiff.data.columns import Columns
from multidiff.data.prepare import Plan
from multidiff.data.table_writer import ColumnWriter
from multidiff.utils.errors import InputError
from multidiff.utils.packages import PackageError

# Raised whenever the same recordings and texts are stored in another way.
VERSION = 1
# Speech of one speaker that is aligned together, and held in memory for that.
ALIGNED_SECONDS = 1200
# Options of a source that its utterances do not depend on.
FREE = ("path", "repeat")
ROWS_AT_ONCE = 4096
COLUMNS = {
    "source": "int32",
    "validation": "int8",
    "name": "text",
    "phones": "text",
    "durations": "int32[]",
    "samples": "int16[]",
    "scale": "float32",
    "gain": "float64",
    "length": "int64",
    "sums": "float64[]",
}


@dataclass(frozen=True)
class ListedSource:
    """A source and its transcripts, those of the test part left out.

    Attributes:
        source: the source.
        transcripts: those to train on, then those to validate on.
        validation: number of the latter.
        found: survey of their recordings.
    """

    source: TranscribedSource
    transcripts: Sequence[Transcript]
    validation: int
    found: Survey

    @classmethod
    def of(cls, source: TranscribedSource) -> ListedSource:
        """Read a source's list, and how much sound it names."""
        validation = source.transcripts("validation")
        listed = source.transcripts("train") + validation
        found = survey([one.sound for one in listed], source.root, source.fingerprint)
        return cls(source, listed, len(validation), found)

    def key(self) -> dict[str, Any]:
        """Return what the utterances depend on."""
        texts = hashlib.blake2b(digest_size=16)
        for one in self.transcripts:
            texts.update(f"{one.text}\n".encode(errors="surrogateescape"))
        options = {name: value for name, value in asdict(self.source).items() if name not in FREE}
        version = FrontEnd(self.source.language).version
        return {**options, "data": self.found.stamp, "texts": texts.hexdigest(), "read_by": version}


@dataclass(frozen=True)
class _Piece:
    """Transcripts of one speaker, each beside its source's number and whether it validates."""

    transcripts: Sequence[tuple[int, bool, Transcript]]
    seconds: float


def utterance_plan(listed: Sequence[ListedSource], preset: MelPreset, too_fast: str) -> Plan:
    """Return the work that makes the store of the utterances of some sources.

    Args:
        listed: the sources.
        preset: the mel that durations count frames of.
        too_fast: whether recordings with more phones than frames ``stop`` it; else dropped.
    """
    sources = [one.source for one in listed]
    return Plan(
        "utterances",
        {
            "version": VERSION,
            "sources": [one.key() for one in listed],
            "mel": preset.description(),
            "too_fast": too_fast,
        },
        COLUMNS,
        partial(_pieces, listed),
        partial(_make, sources=sources, preset=preset, too_fast=too_fast),
        size_of=lambda piece: piece.seconds,
        source=", ".join(dict.fromkeys(one.path for one in sources)),
        finish=_symbols,
    )


def _pieces(listed: Sequence[ListedSource]) -> list[_Piece]:
    found: list[_Piece] = []
    for speaker in dict.fromkeys(one.source.speaker for one in listed):
        own = [(n, one) for n, one in enumerate(listed) if one.source.speaker == speaker]
        transcripts = [
            (number, place >= len(one.transcripts) - one.validation, transcript)
            for number, one in own
            for place, transcript in enumerate(one.transcripts)
        ]
        whole = Survey(None, np.concatenate([one.found.seconds for _, one in own]))
        for cut in whole.pieces(ALIGNED_SECONDS):
            found.append(_Piece(transcripts[cut], float(whole.seconds[cut].sum())))
    return found


def _make(
    piece: _Piece,
    writer: ColumnWriter,
    sources: Sequence[TranscribedSource],
    preset: MelPreset,
    too_fast: str,
) -> None:
    found: list[SpokenUtterance] = []
    rows: list[dict[str, Any]] = []
    for number, validates, transcript in piece.transcripts:
        source = sources[number]
        try:
            sound = levelled_sound(transcript, preset)
            phones = read_phones(transcript, front_end_of(source.language))
        except PackageError:
            raise
        except InputError as fault:
            writer.fault(transcript.name, fault)
            continue
        mel = sound.mel(preset)
        one = SpokenUtterance(transcript.name, source.speaker, phones, mel, np.zeros(0, np.int64))
        if one.fits(too_fast):
            found.append(one)
            rows.append({"source": number, "validation": validates, **_stored(sound)})
    for row, one in zip(rows, aligned(found) if found else (), strict=True):
        mel = one.mel.astype(np.float64)
        name = relative_name(one.name, sources[row["source"]].root)
        sums = np.concatenate([mel.sum(axis=0), np.square(mel).sum(axis=0)])
        writer.append(**row, name=name, phones=one.phones, durations=one.durations, sums=sums)


def _stored(sound: LevelledSound) -> dict[str, Any]:
    speech = sound.speech.numpy()
    scale = scale_of(float(speech.min()), float(speech.max()))
    return {
        "samples": quantized(speech, scale),
        "scale": scale,
        "gain": sound.gain,
        "length": sound.length,
    }


@lru_cache(maxsize=8)
def front_end_of(language: str) -> FrontEnd:
    """Return the reader of texts of a language, one for all pieces that a process makes."""
    return FrontEnd(language)


def _symbols(table: Columns) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    phones = table.variable("phones")
    found = {one.symbol for row in range(len(table)) for one in parse_phones(phones[row])}
    return {}, {"symbols": sorted(found)}


@dataclass(frozen=True)
class StoredUtterance:
    """An utterance in a store; see :class:`~multidiff.audio.tts.utterance.SpokenUtterance`."""

    table: Columns
    row: int
    source: TranscribedSource
    preset: MelPreset

    @property
    def name(self) -> str:
        """Return its name in messages."""
        name, root = self.table.variable("name")[self.row], self.source.root
        return str(Path(root, name)) if root else name

    @property
    def speaker(self) -> str:
        """Return the name of its voice."""
        return self.source.speaker

    @property
    def phones(self) -> str:
        """Return the line of its phones."""
        return self.table.variable("phones")[self.row]

    @property
    def durations(self) -> np.ndarray:
        """Return the frames of each phone."""
        return self.table.variable("durations")[self.row].astype(np.int64)

    @property
    def frames(self) -> int:
        """Return the number of mel frames."""
        return self.preset.num_frames(self._padded)

    @property
    def _padded(self) -> int:
        return padded_speech(int(self.table.fixed("length")[self.row]), self.preset)

    def crop(self, first: int, count: int) -> np.ndarray:
        """Return some frames of the mel, computed from their samples."""
        fixed, samples = self.table.fixed, self.table.variable("samples")
        length = int(samples.lengths(np.array([self.row]))[0])
        gain = float(fixed("gain")[self.row])
        sound = StoredSound(samples, self.row, length, float(fixed("scale")[self.row]), gain)
        return mel_frames(sound, self.preset, first, count, self._padded).T.contiguous().numpy()


class StoredUtterances(Sequence):
    """Utterances of one part of the split, in their store.

    Args:
        table: the store.
        sources: sources that it was made of.
        preset: the mel.
        part: ``train`` or ``validation``.
    """

    def __init__(
        self, table: Columns, sources: Sequence[TranscribedSource], preset: MelPreset, part: Part
    ):
        self.table, self.sources, self.preset = table, sources, preset
        wanted = {"train": 0, "validation": 1}.get(part, -1)
        self.rows = np.flatnonzero(table.fixed("validation")[:] == wanted)
        preset.filters(torch.zeros(()))  # kept, so that no worker computes them

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> StoredUtterance:
        row = int(self.rows[index])
        source = self.sources[int(self.table.fixed("source")[row])]
        return StoredUtterance(self.table, row, source, self.preset)

    @property
    def repeats(self) -> np.ndarray:
        """Return how often an epoch visits each utterance."""
        each = np.array([source.repeat for source in self.sources])
        return each[self.table.fixed("source")[self.rows]]

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of phones of each utterance."""
        return self.table.variable("durations").lengths(self.rows)

    @property
    def frames(self) -> int:
        """Return the number of mel frames of all utterances."""
        length = self.table.fixed("length")[self.rows]
        padded = np.maximum(length, self.preset.n_fft)
        return int(np.sum(self.preset.num_frames(padded)))

    @property
    def symbols(self) -> set[str]:
        """Return the symbols of phones that occur in the store."""
        return set(self.table.info["symbols"])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each band, over each visit's frames."""
        width, weights = 2 * self.preset.n_mels, np.zeros(len(self.table))
        weights[self.rows] = self.repeats
        sums, total = self.table.variable("sums"), np.zeros(width)
        for first in range(0, len(weights), ROWS_AT_ONCE):
            own = weights[first : first + ROWS_AT_ONCE]
            values = sums.values(first * width, (first + len(own)) * width)
            total += own @ values.reshape(-1, width)
        length = self.table.fixed("length")[self.rows]
        count = self.preset.num_frames(np.maximum(length, self.preset.n_fft)) @ self.repeats
        mean, square = total.reshape(2, -1) / count
        std = np.sqrt(np.maximum(square - mean**2, 0) * count / (count - 1))
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
