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

EditsPerStep = Literal["all", "even"]
# Where nothing is there to be corrected, the likeliest text is one for all: texts are drawn. What
# is drawn is looked at again, and drawn anew where it is likelier than one in twenty to be wrong.
FRESH = {"top_p": 0.95, "edit_margin": -3.0}
# Several candidates are drawn as they are likely, so that they can be averaged over, and what they
# risk is caution enough.
SEVERAL = {"temperature": 1.0, "edit_margin": 0.0, "beam": 1, "revision_beams": 1}


@dataclass(frozen=True)
class EditSamplingConfig:
    """How drafts are revised.

    Attributes:
        steps: most revisions.
        edits_per_step: do all edits that the tagger wants, or an even share of them, the surest
            first.
        edit_margin: nats by which an edit must be likelier than keeping what is there.
        temperature: of the tokens written; 0 takes the likeliest.
        top_p: they are drawn among the likeliest up to this probability; 0.6 in the paper.
        beam: token sequences that are kept while writing; 1 draws one.
        revision_beams: texts that are kept from revision to revision (the paper's second beam).
        num_candidates: draws of what is written, of which each edit takes what is fewest edits from
            what may be true (:mod:`multidiff.text.diffuser.mbr`).

    Raises:
        InputError: if a number is out of range, a beam is to draw, or candidates are not.
    """

    steps: int = 12
    edits_per_step: EditsPerStep = "all"
    edit_margin: float = 0.0
    temperature: float = 0.0
    top_p: float = 1.0
    beam: int = 1
    revision_beams: int = 1
    num_candidates: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "beam", "revision_beams"):
            value, option = getattr(self, name), name.replace("_", "-")
            if not 1 <= value <= MOST_STEPS:
                raise InputError(f"--{option} {value}: at least 1, at most {MOST_STEPS}")
        if self.revision_beams > self.beam:
            raise InputError(
                f"--revision-beams {self.revision_beams}: no more than --beam {self.beam}, "
                f"which they are "
                "chosen from"
            )
        check_candidates(self.num_candidates)
        token_temperature(self.temperature)
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top-p {self.top_p:g}: above 0, up to 1 (all)")
        if math.isnan(self.edit_margin):
            raise InputError(f"--edit-margin {self.edit_margin:g}: a number of nats")
        if self.beam > 1 and self.temperature > 0:
            raise InputError(
                f"--temperature {self.temperature:g}: a beam keeps the likeliest and draws "
                "nothing; leave it out, or --beam"
            )
        if self.num_candidates > 1 and self.temperature == 0:
            raise InputError(
                f"--num-candidates {self.num_candidates}: without a --temperature, as beside a "
                f"--beam, all "
                "are the same text; leave either out"
            )

    def changed(self, given: Mapping[str, Any]) -> EditSamplingConfig:
        """The walk with what is given; None is nothing given.

        What goes with it follows: a beam draws nothing and keeps no more revisions than it is
        wide, what is drawn from a nucleus or as one of several has a temperature, and of several
        the risk takes the place of caution.

        Raises:
            InputError: if a number is out of range, a beam is to draw, or candidates are not.
        """
        new = {name: value for name, value in given.items() if value is not None}
        if "beam" in new:
            new = {"revision_beams": min(self.revision_beams, max(1, new["beam"]))} | new
        if new.get("beam", 1) > 1:
            new = {"temperature": 0.0, "top_p": 1.0, "num_candidates": 1} | new
        elif self.temperature == 0 and new.get("top_p", 1.0) < 1:
            new = {"temperature": 1.0} | new
        elif self.temperature == 0 and new.get("num_candidates", 1) > 1:
            new = SEVERAL | new
        return replace(self, **new)


def drawn(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is given of a walk from noise or nothing, and draws where nothing says how."""
    cond = {name: value for name, value in given.items() if value is not None}
    decided = {"temperature", "top_p", "beam"} & {*cond}
    return cond if decided else FRESH | cond


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


def choose(tagging: Tagging, sampling: EditSamplingConfig, left: int, longest: int) -> Choice:
    """The edits that are made of a text.

    Where the text has no room, the least sure insertions wait.

    Args:
        tagging: what the tagger says of it.
        sampling: how sure the tagger has to be, and how much is done at once.
        left: revisions to come, this one among them.
        longest: tokens that a text may have.
    """
    spans = tagging.edits(sampling.edit_margin)
    surety = {span: tagging.surety(span) for span in spans}
    if sampling.edits_per_step == "even":
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
