"""Preserving the spelling of unknown tokens as typed, wherever an editor leaves them alone."""

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

    Tokens not separated from their neighbours by a space, such as the parts of an emoji, are
    joined again if they are still neighbours and one of them is unknown.

    Args:
        vocabulary: vocabulary that reads the draft.
        typed: the draft as it was typed.

    Attributes:
        tokens: tokens of the draft.
    """

    def __init__(self, vocabulary: Vocabulary, typed: str):
        self.vocabulary = vocabulary
        self.tokens = vocabulary.numbers(typed)
        positions = [position for position, token in enumerate(self.tokens) if token == UNKNOWN]
        self._unknown = dict(zip(positions, _as_typed(vocabulary, typed), strict=True))
        self._touching: set[int] = set()
        if self._unknown and Spelling.text(self, self.tokens, range(len(self.tokens))) != typed:
            self._touching = self._touching_in(_composed(typed).lower())

    def _touching_in(self, typed: str) -> set[int]:
        """Return the positions whose tokens touch the next one, one of the two unknown."""
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
        """Return the text of some tokens.

        Args:
            tokens: tokens of a revision, or some of them.
            origins: position of each in the draft; see :func:`origins_of`.
        """
        text = self.vocabulary.text(tokens)
        first, *rest = text.split(REPLACEMENT)
        unknown = [position for position, token in enumerate(tokens) if token == UNKNOWN]
        if len(unknown) != len(rest):  # this vocabulary shows them differently
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
        """Return the text of each revision, the draft's first."""
        found = zip(history, origins_of(history), strict=True)
        return [self.text(one.tokens, origins) for one, origins in found]

    def pieces(self, tokens: Sequence[int], origins: Sequence[int]) -> list[str] | None:
        """Return the text that each token adds; None if tokens change the text before them."""
        ends = [self.text(tokens[:end], origins[:end]) for end in range(len(tokens) + 1)]
        found = []
        for before, after in pairwise(ends):
            if not after.startswith(before):
                return None
            found.append(after[len(before) :])
        return found


def origins_of(history: History) -> list[list[int]]:
    """Return the position of each revision's tokens in the draft; WRITTEN for new ones."""
    found = [[*range(len(history[0].tokens))]]
    for revision in history[1:]:
        spans = [replace(one, tokens=(WRITTEN,) * len(one.tokens)) for one in revision.spans]
        found.append([*rewrite(found[-1], spans)])
    return found


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _as_typed(vocabulary: Vocabulary, text: str) -> list[str]:
    """Return the unknown pieces of a text, in their original upper and lower case."""
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
