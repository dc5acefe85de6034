"""A tagger's output for a text, and the edits that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Span


@dataclass(frozen=True)
class Odds:
    """Probabilities of a span's true content; the three add up to 1.

    Attributes:
        stays: the current content is right.
        leaves: nothing belongs there; an insertion's own content is right.
        comes: something else belongs there.
    """

    stays: float
    leaves: float
    comes: float


class Tagging:
    """A tagger's output for one text.

    Args:
        log_tags: log probabilities of KEEP, REPLACE and DELETE of each token.
        log_gaps: log probabilities of no insertion and of an insertion in each gap.
    """

    def __init__(self, log_tags: Float[Tensor, "tokens tags"], log_gaps: Float[Tensor, "gaps 2"]):
        self.log_tags, self.log_gaps = log_tags, log_gaps
        self.goes = log_tags[:, 1:].logsumexp(dim=1) - log_tags[:, KEEP]
        self.comes = log_gaps[:, 1] - log_gaps[:, 0]

    def __len__(self) -> int:
        return len(self.log_tags)

    def edits(self, edit_margin: float) -> list[Span]:
        """Return edits that are likelier than none by a margin in nats, separated by kept tokens.

        A token is removed where removing is likelier than keeping it. Neighbouring removed tokens
        are one edit, and together they decide whether something replaces them, with an adjacent
        gap that is to be filled. An empty result is not a text: something is inserted there
        whatever the tagger predicts.
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
        """Return a run of removed tokens, replaced if a gap there is filled, or by vote."""
        own = self.log_tags[start:stop].sum(dim=0)
        comes = any(filled[start : stop + 1]) or bool(own[REPLACE] >= own[DELETE])
        return Span(REPLACE if comes else DELETE, start, stop)

    def surety(self, span: Span) -> float:
        """Return the log odds of an edit against none in nats, the mean over a run's tokens."""
        if span.edit == INSERT:
            return float(self.comes[span.start])
        return float(self.goes[span.start : span.stop].mean())

    def confidence(self, span: Span, written: float) -> float:
        """Return the probability that an edit is right, with its tokens.

        Args:
            span: the edit.
            written: log probability of its tokens, given that it is made.
        """
        return 1 / (1 + math.exp(min(-self.surety(span), 700.0))) * math.exp(written)

    def score(self, spans: Sequence[Span]) -> float:
        """Return the log probability of exactly these edits, in nats, without written tokens."""
        tags, gaps = torch.full((len(self),), int(KEEP)), torch.zeros(len(self) + 1).long()
        for span in spans:
            tags[span.start : span.stop] = int(span.edit)
            if span.edit == INSERT:
                gaps[span.start] = 1
        found = self.log_tags.gather(1, tags[:, None]).sum()
        return float(found + self.log_gaps.gather(1, gaps[:, None]).sum())

    def odds(self, span: Span) -> Odds:
        """Return the probabilities of a span's true content, the mean over a run's tokens."""
        if span.edit == INSERT:
            comes = float(self.log_gaps[span.start, 1].exp()) if len(self) else 1.0
            return Odds(1 - comes, 0.0, comes)
        tags = self.log_tags[span.start : span.stop].exp().mean(dim=0).tolist()
        return Odds(tags[KEEP], tags[DELETE], tags[REPLACE])
