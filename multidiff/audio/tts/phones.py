"""Phones as the acoustic model reads them, and the one line of text that stands for them.

A sentence is written as words of phones: ``^ #h ə #l ˈoʊ .`` begins with the pause ``^`` and ends
with the pause ``.``; ``#`` marks the first phone of a word, ``ˈ`` and ``ˌ`` stress. The same line
is what dictionaries hold and what a caller with another phonemiser gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from multidiff.utils.errors import InputError

START = "^"
# Pauses by the punctuation that stands for them; one that is louder replaces one before it.
PAUSES = (START, ",", ".", "?", "!")
STRESSES = {"\u02c8": 1, "\u02cc": 2}  # IPA: primary and secondary
WORD = "#"
# Stress (3 values) with and without the mark of a word's first phone.
NUM_MARKS = 6


@dataclass(frozen=True)
class Phone:
    """One symbol of a sentence.

    Attributes:
        symbol: an IPA phone without stress, or one of :data:`PAUSES`.
        stress: 0, 1 (primary) or 2 (secondary).
        starts_word: it is the first of its word.
    """

    symbol: str
    stress: int = 0
    starts_word: bool = False

    @property
    def is_pause(self) -> bool:
        """True for pauses, which stand for punctuation."""
        return self.symbol in PAUSES

    @property
    def mark(self) -> int:
        """Stress and word start as one number below :data:`NUM_MARKS`."""
        return self.stress + 3 * self.starts_word

    def __str__(self) -> str:
        stress = {number: mark for mark, number in STRESSES.items()}.get(self.stress, "")
        return f"{WORD if self.starts_word else ''}{stress}{self.symbol}"


@lru_cache(maxsize=1 << 14)
def parse_phones(line: str) -> tuple[Phone, ...]:
    """Return the phones of a line.

    Raises:
        InputError: if a mark stands for no phone.
    """
    return tuple(map(_parsed, line.split()))


def _parsed(token: str) -> Phone:
    starts_word = token.startswith(WORD)
    rest = token[starts_word:]
    stress = STRESSES.get(rest[:1], 0)
    symbol = rest[1:] if stress else rest
    if not symbol or WORD in symbol:
        raise InputError(f"phones {token!r}: a mark without a phone; write such as #oʊ")
    return Phone(symbol, stress, starts_word)


def write_phones(phones: Iterable[Phone]) -> str:
    """Return the line that :func:`parse_phones` reads."""
    return " ".join(map(str, phones))


def sentence_of(words: Sequence[Sequence[Phone]], pauses: Sequence[str]) -> list[Phone]:
    """Return a sentence's phones, from a start to a final pause.

    Args:
        words: the phones of each word.
        pauses: the pause after each word; empty for none.
    """
    phones = [Phone(START)]
    for word, pause in zip(words, pauses, strict=True):
        phones += word
        if pause and len(phones) > 1:
            phones.append(Phone(pause))
    if not phones[-1].is_pause or phones[-1].symbol == ",":
        phones[-1 if phones[-1].symbol == "," else len(phones) :] = [Phone(".")]
    return phones
