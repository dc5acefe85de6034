"""Mistakes of people who write English prose: slips of the pen, of the keyboard and of grammar.

Unlike :mod:`multidiff.text.diffuser.mistakes` they are made in the text, not in its tokens: a
misspelled word is another sequence of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from multidiff.core.random import uniforms
from multidiff.text.data.vocabulary import UNKNOWN, Vocabulary
from multidiff.text.diffuser.english_words import (
    CONFUSED,
    FORMS,
    SMALL,
    SOUNDS,
    VOWELS,
    groups,
    key_neighbours,
)
from multidiff.text.diffuser.mistakes import DrawnMistakes

Draws = Iterator[float]
T = TypeVar("T")
# Words, white space, and other characters.
PARTS = re.compile(r"\w+(?:'\w+)*|\s+|[^\w\s]")
APOSTROPHE = "\u2019"  # as printed
KINDS = {
    "misspell": 0.42, "confuse": 0.12, "bend": 0.11, "double": 0.07, "drop": 0.1, "insert": 0.03,
    "swap": 0.05, "split": 0.03, "join": 0.03, "lower": 0.02, "apostrophe": 0.02,
}  # fmt: skip
AGAIN = 0.12  # of a misspelled word, to be misspelled once more
LEAST_LETTERS = 2  # of a misspelled word
CONFUSIONS, BENT, NEIGHBOURS = groups(CONFUSED), groups(FORMS), key_neighbours()
SMALL_WORDS = SMALL.split()
SOUNDING = [(one, other) for one, _, other in (pair.partition("/") for pair in SOUNDS.split())]


class WritingMistakes(DrawnMistakes):
    """Draws mistakes in English texts.

    Misspelled words have letters swapped, left out, doubled, exchanged by a neighbouring key or
    by letters that sound alike. Words are confused with others that sound alike, bent wrongly,
    doubled, swapped with the next, split, and joined to it; small words are left out or inserted;
    capitals and apostrophes are left out.

    Args:
        probability: fraction of the corrupted texts of training that have these mistakes, instead
            of random edits.
        mean: mean number of mistakes of a text, at least 1; it follows a geometric distribution.
        kinds: weights of the kinds of mistakes, by name; all by default.

    Raises:
        ValueError: if an option is out of range, or a kind is not known.
    """

    def __init__(
        self,
        probability: float = 1.0,
        mean: float = 2.0,
        kinds: Mapping[str, float] | None = None,
    ):
        super().__init__(probability, mean, KINDS if kinds is None else kinds, KINDS)

    def __call__(
        self, tokens: Sequence[int], rng: torch.Generator | None, vocabulary: Vocabulary
    ) -> list[int]:
        """Return the tokens of a text with mistakes; it stays if no drawn kind applies to it.

        A text with unknown tokens stays as it is.
        """
        if UNKNOWN in tokens:
            return [*tokens]
        return vocabulary.numbers(self.damaged(vocabulary.text(tokens), uniforms(rng)))

    def damaged(self, text: str, draws: Draws) -> str:
        """Return a text with mistakes."""
        printed = APOSTROPHE in text
        parts = PARTS.findall(text.replace(APOSTROPHE, "'"))
        again = True
        while again:
            words = [at for at, part in enumerate(parts) if part[0].isalpha()]
            if not words:
                break
            kind = self._kind(draws)
            getattr(self, f"_{kind}")(parts, words, draws)
            parts = PARTS.findall("".join(parts))
            again = self._again(draws)
        damaged = "".join(parts).strip()
        return damaged.replace("'", APOSTROPHE) if printed else damaged

    def _misspell(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _place(parts, words, draws, lambda word: len(word) >= LEAST_LETTERS)
        again = at is not None
        while at is not None and again:
            parts[at] = misspelled(parts[at], draws)
            again = next(draws) < AGAIN and len(parts[at]) >= LEAST_LETTERS

    def _confuse(self, parts: list[str], words: list[int], draws: Draws) -> None:
        self._exchange(CONFUSIONS, parts, words, draws)

    def _bend(self, parts: list[str], words: list[int], draws: Draws) -> None:
        if next(draws) < 0.35:
            at = _place(parts, words, draws, lambda word: len(word) > 3 and word.islower())
            if at is not None:
                parts[at] = bent(parts[at], draws)
        else:
            self._exchange(BENT, parts, words, draws)

    def _exchange(
        self, table: Mapping[str, list[str]], parts: list[str], words: list[int], draws: Draws
    ) -> None:
        """Exchange a word for one of a table; misspell another if no word is in it."""
        at = _place(parts, words, draws, lambda word: _key(word) in table)
        if at is None:
            self._misspell(parts, words, draws)
        else:
            parts[at] = like(_pick(table[_key(parts[at])], draws), parts[at])

    def _double(self, parts: list[str], words: list[int], draws: Draws) -> None:
        small = next(draws) < 0.6
        at = _place(parts, words, draws, lambda word: not small or word.lower() in SMALL_WORDS)
        if at is not None:
            word = parts[at]
            parts[at : at + 1] = [word, " ", word if word == "I" else word.lower()]

    def _drop(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _place(parts, words, draws, lambda word: word.lower() in SMALL_WORDS)
        if at is not None and len(words) > 1:
            _take_out(parts, at)

    def _insert(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _pick(words[1:] or words, draws)
        parts[at:at] = [_pick(SMALL_WORDS, draws), " "]

    def _swap(self, parts: list[str], words: list[int], draws: Draws) -> None:
        pairs = [(a, b) for a, b in _neighbours(parts, words) if parts[a] != parts[b]]
        if pairs:
            one, two = _pick(pairs, draws)
            first, second = parts[one], parts[two]
            if one == words[0] and first.istitle() and first != "I":
                first, second = first.lower(), second.capitalize()
            parts[one], parts[two] = second, first

    def _split(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _place(parts, words, draws, lambda word: len(word) > 5)
        if at is not None:
            cut = 2 + int(next(draws) * (len(parts[at]) - 3))
            parts[at] = parts[at][:cut] + " " + parts[at][cut:]

    def _join(self, parts: list[str], words: list[int], draws: Draws) -> None:
        pairs = _neighbours(parts, words)
        if pairs:
            one, _ = _pick(pairs, draws)
            del parts[one + 1]

    def _lower(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _place(parts, words, draws, lambda word: word[0].isupper())
        if at is not None:
            parts[at] = parts[at].lower()

    def _apostrophe(self, parts: list[str], words: list[int], draws: Draws) -> None:
        at = _place(parts, words, draws, lambda word: not word.isalpha())
        if at is None:
            self._misspell(parts, words, draws)
        else:
            parts[at] = parts[at].replace("'", "")


def misspelled(word: str, draws: Draws) -> str:
    """Return a word with one slip; the word itself if the drawn slip does not apply to it."""
    kind, at = next(draws), int(next(draws) ** 0.7 * len(word))  # seldom at the beginning
    letter, lower = word[at], word[at].lower()
    if kind < 0.2:
        return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    if kind < 0.36:
        return word[:at] + word[at + 1 :]
    if kind < 0.46:
        return word[:at] + letter + word[at:]
    if kind < 0.56:
        return re.sub(r"(.)\1", r"\1", word, count=1)
    if kind < 0.68:
        return word[:at] + _key_beside(lower, draws) + word[at + 1 :]
    if kind < 0.72:
        return word[:at] + _key_beside(lower, draws) + word[at:]
    if kind < 0.84:
        places = [n for n, one in enumerate(word) if one in VOWELS]
        if not places:
            return word
        at = _pick(places, draws)
        return word[:at] + _pick(VOWELS, draws) + word[at + 1 :]
    return _sounding(word, draws)


def bent(word: str, draws: Draws) -> str:
    """Return a word with an ending that it should not have, or without its own."""
    choice = next(draws)
    for ending, short in (("ies", "y"), ("ing", ""), ("ed", ""), ("ly", ""), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)] + short if choice < 0.8 else word + "s"
    if choice < 0.6:
        return word + "s"
    return word + ("d" if word.endswith("e") else "ed") if choice < 0.85 else word + "ly"


def like(word: str, model: str) -> str:
    """Return a word with the capital of another."""
    return word[:1].upper() + word[1:] if model[:1].isupper() and model != "I" else word


def _sounding(word: str, draws: Draws) -> str:
    fitting = [(one, other) for one, other in SOUNDING if one in word[1:]]
    if not fitting:
        return word
    one, other = _pick(fitting, draws)
    places = [n for n in range(1, len(word)) if word.startswith(one, n)]
    at = _pick(places, draws)
    return word[:at] + other + word[at + len(one) :]


def _key_beside(letter: str, draws: Draws) -> str:
    return _pick(NEIGHBOURS.get(letter, letter), draws)


def _key(word: str) -> str:
    return word if word == "I" else word.lower()


def _pick(among: Sequence[T], draws: Draws) -> T:
    return among[int(next(draws) * len(among))]


def _place(
    parts: Sequence[str], words: Sequence[int], draws: Draws, fits: Callable[[str], bool]
) -> int | None:
    """Return the place of one of the words that fit; None without any."""
    fitting = [at for at in words if fits(parts[at])]
    return _pick(fitting, draws) if fitting else None


def _neighbours(parts: Sequence[str], words: Sequence[int]) -> list[tuple[int, int]]:
    """Return the places of words that one space separates."""
    return [(a, a + 2) for a in words if a + 2 in words and parts[a + 1] == " "]


def _take_out(parts: list[str], at: int) -> None:
    """Remove a word and one of the spaces around it."""
    if at + 1 < len(parts) and parts[at + 1].isspace():
        del parts[at : at + 2]
    elif at and parts[at - 1].isspace():
        del parts[at - 1 : at + 1]
    else:
        del parts[at]
