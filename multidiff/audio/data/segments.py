"""Training data of vocoders: folders, lists and data sets, cut into segments."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

from multidiff.audio.data.sound import EXTENSIONS, SoundFile, find_sounds
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.utils.budgets import check_tables
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import Fingerprint, of_dataset, of_files
from multidiff.utils.leftovers import is_hidden
from multidiff.utils.packages import PackageError, needs
from multidiff.utils.readers import check_source, open_source, read_text, reading

logger = logging.getLogger(__name__)

# Fraction of a recording's energy that may lie above its band edge.
BEYOND_BAND = 1e-5
QUIETEST_PEAK = 1e-4


@dataclass(frozen=True)
class AudioSource:
    """A source of recordings.

    Attributes:
        path: a folder of sound files; a list of them, one per line, including LJSpeech's
            ``id|text``; the name of a data set of the ``datasets`` library, on the hub or in a
            folder; or ``starter:speech``, which comes with the package.
        held_out_every: n to keep every n-th recording for validation; 0 keeps none.
        repeat: number of visits to each recording in an epoch.
        dataset_split: split of a data set.
        dataset_column: its column of sounds.
        dataset_config: its configuration, if it has several.
    """

    path: str
    held_out_every: int = 0
    repeat: int = 1
    dataset_split: str = "train"
    dataset_column: str = "audio"
    dataset_config: str | None = None

    def check_path(self) -> None:
        """Reject a path that does not exist and cannot be a data set on the hub.

        Raises:
            InputError: if the path is neither.
        """
        check_source(self.path, "recordings")

    def recordings(self, held_out: bool | None = None) -> list[SoundFile]:
        """Return the readable recordings; unreadable ones are reported and skipped.

        Args:
            held_out: True for only those kept for validation, False for only the others, None for
                all.

        Raises:
            InputError: if the source cannot be found or has none.
        """
        opened = list(_readable(self._side(self.places(), held_out)))
        if not opened:
            raise InputError(f"{self.path}: no readable recordings on this side of the split")
        several = sum(recording.channels > 1 for recording in opened)
        if several:
            logger.warning(
                "%s: %d of %d recordings have several channels, which are averaged to one",
                self.path, several, len(opened),
            )  # fmt: skip
        return opened

    def _side(self, locations: Sequence[Any], held_out: bool | None) -> Iterator[Any]:
        every = self.held_out_every
        for number, where in enumerate(locations):
            kept = every > 0 and number % every == every // 2
            if held_out is None or kept == held_out:
                yield where

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of its recordings, or of its data set on the hub.

        Raises:
            InputError: if the source cannot be found.
        """
        path = resolve_path(self.path)
        if path.is_dir():
            return of_files(_tables(path) or find_sounds(path), path)
        if path.is_file():
            return of_files({path, *_listed(path)}, path.parent)
        table = _from_dataset(self).table
        return of_dataset(table, self.path, self.dataset_config, self.dataset_split)

    def places(self) -> Sequence[Any]:
        """Return what its recordings are opened from: paths, or content and name.

        Raises:
            InputError: if the source cannot be found.
        """
        path = open_source(self.path, "recordings")
        if path.is_dir() and not _is_dataset_folder(path):
            return find_sounds(path)
        if path.is_file():
            return _listed(path)
        return _from_dataset(self)


class _Noise(AudioSource):
    """A source with one recording, a second of noise."""

    def recordings(self, held_out: bool | None = None) -> list[SoundFile]:
        """See :class:`AudioSource`."""
        content, rate_hz = io.BytesIO(), 24000
        noise = 0.1 * np.random.default_rng(0).standard_normal(rate_hz)
        soundfile.write(content, noise, rate_hz, format="WAV")
        return [SoundFile(content.getvalue(), "noise")]


def _readable(locations: Iterable[Any]) -> Iterator[SoundFile]:
    for where in locations:
        try:
            yield SoundFile(*where) if isinstance(where, tuple) else SoundFile(where)
        except InputError as fault:
            logger.warning("skipped: %s", fault)


def _is_dataset_folder(path: Path) -> bool:
    return bool(_tables(path))


def _tables(folder: Path) -> list[Path]:
    found = [*folder.glob("*.parquet"), *folder.glob("*.arrow")]
    return sorted(path for path in found if not is_hidden(path.name))


def _listed(path: Path) -> list[Path]:
    """Return the files that a list names: paths, or LJSpeech ids whose sounds are in ``wavs``."""
    if path.suffix.lower() in EXTENSIONS:
        return [path]
    with reading(path, "is not a list of recordings", "write one in UTF-8, a name per line"):
        file = io.StringIO(read_text(path), newline="")
        rows = csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)
        names = [row[0].strip() for row in rows if row and row[0].strip()]
    if not names:
        raise InputError(f"{path}: the list names no files")
    return [_place_of(path.parent, name) for name in names]


def _place_of(folder: Path, name: str) -> Path:
    direct = folder / name
    if direct.suffix.lower() in EXTENSIONS:
        return direct
    by_id = [folder / "wavs" / f"{name}{ending}" for ending in EXTENSIONS]
    return next((path for path in by_id if os.path.isfile(path)), by_id[0])


def _from_dataset(source: AudioSource) -> _DatasetSounds:
    with needs("datasets", "a data set of recordings"):
        import datasets  # takes seconds to import

    path = Path(source.path)
    with reading(
        source.path, "is not a folder, a list or a data set that can be loaded", "check the path"
    ):
        if path.is_dir():
            check_tables(path)
            files = [str(file) for file in _tables(path)]
            kind = "parquet" if files[0].endswith("parquet") else "arrow"
            table = datasets.load_dataset(kind, data_files=files, split="train")
        else:
            table = datasets.load_dataset(
                source.path, source.dataset_config, split=source.dataset_split
            )
    column = source.dataset_column
    if column not in table.column_names:
        raise InputError(f"{source.path}: no column {column!r}; it has {table.column_names}")
    # Undecoded: the library's own decoder needs torchcodec; soundfile reads the bytes.
    return _DatasetSounds(table.cast_column(column, datasets.Audio(decode=False)), source)


