"""Words that a misspelled word may stand for, by deletions on both sides (SymSpell, Garbe 2012).

Two words are near if they are equal after at most as many letters have been deleted from each as
there may be slips: that covers letters left out, added, exchanged and swapped, without comparing
the word with every other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations

LEAST_LETTERS = 3
MOST_SLIPS = 2
LONG = 6  # letters from which a word may have as many


class NearestWords:
    """Finds the words nearest to others.

    Args:
        words: lower-cased words, the most frequent first.
    """

    def __init__(self, words: Iterable[str]):
        self.ranks = {word: rank for rank, word in enumerate(dict.fromkeys(words))}
        self.index: dict[str, list[tuple[int, str]]] = {}
        for word in self.ranks:
            for deleted, left in _shortened(word):
                self.index.setdefault(left, []).append((deleted, word))
        self.of = lru_cache(1 << 16)(self._of)

    def _of(self, word: str) -> tuple[str, ...]:
        """Return the words near a lower-cased word, the nearest first.

        Of equally many slips, those with the same first letter come first, then the most frequent.
        """
        slips: dict[str, int] = {}
        for deleted, left in _shortened(word):
            for others, one in self.index.get(left, ()):
                slips[one] = min(max(deleted, others), slips.get(one, MOST_SLIPS))
        return tuple(
            sorted(slips, key=lambda one: (slips[one], one[0] != word[0], self.ranks[one]))
        )


def _shortened(word: str) -> Iterator[tuple[int, str]]:
    """Yield a word without some of its letters, and their number."""
    if len(word) < LEAST_LETTERS:
        return
    for deleted in range(1 + (MOST_SLIPS if len(word) >= LONG else 1)):
        for left in {*combinations(word, len(word) - deleted)}:
            yield deleted, "".join(left)
