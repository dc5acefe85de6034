"""Contents of a text source: texts, their sources, and their meanings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
            folder or name of a data set of the ``datasets`` library; or ``starter:NAME``, which
            comes with the package.
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
            first appearance, for validation; 0 keeps none.
        split: split of a data set.
        config: configuration of a data set, if it has several.
        running: whether all of it is one text, with newlines between the texts; of a ``.txt``
            file blank lines are kept too. It has no meanings, sources or groups, and
            its held-out part is contiguous (see
            :class:`multidiff.text.data.chunks.TextChunks`).

    Raises:
        InputError: if running text is combined with options that do not apply to it.
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

    def __post_init__(self) -> None:
        others = (self.source_column, self.meaning_column, self.group_by, *self.attribute_columns)
        if self.running and (any(others) or self.held_out_every):
            raise InputError(
                f"{self.path}: running text is one text without meanings, sources and groups; "
                "remove those and held_out_every, or running"
            )

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
        """Read its contents.

        Raises:
            InputError: if it cannot be found or read, is empty, or lacks a requested column.
        """
        open_source(self.path, "texts")
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
        return table_fingerprint(self.path, self.split, self.config, load)

    def rows(self, texts: Texts, held_out: bool) -> list[int]:
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


@dataclass(frozen=True)
class Texts:
    """Texts in the order of their source; every list has one item for each.

    Attributes:
        texts: the texts, unchanged.
        names: names in messages: ``path:line`` or ``path[row]``.
        sources: source of each text.
        meanings: attributes and their values, from ``meaning_column`` and
            ``attribute_columns`` together; attributes without a value are missing.
        groups: groups that stay together in a split.
    """

    texts: list[str]
    names: list[str]
    sources: list[str] | None = None
    meanings: list[dict[str, str]] | None = None
    groups: list[str] | None = None


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
    """Return the requested columns, of the rows whose text is not blank."""
    has_meaning = source.meaning_column is not None or bool(source.attribute_columns)
    group_by = source.group_by or source.meaning_column
    texts, names, sources, meanings, groups, blank = [], [], [], [], [], 0
    for name, row in zip(table.names, table.rows, strict=True):
        value = row.get(source.column)
        if value is None or (isinstance(value, str) and not value.strip()):
            blank += 1
            continue
        texts.append(_text_of(name, source.column, value))
        names.append(name)
        if source.source_column is not None:
            sources.append(_text_of(name, source.source_column, row.get(source.source_column)))
        if has_meaning:
            meanings.append(_meaning_of(source, name, row))
        if group_by is not None:
            groups.append(_word_of(row.get(group_by)))
    if blank:
        logger.warning("%s: %d rows have no text; they are skipped", source.path, blank)
    return Texts(
        texts,
        names,
        sources if source.source_column is not None else None,
        meanings if has_meaning else None,
        groups if group_by is not None else None,
    )


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
