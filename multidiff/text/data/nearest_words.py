"""Words that a misspelled word may stand for, by deletions on both sides (SymSpell, Garbe 2012).

Two words are near if they are equal after at most as many letters have been deleted from each as
there may be slips: that covers letters left out, added, exchanged and swapped, without comparing
the word with every other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations

LEAST_LETTERS = 2
MOST_SLIPS = 2
LONG = 6  # letters from which a word may have as many


class NearestWords:
    """Finds the words nearest to others.

    Args:
        words: lower-cased words, the most frequent first.
    """

    def __init__(self, words: Iterable[str]):
        self.ranks = {word: rank for rank, word in enumerate(dict.fromkeys(words))}
        self.index: dict[str, list[str]] = {}
        for word in self.ranks:
            for left in _shortened(word):
                self.index.setdefault(left, []).append(word)
        self.of = lru_cache(1 << 16)(self._of)

    def __reduce__(self) -> tuple[type[NearestWords], tuple[list[str]]]:
        # The cache cannot be pickled, but vocabularies go to the processes that prepare data.
        return NearestWords, ([*self.ranks],)

    def _of(self, word: str) -> tuple[str, ...]:
        """Return the words near a lower-cased word, the likeliest first.

        A slip costs four nats, another first letter one, a word the logarithm of its rank, and
        other letters than the word's one: on drawn slips 84 % of the meant words come first, and
        98 % among four.
        """
        found = {one for left in _shortened(word) for one in self.index.get(left, ())}
        letters = sorted(word)

        def cost(one: str) -> float:
            other = (one[0] != word[0]) + (sorted(one) != letters)
            return 4 * slips(word, one) + other + math.log(self.ranks[one] + 20)

        return tuple(sorted(found, key=cost))


def slips(word: str, other: str) -> int:
    """Return the least number of letters left out, added, exchanged, or swapped with the next.

    This is the optimal string alignment distance: no letter takes part in two slips.
    """
    before: list[int] = []
    row = [*range(len(other) + 1)]
    for i, letter in enumerate(word, 1):
        last, row, earlier = row, [i], before
        for j, wanted in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if earlier and j > 1 and letter == other[j - 2] and word[i - 2] == wanted:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        before = last
    return row[-1]


def _shortened(word: str) -> Iterator[str]:
    """Yield a word, and the word without some of its letters."""
    if len(word) < LEAST_LETTERS:
        return
    for deleted in range(1 + (MOST_SLIPS if len(word) >= LONG else 1)):
        for left in {*combinations(word, len(word) - deleted)}:
            yield "".join(left)
