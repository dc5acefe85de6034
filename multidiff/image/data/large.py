"""Passes over large image sources and archives, whose listings stay on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from multidiff.data.archives import ArchiveReader, Member, by_sample
from multidiff.data.table_writer import ColumnWriter
from multidiff.image.data.image_files import EXTENSIONS
from multidiff.image.data.listing import METADATA, ImageSource, Listing
from multidiff.image.data.stored import (
    Cells,
    Files,
    MemberNames,
    Members,
    Numbered,
    Rows,
    listing_plan,
    stored_listing,
)
from multidiff.image.data.tables import open_table, parquet_files
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import of_dataset, of_stats
from multidiff.utils.packages import needs
from multidiff.utils.readers import parse_json, read_text, reading

# Longer listings are kept on disk: in memory they take about 130 MB in every process.
MOST_LISTED = 100_000
FILES_OF_A_PART = 20_000
ROWS_OF_A_PART = 10_000
ROWS_AT_ONCE = 64
MOST_SIDECAR_BYTES = 1 << 20


def from_archives(source: ImageSource, archives: Sequence[Path]) -> Listing:
    """Return the images of archives.

    Files of one stem belong together, as in WebDataset: an image, ``.txt`` its caption, ``.cls``
    its label, ``.json`` further columns.

    Raises:
        InputError: if an archive cannot be read.
    """
    columns = {"member": "text", "archive": "int32", "method": "int8"}
    columns |= {"offset": "int64", "stored": "int64", "size": "int64"}
    plan = listing_plan(
        source,
        "archives",
        [of_stats(archive) for archive in archives],
        columns,
        partial(list, enumerate(archives)),
        partial(_list_archive, source),
        by_folder=source.label_column is None,
    )
    return stored_listing(
        plan,
        source,
        lambda table: Members(table, archives),
        lambda table: MemberNames(table, archives),
    )


def _list_archive(source: ImageSource, piece: tuple[int, Path], writer: ColumnWriter) -> None:
    number, path = piece
    reader, rows = ArchiveReader([path]), Rows(source, writer)
    images: list[tuple[Member, dict[str, Member]]] = []
    for members in by_sample(path).values():
        beside = {}
        for member in members.values():
            name = Path(member.name)
            if name.name in METADATA:
                raise InputError(
                    f"{path}: {member.name} in an archive is not read; unpack it, or pack its "
                    "columns as .txt and .json files of the images' names"
                )
            if name.suffix.lower() in EXTENSIONS:
                images.append((member, beside))
            elif name.suffix.lower() in (".txt", ".cls", ".json"):
                beside[name.suffix.lower()] = member
    for member, beside in sorted(images, key=lambda one: one[0].offset):
        try:
            texts = {
                ending: reader.read(0, one).decode("utf-8-sig")
                for ending, one in beside.items()
                if one.size <= MOST_SIDECAR_BYTES
            }
            caption, label = _described(source, member.name, texts)
        except (InputError, UnicodeDecodeError) as fault:
            writer.fault(f"{path}:{member.name}", fault)
            continue
        place = {"offset": member.offset, "stored": member.stored, "size": member.size}
        rows.append(
            caption, label, member=member.name, archive=number, method=member.method, **place
        )
    rows.close()


def _described(source: ImageSource, name: str, texts: dict[str, str]) -> tuple[Any, Any]:
    """Return caption and label of an image by the files beside it."""
    columns = parse_json(texts[".json"], f"{name}: its .json") if ".json" in texts else {}
    caption, label = texts.get(".txt"), texts.get(".cls", "").strip() or None
    if source.caption_column is not None:
        caption = columns.get(source.caption_column)
    if source.label_column is not None:
        label = columns.get(source.label_column)
    elif label is None and len(Path(name).parts) > 1:
        label = Path(name).parts[0]
    return caption, label


def from_large_folder(source: ImageSource, folder: Path, images: Sequence[Path]) -> Listing:
    """Return the images of a folder, with the text files beside them as captions.

    Raises:
        InputError: if a caption cannot be read.
    """
    pieces = [images[n : n + FILES_OF_A_PART] for n in range(0, len(images), FILES_OF_A_PART)]
    plan = listing_plan(
        source,
        "folder",
        of_stats(folder),
        {"path": "text"},
        lambda: pieces,
        partial(_list_files, source, folder),
        by_folder=True,
    )
    return _files_below(plan, source, folder)


def _files_below(plan: Any, source: ImageSource, folder: Path) -> Listing:
    return stored_listing(
        plan,
        source,
        lambda table: Files(table.variable("path"), folder),
        lambda table: Files(table.variable("path"), folder, str),
    )


def _list_files(
    source: ImageSource, folder: Path, images: Sequence[Path], writer: ColumnWriter
) -> None:
    rows = Rows(source, writer)
    for path in images:
        relative = path.relative_to(folder)
        beside = path.with_suffix(".txt")
        try:
            caption = read_text(beside) if beside.is_file() else None
        except InputError as fault:
            writer.fault(str(path), fault)
            continue
        label = relative.parts[0] if len(relative.parts) > 1 else None
        rows.append(caption, label, path=relative.as_posix())
    rows.close()


def from_large_metadata(source: ImageSource, folder: Path, path: Path) -> Listing:
    """Return the images that a list beside them names.

    Raises:
        InputError: if the list cannot be read, or lacks a column.
    """
    plan = listing_plan(
        source,
        "list",
        of_stats(path),
        {"path": "text"},
        lambda: [path],
        partial(_list_metadata, source),
    )
    return _files_below(plan, source, folder)


def _list_metadata(source: ImageSource, path: Path, writer: ColumnWriter) -> None:
    rows, known = Rows(source, writer), set()
    for row in metadata_rows(path):
        known |= row.keys()
        label = None if source.label_column is None else row.get(source.label_column)
        caption = row.get(source.caption_column or "text")
        rows.append(caption, label, path=str(row.get("file_name")))
    for column in ("file_name", source.caption_column, source.label_column):
        if column is not None and column not in known:
            raise InputError(f"{path}: no column {column!r}; it has {sorted(known)}")
    rows.close()


def metadata_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list of images by column, without reading it at once.

    Raises:
        InputError: if a row cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file) if path.suffix == ".csv" else filter(str.strip, file)
        number = 0
        while True:
            number += 1
            with reading(path, f"row {number} cannot be read", "correct it"):
                line = next(lines, None)
                if line is None:
                    return
                row = line if isinstance(line, dict) else json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError("a row must be an object, in braces")
            yield row


@dataclass(frozen=True)
class Group:
    """Row groups of a parquet file, or rows of a data set, whose file is None."""

    file: Path | None
    start: int
    stop: int


def parquet_rows(path: Path, split: str) -> int:
    """Return the number of rows of the parquet files of a source; 0 if it has other files."""
    return sum(_parquet(file).metadata.num_rows for file in parquet_files(path, split))


def from_large_table(source: ImageSource, path: Path) -> Listing:
    """Return the images of a table; their files are copied into the cache, as they are.

    A row of parquet cannot be read by itself, only the whole group that it is compressed in.

    Raises:
        InputError: if the table cannot be read, or lacks a column.
    """
    key = of_stats(path) if path.exists() else _hub_key(source)
    plan = listing_plan(
        source,
        "table",
        key,
        {"content": "bytes", "path": "text"},
        partial(_groups, source, path),
        partial(_list_group, source),
        words=partial(_label_names, source, path),
    )
    return stored_listing(plan, source, Cells, lambda table: Numbered(source.path, len(table)))


def _hub_key(source: ImageSource) -> Any:
    table = _opened(source)
    return of_dataset(table, source.path, source.config, source.split)


def _groups(source: ImageSource, path: Path) -> list[Group]:
    files = parquet_files(path, source.split)
    if not files:
        count = len(_opened(source))
        starts = range(0, count, ROWS_OF_A_PART)
        return [Group(None, a, min(a + ROWS_OF_A_PART, count)) for a in starts]
    found = []
    for file in files:
        metadata, start, rows = _parquet(file).metadata, 0, 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            if rows >= ROWS_OF_A_PART or group == metadata.num_row_groups - 1:
                found.append(Group(file, start, group + 1))
                start, rows = group + 1, 0
    return found


def _list_group(source: ImageSource, group: Group, writer: ColumnWriter) -> None:
    rows = Rows(source, writer)
    asked = (source.column, source.caption_column, source.label_column)
    columns = [column for column in asked if column is not None]
    for batch in _batches(source, group, columns):
        for row in batch:
            cell = row[source.column]
            cell = {"bytes": cell} if isinstance(cell, bytes) else cell
            cell = {"path": cell} if isinstance(cell, str) else (cell or {})
            if not isinstance(cell, dict):
                raise InputError(f"{source.path}: column {source.column!r} has no images")
            captions, label = (
                None if column is None else row[column]
                for column in (source.caption_column, source.label_column)
            )
            content = cell.get("bytes") or b""
            rows.append(captions, label, content=content, path=cell.get("path") or "")
    rows.close()


def _batches(
    source: ImageSource, group: Group, columns: list[str]
) -> Iterator[list[dict[str, Any]]]:
    if group.file is None:
        table = _opened(source)
        _check_columns(source, table.column_names)
        part = table.select_columns(columns).with_format("arrow")
        for first in range(group.start, group.stop, ROWS_AT_ONCE):
            yield part[first : min(first + ROWS_AT_ONCE, group.stop)].to_pylist()
        return
    file = _parquet(group.file)
    _check_columns(source, file.schema_arrow.names)
    groups = list(range(group.start, group.stop))
    batches = file.iter_batches(ROWS_AT_ONCE, groups, columns, use_threads=False)
    while True:
        with reading(group.file, "has a row group that cannot be read"):
            batch = next(batches, None)
            if batch is None:
                return
            found = batch.to_pylist()
        yield found


def _check_columns(source: ImageSource, known: Sequence[str]) -> None:
    for column in (source.column, source.caption_column, source.label_column):
        if column is not None and column not in known:
            raise InputError(f"{source.path}: no column {column!r}; it has {list(known)}")


def _parquet(file: Path) -> Any:
    with needs("pyarrow", "a table of images"):
        import pyarrow.parquet
    with reading(file, "is not a parquet file"):
        return pyarrow.parquet.ParquetFile(file, memory_map=False, pre_buffer=False)


def _opened(source: ImageSource) -> Any:
    path = resolve_path(source.path)
    return _kept_open(source, json.dumps(of_stats(path)) if path.exists() else "")


@lru_cache(maxsize=2)
def _kept_open(source: ImageSource, stamp: str) -> Any:
    return open_table(source.path, source.split, source.config)


def _label_names(source: ImageSource, path: Path) -> tuple[str, ...]:
    """Return the names of the labels that a table declares."""
    files = parquet_files(path, source.split)
    if files:
        with needs("datasets", "a table of images"):
            import datasets
        features = datasets.Features.from_arrow_schema(_parquet(files[0]).schema_arrow)
    else:
        features = _opened(source).features
    return tuple(getattr(features.get(source.label_column), "names", None) or ())
