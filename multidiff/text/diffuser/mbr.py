"""Minimum Bayes risk for edits: the fewest expected edits to the true text.

Of several ways to write an edit the likeliest is not the best guess if the distance to an
original counts: keeping or deleting a token costs no more than a wrong word. Each edit is chosen
independently, because a distance is nearly the sum of those between kept tokens (Kumar and Byrne
2004, for whole sentences).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from multidiff.core.edit.alignment import DELETE, INSERT, REPLACE, Span
from multidiff.text.diffuser.tagging import Odds, Tagging
from multidiff.text.metrics.scores import edit_distance

Tokens = tuple[int, ...]


def settled(
    text: Tokens, ways: Sequence[Sequence[Span]], tagging: Tagging, longest: int
) -> tuple[Span, ...]:
    """Return the edits to make in a text, with their written tokens.

    Args:
        text: the text to edit.
        ways: samples of the same edits, each with its own written tokens.
        tagging: the tagger's probabilities for the text.
        longest: largest number of tokens of the result.
    """
    spans, room = [], longest - len(text)
    for drawn in zip(*ways, strict=True):
        span = drawn[0]
        old = text[span.start : span.stop]
        fillings = [] if span.edit == DELETE else [one.tokens for one in drawn]
        fitting = room + len(old)
        new = mbr(old, fillings, tagging.odds(span), fitting)
        if new != old:
            spans.append(_edit(span, new))
            room = fitting - len(new)
    return tuple(spans)


def mbr(old: Tokens, fillings: Sequence[Tokens], odds: Odds, longest: int) -> Tokens:
    """Choose a span's content: unchanged, empty, or one of the fillings.

    Args:
        old: current tokens of the span.
        fillings: sampled contents, equally likely.
        odds: probabilities of the three cases.
        longest: largest number of tokens that fit.

    Returns:
        Of the possible contents, the one with the fewest expected edits to the true one; the
        first of equals.
    """
    chances = {old: odds.stays}
    # A deletion has no fillings: their probability counts for the empty content.
    chances[()] = chances.get((), 0.0) + (odds.leaves if fillings else 1 - odds.stays)
    for filling in fillings:
        chances[filling] = chances.get(filling, 0.0) + odds.comes / len(fillings)

    @cache
    def apart(one: Tokens, other: Tokens) -> int:
        return edit_distance(one, other)

    def risk(one: Tokens) -> float:
        # Each pair in one order: the distance is symmetric.
        return sum(chance * apart(*sorted((one, other))) for other, chance in chances.items())

    possible = [one for one, chance in chances.items() if chance > 0 and len(one) <= longest]
    return min(possible or [old], key=risk)


def _edit(span: Span, new: Tokens) -> Span:
    if span.edit == INSERT:
        return Span(INSERT, span.start, span.stop, new)
    return Span(REPLACE if new else DELETE, span.start, span.stop, new)
