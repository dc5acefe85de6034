"""Options of revising drafts, and the choice among a tagger's edits."""

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
# With nothing to correct, the likeliest text is always the same: tokens are drawn instead. Drawn
# tokens are revised too, if they are wrong with a probability above one in twenty.
FRESH = {
    "temperature": 1.0, "top_p": 0.95, "edit_margin": -3.0, "min_confidence": 0.0,
    "num_candidates": 1,
}  # fmt: skip
# Several candidates are drawn from the model's distribution, so that they can be averaged over;
# their risk replaces the edit margin and the confidence.
SEVERAL = {
    "temperature": 1.0, "edit_margin": 0.0, "min_confidence": 0.0, "beam": 1, "revision_beams": 1,
}  # fmt: skip


@dataclass(frozen=True)
class EditSamplingConfig(OptionSet):
    """Options of revising drafts.

    Attributes:
        steps: largest number of revisions.
        edits_per_step: whether to make all edits that the tagger wants, or an even fraction of
            them, the most certain first.
        edit_margin: nats by which an edit must be likelier than keeping the text.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        top_p: nucleus sampling: draw among the likeliest tokens up to this probability; 0.6 in
            the paper.
        beam: number of token sequences kept while writing; 1 draws one.
        revision_beams: number of texts kept from revision to revision (the paper's second beam).
        num_candidates: number of draws of the written tokens, of which each edit takes the one
            of minimum Bayes risk (:mod:`multidiff.text.diffuser.mbr`).
        min_confidence: least probability that an edit is right: of being edited, times that of
            the written tokens; 0 makes every edit that the tagger wants. As GECToR's
            ``min_error_probability`` (Omelianchuk et al. 2020), but with the tokens counted.

    Raises:
        InputError: if a number is out of range, or beam and candidates contradict the
            temperature.
    """

    steps: int = option(12, "largest number of revisions", least=1, most=MOST_STEPS)
    edits_per_step: EditsPerStep = option(
        "all", "make all edits at once, or an even fraction of them", choices=("all", "even")
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
    min_confidence: float = option(
        0.0,
        "least probability that an edit and its tokens are right",
        least=0,
        most=1,
        note="0 makes every edit that the tagger wants",
    )

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
                "nothing; remove it, or --beam"
            )
        if self.num_candidates > 1 and self.temperature == 0:
            raise InputError(
                f"--num-candidates {self.num_candidates}: without a --temperature, as beside a "
                "--beam, all are the same text; remove either"
            )
        if self.num_candidates > 1 and self.min_confidence > 0:
            raise InputError(
                f"--min-confidence {self.min_confidence:g}: of several candidates those of least "
                "risk are made, whatever their confidence; remove it, or --num-candidates"
            )

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with other values; None keeps an option.

        Dependent options follow: a beam draws nothing and keeps no more revisions than its
        width; tokens drawn by top-p or as one of several candidates have a temperature; for
        several candidates the risk replaces the edit margin and the confidence; and where the
        options have several, a confidence or temperature 0 asks for one.

        Raises:
            TypeError: if an option is unknown.
            InputError: if a number is out of range, or beam and candidates contradict the
                temperature.
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
        elif self.num_candidates > 1 and (
            new.get("num_candidates") == 1
            or ("num_candidates" not in new and _needs_one_candidate(new))
        ):
            new = {"num_candidates": 1, "temperature": 0.0} | new
        return self.with_overrides(new, given)

    def for_new_texts(self, default: EditSamplingConfig) -> EditSamplingConfig:
        """Return the options for texts that start from noise or from nothing, which are drawn.

        Args:
            default: the model's own options. Without a temperature, top-p or beam among the
                overrides, the values for drawing replace its values; with one, only those of the
                confidence and the candidates do.
        """
        if {"temperature", "top_p", "beam"} & {*self.overrides}:
            names = ("min_confidence", "num_candidates")
            own = {name: self.overrides.get(name, FRESH[name]) for name in names}
            return self.with_overrides(own, {})
        return default.replace(**{**FRESH, **self.overrides})


def _needs_one_candidate(overrides: Mapping[str, Any]) -> bool:
    return overrides.get("min_confidence", 0) > 0 or overrides.get("temperature") == 0


@dataclass(frozen=True)
class Choice:
    """The edits of one text that are made at once.

    Attributes:
        spans: edits from the left, separated by kept tokens, with nothing written yet.
        tagging: tagging that they were chosen by.
    """

    spans: tuple[Span, ...]
    tagging: Tagging

    @property
    def score(self) -> float:
        """Return the log probability that the tagger gives all of them, in nats."""
        return self.tagging.score(self.spans)


def choose(tagging: Tagging, sampling: EditSamplingConfig, left: int, longest: int) -> Choice:
    """Return the edits to make in a text.

    If a text would become too long, the least certain insertions wait.

    Args:
        tagging: the tagger's probabilities.
        sampling: options: required certainty, and number of edits at once.
        left: number of revisions to come, including this one.
        longest: largest number of tokens of a text.
    """
    spans = tagging.edits(sampling.edit_margin)
    surety = {span: tagging.surety(span) for span in spans}
    if sampling.edits_per_step == "even":
        spans = _surest(spans, surety, math.ceil(len(spans) / left))
    # A replacement writes at least one token for those it removes, so it fits.
    room = longest - len(tagging) + sum(s.stop - s.start for s in spans if s.edit == DELETE)
    inserted = [span for span in spans if span.edit == INSERT]
    waiting = {*inserted} - {*_surest(inserted, surety, room)}
    return Choice(tuple(span for span in spans if span not in waiting), tagging)


def _surest(spans: Sequence[Span], surety: Mapping[Span, float], most: int) -> list[Span]:
    """Return the most certain edits, at most ``most``, from the left; the first of equals."""
    kept = {*sorted(spans, key=lambda span: -surety[span])[:most]}
    return [span for span in spans if span in kept]
