"""Vocabularies: texts to token numbers and back.

One policy holds for every vocabulary and every text model:

- ``END`` closes every text. It is an ordinary token: models read it and write it.
- ``PAD`` pads the texts of a batch to one length. It is masked, and never part of a state.
- ``UNKNOWN`` replaces what a vocabulary does not know. It is read and never written.
"""

from __future__ import annotations

import json
import re
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary_assets import SavedVocabulary
from multidiff.text.data.words import PIECE
from multidiff.utils.errors import InputError
from multidiff.utils.readers import parse_json, reading

PAD, END, UNKNOWN, FIRST = 0, 1, 2, 3
BLANK = "[MASK]"
# Shown for unknown tokens; it is unknown itself, so that it is read back as it was written.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

NO_SPACE_BEFORE = set(".,;:!?')%-")
NO_SPACE_AFTER = set("(£$€'-")


@runtime_checkable
class Vocabulary(Protocol):
    """Conversion of texts to token numbers.

    Attributes:
        size: number of tokens, from 0 to ``size - 1``, including ``PAD``, ``END`` and ``UNKNOWN``.
    """

    size: int

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of a text, without ``END`` and ``PAD``."""
        ...

    def text(self, numbers: Sequence[int]) -> str:
        """Return the text of numbers up to the first ``END``; ``PAD`` is skipped."""
        ...

    def unknown(self, text: str) -> list[str]:
        """Return the pieces of a text that it does not know, in their order."""
        ...

    def token_ends(self, text: str) -> list[int]:
        """Return where each token of a text ends, in characters from its beginning."""
        ...

    def assets(self) -> dict[str, str]:
        """Return the assets, files beside a model's weights, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        ...


def with_blanks(vocabulary: Vocabulary, text: str) -> list[int | None]:
    """Return the numbers of a text in which ``[MASK]`` stands for any one token.

    If two texts are concatenated with a space between them, as words are, the spaces
    around a blank are dropped; if spaces are tokens of their own, as in characters, they
    count. If a token begins with the space before it, the space before a blank is the blank's.

    Returns:
        Numbers, and None for each blank.
    """
    parts = text.split(BLANK)
    if sets_apart(vocabulary):
        parts = [part.strip(" ") for part in parts]
    elif len(vocabulary.numbers("a a")) == 2 * len(vocabulary.numbers("a")):
        parts = [*(part.removesuffix(" ") for part in parts[:-1]), parts[-1]]
    found: list[int | None] = [*vocabulary.numbers(parts[0])]
    for part in parts[1:]:
        found += [None, *vocabulary.numbers(part)]
    return found


def sets_apart(vocabulary: Vocabulary) -> bool:
    """Return whether two concatenated texts read with a space between them."""
    once = vocabulary.numbers("a")
    return " " in vocabulary.text([*once, *once])


def checked(numbers: Iterable[int], size: int) -> list[int]:
    """Return numbers of a text up to the first ``END``, without ``PAD``.

    Raises:
        ValueError: if a number is outside a vocabulary of that size.
    """
    found = []
    for number in map(int, numbers):
        if not 0 <= number < size:
            raise ValueError(f"number {number} is outside a vocabulary of {size}")
        if number == END:
            break
        if number != PAD:
            found.append(number)
    return found


