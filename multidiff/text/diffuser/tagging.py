"""What a tagger says of a text, and the edits that it wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Span


@dataclass(frozen=True)
class Odds:
    """What may be true of a place that is to be edited; the three add up to 1.

    Attributes:
        stays: it is right as it is.
        leaves: nothing belongs there; what an insertion finds there, it is right with.
        comes: something else does.
    """

    stays: float
    leaves: float
    comes: float


class Tagging:
    """What a tagger says of one text.

    Args:
        log_tags: log probabilities of KEEP, REPLACE and DELETE of each token.
        log_gaps: of nothing and something being inserted in each gap.
    """

    def __init__(self, log_tags: Float[Tensor, "tokens tags"], log_gaps: Float[Tensor, "gaps 2"]):
        self.log_tags, self.log_gaps = log_tags, log_gaps
        self.goes = log_tags[:, 1:].logsumexp(dim=1) - log_tags[:, KEEP]
        self.comes = log_gaps[:, 1] - log_gaps[:, 0]

    def __len__(self) -> int:
        return len(self.log_tags)

    def edits(self, edit_margin: float) -> list[Span]:
        """Edits that are likelier than not by so many nats, with a kept token between any two.

        A token goes where it is likelier to go than to stay. Neighbours that go are one edit,
        and all of them say together whether something comes instead; so does a gap beside them
        that wants to be filled. Nothing is no text: something is inserted there whatever the
        tagger says.
        """
        filled = (self.comes > edit_margin).tolist() if len(self) else [True]
        goes = (self.goes > edit_margin).tolist()
        spans: list[Span] = []
        free = [*filled]
        for going, group in groupby(range(len(goes)), key=goes.__getitem__):
            if going:
                run = [*group]
                spans.append(self._run(run[0], run[-1] + 1, filled))
                free[run[0] : run[-1] + 2] = [False] * (len(run) + 1)
        gaps = [Span(INSERT, gap, gap) for gap, one in enumerate(free) if one]
        return sorted([*spans, *gaps], key=lambda span: span.start)

    def _run(self, start: int, stop: int, filled: Sequence[bool]) -> Span:
        """Tokens that go, replaced if a gap among or beside them is filled, or they say so."""
        own = self.log_tags[start:stop].sum(dim=0)
        comes = any(filled[start : stop + 1]) or bool(own[REPLACE] >= own[DELETE])
        return Span(REPLACE if comes else DELETE, start, stop)

    def surety(self, span: Span) -> float:
        """By how many nats an edit is likelier than none, a run's the mean of its tokens'."""
        if span.edit == INSERT:
            return float(self.comes[span.start])
        return float(self.goes[span.start : span.stop].mean())

    def score(self, spans: Sequence[Span]) -> float:
        """Log probability of these edits and no others, in nats; what is written does not count."""
        tags, gaps = torch.full((len(self),), int(KEEP)), torch.zeros(len(self) + 1).long()
        for span in spans:
            tags[span.start : span.stop] = int(span.edit)
            if span.edit == INSERT:
                gaps[span.start] = 1
        found = self.log_tags.gather(1, tags[:, None]).sum()
        return float(found + self.log_gaps.gather(1, gaps[:, None]).sum())

    def odds(self, span: Span) -> Odds:
        """What may be true of a place, a run's the mean of its tokens'."""
        if span.edit == INSERT:
            comes = float(self.log_gaps[span.start, 1].exp()) if len(self) else 1.0
            return Odds(1 - comes, 0.0, comes)
        tags = self.log_tags[span.start : span.stop].exp().mean(dim=0).tolist()
        return Odds(tags[KEEP], tags[DELETE], tags[REPLACE])
