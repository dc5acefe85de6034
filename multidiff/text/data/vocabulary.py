"""Texts to numbers and back.

One policy holds for every vocabulary and every model of texts:

- ``END`` closes every text. It is an ordinary token: models read it and write it.
- ``PAD`` fills a batch up to one length. It is masked, and never a part of a state.
- ``UNKNOWN`` stands for what a vocabulary does not know. It is read and never written.
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
from multidiff.utils.errors import InputError
from multidiff.utils.readers import parse_json, reading

PAD, END, UNKNOWN, FIRST = 0, 1, 2, 3
BLANK = "[MASK]"
# How a text shows what is unknown; it is unknown itself, so that it is read as it was written.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

PIECE = re.compile(r"\w+|[^\w\s]")
NO_SPACE_BEFORE = set(".,;:!?')%-")
NO_SPACE_AFTER = set("(£$€'-")


@runtime_checkable
class Vocabulary(Protocol):
    """What turns texts into numbers.

    Attributes:
        size: numbers are 0 to ``size - 1``, ``PAD``, ``END`` and ``UNKNOWN`` among them.
    """

    size: int

    def numbers(self, text: str) -> list[int]:
        """Those of a text, without ``END`` and ``PAD``."""
        ...

    def text(self, numbers: Sequence[int]) -> str:
        """The text of numbers up to the first ``END``; ``PAD`` is passed over."""
        ...

    def unknown(self, text: str) -> list[str]:
        """The pieces of a text that it does not know, in their order."""
        ...

    def token_ends(self, text: str) -> list[int]:
        """Return where each token of a text ends, in characters from its beginning."""
        ...

    def assets(self) -> dict[str, str]:
        """What must lie beside a model's weights, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Take those files up."""
        ...


def with_blanks(vocabulary: Vocabulary, text: str) -> list[int | None]:
    """The numbers of a text in which ``[MASK]`` stands for any one token.

    Where two texts set after each other read with a space between them, as words do, the spaces
    around a blank are left out; where spaces are tokens of their own, as in characters, they
    count.

    Returns:
        Numbers, and None for each blank.
    """
    parts = text.split(BLANK)
    if sets_apart(vocabulary):
        parts = [part.strip(" ") for part in parts]
    found: list[int | None] = [*vocabulary.numbers(parts[0])]
    for part in parts[1:]:
        found += [None, *vocabulary.numbers(part)]
    return found


def sets_apart(vocabulary: Vocabulary) -> bool:
    """Whether two texts set after each other read with a space between them."""
    once = vocabulary.numbers("a")
    return " " in vocabulary.text([*once, *once])


def checked(numbers: Iterable[int], size: int) -> list[int]:
    """Numbers of a text: up to the first ``END``, without ``PAD``.

    Raises:
        ValueError: if one lies outside a vocabulary of that size.
    """
    found = []
    for number in map(int, numbers):
        if not 0 <= number < size:
            raise ValueError(f"number {number} is none of a vocabulary of {size}")
        if number == END:
            break
        if number != PAD:
            found.append(number)
    return found


class ListedVocabulary(SavedVocabulary):
    """A list of pieces, most frequent first, one number for each.

    Args:
        size: of the vocabulary, ``PAD``, ``END`` and ``UNKNOWN`` among them.
        source: the pieces are those of its texts that are not held out, and of what they are
            made from.
        least_count: how often a piece must be there.

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
        """The pieces of a text."""

    @abstractmethod
    def join(self, pieces: Sequence[str]) -> str:
        """A text of pieces, which :meth:`split` takes apart again."""

    @abstractmethod
    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`."""

    @classmethod
    def synthetic(cls, size: int, source: TextSource | None = None, **options: Any) -> Vocabulary:
        """Return a vocabulary of that size which is made from no texts, for dry runs."""
        from multidiff.text.made_up import MadeUpVocabulary

        return MadeUpVocabulary(size, cls(size, source, **options).split)

    @property
    def counts(self) -> dict[str, int]:
        """How often each piece stands in the source, in the order of the numbers."""
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
        # ASCII alone: whoever writes the file may write it in any encoding.
        return json.dumps({"pieces": pieces, "counts": counts}) + "\n", path

    def _take(self, content: str, name: str) -> None:
        with reading(name, "is no vocabulary", "take that of the same model"):
            found = parse_json(content, name)
            pieces, counts = found["pieces"], found["counts"]
            if not all(isinstance(count, int) for count in counts):
                raise TypeError("a count is no whole number")
            if not all(isinstance(piece, str) for piece in pieces):
                raise TypeError("a piece is no text")
            counted = dict(zip(pieces, counts, strict=True))
            if len(counted) != len(pieces):
                raise ValueError("a piece stands there twice")
        if len(pieces) + FIRST != self.size:
            raise InputError(
                f"{name}: is a vocabulary of size {len(pieces) + FIRST} and the model's is "
                f"{self.size}; take that of the same model"
            )
        self._counts, self._shown = counted, [REPLACEMENT, *counted]
        self._numbers = {piece: number for number, piece in enumerate(pieces, FIRST)}


class WordVocabulary(ListedVocabulary):
    """One number for each word and each punctuation mark; white space does not count.

    For languages that put spaces between words and whose words are letters alone; others want
    pieces (:class:`multidiff.text.data.subwords.SentencePieceVocabulary`).

    Args:
        size: see :class:`ListedVocabulary`.
        source: see :class:`ListedVocabulary`.
        least_count: see :class:`ListedVocabulary`.
        lower: whether words are the same in upper and lower case; texts then come in lower.
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
        """Words and single punctuation marks."""
        # Composed: a letter and its accent may be written as two characters or as one.
        return PIECE.findall(self._normal(text))

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text.lower() if self.lower else text)

    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`; white space belongs to the word that it precedes."""
        ends: list[int] = []
        # Between white space, where composing and lower case keep to themselves.
        for found in re.finditer(r"\S+", text):
            inner = [piece.end() for piece in PIECE.finditer(self._normal(found[0]))]
            ends += [min(found.start() + end, found.end()) for end in inner[:-1]]
            ends += [found.end()] * bool(inner)
        return ends

    def join(self, pieces: Sequence[str]) -> str:
        """The words with spaces between them, and none where punctuation wants none."""
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
        """The characters."""
        return list(text)

    def token_ends(self, text: str) -> list[int]:
        """See :class:`Vocabulary`."""
        return list(range(1, len(text) + 1))

    def join(self, pieces: Sequence[str]) -> str:
        """The characters, one after the other."""
        return "".join(pieces)
