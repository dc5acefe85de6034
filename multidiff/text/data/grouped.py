"""Texts in parquet files that are read by row groups, such as those in an object store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from multidiff.data.group_order import GroupRows
from multidiff.data.row_groups import GroupedColumn, GroupedTable
from multidiff.text.data.listing import TextRow, Texts, TextSource, grouped_table, text_row
from multidiff.text.data.words import PIECE
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class GroupedTexts(Texts):
    """Texts that are read by row groups; blank ones are empty here.

    Attributes:
        table: their table.
        source: their source.
        labels: names of the labels of each column that has some.
    """

    table: GroupedTable = None  # type: ignore[assignment]
    source: TextSource = None  # type: ignore[assignment]
    labels: Any = None

    def split(self, held_out_every: int, held_out: bool) -> GroupRows:
        """Return the rows of one side of a split."""
        return GroupRows(self.table.sizes, held_out_every, held_out, self.source.path)

    def row(self, number: int) -> TextRow | None:
        """Return a row; None if it has no text.

        Raises:
            InputError: if it cannot be read, or a value is not of its kind.
        """
        return _row(self.table, self.source, self.labels, number)

    def fitting(self, rows: Any, index: int, longest: int | None) -> tuple[int, TextRow]:
        """Return a row, or the next of its group that has a text and is not too long.

        Args:
            rows: rows of one side of the split (:class:`GroupRows`).
            index: index among these.
            longest: largest number of words; None for any.

        Raises:
            InputError: if the group has none.
        """
        group = rows.alternatives(index)
        for step in range(len(group)):
            row = rows[group[(index - group.start + step) % len(group)]]
            found = self.row(row)
            if found is not None and (longest is None or len(PIECE.findall(found.text)) <= longest):
                return row, found
        raise InputError(
            f"{self.names[rows[index]]}: no text of its row group has {longest or 'any'} words or "
            "fewer; raise longest"
        )


def grouped_texts(source: TextSource) -> GroupedTexts:
    """Return the texts of parquet files; nothing but the footers of the files is read.

    Raises:
        InputError: if the files cannot be read, or lack a column.
    """
    table = grouped_table(source)
    labels = {name: table.label_names(name) for name in source.columns()}

    def column(of: Any) -> GroupedColumn:
        return GroupedColumn(table, partial(_value, table, source, labels, of))

    return GroupedTexts(
        column("text"),
        GroupedColumn(table, table.name),
        column("source") if source.source_column is not None else None,
        column("meaning") if source.has_meanings else None,
        table=table,
        source=source,
        labels=labels,
    )


def _row(
    table: GroupedTable, source: TextSource, labels: dict[str, Any], number: int
) -> TextRow | None:
    values = table.row(number)
    for name, names in labels.items():
        if names and values[name] is not None:
            values[name] = names[values[name]] if values[name] >= 0 else None
    return text_row(source, table.name(number), values)


def _value(
    table: GroupedTable, source: TextSource, labels: dict[str, Any], of: str, number: int
) -> Any:
    found = _row(table, source, labels, number)
    return "" if found is None else getattr(found, of)


class GroupedSample:
    """Texts that are not held out, and their sources, of evenly spread row groups.

    Args:
        texts: the texts.
        most: largest number of bytes, about.
    """

    def __init__(self, texts: GroupedTexts, most: int):
        rows = texts.split(texts.source.held_out_every, held_out=False)
        size = texts.table.group_bytes * len(rows.sizes)
        ends = np.cumsum(rows.sizes)
        groups = range(0, len(ends), max(1, -(-size // most)))
        self.texts, self.rows, self.ends = texts, rows, ends
        self.groups: Sequence[int] = groups

    def __str__(self) -> str:
        return f"{len(self.groups):,} of {len(self.ends):,} row groups, evenly spread"

    def __iter__(self) -> Iterator[str]:
        for group in self.groups:
            for index in range(self.ends[group] - self.rows.sizes[group], self.ends[group]):
                found = self.texts.row(self.rows[index])
                for text in () if found is None else (found.text, found.source):
                    if text is not None:
                        yield text
