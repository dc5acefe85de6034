"""Images in parquet files that are read by row groups, such as those in an object store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from multidiff.data.row_groups import GroupedColumn, GroupedTable
from multidiff.image.data.annotations import caption_texts, numbered
from multidiff.image.data.listing import ImageSource, Listing, grouped_table
from multidiff.utils.errors import InputError


def from_row_groups(source: ImageSource) -> Listing:
    """Return the images of parquet files; nothing but the footers of the files is read.

    Raises:
        InputError: if the files cannot be read, or lack a column.
    """
    table = grouped_table(source)
    captions = labels = None
    words: tuple[str, ...] = ()
    if source.caption_column is not None:
        captions = GroupedColumn(table, partial(_captions, source, table))
    if source.label_column is not None:
        words = source.names or table.label_names(source.label_column)
        labels = GroupedColumn(table, partial(_label, source, table, words))
    if source.names and labels is None:
        raise InputError(f"{source.path}: names are given, but no labels; set label_column")
    contents = GroupedColumn(table, partial(_content, source, table))
    return Listing(contents, GroupedColumn(table, table.name), captions, labels, words, table)


def _content(source: ImageSource, table: GroupedTable, row: int) -> Any:
    cell = table.row(row, [source.column])[source.column]
    if isinstance(cell, bytes):
        return cell
    if cell is not None and not isinstance(cell, dict):
        raise InputError(f"{source.path}: column {source.column!r} has no images")
    content, path = ((cell or {}).get(key) for key in ("bytes", "path"))
    return content or (Path(path) if path else b"")


def _captions(source: ImageSource, table: GroupedTable, row: int) -> tuple[str, ...]:
    name = source.caption_column or ""
    return caption_texts(source, table.row(row, [name])[name])


def _label(source: ImageSource, table: GroupedTable, words: tuple[str, ...], row: int) -> int:
    name = source.label_column or ""
    value = table.row(row, [name])[name]
    if value in (None, ""):
        raise InputError(f"{table.name(row)}: has no label; label all rows, or no label_column")
    if isinstance(value, str) and not words and not value.isdecimal():
        raise InputError(
            f"{source.path}: label {value!r} is a word, and which others there are is unknown; "
            "set names"
        )
    found, _ = numbered(source, [value], words)
    assert found is not None
    return found[0]
