"""Mistakes that people make in texts: doubled, dropped, swapped and mistaken words.

Random edits (:mod:`multidiff.core.edit.process`) insert words that stand out. An editor that saw
nothing else does not notice a word twice, or one that only does not belong here.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from multidiff.core.random import uniforms
from multidiff.text.data.vocabulary import END, FIRST, PAD, UNKNOWN, Vocabulary
from multidiff.utils.errors import InputError

KINDS = {
    "double": 0.15, "drop": 0.15, "swap": 0.15, "replace": 0.1, "insert": 0.1, "unknown": 0.1,
    "spelled_alike": 0.1, "used_alike": 0.1, "splice": 0.05,
}  # fmt: skip
NEIGHBOURS = 8  # words of each word that are used like it
CONTEXTS = 300  # most frequent words, beside which a word's use is counted
LONGEST = 4  # words of a span of another text


class DrawnMistakes:
    """Kinds of mistakes with their weights, and how many a text has.

    Args:
        probability: fraction of the corrupted texts of training that have these mistakes.
        mean: mean number of mistakes of a text, at least 1; it follows a geometric distribution.
        kinds: weights of the kinds of mistakes, by name.
        known: kinds that there are.

    Raises:
        ValueError: if an option is out of range, or a kind is not known.
    """

    def __init__(
        self,
        probability: float,
        mean: float,
        kinds: Mapping[str, float],
        known: Mapping[str, float],
    ):
        unknown = sorted(kinds.keys() - known.keys())
        if unknown:
            raise ValueError(f"kind {unknown[0]!r} of mistakes: choose among {', '.join(known)}")
        low = min(kinds.values(), default=0)
        if not 0 <= probability <= 1 or mean < 1 or low < 0 or not any(kinds.values()):
            raise ValueError(
                f"probability {probability:g} must be in [0, 1], mean {mean:g} at least 1, and no "
                "weight of a kind below 0"
            )
        self.probability, self.mean = probability, mean
        self.kinds, self._odds = list(kinds), list(accumulate(kinds.values()))

    def _kind(self, draws: Iterator[float]) -> str:
        return self.kinds[bisect(self._odds, next(draws) * self._odds[-1])]

    def _again(self, draws: Iterator[float]) -> bool:
        return next(draws) < 1 - 1 / self.mean


class Mistakes(DrawnMistakes):
    """Draws mistakes in texts.

    A word is replaced by one drawn by frequency (``replace``), spelled alike, or used alike:
    beside the same words. ``unknown`` replaces a word by UNKNOWN, or inserts that. ``splice``
    writes some words of another text over as many of this one.

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
        probability: float = 0.5,
        mean: float = 1.5,
        kinds: Mapping[str, float] | None = None,
    ):
        super().__init__(probability, mean, kinds or KINDS, KINDS)
        self.texts: list[list[int]] = []
        self.used_alike: list[list[int]] = []
        self.spelled_alike: list[list[int]] = []

    def learn(self, texts: Sequence[Sequence[int]], size: int, words: Sequence[str]) -> None:
        """Learn frequencies of words, and which are used or spelled alike.

        Args:
            texts: tokens of texts.
            size: number of tokens.
            words: spelling of each token.

        Raises:
            InputError: if the texts have no words.
        """
        self.texts = [[*one] for one in texts if len(one)]
        counts = torch.zeros(size)
        for one in self.texts:
            counts += torch.bincount(torch.tensor(one), minlength=size)[:size]
        counts[:FIRST] = 0
        if not counts.any():
            raise InputError("mistakes: the texts have no known words")
        self._frequencies = (counts.double().cumsum(0) / counts.sum().double()).tolist()
        self.used_alike = used_alike(self.texts, counts)
        self.spelled_alike = spelled_alike(words)

    def __call__(
        self,
        tokens: Sequence[int],
        rng: torch.Generator | None,
        vocabulary: Vocabulary | None = None,
    ) -> list[int]:
        """Return a text with at least one mistake; an empty text stays as it is.

        Args:
            tokens: the text.
            rng: source of the draws.
            vocabulary: not needed; see
                :class:`~multidiff.text.diffuser.writing_mistakes.WritingMistakes`.

        Raises:
            InputError: if nothing has been learned.
        """
        if not self.texts:
            raise InputError(
                "mistakes: have learned from no texts; add precompute: {use: LearnMistakes}"
            )
        found, draws = [*tokens], uniforms(rng)
        again = bool(found)
        while again and found:
            kind = self._kind(draws)
            getattr(self, f"_{kind}")(found, int(next(draws) * len(found)), draws)
            again = self._again(draws)
        return found

    def _word(self, draws: Iterator[float]) -> int:
        return bisect(self._frequencies, next(draws))

    def _double(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        count = 1 + (next(draws) < 0.2)
        found[at:at] = found[at : at + count]

    def _drop(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        del found[at]

    def _swap(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        found[at : at + 2] = reversed(found[at : at + 2])

    def _replace(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        found[at] = self._word(draws)

    def _insert(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        found.insert(at, self._word(draws))

    def _unknown(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        found[at : at + (next(draws) < 0.5)] = [UNKNOWN]

    def _used_alike(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        self._exchange(self.used_alike, found, at, draws)

    def _spelled_alike(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        self._exchange(self.spelled_alike, found, at, draws)

    def _exchange(
        self, table: list[list[int]], found: list[int], at: int, draws: Iterator[float]
    ) -> None:
        other = table[found[at]]
        draw = next(draws)
        found[at] = other[int(draw * len(other))] if other else self._word(draws)

    def _splice(self, found: list[int], at: int, draws: Iterator[float]) -> None:
        other = self.texts[int(next(draws) * len(self.texts))]
        start = int(next(draws) * len(other))
        span = other[start : start + 2 + int(next(draws) * (LONGEST - 1))]
        found[at : at + len(span)] = span


def used_alike(texts: Sequence[Sequence[int]], counts: Tensor) -> list[list[int]]:
    """Return the words that stand beside the same words as each: of highest cosine similarity.

    The vectors are positive pointwise mutual information with the most frequent words to the left
    and to the right (Bullinaria and Levy 2007).

    Args:
        texts: tokens of texts.
        counts: occurrences of each token, 0 for those that are no words.
    """
    size = len(counts)
    frequent = counts.topk(min(CONTEXTS, size)).indices
    column = torch.full((size,), -1)
    column[frequent] = torch.arange(len(frequent))
    beside = torch.zeros(2, size, len(frequent))
    for one in texts:
        row = torch.tensor([END, *one, END])
        for side, (word, near) in enumerate(((row[1:], row[:-1]), (row[:-1], row[1:]))):
            known = column[near] >= 0
            index = (word[known], column[near[known]])
            beside[side].index_put_(index, torch.ones(len(index[0])), accumulate=True)
    joint = torch.cat([*beside], dim=1)
    expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / joint.sum().clamp(min=1)
    vectors = (joint / expected.clamp(min=1e-9)).clamp(min=1).log()
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    words = (counts > 0).nonzero().flatten()
    found: list[list[int]] = [[] for _ in range(size)]
    for some in words.split(512):
        near = vectors[some] @ vectors[words].T
        near[some[:, None] == words] = 0
        best = near.topk(min(NEIGHBOURS, len(words)), dim=1)
        for word, values, others in zip(some.tolist(), *best, strict=True):
            found[word] = words[others[values > 0]].tolist()
    return found


def spelled_alike(words: Sequence[str]) -> list[list[int]]:
    """Return the words that equal each after one letter of one or both is left out."""
    rests: dict[str, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        if number >= FIRST and len(word) > 1:
            for rest in _rests(word):
                rests[rest].add(number)
    return [
        sorted(set().union(*(rests[rest] for rest in _rests(word))) - {number})
        if number >= FIRST and len(word) > 1
        else []
        for number, word in enumerate(words)
    ]


def _rests(word: str) -> set[str]:
    """Return a word, and what remains of it without each one of its letters."""
    return {word} | {word[:place] + word[place + 1 :] for place in range(len(word))}


class LearnMistakes:
    """Lets the model's mistakes learn from the training texts.

    Args:
        texts: largest number of texts; they are spread evenly.
    """

    def __init__(self, texts: int = 20_000):
        self.texts = texts

    def __call__(self, model: Any, batches: Any) -> Any:
        """Return the batches as they are.

        Raises:
            InputError: if the model has no mistakes that learn, or the data no texts.
        """
        texts: Any = getattr(getattr(batches, "examples", None), "texts", None)
        mistakes = getattr(model, "mistakes", None)
        if mistakes is None or texts is None:
            raise InputError("LearnMistakes: goes with model.mistakes and data of Sentences")
        if not isinstance(mistakes, Mistakes):
            raise InputError(
                f"LearnMistakes: model.mistakes: {type(mistakes).__name__} learn nothing; remove "
                "precompute, or set use: Mistakes"
            )
        vocabulary = model.domain.vocabulary
        step = max(1, -(-len(texts) // self.texts))
        tokens = [vocabulary.numbers(texts[row]) for row in range(0, len(texts), step)]
        words = ["" if n in (PAD, END) else vocabulary.text([n]) for n in range(vocabulary.size)]
        mistakes.learn(tokens, vocabulary.size, words)
        return batches
