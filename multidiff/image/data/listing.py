"""Contents of an image source: paths, names, captions and labels."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.data.archives import ENDINGS, archives_of
from multidiff.data.order import SplitRows
from multidiff.data.row_groups import GroupedTable, RowGroups, grouped_reading
from multidiff.image.data.annotations import captions_of, numbered
from multidiff.image.data.image_files import EXTENSIONS
from multidiff.image.data.tables import TABLE_ENDINGS, open_table, table_files
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.fingerprint import Fingerprint, of_dataset, of_files, of_path
from multidiff.utils.leftovers import is_hidden, visible_files
from multidiff.utils.packages import needs
from multidiff.utils.readers import check_source, open_source, parse_json, read_text, reading

ALTERNATIVE = "|"
MOST_LISTED_BYTES = 1 << 30
BYTES_OF_A_ROW = 100  # of a list of images, about
METADATA = ("metadata.jsonl", "metadata.csv")
# Archives whose files cannot be read at random.
ARCHIVES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
# Folder names that are splits of a data set, where others would be classes.
SPLITS = {"train", "validation", "valid", "val", "dev", "test"}


@dataclass(frozen=True)
class ImageSource:
    """A source of images.

    In a folder, text files beside images, with the same stem, are their captions;
    ``metadata.csv`` or ``metadata.jsonl`` with a column ``file_name`` lists the images to use,
    and its column ``text`` holds their captions. If all images are in two folders or
    more, these, sorted, are the classes.

    Attributes:
        path: a folder of images, or one image; a parquet or arrow file, or a folder of
            them; a ``.tar`` or ``.zip`` archive, or a folder of them (WebDataset shards); the
            name of a data set of the ``datasets`` library; the URL of parquet files in an object
            store (``s3://``, ``gs://``, ``hf://``); or ``starter:digits``, which comes with the
            package.
        held_out_every: n to keep every n-th image for validation, or every n-th row group; 0
            keeps none.
        split: split of a data set, or folder of that name if all folders are splits.
        column: column of images of a data set.
        caption_column: column of captions, each a text or a list of them to draw from.
        label_column: column of labels: numbers from 0, or words.
        config: configuration of a data set, if it has several.
        names: names of the labels, in their order, alternatives separated by ``|``; by default
            those of the data set, or the names of the class folders.
        templates: captions for images that have a label and no caption, with ``{}`` for its
            name; one is drawn at each visit.
        row_groups: how parquet files are read by row groups, as always in an object store; None
            otherwise prepares local ones to be read at random.

    Raises:
        InputError: if a template cannot be filled in.
    """

    path: str
    held_out_every: int = 0
    split: str = "train"
    column: str = "image"
    caption_column: str | None = None
    label_column: str | None = None
    config: str | None = None
    names: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    row_groups: RowGroups | None = None

    def __post_init__(self):
        if not self.templates:
            raise InputError(f"{self.path}: templates are empty; remove them or give one")
        for template in self.templates:
            try:
                template.format("name")
            except (LookupError, ValueError, AttributeError) as error:
                raise InputError(
                    f"{self.path}: template {template!r} cannot be filled in; "
                    "write {} once, where the name goes"
                ) from error

    @property
    def grouped(self) -> RowGroups | None:
        """Return how it is read by row groups; None if it is not."""
        return grouped_reading(self.path, self.row_groups)

    def rows(self, count: int, held_out: bool) -> Sequence[int]:
        """Return the rows of ``count`` images that are kept for validation, or the others.

        Raises:
            InputError: if there are none.
        """
        every = self.held_out_every
        if held_out and every < 1:
            raise InputError(
                f"{self.path}: held_out_every is {every}, so no images are held out; "
                "set it, or use another source"
            )
        rows = SplitRows(count, every, held_out)
        if not rows:
            raise InputError(
                f"{self.path}: of {count} images none are on this side of the split; "
                f"held_out_every is {every}"
            )
        return rows

    def check_path(self) -> None:
        """Reject a path that is neither an image source nor can be a data set on the hub.

        Raises:
            InputError: if it is neither.
        """
        check_source(self.path, "images")
        if self.grouped is None:
            _check_ending(self.path, resolve_path(self.path))

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of its images and captions, or of its data set on the hub.

        Raises:
            InputError: if the source cannot be found.
        """
        if self.grouped is not None:
            return grouped_table(self).fingerprint()
        path = resolve_path(self.path)
        if not path.exists():
            return of_dataset(_opened(self), self.path, self.config, self.split)
        if path.is_file() or table_files(path):
            return of_path(path)
        archives = archives_of(path)
        if archives:
            return of_files(archives, path)
        folder = _split_of(self, path)
        files = [one for one in visible_files(folder) if _counts(one)]
        return of_files(files, folder)

    def listing(self) -> Listing:
        """Return its contents without reading the images.

        Raises:
            InputError: if it cannot be found, is empty, or lacks a requested column.
        """
        from multidiff.image.data import large

        path = open_source(self.path, "images")
        if self.grouped is not None:
            from multidiff.image.data.grouped import from_row_groups

            return from_row_groups(self)
        _check_ending(self.path, path)
        archives = archives_of(path)
        if archives:
            found = large.from_archives(self, archives)
        elif path.is_dir() and not table_files(path):
            found = _from_folder(self, _split_of(self, path))
        elif path.is_file() and path.suffix.lower() in EXTENSIONS:
            found = Listing([path], [str(path)])
        else:
            found = _from_table(self, path)
        if self.names and found.labels is None:
            raise InputError(f"{self.path}: names are given, but no labels; set label_column")
        return found


@dataclass(frozen=True)
class Listing:
    """Images in the order of their source.

    Attributes:
        contents: paths or bytes of files, read on demand.
        names: names in messages.
        captions: captions of each image, to draw from; empty for an image without one.
        labels: label of each image, from 0.
        words: names of the labels.
        groups: the row groups that they lie in, if they are read by those.
    """

    contents: Sequence[Path | bytes]
    names: Sequence[str]
    captions: Sequence[tuple[str, ...]] | None = None
    labels: Sequence[int] | None = None
    words: tuple[str, ...] = ()
    groups: GroupedTable | None = None


def grouped_table(source: ImageSource) -> GroupedTable:
    """Return the columns of a source that is read by row groups.

    Raises:
        InputError: if it cannot be read, or lacks a column.
    """
    asked = (source.column, source.caption_column, source.label_column)
    columns = [column for column in asked if column is not None]
    return GroupedTable(source.path, columns, source.grouped or RowGroups(), source.split)


def _split_of(source: ImageSource, path: Path) -> Path:
    folders = {one.name for one in path.iterdir() if one.is_dir() and not is_hidden(one.name)}
    if not folders or not folders <= SPLITS:
        return path
    if source.split not in folders:
        raise InputError(f"{path}: has no split {source.split!r}; it has {sorted(folders)}")
    return path / source.split


def _from_folder(source: ImageSource, folder: Path) -> Listing:
    from multidiff.image.data import large

    for name in METADATA:
        path = folder / name
        if path.is_file() and path.stat().st_size > large.MOST_LISTED * BYTES_OF_A_ROW:
            return large.from_large_metadata(source, folder, path)
        if path.is_file():
            return _from_metadata(source, folder, path)
    files = sorted(visible_files(folder))
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not images:
        raise InputError(f"{folder}: has no images ({', '.join(EXTENSIONS)})")
    for column in (source.caption_column, source.label_column):
        if column is not None:
            raise InputError(
                f"{folder}: images in a folder have no column {column!r}; "
                f"remove it, or add the column to {METADATA[1]} there"
            )
    if len(images) > large.MOST_LISTED:
        return large.from_large_folder(source, folder, images)
    texts = {path for path in files if path.suffix == ".txt"}
    captions = None
    if any(path.with_suffix(".txt") in texts for path in images):
        captions = captions_of(source, [_beside(path, texts) for path in images])
    labels, words = _classes(source, folder, images)
    return Listing(images, [str(path) for path in images], captions, labels, words)


def _counts(file: Path) -> bool:
    """Return whether a file of an image folder belongs to it: an image, caption or list."""
    return file.suffix.lower() in EXTENSIONS or file.suffix == ".txt" or file.name in METADATA


def _beside(image: Path, texts: set[Path]) -> str | None:
    path = image.with_suffix(".txt")
    if path not in texts:
        return None
    return read_text(path)


def _classes(source: ImageSource, folder: Path, images: Sequence[Path]) -> tuple[Any, Any]:
    ways = [path.relative_to(folder).parts for path in images]
    words = sorted({way[0] for way in ways})
    if any(len(way) == 1 for way in ways) or len(words) == 1:
        return None, ()
    number = {word: label for label, word in enumerate(words)}
    return numbered(source, [number[way[0]] for way in ways], tuple(words))


def _from_metadata(source: ImageSource, folder: Path, path: Path) -> Listing:
    rows = list(_rows(path))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in ("file_name", source.caption_column, source.label_column):
        if column is not None and column not in columns:
            raise InputError(f"{path}: no column {column!r}; it has {columns}")
    files = [folder / str(row.get("file_name")) for row in rows]
    caption_column = source.caption_column or ("text" if "text" in columns else None)
    captions, labels, words = None, None, ()
    if caption_column is not None:
        captions = captions_of(source, [row.get(caption_column) for row in rows])
    if source.label_column is not None:
        labels, words = numbered(source, [row.get(source.label_column) for row in rows], ())
    return Listing(files, [str(file) for file in files], captions, labels, words)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list of images by column."""
    file = io.StringIO(read_text(path, MOST_LISTED_BYTES), newline="")
    lines = csv.DictReader(file) if path.suffix == ".csv" else filter(str.strip, file)
    for number in itertools.count(1):
        with reading(path, f"row {number} cannot be read", "correct it"):
            line = next(lines, None)
            if line is None:
                return
            row = line if isinstance(line, dict) else parse_json(line, f"{path}: row {number}")
            if not isinstance(row, dict):
                raise TypeError("a row must be an object, in braces")
        yield row


def _from_table(source: ImageSource, path: Path) -> Listing:
    with needs("datasets", "a table of images"):
        import datasets  # takes seconds to import

    from multidiff.image.data import large

    if large.parquet_rows(path, source.split) > large.MOST_LISTED:
        return large.from_large_table(source, path)
    table = _opened(source)
    if len(table) > large.MOST_LISTED:
        return large.from_large_table(source, path)
    for column in (source.column, source.caption_column, source.label_column):
        if column is not None and column not in table.column_names:
            raise InputError(f"{source.path}: no column {column!r}; it has {table.column_names}")
    captions, labels, words = None, None, ()
    if source.caption_column is not None:
        captions = captions_of(source, _column(source, table, source.caption_column))
    if source.label_column is not None:
        words = tuple(getattr(table.features[source.label_column], "names", None) or ())
        labels, words = numbered(source, _column(source, table, source.label_column), words)
    cells = table.select_columns([source.column])
    try:
        cells = cells.cast_column(source.column, datasets.Image(decode=False))
    except Exception as error:
        raise InputError(f"{source.path}: column {source.column!r} has no images") from error
    names = [f"{source.path}[{row}]" for row in range(len(cells))]
    return Listing(_Cells(cells, source.column, source.path), names, captions, labels, words)


def _check_ending(name: str, path: Path) -> None:
    """Reject a file that is neither an image nor a table, before looking for it on the hub."""
    ending = path.suffix.lower()
    if not path.is_file() or ending in (*EXTENSIONS, *ENDINGS) or path.suffix in TABLE_ENDINGS:
        return
    if ending in ARCHIVES:
        raise InputError(
            f"{name}: is a compressed archive, whose images cannot be read at random: unpack it "
            "and name the folder, or pack it as .tar or .zip"
        )
    kinds = f"an image ({', '.join(EXTENSIONS)}) or a table ({', '.join(TABLE_ENDINGS)})"
    raise InputError(f"{name}: is not a file of images: name a folder, {kinds}")


def _column(source: ImageSource, table: Any, name: str) -> Sequence[Any]:
    """Return all values of a column; damage to a table may only show here."""
    with reading(source.path, f"column {name!r} cannot be read"):
        return table[name][:]


def _opened(source: ImageSource) -> Any:
    return open_table(source.path, source.split, source.config)


class _Cells(Sequence):
    """File of each row, read on demand."""

    def __init__(self, table: Any, column: str, name: str):
        self.table, self.column, self.name = table, column, name

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < len(self):  # ends an iteration
            raise IndexError(row)
        with reading(self.name, f"row {row} cannot be read"):
            cell = self.table[int(row)][self.column] or {}
        content = cell.get("bytes")
        path = cell.get("path")
        return content if content is not None else Path(path) if path else b""
