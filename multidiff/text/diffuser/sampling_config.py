"""Options of revising drafts, and the choice among the edits that a tagger finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from multidiff.config.option_set import OptionSet, option
from multidiff.core.edit.alignment import DELETE, INSERT, Span
from multidiff.models.sampling_config import MOST_STEPS, candidates_option
from multidiff.text.diffuser.tagging import Tagging
from multidiff.utils.errors import InputError

EditsPerStep = Literal["all", "even"]
# Where there is nothing to correct, the likeliest text is the same for all: texts are drawn. What
# is drawn is revised too, where it is likelier than one in twenty to be wrong.
FRESH = {"top_p": 0.95, "edit_margin": -3.0}
# Several candidates are drawn as they are likely, so that they can be averaged over, and what they
# risk is caution enough.
SEVERAL = {"temperature": 1.0, "edit_margin": 0.0, "beam": 1, "revision_beams": 1}


@dataclass(frozen=True)
class EditSamplingConfig(OptionSet):
    """Options of revising drafts.

    Attributes:
        steps: largest number of revisions.
        edits_per_step: make all edits that the tagger wants, or an even share of them, the surest
            first.
        edit_margin: nats by which an edit must be likelier than keeping the text.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        top_p: tokens are drawn among the likeliest up to this probability; 0.6 in the paper.
        beam: number of token sequences kept while writing; 1 draws one.
        revision_beams: number of texts kept from revision to revision (the paper's second beam).
        num_candidates: number of draws of what is written, of which each edit takes what is fewest
            edits from what may be true (:mod:`multidiff.text.diffuser.mbr`).

    Raises:
        InputError: if a number is out of range, a beam is to draw, or candidates are not.
    """

    steps: int = option(12, "largest number of revisions", least=1, most=MOST_STEPS)
    edits_per_step: EditsPerStep = option(
        "all", "make all edits at once, or an even share of them", choices=("all", "even")
    )
    edit_margin: float = option(0.0, "nats by which an edit must be likelier than keeping the text")
    temperature: float = option(
        0.0, "temperature of the tokens' distribution", least=0, note="0 takes the likeliest"
    )
    top_p: float = option(
        1.0,
        "draw among the likeliest tokens up to this probability",
        above=0,
        most=1,
        note="1 is all",
    )
    beam: int = option(1, "token sequences kept while writing", least=1, most=MOST_STEPS)
    revision_beams: int = option(
        1, "texts kept from revision to revision", least=1, most=MOST_STEPS
    )
    num_candidates: int = candidates_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.revision_beams > self.beam:
            raise InputError(
                f"--revision-beams {self.revision_beams}: no more than --beam {self.beam}, "
                "which they are chosen from"
            )
        if self.beam > 1 and self.temperature > 0:
            raise InputError(
                f"--temperature {self.temperature:g}: a beam keeps the likeliest and draws "
                "nothing; leave it out, or --beam"
            )
        if self.num_candidates > 1 and self.temperature == 0:
            raise InputError(
                f"--num-candidates {self.num_candidates}: without a --temperature, as beside a "
                "--beam, all are the same text; leave either out"
            )

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with other values; None leaves an option as it is.

        What goes with them follows: a beam draws nothing and keeps no more revisions than it is
        wide; what is drawn by top-p or as one of several has a temperature; and of several
        candidates the risk takes the place of the edit margin.

        Raises:
            TypeError: if there is no option of that name.
            InputError: if a number is out of range, a beam is to draw, or candidates are not.
        """
        self.check_names(overrides)
        given = {name: value for name, value in overrides.items() if value is not None}
        new = dict(given)
        if "beam" in new:
            new = {"revision_beams": min(self.revision_beams, max(1, new["beam"]))} | new
        if new.get("beam", 1) > 1:
            new = {"temperature": 0.0, "top_p": 1.0, "num_candidates": 1} | new
        elif self.temperature == 0 and new.get("top_p", 1.0) < 1:
            new = {"temperature": 1.0} | new
        elif self.temperature == 0 and new.get("num_candidates", 1) > 1:
            new = SEVERAL | new
        return self.with_overrides(new, given)

    def for_new_texts(self, default: EditSamplingConfig) -> EditSamplingConfig:
        """Return the options for texts that start from noise or from nothing: they are drawn.

        Args:
            default: the model's own options. Without a temperature, top-p or beam among the
                overrides, what is drawn takes the place of its values.
        """
        if {"temperature", "top_p", "beam"} & {*self.overrides}:
            return self
        return default.replace(**{**FRESH, **self.overrides})


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
    """Return the edits that are made of a text.

    Where the text has no room, the least sure insertions wait.

    Args:
        tagging: the tagger's probabilities.
        sampling: options: how sure the tagger has to be, and how much is done at once.
        left: revisions to come, this one among them.
        longest: most tokens of a text.
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
    """Return the surest of the edits, at most ``most``, from the left; of equals the first."""
    kept = {*sorted(spans, key=lambda span: -surety[span])[:most]}
    return [span for span in spans if span in kept]
