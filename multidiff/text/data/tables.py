"""Rows of text files and data sets, each with its name for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.data.archives import ENDINGS as ARCHIVES
from multidiff.data.archives import archives_of
from multidiff.text.data.archived import archived_rows
from multidiff.utils.budgets import check_tables
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import Fingerprint, of_dataset, of_path
from multidiff.utils.lines import decoded
from multidiff.utils.packages import needs
from multidiff.utils.readers import parse_json, reading

DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_ENDINGS = (".parquet", ".arrow")
ENDINGS = (".txt", *DELIMITERS, ".jsonl", *TABLE_ENDINGS)


@dataclass(frozen=True)
class Table:
    """Rows by column.

    Attributes:
        columns: all columns.
        names: names of the rows: ``path:line`` or ``path[row]``.
        rows: values of the requested columns, or of all.
    """

    columns: Sequence[str]
    names: Sequence[str]
    rows: Iterable[Mapping[str, Any]]


def read_table(
    where: str,
    asked: Sequence[str],
    header: bool,
    split: str,
    config: str | None,
    whole: bool = False,
) -> Table:
    """Read the rows of a file or data set (see :class:`multidiff.text.data.listing.TextSource`).

    Args:
        where: its path or name.
        asked: columns to read; the lines of a ``.txt`` file are the first of them.
        header: whether the first row of a ``.csv`` or ``.tsv`` file names the columns.
        split: split of a data set.
        config: configuration of a data set.
        whole: whether a ``.txt`` file is one row, with all its newlines.

    Raises:
        InputError: if it cannot be found or read, or is empty.
    """
    path = resolve_path(where)
    ending = path.suffix.lower()
    if archives := archives_of(path):
        return _from_archives(where, archives, asked[0])
    if path.is_file() and ending not in ENDINGS:
        known = ", ".join((*ENDINGS, *ARCHIVES))
        raise InputError(f"{where}: {ending!r} must be {known}; convert the file")
    if not path.exists() and not can_be_id(path):
        raise InputError(f"{where}: no such file or folder; check the path")
    if not path.is_file() or ending in TABLE_ENDINGS:
        return _from_data_set(where, asked, split, config)
    text = _content(where, path)
    if ending in DELIMITERS:
        return _from_cells(where, text, ending, header)
    if ending == ".jsonl":
        return _from_objects(where, text)
    if whole:
        return Table([asked[0]], [where], [{asked[0]: io.StringIO(text, newline=None).read()}])
    return _from_lines(where, text, asked[0])


def can_be_id(path: Path) -> bool:
    """Return whether a path that does not exist can be the id of a data set on the hub."""
    is_file = path.suffix.lower() in (*ENDINGS, *ARCHIVES)
    return not (is_file or path.is_absolute() or len(path.parts) > 2)


def _content(where: str, path: Path) -> str:
    """Return the whole text of a file."""
    with reading(where, fix="check its permissions"):
        content = path.read_bytes()
    text = decoded(where, content)
    if not text.strip():
        raise InputError(f"{where}: is empty; name a file that has texts")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, numbered from 1.

    Not by ``splitlines``, which also splits at form feeds and other separators.
    """
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield number, line.removesuffix("\n")


def _from_lines(where: str, text: str, column: str) -> Table:
    names, rows = [], []
    for number, line in _lines(text):
        names.append(f"{where}:{number}")
        rows.append({column: line})
    return Table([column], names, rows)


def _from_archives(where: str, archives: Sequence[Path], column: str) -> Table:
    rows = []
    for archive in archives:
        for _, row in archived_rows(archive, column):
            if isinstance(row, InputError):
                raise row
            rows.append(row)
    names = [f"{where}[{number}]" for number in range(1, len(rows) + 1)]
    return Table(list(dict.fromkeys(key for row in rows for key in row)), names, rows)


def _from_objects(where: str, text: str) -> Table:
    names, rows = [], []
    for number, line in _lines(text):
        name = f"{where}:{number}"
        row = parse_json(line, name, "correct the line")
        if not isinstance(row, dict):
            raise InputError(f"{name}: is not a JSON object; write one, in braces, on each line")
        names.append(name)
        rows.append(row)
    return Table(list(dict.fromkeys(key for row in rows for key in row)), names, rows)


