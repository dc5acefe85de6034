"""Recordings with their texts: lists, folders and data sets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from multidiff.audio.data.sound import EXTENSIONS
from multidiff.audio.data.sources import AudioSource
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import Fingerprint, of_files
from multidiff.utils.readers import open_source, read_text, reading

METADATA = "metadata.csv"
Part = Literal["train", "validation", "test"]
WRITE_ONE = "write FILE|TEXT, one recording a line, in UTF-8"


@dataclass(frozen=True)
class Transcript:
    """A recording and what is said in it.

    Attributes:
        sound: a path, or the bytes of a file and a name.
        text: as it is read aloud.
        name: how messages call it.
    """

    sound: Any
    text: str
    name: str


@dataclass(frozen=True)
class TranscribedSource:
    """Source of recordings with their texts, some of which are kept from training.

    Attributes:
        path: a list of ``FILE|TEXT`` lines, LJSpeech's ``id|text|normalised text`` among them; a
            folder that holds one as ``metadata.csv``; or a data set of the ``datasets`` library.
        speaker: name of the voice.
        language: language of the texts.
        validation: number of recordings kept for choices.
        test: number of recordings kept for figures, which nothing reads in training.
        seed: random seed of the draw of both.
        repeat: how often an epoch visits each recording.
        dataset_split: split of a data set.
        dataset_column: its column of sounds.
        dataset_text_column: its column of texts.
        dataset_config: its configuration, if it has several.
    """

    path: str
    speaker: str = "default"
    language: str = "en-us"
    validation: int = 0
    test: int = 0
    seed: int = 0
    repeat: int = 1
    dataset_split: str = "train"
    dataset_column: str = "audio"
    dataset_text_column: str = "text"
    dataset_config: str | None = None

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.repeat < 1:
            raise ValueError(
                f"validation {self.validation}, test {self.test}, repeat {self.repeat}: counts of "
                "0 or more, and repeat of at least 1"
            )

    def check_path(self) -> None:
        """Refuse a path that is neither here nor can be a data set on the hub.

        Raises:
            InputError: if it is so.
        """
        self._sounds().check_path()

    def transcripts(self, part: Part) -> list[Transcript]:
        """Return one part of its recordings, in the order of the source.

        Raises:
            InputError: if the source cannot be read, names recordings that are not there, or has
                fewer than are to be kept.
        """
        if part not in get_args(Part):
            raise ValueError(f"part {part!r}: one of {', '.join(get_args(Part))}")
        found = self._all()
        kept = self.validation + self.test
        if len(found) <= kept:
            raise InputError(
                f"{self.path}: {len(found)} recordings, of which validation and test take {kept}; "
                "lower them"
            )
        order = np.random.default_rng(self.seed).permutation(len(found))
        parts = {
            "test": order[: self.test],
            "validation": order[self.test : kept],
            "train": order[kept:],
        }
        return [found[number] for number in sorted(parts[part])]

    @property
    def root(self) -> str:
        """Return the folder that names of its files are relative to; empty for a data set."""
        path = resolve_path(self.path)
        if path.is_dir():
            return str(path) if (path / METADATA).is_file() else ""
        return str(path.parent) if path.is_file() else ""

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of its list and recordings, or of its data set."""
        path = self._list()
        if path is None:
            return self._sounds().fingerprint()
        files = [one.sound for one in _listed(path)]
        return of_files({path, *files}, path.parent)

    def _sounds(self) -> AudioSource:
        return AudioSource(
            self.path,
            dataset_split=self.dataset_split,
            dataset_column=self.dataset_column,
            dataset_config=self.dataset_config,
        )

    def _list(self) -> Path | None:
        path = open_source(self.path, "recordings")
        if path.is_dir() and (path / METADATA).is_file():
            return path / METADATA
        return path if path.is_file() else None

    def _all(self) -> list[Transcript]:
        path = self._list()
        if path is not None:
            return _present(path, _listed(path))
        if resolve_path(self.path).is_dir() and not _holds_tables(resolve_path(self.path)):
            raise InputError(f"{self.path}: holds no {METADATA}; {WRITE_ONE}")
        return self._of_dataset()

    def _of_dataset(self) -> list[Transcript]:
        sounds: Any = self._sounds().places()
        column = self.dataset_text_column
        if column not in sounds.table.column_names:
            raise InputError(
                f"{self.path}: no column {column!r}; it has {sounds.table.column_names}"
            )
        texts = sounds.table[column]
        return [
            Transcript(_Row(sounds, row), str(text), f"{self.path}[{row}]")
            for row, text in enumerate(texts)
        ]


@dataclass(frozen=True)
class _Row:
    """A data set's sound, read when it is asked for."""

    sounds: Sequence[Any]
    row: int

    def content(self) -> tuple[bytes, str]:
        return self.sounds[self.row]


def _holds_tables(folder: Path) -> bool:
    return any(folder.glob("*.parquet")) or any(folder.glob("*.arrow"))


def _listed(path: Path) -> list[Transcript]:
    """Return the lines of a list; the last of their fields is the text."""
    with reading(path, "is no list of recordings and texts", WRITE_ONE):
        file = io.StringIO(read_text(path), newline="")
        rows = [row for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE) if row]
    found = []
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or not row[0].strip() or not row[-1].strip():
            raise InputError(f"{path}:{number}: has no file and text; {WRITE_ONE}")
        sound = _sound_path(path.parent, row[0].strip())
        found.append(Transcript(sound, row[-1].strip(), str(sound)))
    if not found:
        raise InputError(f"{path}: the list is empty; {WRITE_ONE}")
    return found


def _sound_path(folder: Path, name: str) -> Path:
    direct = folder / name
    if direct.suffix.lower() in EXTENSIONS:
        return direct
    by_id = [folder / "wavs" / f"{name}{ending}" for ending in EXTENSIONS]
    return next((path for path in by_id if path.is_file()), by_id[0])


def _present(path: Path, found: list[Transcript]) -> list[Transcript]:
    missing = [one.name for one in found if not one.sound.is_file()]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of its {len(found)} recordings are not there, such as "
            f"{missing[0]}; copy them, or take them out of the list"
        )
    return found