class _DatasetSounds(Sequence):
    """(bytes, name) of each row, read on demand."""

    def __init__(self, table: Any, source: AudioSource):
        self.table, self.source = table, source

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < len(self):  # ends an iteration
            raise IndexError(row)
        name = f"{self.source.path}[{row}]"
        with reading(name):
            cell = self.table[int(row)][self.source.dataset_column]
            kept = cell["bytes"]
            content = kept if kept is not None else Path(cell["path"]).read_bytes()
        return content, name


class SpeechSegments:
    """Random segments of recordings, with the same frames of their whole mel.

    Mels are computed from whole recordings, as at synthesis: those of a segment alone would see
    mirrored edges. Recordings are kept in memory. An epoch visits each as often as it has
    segments.

    Args:
        sources: sources of recordings.
        mel: the preset, or its name.
        segment_frames: number of mel frames of a segment.
        gain_db: range of the random gain in dB; both ends 0 for none.
        held_out: whether to take the recordings kept for validation.

    Raises:
        InputError: if a source has no readable recordings.
    """

    def __init__(
        self,
        sources: list[AudioSource],
        mel: str | MelPreset = "hifigan-22k",
        segment_frames: int = 64,
        gain_db: tuple[float, float] = (0.0, 0.0),
        held_out: bool = False,
    ):
        if segment_frames < 1 or not sources:
            raise ValueError(f"{segment_frames} frames of {len(sources)} sources: nothing to cut")
        self.preset = preset_named(mel)
        self.segment_frames, self.gain_db, self.sources = segment_frames, gain_db, sources
        self.utterances: list[Utterance] = []
        self.visits: list[int] = []
        self._skipped = 0
        for source in sources:
            if held_out and not source.held_out_every:
                continue
            for recording in source.recordings(held_out):
                self._add(recording, source.repeat)
        if not self.utterances:
            raise InputError("no usable recordings in any of the sources")
        if self._skipped:
            total = self._skipped + len(self.utterances)
            logger.warning("%d of %d recordings were skipped", self._skipped, total)

    @classmethod
    def synthetic(cls, sources: list[AudioSource], **options: Any) -> SpeechSegments:
        """Return segments of noise, which need no recordings, for dry runs."""
        return cls([_Noise(source.path, source.held_out_every) for source in sources], **options)

    def _add(self, recording: SoundFile, repeat: int) -> None:
        try:
            utterance = prepare(recording, self.preset, self.segment_frames)
        except PackageError:
            raise
        except InputError as fault:
            logger.warning("skipped: %s", fault)
            self._skipped += 1
            return
        count = math.ceil(utterance.mel.shape[1] / self.segment_frames)
        self.visits += [len(self.utterances)] * (count * repeat)
        self.utterances.append(utterance)

    def __len__(self) -> int:
        return len(self.visits)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of each source."""
        return {
            f"sources.{number}": source.fingerprint() for number, source in enumerate(self.sources)
        }

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        utterance = self.utterances[self.visits[index]]
        preset = self.preset
        samples = self.segment_frames * preset.hop_length
        frames = preset.num_frames(samples)
        first = int(rng.integers(0, utterance.mel.shape[1] - frames + 1))
        start = first * preset.hop_length
        gain = 10 ** (rng.uniform(*self.gain_db) / 20)
        mel = utterance.mel[:, first : first + frames]
        return {
            "wave": gain * utterance.wave[start : start + samples],
            "mel": preset.compress(preset.expand(mel) * gain**preset.power),
            "band_hz": utterance.band_hz,
            "name": utterance.name,
        }


@dataclass(frozen=True)
class Utterance:
    """A recording ready to be cut.

    Attributes:
        wave: its samples.
        mel: mel of the whole recording.
        band_hz: upper edge of its band.
        name: name in messages.
        content: hash of its samples.
    """

    wave: Tensor
    mel: Tensor
    band_hz: float
    name: str
    content: bytes


def prepare(recording: SoundFile, preset: MelPreset, least_frames: int) -> Utterance:
    """Read a recording and compute its mel.

    Raises:
        InputError: if it cannot be read, is truncated, or is silent.
    """
    wave = recording.read(preset.sample_rate_hz, whole=True)
    content = hashlib.blake2b(wave.numpy().tobytes(), digest_size=16).digest()
    if float(wave.abs().max()) < QUIETEST_PEAK:
        raise InputError(f"{recording.name}: is silent")
    hop = preset.hop_length
    padded = max(math.ceil(len(wave) / hop), least_frames, preset.n_fft // hop) * hop
    wave = F.pad(wave, (0, padded - len(wave)))
    edge = min(band_edge_hz(wave, preset.sample_rate_hz), recording.rate_hz / 2)
    return Utterance(wave, preset.mel(wave[None])[0], edge, recording.name, content)


def band_edge_hz(wave: Tensor, rate_hz: int) -> float:
    """Return the frequency below which all but a hundred-thousandth of the energy lies.

    A recording at 16 kHz resampled to 22 kHz, or one from a narrow-band codec, has no information
    above that; a network trained to reproduce silence there learns to lisp.
    """
    spectrum = torch.stft(wave, 1024, 512, window=torch.hann_window(1024), return_complex=True)
    energy = spectrum.abs().square().sum(dim=1).double()
    above = energy.flip(0).cumsum(0).flip(0) / energy.sum()
    edge = int((above > BEYOND_BAND).sum())
    return edge * rate_hz / 1024
