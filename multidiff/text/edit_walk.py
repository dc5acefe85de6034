"""How drafts are revised, and which of the edits that a tagger finds are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multidiff.core.alignment import DELETE, EDITS, KEEP, Edit, Span, find_spans
from multidiff.errors import InputError

Pace = Literal["all", "even"]
# Where nothing is there to be corrected, the likeliest text is one for all: texts are drawn.
NUCLEUS = 0.9


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

    Raises:
        InputError: if a number is out of range, or a beam is to draw.
    """

    steps: int = 12
    pace: Pace = "all"
    caution: float = 0.0
    temperature: float = 0.0
    nucleus: float = 1.0
    beam: int = 1
    revisions: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "beam", "revisions"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: at least 1")
        if self.revisions > self.beam:
            raise InputError(
                f"--revisions {self.revisions}: no more than --beam {self.beam}, which they are "
                "chosen from"
            )
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"--temperature {self.temperature:g}: 0 (the likeliest) or more")
        if not 0 < self.nucleus <= 1:
            raise InputError(f"--nucleus {self.nucleus:g}: above 0, up to 1 (all)")
        if math.isnan(self.caution):
            raise InputError(f"--caution {self.caution:g}: a number of nats")
        if self.beam > 1 and self.temperature > 0:
            raise InputError(
                f"--temperature {self.temperature:g}: a beam keeps the likeliest and draws "
                "nothing; leave it out, or --beam"
            )

    def changed(self, given: Mapping[str, Any]) -> EditWalk:
        """The walk with what is given; None is nothing given.

        What goes with it follows: a beam draws nothing and keeps no more revisions than it is
        wide, and what is drawn from a nucleus has a temperature.

        Raises:
            InputError: if a number is out of range, or a beam is to draw.
        """
        new = {name: value for name, value in given.items() if value is not None}
        if "beam" in new:
            new = {"revisions": min(self.revisions, max(1, new["beam"]))} | new
        if new.get("beam", 1) > 1:
            new = {"temperature": 0.0, "nucleus": 1.0} | new
        if new.get("nucleus", 1.0) < 1 and self.temperature == 0:
            new = {"temperature": 1.0} | new
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
        tags: KEEP, REPLACE or DELETE for each token.
        gaps: for each gap whether something is inserted.
        score: log probability that the tagger gives all of them, in nats.
    """

    tags: list[Edit]
    gaps: list[bool]
    score: float

    @property
    def spans(self) -> tuple[Span, ...]:
        """The edits in runs, from the left, with nothing written yet."""
        return find_spans(self.tags, self.gaps)


def choose(
    log_tags: Float[Tensor, "tokens tags"],
    log_gaps: Float[Tensor, "gaps 2"],
    walk: EditWalk,
    left: int,
    longest: int,
) -> Choice:
    """The edits that are made of a text.

    Nothing is no text: something is inserted there whatever the tagger says. Where the text
    has no room, the least sure insertions wait.

    Args:
        log_tags: log probabilities of KEEP, REPLACE and DELETE of each token.
        log_gaps: of nothing and something being inserted in each gap.
        walk: how sure the tagger has to be, and how much is done at once.
        left: revisions to come, this one among them.
        longest: tokens that a text may have.
    """
    count = len(log_tags)
    best, kind = log_tags[:, 1:].max(dim=1)
    surer = torch.cat([best - log_tags[:, KEEP], log_gaps[:, 1] - log_gaps[:, 0]])
    made = surer > walk.caution if count else torch.ones(1, dtype=torch.bool)
    if walk.pace == "even":
        made = _surest(made, surer, math.ceil(int(made.sum()) / left))
    tags = [EDITS[int(k) + 1] if m else KEEP for k, m in zip(kind, made[:count], strict=True)]
    # A replaced token leaves room for one, so that each span has room for one at least.
    room = longest - count + tags.count(DELETE)
    gaps = _surest(made[count:], surer[count:], room)
    score = torch.where(made[:count], best, log_tags[:, KEEP]).sum()
    score += log_gaps.gather(1, gaps[:, None].long()).sum()
    return Choice(tags, _before_deletions(tags, gaps.tolist()), float(score))


def _surest(made: Bool[Tensor, " edits"], surer: Tensor, most: int) -> Bool[Tensor, " edits"]:
    """At most so many of the edits, the surest; of equals the first."""
    order = surer.masked_fill(~made, -math.inf).argsort(descending=True, stable=True)
    return torch.zeros_like(made).scatter(0, order[:most], True) & made


def _before_deletions(tags: Sequence[Edit], gaps: Sequence[bool]) -> list[bool]:
    """Insertions behind deleted tokens moved before them.

    The text is the same, and the generator is not given a place that it does not read.
    """
    moved = list(gaps)
    for place in range(len(tags), 0, -1):
        if moved[place] and tags[place - 1] == DELETE:
            moved[place - 1 : place + 1] = True, False
    return moved
