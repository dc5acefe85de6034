"""How good a model of masked texts is, by number of steps too, and what its likelihood is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_ratio_of
from multidiff.text.diffusion_lm.evaluation import (
    bound_of,
    first_of,
    measured,
    report_made,
    requests_like,
)
from multidiff.text.masked.model import MaskedText
from multidiff.text.masked.running_text import measure_running
from multidiff.text.metrics.comparison import ORDER, described, rows_of, timed
from multidiff.text.metrics.eval_split import DATA, EvalSplit, source_of
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts

ENDING = "is of texts that end, and this model writes running text"
RUNNING = "is of running text, and this model's texts end"
# Of the n-grams beside the bound, and what is told of samples by number of steps.
ORDERS = (2, 4)
BY_STEPS = ("nats_per_token", "entropy", "distinct_2", "copies", "seconds")


def measure(
    model: MaskedText, data: str | None, folder: Path, *,
    steps: int | None = None, sampler: str | None = None, seed: int = 0,
    guidance_scale: float | None = None, temperature: float | None = None,
    top_p: float | None = None, num: int = 500, by_steps: tuple[int, ...] = (),
    unconditional: bool = False, num_candidates: int = 1,
    bound: int = 0, blanks: int = 0, language_model: Path | None = None,
    column: str = "text", meaning_column: str | None = None, source_column: str | None = None,
    held_out_every: int | None = None, held_out_ratio: float | None = None,
) -> Report:  # fmt: skip
    """Samples beside real texts under an n-gram; bounds, of running text in bits a character.

    Args:
        model: the model.
        data: held-out texts, or all of which every so many-th group is held out.
        folder: of the model, whose recipe says what it was trained on.
        steps: of the walk.
        sampler: ancestral, confidence, random, remasking, entropy, margin, remdm or
            first-hitting.
        seed: of the first sample's draws; the others follow.
        guidance_scale: scale of the meanings, or of the sources.
        temperature: of the tokens.
        top_p: tokens are drawn among the likeliest up to this probability.
        num: samples; 0 draws none.
        by_steps: so many samples at each of these numbers of steps; 0 is as many as tokens.
        unconditional: samples are told no meaning, and no source.
        num_candidates: drawn for each sample.
        bound: texts whose likelihood is bounded; of running text stretches, 0 for 200 of them.
        blanks: texts of which a third of the tokens is filled in again.
        language_model: folder of a causal language model that judges too.
        column: of the texts.
        meaning_column: of their meanings.
        source_column: of what they are made from, for models that read that.
        held_out_every: of the split; the recipe's where the data trained the model, 0 for all.
        held_out_ratio: of running text, by default as in the recipe.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    how: dict[str, Any] = {"sampler": sampler, "guidance_scale": guidance_scale, "seed": seed}
    how |= {"temperature": temperature, "top_p": top_p, "num_candidates": num_candidates}
    if not model.domain.ends:
        _refuse(
            {
                "blanks": blanks,
                "language-model": language_model,
                "unconditional": unconditional,
                "held-out-every": held_out_every,
                "meaning-column": meaning_column,
                "source-column": source_column,
                "guidance_scale": guidance_scale,
            },
            ENDING,
        )
        make = _makers(model, [TextRequest()] * num, by_steps, steps, how)
        text, report = TextSource(DATA if data is None else data, column, running=True), Report()
        ratio = held_out_ratio_of(text, folder, held_out_ratio, report)
        return measure_running(model, text, ratio, bound, seed, make, report)
    most = checked_counts({"num": num, "bound": bound, "blanks": blanks})
    _refuse({"held-out-ratio": held_out_ratio}, RUNNING)
    source, report = source_of(data, column, meaning_column, source_column), Report()
    source, split = measured(model, source, folder, held_out_every, most, report)
    requests = requests_like(model, source, split, unconditional)
    if by_steps:
        make = _makers(model, first_of(requests, num), by_steps, steps, how)
        _by_steps(model, make, split, report)
        num = 0
    how["steps"] = steps
    report_made(model, requests, split, how, num, blanks, language_model, report)
    if bound:
        _bounds(model, source, split, bound, seed, report)
    return report


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that a model does not take."""
    for name, value in options.items():
        if value not in (None, 0, False):
            raise InputError(f"--{name.replace('_', '-')}: {why}; leave it out")


def _makers(
    model: MaskedText,
    requests: Sequence[TextRequest],
    by_steps: Sequence[int],
    steps: int | None,
    how: dict[str, Any],
) -> dict[str, Callable[[], list[str]]]:
    """What draws samples of walks of several lengths, by what each is called."""
    reported = f"--by-steps {','.join(map(str, by_steps))}"
    if by_steps and not requests:
        raise InputError(f"{reported}: draws samples; set --num above 0")
    if by_steps and steps is not None:
        raise InputError(f"{reported}: says the steps, and so does --steps {steps}")
    if min(by_steps, default=0) < 0:
        raise InputError(f"{reported}: from 1, and 0 for as many as a text has tokens")
    alone = None if model.sampling.steps == 0 else model.domain.length
    return {
        str(count) if count else "as tokens": partial(
            model.generate, requests, **how, steps=count or alone
        )
        for count in by_steps
    }


def _by_steps(
    model: MaskedText, make: dict[str, Callable[[], list[str]]], split: EvalSplit, report: Report
) -> None:
    """Samples of walks of several lengths beside real texts."""
    ngram, words = NGramModel(split.other, ORDER), model.domain.vocabulary.numbers
    facts: dict[str, dict[str, float]] = {}
    for name, texts_of in make.items():
        texts, seconds = timed(texts_of)
        made = [words(text) for text in texts]
        facts[name] = {**described(made, ngram, split.trained), "seconds": seconds}
    facts["real"] = described(split.real, ngram, split.trained)
    keys = [key for key in BY_STEPS if any(key in reported for reported in facts.values())]
    report.facts["by_steps"] = facts
    report.lines.extend(rows_of(facts, ["steps", *keys], 3))


def _bounds(
    model: MaskedText, source: TextSource, split: EvalSplit, count: int, seed: int, report: Report
) -> None:
    """What real texts cost at most, told and untold, beside n-grams of the same texts."""
    rows = split.fitting(model.domain.length, count, "bound")
    nothing = [TextRequest()] * len(rows)
    facts: dict[str, dict[str, float]] = {}
    requests = requests_like(model, source, split, unconditional=False)
    reported = [requests[row] for row in rows]
    if reported != nothing:
        facts["reported"] = bound_of(model, reported, split, rows, seed)
    facts["unconditional"] = bound_of(model, nothing, split, rows, seed)
    real = [split.real[row] for row in rows]
    for request in ORDERS:
        ngram = NGramModel(split.trained or split.other, request)
        facts[f"{request}-gram"] = {"total": ngram.nats_per_token(real)}
    report.facts["bound"] = {
        name: {term: round(value, 4) for term, value in terms.items()}
        for name, terms in facts.items()
    }
    report.lines.append(f"nats for each token of {len(rows)} texts, of the model at most:")
    report.lines.extend(rows_of(facts, ["", *facts["unconditional"]]))
