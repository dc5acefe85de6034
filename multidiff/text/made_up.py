"""Synthetic texts and vocabularies of stated sizes, for dry runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path

from multidiff.text.data.listing import Texts, TextSource
from multidiff.text.data.vocabulary import FIRST, PAD, checked

# Number of words of a text whose length the recipe does not limit: longer than any network reads.
MOST_WORDS = 1000
WORDS = tuple(f"{first}{second}ab" for first in "bdfgklmnprst" for second in "aeiou")


def made_up_text(words: int) -> str:
    """Return a text with that many words."""
    return " ".join(islice(cycle(WORDS), words))


@dataclass(frozen=True)
class MadeUpSource(TextSource):
    """A source with one text, of the kind that the recipe's source has.

    Attributes:
        words: number of words of the text.
    """

    words: int = MOST_WORDS

    @classmethod
    def like(cls, source: TextSource, words: int) -> MadeUpSource:
        """Return a source with the same columns that reads nothing."""
        own = {field.name: getattr(source, field.name) for field in fields(source)}
        return cls(**own, words=words)

    def listing(self) -> Texts:
        """See :class:`~multidiff.text.data.listing.TextSource`."""
        text = made_up_text(self.words)
        described = self.meaning_column is not None or bool(self.attribute_columns)
        return Texts(
            [text],
            ["a text that is made up"],
            None if self.source_column is None else [text],
            [{}] if described else None,
        )

    def rows(self, texts: Texts, held_out: bool) -> list[int]:
        """Return the one row."""
        return [0]


class MadeUpVocabulary:
    """A vocabulary of a stated size; see :class:`~multidiff.text.data.vocabulary.Vocabulary`.

    Args:
        size: number of tokens.
        split: function that splits texts.
        tokens: number of tokens for each part.
    """

    def __init__(self, size: int, split: Callable[[str], list[str]], tokens: int = 1):
        self.size, self.split, self.tokens = size, split, tokens
        self.assumed = "" if tokens == 1 else f"{tokens} pieces for a word"

    @property
    def counts(self) -> dict[str, int]:
        """Return equal counts for all tokens."""
        return {str(number): 1 for number in range(FIRST, self.size)}

    def numbers(self, text: str) -> list[int]:
        """Return numbers that depend only on the text's parts."""
        spread = max(1, self.size - FIRST)
        return [
            FIRST + zlib.crc32(f"{part}{piece}".encode()) % spread
            for part in self.split(text)
            for piece in range(self.tokens)
        ]

    def text(self, numbers: Sequence[int]) -> str:
        """Return the numbers as text."""
        return " ".join(map(str, checked(numbers, self.size)))

    def unknown(self, text: str) -> list[str]:
        """Return nothing: every part has a number."""
        return []

    def token_ends(self, text: str) -> list[int]:
        """Return the end of the text for each of its tokens."""
        return [len(text)] * len(self.numbers(text))

    def nearest(self, numbers: Sequence[int], count: int) -> list[tuple[int, ...]]:
        """Return no words: none is in characters."""
        return [(PAD,) * count] * len(numbers)

    def assets(self) -> dict[str, str]:
        """Return no assets."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Do nothing: there are no assets."""
