"""Contents of a text source: texts, their sources, and their meanings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from multidiff.data.row_groups import GroupedTable, RowGroups, grouped_reading
from multidiff.text.data.tables import Table, read_table, table_fingerprint
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.readers import check_source, open_source

logger = logging.getLogger(__name__)

ATTRIBUTE = re.compile(r"\s*([^\[\],]+?)\s*\[([^\[\]]*)\]\s*(?:,|$)")


@dataclass(frozen=True)
class TextSource:
    """A source of texts.

    Blank texts are skipped.

    Attributes:
        path: a ``.txt`` file, one text per line; a ``.csv`` or ``.tsv`` file (in the second,
            quotes are text); a ``.jsonl`` file, one object per line; a parquet or arrow file; a
            ``.zip`` or ``.tar`` file, or a folder of them, such as WebDataset shards, in which each
            ``.txt`` file is a text, with further columns in ``.json`` beside it; a folder or name
            of a data set of the ``datasets`` library; the URL of parquet files in an object store
            (``s3://``, ``gs://``, ``hf://``); or ``starter:NAME``, which comes with the package.
        column: column of the texts; the lines of a ``.txt`` file are a column of that name.
            A part of a nested column of a data set is called ``translation.de``.
        source_column: column of the source texts that texts are generated from.
        meaning_column: column of meaning representations, such as
            ``name[The Eagle], food[Italian]``.
        attribute_columns: columns that are attributes themselves, such as a sentiment.
        header: whether the first row of a ``.csv`` or ``.tsv`` file names the columns; if not,
            they are called ``0``, ``1`` and so on.
        group_by: column whose equal values stay on one side of the split; by default
            ``meaning_column``. Its own ``column`` keeps repeated texts on one side.
        held_out_every: n to keep every n-th group (or row, without groups), in order of
            first appearance, for validation; of a source that is read by row groups, every n-th
            of those. 0 keeps none.
        split: split of a data set.
        config: configuration of a data set, if it has several.
        running: whether all of it is one text, with newlines between the texts; of a ``.txt``
            file blank lines are kept too. It has no meanings, sources or groups, and
            its held-out part is contiguous (see
            :class:`multidiff.text.data.chunks.TextChunks`).
        row_groups: how parquet files are read by row groups, as always in an object store; None
            otherwise reads local ones at random.

    Raises:
        InputError: if running text, or a source read by row groups, is combined with options that
            do not apply to it.
    """

    path: str
    column: str = "text"
    source_column: str | None = None
    meaning_column: str | None = None
    attribute_columns: tuple[str, ...] = ()
    header: bool = True
    group_by: str | None = None
    held_out_every: int = 0
    split: str = "train"
    config: str | None = None
    running: bool = False
    row_groups: RowGroups | None = None

    def __post_init__(self) -> None:
        others = (self.source_column, self.meaning_column, self.group_by, *self.attribute_columns)
        if self.running and (any(others) or self.held_out_every):
            raise InputError(
                f"{self.path}: running text is one text without meanings, sources and groups; "
                "remove those and held_out_every, or running"
            )
        if self.grouped is None:
            return
        if self.running:
            raise InputError(
                f"{self.path}: running text is not read by row groups; copy it to a local disk"
            )
        if self.grouped_by is not None and self.held_out_every:
            raise InputError(
                f"{self.path}: whole row groups are held out, so texts of equal "
                f"{self.grouped_by!r} would be on both sides; hold out a file of its own"
            )

    @property
    def grouped(self) -> RowGroups | None:
        """Return how it is read by row groups; None if it is not."""
        return grouped_reading(self.path, self.row_groups)

    @property
    def has_meanings(self) -> bool:
        """Return whether texts have meanings."""
        return self.meaning_column is not None or bool(self.attribute_columns)

    @property
    def grouped_by(self) -> str | None:
        """Return the column whose equal values stay on one side of the split."""
        return self.group_by or self.meaning_column

    def columns(self) -> list[str]:
        """Return the columns that are read."""
        asked = (self.column, self.source_column, self.meaning_column, self.group_by)
        named = [column for column in (*asked, *self.attribute_columns) if column is not None]
        return list(dict.fromkeys(named))

    def check_path(self) -> None:
        """Reject a path that does not exist and cannot be a data set on the hub.

        Raises:
            InputError: if the path is neither.
        """
        check_source(self.path, "texts")

    def listing(self) -> Texts:
        """Read its contents; large ones are prepared once and stay on disk.

        Raises:
            InputError: if it cannot be found or read, is empty, or lacks a requested column.
        """
        from multidiff.text.data.stored import is_large, stored_texts

        open_source(self.path, "texts")
        if self.grouped is not None:
            from multidiff.text.data.grouped import grouped_texts

            return grouped_texts(self)
        if is_large(self):
            return stored_texts(self)
        table = read_table(
            self.path,
            self.columns(),
            header=self.header,
            split=self.split,
            config=self.config,
            whole=self.running,
        )
        for column in self.columns():
            if column not in table.columns:
                raise InputError(f"{self.path}: no column {column!r}; it has {table.columns}")
        texts = _gathered(self, table)
        if not texts.texts:
            raise InputError(f"{self.path}: has no texts; name a file or column that has some")
        return Texts(["\n".join(texts.texts)], [self.path]) if self.running else texts

    def fingerprint(self, load: bool = True) -> Fingerprint:
        """Return the fingerprint of its files, or of its data set on the hub.

        Args:
            load: whether a data set on the hub is opened to learn its revision.

        Raises:
            InputError: if a data set cannot be loaded.
        """
        if self.grouped is not None:
            return grouped_table(self).fingerprint()
        return table_fingerprint(self.path, self.split, self.config, load)

    def rows(self, texts: Texts, held_out: bool) -> Sequence[int]:
        """Return the rows of the texts kept for validation, or of the others.

        Raises:
            InputError: if there are none.
        """
        every = self.held_out_every
        if held_out and every < 1:
            raise InputError(
                f"{self.path}: held_out_every is {every}, so no texts are held out; "
                "set it, or use another source"
            )
        stored = texts.split(every, held_out)
        if stored is not None:
            return stored
        groups = texts.names if texts.groups is None else texts.groups
        where = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        kept = [every > 0 and where[group] % every == every // 2 for group in groups]
        rows = [row for row in range(len(kept)) if kept[row] == held_out]
        if not rows:
            raise InputError(
                f"{self.path}: of {len(groups)} texts in {len(where)} groups none are on this "
                f"side of the split; held_out_every is {every}"
            )
        return rows


def grouped_table(source: TextSource) -> GroupedTable:
    """Return the columns of a source that is read by row groups.

    Raises:
        InputError: if it cannot be read, or lacks a column.
    """
    return GroupedTable(source.path, source.columns(), source.grouped or RowGroups(), source.split)


@dataclass(frozen=True)
class Texts:
    """Texts in the order of their source; every sequence has one item for each.

    Attributes:
        texts: the texts, unchanged.
        names: names in messages: ``path:line`` or ``path[row]``.
        sources: source of each text.
        meanings: attributes and their values, from ``meaning_column`` and
            ``attribute_columns`` together; attributes without a value are missing.
        groups: groups that stay together in a split.
    """

    texts: Sequence[str]
    names: Sequence[str]
    sources: Sequence[str] | None = None
    meanings: Sequence[dict[str, str]] | None = None
    groups: Sequence[str] | None = None

    def split(self, held_out_every: int, held_out: bool) -> Sequence[int] | None:
        """Return the rows of one side of a split, if the texts are on disk; None in memory."""
        return None


def parse_meaning(text: str) -> dict[str, str]:
    """Return the attributes of a meaning representation and their values, in their order.

    The form is that of the E2E challenge (Novikova et al. 2017):
    ``customer rating[5 out of 5], near[Café X]``.

    Raises:
        InputError: if it has another form, or an attribute twice.
    """
    meaning: dict[str, str] = {}
    text, where = text.strip(), 0
    while where < len(text):
        found = ATTRIBUTE.match(text, where)
        if found is None:
            raise InputError(
                f"{text[where : where + 60].strip()!r} is not a meaning representation; "
                "write it as 'attribute[value], attribute[value]'"
            )
        attribute, value = found.groups()
        if attribute in meaning:
            raise InputError(f"{text!r} has {attribute!r} twice; give it one value")
        meaning[attribute] = value.strip()
        where = found.end()
    return meaning


def _gathered(source: TextSource, table: Table) -> Texts:
    """Return the texts of a table, without rows that have none."""
    names, rows, blank = [], [], 0
    for name, row in zip(table.names, table.rows, strict=True):
        found = text_row(source, name, row)
        if found is None:
            blank += 1
            continue
        names.append(name)
        rows.append(found)
    if blank:
        logger.warning("%s: %d rows have no text; they are skipped", source.path, blank)
    return Texts(
        [row.text for row in rows],
        names,
        [row.source or "" for row in rows] if source.source_column is not None else None,
        [row.meaning or {} for row in rows] if source.has_meanings else None,
        [row.group or "" for row in rows] if source.grouped_by is not None else None,
    )


class TextRow(NamedTuple):
    """A row of a source; what the source does not have is None."""

    text: str
    source: str | None
    meaning: dict[str, str] | None
    group: str | None


def text_row(source: TextSource, name: str, row: Mapping[str, Any]) -> TextRow | None:
    """Return a row of a source, None if it has no text.

    Args:
        source: the source.
        name: name of the row, for messages.
        row: its values by column.

    Raises:
        InputError: if a value is not of its kind.
    """
    value = row.get(source.column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    text = _text_of(name, source.column, value)
    origin = meaning = group = None
    if source.source_column is not None:
        origin = _text_of(name, source.source_column, row.get(source.source_column))
    if source.has_meanings:
        meaning = _meaning_of(source, name, row)
    if source.grouped_by is not None:
        group = _word_of(row.get(source.grouped_by))
    return TextRow(text, origin, meaning, group)


def _text_of(name: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{name}: {column!r} is {repr(value)[:60]}, not a text; name a column of texts"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: {value[error.start]!r} is half a surrogate pair; save the text as UTF-8"
        ) from error
    return value


def _word_of(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _meaning_of(source: TextSource, name: str, row: Mapping[str, Any]) -> dict[str, str]:
    meaning = {}
    if source.meaning_column is not None:
        try:
            meaning = parse_meaning(_word_of(row.get(source.meaning_column)))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    for column in source.attribute_columns:
        if column in meaning:
            raise InputError(
                f"{name}: {column!r} is in {source.meaning_column!r} and is a column too; "
                "remove it from attribute_columns"
            )
        meaning[column] = _word_of(row.get(column))
    return {attribute: value for attribute, value in meaning.items() if value}
