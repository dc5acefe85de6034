"""Edits by minimum Bayes risk: what is fewest edits, on average, from what may be true.

Of several ways to write an edit the likeliest is not the best guess where the distance to an
original counts: what is left alone or out costs no more than a wrong word. Each edit is settled
by itself, because a distance is nearly the sum of those between kept tokens (Kumar and Byrne 2004,
for whole sentences).
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
    """The edits of a text that are made, and what is written in them.

    Args:
        text: which is edited.
        ways: the same edits, each written by a draw of its own.
        tagging: what the tagger says of the text.
        longest: tokens that it may have.
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
    """What is to stand at a place: as it is, nothing, or one of the fillings.

    Args:
        old: what stands there.
        fillings: draws of what may come, each as likely as the others.
        odds: of what is true.
        longest: tokens that there is room for.

    Returns:
        Of what is possible at all, the one with the fewest edits to what is true, on average; of
        equals the first.
    """
    chances = {old: odds.stays}
    # A deletion has no fillings: what might have come counts as nothing.
    chances[()] = chances.get((), 0.0) + (odds.leaves if fillings else 1 - odds.stays)
    for filling in fillings:
        chances[filling] = chances.get(filling, 0.0) + odds.comes / len(fillings)

    @cache
    def apart(one: Tokens, other: Tokens) -> int:
        return edit_distance(one, other)

    def risk(one: Tokens) -> float:
        # Each pair in one order: the way there is as long as the way back.
        return sum(chance * apart(*sorted((one, other))) for other, chance in chances.items())

    possible = [one for one, chance in chances.items() if chance > 0 and len(one) <= longest]
    return min(possible or [old], key=risk)


def _edit(span: Span, new: Tokens) -> Span:
    if span.edit == INSERT:
        return Span(INSERT, span.start, span.stop, new)
    return Span(REPLACE if new else DELETE, span.start, span.stop, new)
