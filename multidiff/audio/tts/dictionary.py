"""A user's pronunciations: a word and its phones a line, and where a text has these words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from multidiff.audio.tts.normalization import without_accents
from multidiff.audio.tts.phones import Phone, parse_phones
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_text, reading

HISSING = {"s", "z", "ʃ", "ʒ", "t͡ʃ", "d͡ʒ"}
VOICELESS = {"p", "t", "k", "f", "θ"}
WRITE_ONE = "write WORD PHONE PHONE ..., IPA with spaces between phones"


class UserWords:
    """Finds the words of a dictionary in a text that a phonemiser has split.

    A phonemiser splits at hyphens and spells capitals letter by letter: ``well-known`` is two
    words there, ``IBM`` three. An English possessive has the phones of its word and an ending.

    Args:
        dictionary: phones of words, by word in lower case.
        language: language of the text; in English accents do not matter.
    """

    def __init__(self, dictionary: Mapping[str, Sequence[Phone]], language: str):
        self.english = language.startswith("en")
        self._words: dict[tuple[str, ...], list[Phone]] = {}
        for word, phones in dictionary.items():
            plain = without_accents(word) if self.english else word
            self._words[tuple(re.split(r"[-\s]+", plain.strip("-")))] = [*phones]
        self._longest = max(map(len, self._words), default=0)

    def find(self, words: Sequence[str]) -> tuple[list[Phone], int] | None:
        """Return the phones of the first words, and of how many they are; None without any.

        Args:
            words: consecutive words of a text; the most that are one entry count as that.
        """
        small = [one.lower() for one in words]
        letters = next((n for n, one in enumerate(small) if len(one) > 1), len(small))
        spelled = self._words.get(("".join(small[:letters]),)) if letters > 1 else None
        if spelled is not None:
            return spelled, letters
        for count in range(min(self._longest, len(small)), 0, -1):
            phones = self._entry(tuple(small[:count]))
            if phones is not None:
                return phones, count
        return None

    def _entry(self, words: tuple[str, ...]) -> list[Phone] | None:
        found = self._words.get(words)
        if found is None and self.english and words[-1].endswith("'s"):
            owner = self._words.get((*words[:-1], words[-1][:-2]))
            found = None if owner is None else [*owner, *_ending(owner[-1].symbol)]
        return found


def _ending(last: str) -> list[Phone]:
    """Return the phones of an English possessive's ``'s`` after a phone."""
    if last in HISSING:
        return [Phone("\u026a"), Phone("z")]  # ih, z
    return [Phone("s" if last in VOICELESS else "z")]


def read_dictionary(
    path: Path, check: Callable[[str], object] | None = None
) -> dict[str, tuple[Phone, ...]]:
    """Return the phones of words, by word in lower case.

    Lines that begin with ``#`` or are blank are passed over; the later of two lines for a word
    counts.

    Args:
        path: a text file in UTF-8.
        check: raises :class:`~multidiff.utils.errors.InputError` for a phone that the model
            does not know.

    Raises:
        InputError: if a line is no word with phones, or a phone is not known; names the line.
    """
    with reading(path, "is no pronunciation dictionary", WRITE_ONE):
        lines = read_text(path).splitlines()
    found: dict[str, tuple[Phone, ...]] = {}
    for number, line in enumerate(lines, start=1):
        word, _, rest = line.strip().partition(" ") if "\t" not in line else line.partition("\t")
        if not word.strip() or word.startswith("#"):
            continue
        if not rest.strip():
            raise InputError(f"{path}:{number}: {word!r} has no phones; {WRITE_ONE}")
        try:
            phones = parse_phones(rest.replace("#", " "))
            for phone in phones:
                if phone.is_pause:
                    raise InputError(f"{phone.symbol!r} is a pause, not a phone")
                if check is not None:
                    check(phone.symbol)
        except InputError as fault:
            raise InputError(f"{path}:{number}: {fault}") from fault
        first = replace(phones[0], starts_word=True)
        found[word.strip().lower()] = (first, *phones[1:])
    if not found:
        raise InputError(f"{path}: holds no words; {WRITE_ONE}")
    return found
