"""How drafts are revised, and which of the edits that a tagger finds are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from multidiff.core.edit.alignment import DELETE, INSERT, Span
from multidiff.models.sampling_config import MOST_STEPS, token_temperature
from multidiff.text.diffuser.tagging import Tagging
from multidiff.text.request import check_candidates
from multidiff.utils.errors import InputError

Pace = Literal["all", "even"]
# Where nothing is there to be corrected, the likeliest text is one for all: texts are drawn. What
# is drawn is looked at again, and drawn anew where it is likelier than one in twenty to be wrong.
FRESH = {"nucleus": 0.95, "caution": -3.0}
# Several candidates are drawn as they are likely, so that they can be averaged over, and what they
# risk is caution enough.
SEVERAL = {"temperature": 1.0, "caution": 0.0, "beam": 1, "revisions": 1}


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
        candidates: draws of what is written, of which each edit takes what is fewest edits from
            what may be true (:mod:`multidiff.text.diffuser.mbr`).

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
        wide, what is drawn from a nucleus or as one of several has a temperature, and of several
        the risk takes the place of caution.

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
            new = SEVERAL | new
        return replace(self, **new)


def drawn(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is given of a walk from noise or nothing, and draws where nothing says how."""
    told = {name: value for name, value in given.items() if value is not None}
    decided = {"temperature", "nucleus", "beam"} & {*told}
    return told if decided else FRESH | told


@dataclass(frozen=True)
class Choice:
    """The edits of one text that are made at once.

    Attributes:
        spans: from the left, with a kept token between any two, and nothing written yet.
        tagging: what they were chosen by.
    """

    spans: tuple[Span, ...]
    tagging: Tagging

    @property
    def score(self) -> float:
        """Log probability that the tagger gives all of them, in nats."""
        return self.tagging.score(self.spans)


def choose(tagging: Tagging, walk: EditWalk, left: int, longest: int) -> Choice:
    """The edits that are made of a text.

    Where the text has no room, the least sure insertions wait.

    Args:
        tagging: what the tagger says of it.
        walk: how sure the tagger has to be, and how much is done at once.
        left: revisions to come, this one among them.
        longest: tokens that a text may have.
    """
    spans = tagging.edits(walk.caution)
    surety = {span: tagging.surety(span) for span in spans}
    if walk.pace == "even":
        spans = _surest(spans, surety, math.ceil(len(spans) / left))
    # Where tokens are replaced, at least one comes for those that go, and there is room for it.
    room = longest - len(tagging) + sum(s.stop - s.start for s in spans if s.edit == DELETE)
    inserted = [span for span in spans if span.edit == INSERT]
    waiting = {*inserted} - {*_surest(inserted, surety, room)}
    return Choice(tuple(span for span in spans if span not in waiting), tagging)


def _surest(spans: Sequence[Span], surety: Mapping[Span, float], most: int) -> list[Span]:
    """At most so many of the edits, the surest, from the left; of equals the first."""
    kept = {*sorted(spans, key=lambda span: -surety[span])[:most]}
    return [span for span in spans if span in kept]
