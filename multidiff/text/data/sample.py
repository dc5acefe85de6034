"""A sample of the texts of a large source, read from disk as often as needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from multidiff.text.data.listing import Texts, TextSource
from multidiff.text.data.stored import StoredTexts

CHARACTERS = 1 << 16  # of a piece of running text


class TextSample:
    """Texts that are not held out, and their sources: evenly spread, of a limited size.

    Args:
        source: source of the texts.
        texts: its texts, on disk.
        most: largest number of bytes, about; of running text, of characters.
    """

    def __init__(self, source: TextSource, texts: Texts, most: int):
        self.texts = texts
        if isinstance(texts, StoredTexts):
            rows: Any = source.rows(texts, held_out=False)
            columns = [texts.texts, *([] if texts.sources is None else [texts.sources])]
            size = sum(column.total for column in columns)  # type: ignore[attr-defined]
            step = max(1, -(-size // most))
            self.total = len(rows)
            self.chosen = rows[np.arange(0, len(rows), step)]
            self.columns: list[Any] = columns
            return
        whole: Any = texts.texts[0]
        count = -(-len(whole) // CHARACTERS)
        self.total, self.columns = count, [_Pieces(whole)]
        self.chosen = np.arange(0, count, max(1, -(-len(whole) // most)))

    def __str__(self) -> str:
        return f"{len(self.chosen):,} of {self.total:,} texts, evenly spread"

    def __iter__(self) -> Iterator[str]:
        for column in self.columns:
            for row in self.chosen:
                yield column[row]


class _Pieces:
    """Running text in pieces that are texts of their own."""

    def __init__(self, whole: Any):
        self.whole = whole

    def __getitem__(self, number: int) -> str:
        return str(self.whole[number * CHARACTERS : (number + 1) * CHARACTERS])
