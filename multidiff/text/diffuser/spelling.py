"""What a vocabulary does not know is kept as it was typed, wherever an editor leaves it alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from multidiff.core.edit.alignment import rewrite
from multidiff.text.data.vocabulary import REPLACEMENT, UNKNOWN, Vocabulary
from multidiff.text.diffuser.reviser import History

WRITTEN = -1


class Spelling:
    """The spelling of a draft's tokens.

    Tokens that are told apart from their neighbours by no space, as the parts of an emoji, come
    without one where they are still neighbours and one of them is unknown.

    Args:
        vocabulary: that reads the draft.
        typed: the draft as it was typed.

    Attributes:
        tokens: of the draft.
    """

    def __init__(self, vocabulary: Vocabulary, typed: str):
        self.vocabulary = vocabulary
        self.tokens = vocabulary.numbers(typed)
        positions = [position for position, token in enumerate(self.tokens) if token == UNKNOWN]
        self._unknown = dict(zip(positions, _as_typed(vocabulary, typed), strict=True))
        self._touching: set[int] = set()
        if self._unknown and self.text(self.tokens, range(len(self.tokens))) != typed:
            self._touching = self._touching_in(_composed(typed).lower())

    def _touching_in(self, typed: str) -> set[int]:
        """The places whose tokens stand right before the next, one of the two unknown."""
        shown = [
            self._unknown.get(position, self.vocabulary.text([token])).lower()
            for position, token in enumerate(self.tokens)
        ]
        beside = {position for one in self._unknown for position in (one - 1, one)}
        return {
            position
            for position in beside
            if 0 <= position < len(shown) - 1 and shown[position] + shown[position + 1] in typed
        }

    def text(self, tokens: Sequence[int], origins: Sequence[int]) -> str:
        """The text of some tokens.

        Args:
            tokens: of a revision, or some of them.
            origins: where each stood in the draft; see :func:`origins_of`.
        """
        text = self.vocabulary.text(tokens)
        first, *rest = text.split(REPLACEMENT)
        unknown = [position for position, token in enumerate(tokens) if token == UNKNOWN]
        if len(unknown) != len(rest):  # this vocabulary shows them otherwise
            return text
        together = [
            here in self._touching and after == here + 1 for here, after in pairwise(origins)
        ]
        text = first
        for position, part in zip(unknown, rest, strict=True):
            if position and together[position - 1]:
                text = text.removesuffix(" ")
            if position < len(together) and together[position]:
                part = part.removeprefix(" ")
            text += self._unknown[origins[position]] + part
        return text

    def texts(self, history: History) -> list[str]:
        """The text of each revision, the draft's first."""
        found = zip(history, origins_of(history), strict=True)
        return [self.text(one.tokens, origins) for one, origins in found]

    def pieces(self, tokens: Sequence[int], origins: Sequence[int]) -> list[str] | None:
        """What each token adds to the text; None where tokens change what comes before them."""
        ends = [self.text(tokens[:end], origins[:end]) for end in range(len(tokens) + 1)]
        found = []
        for before, after in pairwise(ends):
            if not after.startswith(before):
                return None
            found.append(after[len(before) :])
        return found


def origins_of(history: History) -> list[list[int]]:
    """Where each token of each revision stood in the draft; WRITTEN where it did not."""
    found = [[*range(len(history[0].tokens))]]
    for revision in history[1:]:
        spans = [replace(one, tokens=(WRITTEN,) * len(one.tokens)) for one in revision.spans]
        found.append([*rewrite(found[-1], spans)])
    return found


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _as_typed(vocabulary: Vocabulary, text: str) -> list[str]:
    """The unknown pieces of a text, in upper and lower case as they stand in it."""
    pieces, composed = vocabulary.unknown(text), _composed(text)
    lower = composed.lower()
    if len(lower) != len(composed):  # letters whose lower case is longer
        return pieces
    found, position = [], 0
    for piece in pieces:
        start = lower.find(piece.lower(), position)
        if start >= 0:
            position = start + len(piece)
            piece = composed[start:position]
        found.append(piece)
    return found