def _from_cells(where: str, text: str, ending: str, header: bool) -> Table:
    found = records(where, io.StringIO(text, newline=""), ending)
    first, cells = next(found)
    columns = header_columns(where, first, cells, header)
    names, rows = [], []
    for line, record in found if header else [(first, cells), *found]:
        if len(record) != len(columns):
            raise InputError(
                f"{where}:{line}: has {len(record)} fields, but line {first} has "
                f"{len(columns)}; fix the line"
            )
        names.append(f"{where}:{line}")
        rows.append(dict(zip(columns, record, strict=True)))
    return Table(columns, names, rows)


def header_columns(where: str, line: int, cells: list[str], header: bool) -> list[str]:
    """Return the columns of a table by its first row.

    Args:
        where: name of the table, for messages.
        line: line of the first row.
        cells: the first row.
        header: whether it names the columns.

    Raises:
        InputError: if a name appears twice.
    """
    columns = cells if header else [str(number) for number in range(len(cells))]
    if len(set(columns)) != len(columns):
        raise InputError(
            f"{where}:{line}: {columns} has a name twice; name every column, or set header: false"
        )
    return columns


def records(where: str, lines: Iterable[str], ending: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the line where it begins.

    Args:
        where: name of the table, for messages.
        lines: its lines, with their ends.
        ending: ``.csv`` or ``.tsv``.

    Raises:
        InputError: if a row cannot be read.
    """
    quoting = csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL
    # strict: a quote that is never closed would swallow the rest of the file as one text.
    reader = csv.reader(lines, delimiter=DELIMITERS[ending], quoting=quoting, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{where}:{line}: the row that begins here cannot be read ({error}); fix it"
            ) from error
        if cells:
            yield line, cells


def table_fingerprint(where: str, split: str, config: str | None, load: bool) -> Fingerprint:
    """Return the fingerprint of a source (see :class:`multidiff.text.data.listing.TextSource`).

    Args:
        where: its path or name.
        split: split of a data set.
        config: configuration of a data set.
        load: whether to open a data set on the hub to find its revision.

    Raises:
        InputError: if a data set cannot be loaded.
    """
    path = resolve_path(where)
    if path.exists():
        return of_path(path)
    if not load:
        return {"id": where, "config": config, "split": split}
    return of_dataset(load_rows(where, split, config), where, config, split)


def _from_data_set(where: str, asked: Sequence[str], split: str, config: str | None) -> Table:
    table = load_rows(where, split, config).flatten()
    there = [column for column in asked if column in table.column_names]
    names = [f"{where}[{row}]" for row in range(len(table))]
    return Table(table.column_names, names, named_rows(where, table.select_columns(there)))


def named_rows(where: str, table: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set; labels are replaced by their names, if they have some.

    Args:
        where: name of the data set, for messages.
        table: the data set.

    Raises:
        InputError: if a row cannot be read.
    """
    labels = {column: getattr(kind, "names", None) for column, kind in table.features.items()}
    rows = iter(table)
    while True:
        with reading(where, "has a row that cannot be read"):
            row = next(rows, None)
            if row is None:
                return
            for column, names in labels.items():
                number = row[column]
                if names and number is not None:
                    row[column] = names[number] if number >= 0 else None
        yield row


def load_rows(where: str, split: str, config: str | None) -> Any:
    """Return a data set of the ``datasets`` library.

    Args:
        where: its path or name.
        split: split of the data set.
        config: configuration of the data set.

    Raises:
        InputError: if it cannot be loaded.
    """
    with reading(where, "is not a data set of texts that can be loaded", "check the path"):
        return _data_set(where, split, config)


def _data_set(where: str, split: str, config: str | None) -> Any:
    with needs("datasets", "a data set of texts"):
        import datasets  # takes seconds to import

    path = resolve_path(where)
    check_tables(path)
    if path.is_file():
        kind = path.suffix.lower().removeprefix(".")
        return datasets.load_dataset(kind, data_files=[str(path)], split="train")
    if (path / "dataset_dict.json").is_file():
        splits = datasets.DatasetDict.load_from_disk(str(path))
        if split not in splits:
            raise InputError(f"{where}: has no split {split!r}; it has {sorted(splits)}")
        return splits[split]
    if (path / "state.json").is_file():
        return datasets.Dataset.load_from_disk(str(path))
    return datasets.load_dataset(str(path) if path.exists() else where, config, split=split)
