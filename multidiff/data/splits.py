"""Splits of data sets that are named in the names of their files, as on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?=$|[-_.])")
SPLIT_NAMES = ("train", "validation", "test")


class Named(Protocol):
    """A file with a name, or with a path whose last part is its name."""

    @property
    def name(self) -> str:
        """Return its name."""
        ...


F = TypeVar("F", bound=Named)


def files_of_split(files: Sequence[F], split: str) -> list[F]:
    """Return the files of a split, by names such as ``train-00000-of-00010``.

    Without such names all files are ``train``.
    """
    found = [SPLIT.search(PurePosixPath(file.name).stem.lower()) for file in files]
    if not any(found):
        return list(files) if split == "train" else []
    if split not in SPLIT_NAMES:
        return []
    pairs = zip(files, found, strict=True)
    return [file for file, match in pairs if match and match[1].startswith(split[:3])]