class ListedVocabulary(SavedVocabulary):
    """A list of pieces, most frequent first, one number for each.

    Args:
        size: size of the vocabulary, including ``PAD``, ``END`` and ``UNKNOWN``.
        source: source of the pieces: its texts that are not held out, and their sources.
        least_count: least number of occurrences of a piece.

    Raises:
        InputError: if the size is under 4; at the first use, if the source cannot be read or
            has too few pieces.
    """

    FILE = "vocabulary.json"
    kind = "pieces"

    def __init__(self, size: int, source: TextSource | None = None, least_count: int = 1):
        super().__init__(size, source)
        self.least_count = least_count
        self._shown: list[str] = []
        self._counts: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """Return the pieces of a text."""

    @abstractmethod
    def join(self, pieces: Sequence[str]) -> str:
        """Return the text of pieces; :meth:`split` inverts it."""

    @abstractmethod
    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`."""

    @classmethod
    def synthetic(cls, size: int, source: TextSource | None = None, **options: Any) -> Vocabulary:
        """Return a vocabulary of that size that reads no texts, for dry runs."""
        from multidiff.text.made_up import MadeUpVocabulary

        return MadeUpVocabulary(size, cls(size, source, **options).split)

    @property
    def counts(self) -> dict[str, int]:
        """Number of occurrences of each piece in the source, in the order of the numbers."""
        self._ready()
        return dict(self._counts)

    def numbers(self, text: str) -> list[int]:
        """See :class:`Vocabulary`."""
        self._ready()
        return [self._numbers.get(piece, UNKNOWN) for piece in self.split(text)]

    def text(self, numbers: Sequence[int]) -> str:
        """See :class:`Vocabulary`; ``UNKNOWN`` is shown as U+FFFD."""
        self._ready()
        return self.join([self._shown[n - UNKNOWN] for n in checked(numbers, self.size)])

    def unknown(self, text: str) -> list[str]:
        """See :class:`Vocabulary`."""
        self._ready()
        return [piece for piece in self.split(text) if piece not in self._numbers]

    def _make(self) -> tuple[str, str]:
        counter: Counter[str] = Counter()
        for text in self._training_texts():
            counter.update(self.split(text))
        del counter[REPLACEMENT]
        path = self.source.path if self.source is not None else ""
        enough = [(piece, n) for piece, n in counter.items() if n >= self.least_count]
        if len(enough) < self.size - FIRST:
            fix = f"set size to {len(enough) + FIRST}" if enough else "lower least_count"
            raise InputError(
                f"{path}: has {len(enough)} {self.kind} seen {self.least_count} times or more, "
                f"too few for a vocabulary of size {self.size}; {fix}"
            )
        enough.sort(key=lambda item: (-item[1], item[0]))
        pieces, counts = zip(*enough[: self.size - FIRST], strict=True)
        # ASCII only: whoever writes the file may use any encoding.
        return json.dumps({"pieces": pieces, "counts": counts}) + "\n", path

    def _take(self, content: str, name: str) -> None:
        with reading(name, "is not a vocabulary", "use that of the same model"):
            found = parse_json(content, name)
            pieces, counts = found["pieces"], found["counts"]
            if not all(isinstance(count, int) for count in counts):
                raise TypeError("a count is not a whole number")
            if not all(isinstance(piece, str) for piece in pieces):
                raise TypeError("a piece is not a text")
            counted = dict(zip(pieces, counts, strict=True))
            if len(counted) != len(pieces):
                raise ValueError("a piece appears twice")
        if len(pieces) + FIRST != self.size:
            raise InputError(
                f"{name}: is a vocabulary of size {len(pieces) + FIRST}, but the model's is "
                f"{self.size}; use that of the same model"
            )
        self._counts, self._shown = counted, [REPLACEMENT, *counted]
        self._numbers = {piece: number for number, piece in enumerate(pieces, FIRST)}


class WordVocabulary(ListedVocabulary):
    """One number for each word and each punctuation mark; white space does not count.

    For languages that put spaces between words and whose words consist of letters; others need
    subwords (:class:`multidiff.text.data.subwords.SentencePieceVocabulary`).

    Args:
        size: see :class:`ListedVocabulary`.
        source: see :class:`ListedVocabulary`.
        least_count: see :class:`ListedVocabulary`.
        lower: whether to ignore case; texts are then written in lower case.
    """

    kind = "words"

    def __init__(
        self,
        size: int,
        source: TextSource | None = None,
        least_count: int = 1,
        lower: bool = True,
    ):
        super().__init__(size, source, least_count)
        self.lower = lower

    def split(self, text: str) -> list[str]:
        """Return words and single punctuation marks."""
        # Composed: a letter and its accent may be encoded as two characters or as one.
        return PIECE.findall(self._normal(text))

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text.lower() if self.lower else text)

    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`; white space belongs to the word after it."""
        ends: list[int] = []
        # Each part between white space by itself, which composing and lower case do not cross.
        for found in re.finditer(r"\S+", text):
            inner = [piece.end() for piece in PIECE.finditer(self._normal(found[0]))]
            ends += [min(found.start() + end, found.end()) for end in inner[:-1]]
            ends += [found.end()] * bool(inner)
        return ends

    def join(self, pieces: Sequence[str]) -> str:
        """Join words with spaces between them, except around punctuation where none belong."""
        text, last = "", ""
        for piece in pieces:
            glued = piece in NO_SPACE_BEFORE or last in NO_SPACE_AFTER
            text += piece if glued or not last else f" {piece}"
            last = piece
        return text


class CharacterVocabulary(ListedVocabulary):
    """One number for each character; spaces and newlines are characters.

    Args:
        size: see :class:`ListedVocabulary`.
        source: see :class:`ListedVocabulary`.
    """

    kind = "characters"

    def __init__(self, size: int, source: TextSource | None = None):
        super().__init__(size, source)

    def split(self, text: str) -> list[str]:
        """Return the characters."""
        return list(text)

    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`."""
        return list(range(1, len(text) + 1))

    def join(self, pieces: Sequence[str]) -> str:
        """Concatenate the characters."""
        return "".join(pieces)
