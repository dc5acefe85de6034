"""Listings of large image sources, and of archives, prepared once as tables on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.data.archives import ArchiveReader, Member
from multidiff.data.columns import Columns, ParsedColumn, VariableColumn
from multidiff.data.prepare import Plan, prepared
from multidiff.data.table_writer import ColumnWriter
from multidiff.image.data.annotations import caption_texts, numbered
from multidiff.image.data.listing import ImageSource, Listing
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

VERSION = 1
ROWS_AT_ONCE = 256
COLUMNS = {"captions": "text", "value": "int32"}


@dataclass(frozen=True)
class StoredListing(Listing):
    """A listing on disk.

    Attributes:
        table: its table.
    """

    table: Columns = None  # type: ignore[assignment]


class Rows:
    """Rows of one part: captions as they are found, labels as numbers of distinct values.

    Args:
        source: the images.
        writer: writer of the part.
    """

    def __init__(self, source: ImageSource, writer: ColumnWriter):
        self.source, self.writer = source, writer
        self.values: dict[Any, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.bare = 0  # images without a caption

    def append(self, captions: Any, label: Any, **columns: Any) -> None:
        """Append an image.

        Args:
            captions: a text, a list of texts, or None.
            label: a number or a word; None or empty if the image has none.
            columns: where its file is.

        Raises:
            InputError: if a caption is not a text.
        """
        texts = caption_texts(self.source, captions)
        self.bare += not texts
        value = -1 if label in (None, "") else self.values.setdefault(label, len(self.values))
        self.rows.append({"captions": json.dumps(texts), "value": value, **columns})
        if len(self.rows) == ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and note what the whole needs to know of the part."""
        self._flush()
        self.writer.notes = {"values": list(self.values), "bare": self.bare}

    def _flush(self) -> None:
        self.writer.extend_rows(self.rows)
        self.rows.clear()


def listing_plan(
    source: ImageSource,
    kind: str,
    key: Any,
    columns: Mapping[str, str],
    parts: Callable[[], Sequence[Any]],
    make: Callable[[Any, ColumnWriter], None],
    words: Callable[[], tuple[str, ...]] = tuple,
    by_folder: bool = False,
) -> Plan:
    """Return the plan of a listing.

    Args:
        source: the images.
        kind: kind of the source, such as ``archives``.
        key: fingerprint of its files.
        columns: columns that say where a file is.
        parts: see :class:`multidiff.data.prepare.Plan`.
        make: function that appends the images of a part by :class:`Rows`.
        words: function that returns the names of the labels that the source has.
        by_folder: whether labels are folders, which count if all images are in two or more.
    """
    options = [source.split, source.column, source.caption_column, source.label_column]
    return Plan(
        "images",
        {"version": VERSION, "kind": kind, "source": key, "options": [*options, source.config]},
        {**COLUMNS, **columns},
        parts=parts,
        make=make,
        source=source.path,
        finish=partial(_finish, source, words, by_folder),
    )


def stored_listing(
    plan: Plan, source: ImageSource, contents: Callable[[Columns], Any], names: Any
) -> StoredListing:
    """Return a listing, prepared if the cache does not have it.

    Args:
        plan: its plan.
        source: the images.
        contents: function that returns the files of a table's rows.
        names: function that returns their names.

    Raises:
        InputError: if the source cannot be read, or has no images.
    """
    table = prepared(plan)
    captions = None
    if table.info["captions"]:
        captions = ParsedColumn(table.variable("captions"), tuple)
    has_labels = table.info["labels"]
    words = tuple(source.names or table.info["words"]) if has_labels else ()
    return StoredListing(
        contents(table),
        names(table),
        captions,
        table.fixed("label") if has_labels else None,
        words,
        table=table,
    )


def _finish(
    source: ImageSource, words: Callable[[], tuple[str, ...]], by_folder: bool, table: Columns
) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """Number the labels of all parts, and report what is missing."""
    count = len(table)
    if count == 0:
        raise InputError(f"{source.path}: has no images")
    bare = sum(note["bare"] for note in table.notes)
    has_captions = bare < count or source.caption_column is not None
    if bare and has_captions:
        logger.warning(
            "%s: %d of %d images have no caption; it is empty for them", source.path, bare, count
        )
    info = {"captions": has_captions, "labels": False, "words": []}
    local = table.fixed("value")[:]
    values = list(dict.fromkeys(value for note in table.notes for value in note["values"]))
    missing = int((local < 0).sum())
    if missing == count or (by_folder and (missing or len(values) < 2)):
        return {}, info
    if missing:
        logger.warning(
            "%s: %d of %d images have no label; labels are ignored", source.path, missing, count
        )
        return {}, info
    found, named = numbered(source, values, words())
    number = dict(zip(values, found or (), strict=True))
    label = np.empty(count, np.int64)
    for part, note in enumerate(table.notes):
        first, stop = table.first_rows[part : part + 2]
        own = np.array([number[value] for value in note["values"]], np.int64)
        label[first:stop] = own[local[first:stop]]
    return {"label": label}, {**info, "labels": True, "words": list(named)}


class Files(Sequence):
    """Paths of files below a folder."""

    def __init__(self, column: VariableColumn, folder: Path, kind: type = Path):
        self.column, self.folder, self.kind = column, folder, kind

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        return self.kind(self.folder / self.column[int(row)])


class Cells(Sequence):
    """Files in a table: their bytes, or where those are missing their paths."""

    def __init__(self, table: Columns):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        content = self.table.variable("content")[int(row)]
        path = "" if content else self.table.variable("path")[int(row)]
        return Path(path) if path else content


class Members(Sequence):
    """Files in archives."""

    def __init__(self, table: Columns, archives: Sequence[Path]):
        self.table, self.reader = table, ArchiveReader(archives)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        row, numbers = int(row), ("offset", "stored", "size", "method")
        member = Member(
            self.table.variable("member")[row],
            *(int(self.table.fixed(name)[row]) for name in numbers),
        )
        return self.reader.read(int(self.table.fixed("archive")[row]), member)


class MemberNames(Sequence):
    """Names of files in archives: ``archive:member``."""

    def __init__(self, table: Columns, archives: Sequence[Path]):
        self.table, self.archives = table, archives

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        archive = self.archives[int(self.table.fixed("archive")[int(row)])]
        return f"{archive}:{self.table.variable('member')[int(row)]}"


class Numbered(Sequence):
    """Names of the rows of a table: ``path[row]``."""

    def __init__(self, path: str, count: int):
        self.path, self.length = path, count

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: Any) -> Any:
        return f"{self.path}[{int(row)}]"
