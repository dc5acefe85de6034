"""Sources of recordings: folders, lists and data sets."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from multidiff.audio.data.mel_files import ENDINGS
from multidiff.audio.data.sound import EXTENSIONS, SoundFile, find_sounds
from multidiff.data.row_groups import GroupedTable, RowGroups, grouped_reading
from multidiff.utils.budgets import check_tables
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import Fingerprint, of_dataset, of_files
from multidiff.utils.leftovers import is_hidden, visible_files
from multidiff.utils.packages import needs
from multidiff.utils.readers import check_source, open_source, read_text, reading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioSource:
    """A source of recordings.

    Attributes:
        path: a folder of sound files; a list of them, one per line, including LJSpeech's
            ``id|text``; the name of a data set of the ``datasets`` library, on the hub or in a
            folder; the URL of parquet files in an object store (``s3://``, ``gs://``,
            ``hf://``); or ``starter:speech``, which comes with the package.
        held_out_every: n to keep every n-th recording for validation, or every n-th row group
            if it is read by those; 0 keeps none.
        repeat: number of visits to each recording in an epoch.
        dataset_split: split of a data set.
        dataset_column: its column of sounds.
        dataset_config: its configuration, if it has several.
        mels: folder of mel files named as the recordings, such as those that an acoustic model
            predicts for them; a vocoder then learns from these in place of the recordings' own.
        row_groups: how parquet files are read by row groups, as always in an object store; None
            otherwise decodes local ones at the start, or stores their samples.
    """

    path: str
    held_out_every: int = 0
    repeat: int = 1
    dataset_split: str = "train"
    dataset_column: str = "audio"
    dataset_config: str | None = None
    mels: str = ""
    row_groups: RowGroups | None = None

    @property
    def grouped(self) -> RowGroups | None:
        """Return how it is read by row groups; None if it is not."""
        return grouped_reading(self.path, self.row_groups)

    def grouped_sounds(self) -> GroupedSounds:
        """Return its recordings, read by row groups.

        Raises:
            InputError: if they cannot be read, or lack the column.
        """
        open_source(self.path, "recordings")
        reading_of = self.grouped or RowGroups()
        return GroupedSounds(
            GroupedTable(self.path, [self.dataset_column], reading_of, self.dataset_split)
        )

    def check_path(self) -> None:
        """Reject a path that does not exist and cannot be a data set on the hub.

        Raises:
            InputError: if the path is neither, or the folder of mels does not exist.
        """
        check_source(self.path, "recordings")
        if self.mels and not resolve_path(self.mels).is_dir():
            raise InputError(f"{self.mels}: is no folder of mels; correct the source's mels")

    def mel_file(self, name: str) -> Path | None:
        """Return the mel file of a recording; None if the source has none.

        Args:
            name: the recording's name.

        Raises:
            InputError: if the folder has no mel of this recording.
        """
        if not self.mels:
            return None
        stem = resolve_path(self.mels) / Path(name).stem
        found = [path for ending in ENDINGS if (path := Path(f"{stem}{ending}")).is_file()]
        if not found:
            raise InputError(f"{name}: has no mel {Path(name).stem} in {self.mels}")
        return found[0]

    @property
    def root(self) -> str:
        """Return the folder that names of its files are relative to; empty for a data set."""
        path = resolve_path(self.path)
        if path.is_dir() and self.grouped is None:
            return "" if _is_dataset_folder(path) else str(path)
        return str(path.parent) if path.is_file() and self.grouped is None else ""

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
        if self.grouped is not None:
            return self.grouped_sounds().table.fingerprint()
        path = resolve_path(self.path)
        if path.is_dir():
            return of_files([*(_tables(path) or find_sounds(path)), *self._mel_files()], path)
        if path.is_file():
            return of_files({path, *_listed(path), *self._mel_files()}, path.parent)
        table = _from_dataset(self).table
        return of_dataset(table, self.path, self.dataset_config, self.dataset_split)

    def _mel_files(self) -> list[Path]:
        if not self.mels:
            return []
        return sorted(
            one for one in visible_files(resolve_path(self.mels)) if one.suffix in ENDINGS
        )

    def places(self) -> Sequence[Any]:
        """Return what its recordings are opened from: paths, or content and name.

        Raises:
            InputError: if the source cannot be found.
        """
        path = open_source(self.path, "recordings")
        if self.grouped is not None:
            return self.grouped_sounds()
        if path.is_dir() and not _is_dataset_folder(path):
            return find_sounds(path)
        if path.is_file():
            return _listed(path)
        return _from_dataset(self)


class NoiseSource(AudioSource):
    """A source with one recording, a second of noise."""

    @property
    def grouped(self) -> RowGroups | None:
        """Return None: nothing is read."""
        return None

    def recordings(self, held_out: bool | None = None) -> list[SoundFile]:
        """See :class:`AudioSource`."""
        content, rate_hz = io.BytesIO(), 24000
        noise = 0.1 * np.random.default_rng(0).standard_normal(rate_hz)
        soundfile.write(content, noise, rate_hz, format="WAV")
        return [SoundFile(content.getvalue(), "noise")]


def _readable(locations: Iterable[Any]) -> Iterator[SoundFile]:
    for where in locations:
        try:
            yield open_place(where)
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


def _from_dataset(source: AudioSource) -> DatasetSounds:
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
    return DatasetSounds(table.cast_column(column, datasets.Audio(decode=False)), source)


class DatasetSounds(Sequence):
    """(bytes, name) of each row of a data set, or of some of them, read on demand."""

    def __init__(self, table: Any, source: AudioSource, rows: range | None = None):
        self.table, self.source = table, source
        self.rows = range(len(table)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return DatasetSounds(self.table, self.source, self.rows[index])
        row = self.rows[index]
        name = f"{self.source.path}[{row}]"
        with reading(name):
            cell = self.table[row][self.source.dataset_column]
            kept = cell["bytes"]
            content = kept if kept is not None else Path(cell["path"]).read_bytes()
        return content, name


class GroupedSounds(Sequence):
    """(bytes, name) of each row of a table that is read by row groups, or of some rows.

    Args:
        table: the table, with the column of sounds alone.
        rows: rows of the table; all by default.
    """

    def __init__(self, table: GroupedTable, rows: range | None = None):
        self.table, self.rows = table, range(len(table)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return GroupedSounds(self.table, self.rows[index])
        row = self.rows[index]
        (cell,) = self.table.row(row).values()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise InputError(f"{self.table.name(row)}: has no content of a sound file")
        return content, self.table.name(row)


def open_place(where: Any) -> SoundFile:
    """Return a recording by its path, by its content and name, or by what returns those.

    Raises:
        InputError: if it is not a readable sound file.
    """
    where = where.content() if hasattr(where, "content") else where
    return SoundFile(*where) if isinstance(where, tuple) else SoundFile(where)
