"""How drafts are revised, and which of the edits that a tagger finds are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.alignment import DELETE, INSERT, KEEP, REPLACE, Span
from multidiff.errors import InputError
from multidiff.text.orders import check_candidates
from multidiff.walks import MOST_STEPS, token_temperature

Pace = Literal["all", "even"]
# Where nothing is there to be corrected, the likeliest text is one for all: texts are drawn.
NUCLEUS = 0.9
# Temperature of several candidates: likely ones that differ.
SEVERAL = 0.7


@dataclass(frozen=True)
class EditWalk:
    """How drafts are revised.

    Attributes:
        steps: most revisions.
        pace: do all edits that the tagger wants, or an even share of them, the surest first.
        caution: nats by which an edit must be likelier than keeping what is there.
        temperature: of the tokens written; 0 takes the likeliest.
        nucleus: they are drawn among the likeliest up to this probability; 0.6 in the paper.
        beam: token sequences that are kept while writing; 1 draws one.
        revisions: texts that are kept from revision to revision (the paper's second beam).
        candidates: texts drawn, of which the one fewest edits from the others is taken (minimum
            Bayes risk).

    Raises:
        InputError: if a number is out of range, a beam is to draw, or candidates are not.
    """

    steps: int = 12
    pace: Pace = "all"
    caution: float = 0.0
    temperature: float = 0.0
    nucleus: float = 1.0
    beam: int = 1
    revisions: int = 1
    candidates: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "beam", "revisions"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise InputError(
                    f"--{name} {getattr(self, name)}: at least 1, at most {MOST_STEPS}"
                )
        if self.revisions > self.beam:
            raise InputError(
                f"--revisions {self.revisions}: no more than --beam {self.beam}, which they are "
                "chosen from"
            )
        check_candidates(self.candidates)
        token_temperature(self.temperature)
        if not 0 < self.nucleus <= 1:
            raise InputError(f"--nucleus {self.nucleus:g}: above 0, up to 1 (all)")
        if math.isnan(self.caution):
            raise InputError(f"--caution {self.caution:g}: a number of nats")
        if self.beam > 1 and self.temperature > 0:
            raise InputError(
                f"--temperature {self.temperature:g}: a beam keeps the likeliest and draws "
                "nothing; leave it out, or --beam"
            )
        if self.candidates > 1 and self.temperature == 0:
            raise InputError(
                f"--candidates {self.candidates}: without a --temperature, as beside a --beam, all "
                "are the same text; leave either out"
            )

    def changed(self, given: Mapping[str, Any]) -> EditWalk:
        """The walk with what is given; None is nothing given.

        What goes with it follows: a beam draws nothing and keeps no more revisions than it is
        wide, and what is drawn from a nucleus or as one of several has a temperature.

        Raises:
            InputError: if a number is out of range, a beam is to draw, or candidates are not.
        """
        new = {name: value for name, value in given.items() if value is not None}
        if "beam" in new:
            new = {"revisions": min(self.revisions, max(1, new["beam"]))} | new
        if new.get("beam", 1) > 1:
            new = {"temperature": 0.0, "nucleus": 1.0, "candidates": 1} | new
        elif self.temperature == 0 and new.get("nucleus", 1.0) < 1:
            new = {"temperature": 1.0} | new
        elif self.temperature == 0 and new.get("candidates", 1) > 1:
            new = {"temperature": SEVERAL, "beam": 1, "revisions": 1} | new
        return replace(self, **new)


def drawn(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is given of a walk from noise or nothing, and a nucleus where nothing says how."""
    names = ("temperature", "nucleus", "beam")
    decided = any(given.get(name) is not None for name in names)
    return given if decided else {**given, "nucleus": NUCLEUS}


@dataclass(frozen=True)
class Choice:
    """The edits of one text that are made at once.

    Attributes:
        spans: from the left, with a kept token between any two, and nothing written yet.
        score: log probability that the tagger gives all of them, in nats.
    """

    spans: tuple[Span, ...]
    score: float


def choose(
    log_tags: Float[Tensor, "tokens tags"],
    log_gaps: Float[Tensor, "gaps 2"],
    walk: EditWalk,
    left: int,
    longest: int,
) -> Choice:
    """The edits that are made of a text.

    A token goes where it is likelier to go than to stay. Neighbours that go are one edit, and
    all of them say together whether something comes instead; so does a gap beside them that
    wants to be filled. Nothing is no text: something is inserted there whatever the tagger
    says. Where the text has no room, the least sure insertions wait.

    Args:
        log_tags: log probabilities of KEEP, REPLACE and DELETE of each token.
        log_gaps: of nothing and something being inserted in each gap.
        walk: how sure the tagger has to be, and how much is done at once.
        left: revisions to come, this one among them.
        longest: tokens that a text may have.
    """
    goes = log_tags[:, 1:].logsumexp(dim=1) - log_tags[:, KEEP]
    comes = log_gaps[:, 1] - log_gaps[:, 0]
    filled = (comes > walk.caution).tolist() if len(goes) else [True]
    spans = _edits((goes > walk.caution).tolist(), filled, log_tags)
    surety = {span: _surety(span, goes, comes) for span in spans}
    if walk.pace == "even":
        spans = _surest(spans, surety, math.ceil(len(spans) / left))
    # Where tokens are replaced, at least one comes for those that go, and there is room for it.
    room = longest - len(goes) + sum(s.stop - s.start for s in spans if s.edit == DELETE)
    inserted = [span for span in spans if span.edit == INSERT]
    waiting = {*inserted} - {*_surest(inserted, surety, room)}
    spans = [span for span in spans if span not in waiting]
    return Choice(tuple(spans), _score(spans, log_tags, log_gaps))


def _edits(goes: Sequence[bool], filled: Sequence[bool], log_tags: Tensor) -> list[Span]:
    """Runs of tokens that go, and gaps to be filled that touch none of them, from the left."""
    spans: list[Span] = []
    free = [*filled]
    for going, group in groupby(range(len(goes)), key=goes.__getitem__):
        if going:
            run = [*group]
            spans.append(_run(run[0], run[-1] + 1, filled, log_tags))
            free[run[0] : run[-1] + 2] = [False] * (len(run) + 1)
    gaps = [Span(INSERT, gap, gap) for gap, one in enumerate(free) if one]
    return sorted([*spans, *gaps], key=lambda span: span.start)


def _run(start: int, stop: int, filled: Sequence[bool], log_tags: Tensor) -> Span:
    """Tokens that go, replaced if a gap among or beside them is to be filled, or they say so."""
    own = log_tags[start:stop].sum(dim=0)
    comes = any(filled[start : stop + 1]) or bool(own[REPLACE] >= own[DELETE])
    return Span(REPLACE if comes else DELETE, start, stop)


def _surety(span: Span, goes: Tensor, comes: Tensor) -> float:
    """By how many nats an edit is likelier than none, a run's the mean of its tokens'."""
    return float(comes[span.start] if span.edit == INSERT else goes[span.start : span.stop].mean())


def _surest(spans: Sequence[Span], surety: Mapping[Span, float], most: int) -> list[Span]:
    """At most so many of the edits, the surest, from the left; of equals the first."""
    kept = {*sorted(spans, key=lambda span: -surety[span])[:most]}
    return [span for span in spans if span in kept]


def _score(spans: Sequence[Span], log_tags: Tensor, log_gaps: Tensor) -> float:
    tags, gaps = torch.full((len(log_tags),), int(KEEP)), torch.zeros(len(log_gaps)).long()
    for span in spans:
        tags[span.start : span.stop] = int(span.edit)
        if span.edit == INSERT:
            gaps[span.start] = 1
    total = log_tags.gather(1, tags[:, None]).sum() + log_gaps.gather(1, gaps[:, None]).sum()
    return float(total)
