"""Tables of images: parquet and arrow files, and data sets of the ``datasets`` library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multidiff.data.splits import files_of_split
from multidiff.utils.budgets import check_tables
from multidiff.utils.files import resolve_path
from multidiff.utils.leftovers import is_hidden
from multidiff.utils.packages import needs
from multidiff.utils.readers import reading

TABLES = ("*.parquet", "*.arrow", "*/*.parquet", "dataset_dict.json")
TABLE_ENDINGS = (".parquet", ".arrow")


def table_files(folder: Path) -> list[Path]:
    """Return the files that identify a folder as a data set, without hidden ones."""
    found = [path for pattern in TABLES for path in folder.glob(pattern)]
    return [path for path in found if not any(map(is_hidden, path.relative_to(folder).parts))]


def parquet_files(path: Path, split: str) -> list[Path]:
    """Return the parquet files that a split of a source consists of; empty if others matter.

    Names such as ``train-00000-of-00010`` say which split a file has, as on the hub.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if not path.is_dir() or any(path.glob("*.arrow")) or (path / "dataset_dict.json").is_file():
        return []
    found = sorted(one for one in table_files(path) if one.suffix == ".parquet")
    return files_of_split(found, split)


def open_table(source: str, split: str, config: str | None) -> Any:
    """Return a table of images.

    Args:
        source: a file, a folder, or the id of a data set on the hub.
        split: split of a data set.
        config: configuration of a data set, if it has several.

    Raises:
        InputError: if it cannot be loaded.
    """
    with needs("datasets", "a table of images"):
        import datasets  # noqa: F401  # takes seconds to import
    problem = "is not a folder of images or a data set that can be loaded"
    with reading(source, problem, "check the path"):
        return _table(source, split, config)


def _table(source: str, split: str, config: str | None) -> Any:
    import datasets

    path = resolve_path(source)
    check_tables(path)
    if path.is_file() and path.suffix in TABLE_ENDINGS:
        kind = path.suffix.removeprefix(".")
        return datasets.load_dataset(kind, data_files=[str(path)], split="train")
    if (path / "dataset_dict.json").is_file():
        return datasets.DatasetDict.load_from_disk(str(path))[split]
    if (path / "state.json").is_file():
        return datasets.Dataset.load_from_disk(str(path))
    found = sorted(path.glob("*.arrow")) if path.is_dir() else []
    arrows = [str(file) for file in found if not is_hidden(file.name)]
    if arrows:
        return datasets.load_dataset("arrow", data_files=arrows, split="train")
    return datasets.load_dataset(str(path) if path.exists() else source, config, split=split)
