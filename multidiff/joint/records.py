"""Records of several media: a table with a column for each medium, cells of which may be empty."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from multidiff.data.order import SplitRows
from multidiff.text.data.tables import DELIMITERS, load_rows, read_table, table_fingerprint
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.names import suggestion
from multidiff.utils.packages import needs
from multidiff.utils.readers import open_source

logger = logging.getLogger(__name__)

T = TypeVar("T")
MEDIA = ("image", "audio", "text")
# Number of media that cannot be used which are reported one by one.
SHOWN = 10


@dataclass(frozen=True)
class Cell:
    """One medium of one record, as it stands in the table.

    Attributes:
        value: text, number, path or bytes of a file.
        name: name in messages.
        folder: folder that paths are relative to.
    """

    value: Any
    name: str
    folder: Path = Path()

    def file(self) -> Path | bytes:
        """Return the path or the bytes of a file.

        Raises:
            InputError: if the cell holds neither.
        """
        value = self.value
        if isinstance(value, Mapping):  # of the datasets library
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if isinstance(value, str | Path):
            return self.folder / value
        raise InputError(f"{self.name}: {value!r:.60} is neither a path nor the bytes of a file")


class Records:
    """Rows of a table whose columns are media.

    A cell of an image or a sound is a path, relative to the table, or the bytes of a file; empty
    cells are media that a record lacks. Records that have none are left out, with a warning.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, or the id of a data set of the
            ``datasets`` library.
        media: columns that are media, each named as a part of the model; by default those of
            ``among`` that the table has.
        held_out_every: n to keep every n-th record for validation; 0 keeps none.
        held_out: whether to take the records kept for validation.
        split: split of a data set.
        config: configuration of a data set, if it has several.
        among: names of media that are looked for if ``media`` names none.

    Raises:
        InputError: if the table cannot be read, lacks a column, or no record has any of the media.
    """

    def __init__(
        self,
        path: str,
        media: tuple[str, ...] = (),
        held_out_every: int = 0,
        held_out: bool = False,
        split: str = "train",
        config: str | None = None,
        among: tuple[str, ...] = MEDIA,
    ):
        self.path, self.split, self.config = path, split, config
        where = open_source(path, "records")
        columns, self.names, rows = _opened(path, where, media or among, split, config)
        self.media = media or tuple(name for name in among if name in columns)
        if not self.media:
            wanted = ", ".join(among)
            raise InputError(
                f"{path}: has no column {wanted}; name its columns so, or set media to them"
            )
        for name in self.media:
            if name not in columns:
                raise InputError(f"{path}: has no column {name!r}: {suggestion(name, columns)}")
        self._cells = {name: [_value(row.get(name)) for row in rows] for name in self.media}
        there = [
            any(one is not None for one in row) for row in zip(*self._cells.values(), strict=True)
        ]
        if not any(there):
            raise InputError(f"{path}: no record has any of {', '.join(self.media)}")
        if not all(there):
            left_out = len(there) - sum(there)
            logger.warning("%s: %d records have none of %s", path, left_out, ", ".join(self.media))
        if held_out and held_out_every < 1:
            raise InputError(f"{path}: held_out_every is {held_out_every}: no records are held out")
        kept = [row for row, one in enumerate(there) if one]
        self.rows = [kept[n] for n in SplitRows(len(kept), held_out_every, held_out)]
        self.folder = where.parent if where.is_file() else where

    @classmethod
    def synthetic(
        cls,
        path: str,
        media: tuple[str, ...] = (),
        among: tuple[str, ...] = MEDIA,
        **options: Any,
    ) -> Records:
        """Return a record without media, or with a click if it is one of sound, for dry runs."""
        found = cls.__new__(cls)
        found.path, found.split, found.config = path, "train", None
        found.media, found.names, found.folder = media or among, [path], Path()
        click = torch.full((1,), 0.5) if found.media == ("audio",) else None
        found._cells = {name: [click] for name in found.media}
        found.rows = [0]
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def cell(self, index: int, medium: str) -> Cell | None:
        """Return one medium of a record; None where the record lacks it."""
        row = self.rows[index]
        value = self._cells[medium][row]
        name = f"{self.names[row]}[{medium}]"
        return None if value is None else Cell(value, name, self.folder)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`: a cell, or None, for each medium."""
        return {medium: self.cell(index, medium) for medium in self.media}

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the table."""
        return {"records": table_fingerprint(self.path, self.split, self.config, load=True)}


def usable(cells: Sequence[Cell | None], read: Callable[[Cell], T]) -> list[T | None]:
    """Return the media of cells; None for those that are empty or cannot be used.

    Those that cannot be used are reported, each once, and in fewer and fewer lines.
    """
    found: list[T | None] = []
    for cell in cells:
        try:
            found.append(None if cell is None else read(cell))
        except InputError as fault:
            _report_once(str(fault))
            found.append(None)
    return found


_left_out: set[str] = set()


def _report_once(fault: str) -> None:
    """Report a medium that cannot be used: the first ten one by one, then their number."""
    if fault in _left_out:
        return
    _left_out.add(fault)
    count = len(_left_out)
    if count <= SHOWN:
        logger.warning("left out: %s", fault)
    elif count % (SHOWN * SHOWN) == 0:
        logger.warning("left out: %s media so far, the last %s", f"{count:,}", fault)


def _opened(
    path: str, where: Path, media: tuple[str, ...], split: str, config: str | None
) -> tuple[Sequence[str], Sequence[str], Sequence[Mapping[str, Any]]]:
    """Return the columns, the rows' names and the rows of a table."""
    if where.suffix.lower() in (*DELIMITERS, ".jsonl"):
        found = read_table(path, media, True, split, config)
        return found.columns, found.names, [*found.rows]
    with needs("datasets", "a table of records"):
        import datasets

    table = load_rows(path, split, config)
    for name, kind in table.features.items():
        if isinstance(kind, datasets.Image | datasets.Audio):
            table = table.cast_column(name, type(kind)(decode=False))
    wanted = [one for one in table.column_names if one in media]
    names = [f"{path}[{row}]" for row in range(len(table))]
    return table.column_names, names, list(table.select_columns(wanted))


def _value(value: Any) -> Any:
    """Return a cell's value, None where it is empty."""
    if isinstance(value, float) and np.isnan(value):
        return None
    if isinstance(value, Mapping) and not (value.get("bytes") or value.get("path")):
        return None
    return None if value in ("", None) or value == b"" else value
