"""Evaluation of masked text models: samples, also by number of steps, and likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_ratio_of
from multidiff.text.diffusion_lm.evaluation import (
    first_of,
    measured,
    requests_like,
)
from multidiff.text.masked.model import MaskedText
from multidiff.text.masked.running_text import measure_running
from multidiff.text.metrics.comparison import (
    ORDER,
    compare,
    described,
    language_model_facts,
    mean_nats,
    rows_of,
    timed,
)
from multidiff.text.metrics.eval_split import DATA, EvalSplit, source_of
from multidiff.text.metrics.infilling import fill_blanks
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.request import TextRequest
from multidiff.text.sampling_config import TokenSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts

ENDING = "applies to texts that end, but this model writes running text"
RUNNING = "applies to running text, but this model's texts end"
# Orders of the n-grams compared with the bound, and figures of samples by number of steps.
ORDERS = (1, 2, 4)
BY_STEPS = ("nats_per_token", "entropy", "distinct_2", "copies", "seconds")


def measure(
    model: MaskedText, data: str | None, folder: Path, *, seed: int,
    sampling: TokenSamplingConfig, num: int = 500, by_steps: tuple[int, ...] = (),
    unconditional: bool = False, bound: int = 0, blanks: int = 0,
    language_model: Path | None = None, column: str = "text", meaning_column: str | None = None,
    source_column: str | None = None, headless: bool = False, held_out_every: int | None = None,
    held_out_ratio: float | None = None,
) -> Report:  # fmt: skip
    """Compare samples with real texts under an n-gram model; bound the likelihood of real texts.

    Args:
        model: the model.
        data: held-out texts, or all of which every n-th group is held out.
        folder: folder of the model, whose recipe has its training data.
        seed: random seed of the first sample; sample ``i`` uses ``seed + i``.
        sampling: sampling options.
        num: number of samples; 0 for none.
        by_steps: numbers of steps to make samples at; 0 is one step for each token.
        unconditional: sample without meaning representations and sources.
        bound: number of texts whose likelihood is bounded (NELBO); of running text chunks, 0 for
            200.
        blanks: number of texts of which a third of the tokens is filled in again.
        language_model: folder of a causal language model that scores texts too.
        column: column of the texts.
        meaning_column: column of their meaning representations.
        source_column: column of their sources, for models that read one.
        headless: the data's first row has no column names; columns are called 0, 1 and so on.
        held_out_every: n of the held-out split; by default the recipe's for its data, 0 for all.
        held_out_ratio: held-out fraction of running text, by default the recipe's.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot do it.
    """
    if not model.domain.ends:
        _refuse(
            {
                "blanks": blanks,
                "language_model": language_model,
                "unconditional": unconditional,
                "held_out_every": held_out_every,
                "meaning_column": meaning_column,
                "source_column": source_column,
                "guidance_scale": sampling.overrides.get("guidance_scale"),
            },
            ENDING,
        )
        make = _makers(model, [TextRequest()] * num, by_steps, sampling, seed)
        text, report = TextSource(DATA if data is None else data, column, running=True), Report()
        ratio = held_out_ratio_of(text, folder, held_out_ratio, report)
        return measure_running(model, text, ratio, bound, seed, make, report)
    most = checked_counts({"num": num, "bound": bound, "blanks": blanks})
    _refuse({"held_out_ratio": held_out_ratio}, RUNNING)
    report = Report()
    source = source_of(data, column, meaning_column, source_column, not headless)
    source, split = measured(model, source, folder, held_out_every, most, report)
    requests = requests_like(model, source, split, unconditional)
    if by_steps:
        make = _makers(model, first_of(requests, num), by_steps, sampling, seed)
        _by_steps(model, make, split, report)
    elif num:
        compare(model, first_of(requests, num), split, sampling, seed, report)
        language_model_facts(language_model, split, report)
    if blanks:
        fill_blanks(model, requests, blanks, split, sampling, seed, report)
    if bound:
        _bounds(model, source, split, bound, seed, report)
    return report


def _refuse(options: dict[str, Any], why: str) -> None:
    """Reject options that do not apply to a model."""
    for name, value in options.items():
        if value not in (None, 0, False):
            raise InputError(f"--{name.replace('_', '-')}: {why}; remove it")


def _makers(
    model: MaskedText,
    requests: Sequence[TextRequest],
    by_steps: Sequence[int],
    sampling: TokenSamplingConfig,
    seed: int,
) -> dict[str, Callable[[], list[str]]]:
    """Return functions that make samples at several numbers of steps, by name in the report."""
    reported = f"--by-steps {','.join(map(str, by_steps))}"
    if by_steps and not requests:
        raise InputError(f"{reported}: draws samples; set --num above 0")
    if by_steps and "steps" in sampling.overrides:
        raise InputError(f"{reported}: sets the steps, and so does --steps {sampling.steps}")
    if min(by_steps, default=0) < 0:
        raise InputError(f"{reported}: must be from 1, or 0 for one step per token")
    return {
        str(count) if count else "as tokens": partial(
            model.generate, requests, config=sampling.replace(steps=count), seed=seed
        )
        for count in by_steps
    }


def _by_steps(
    model: MaskedText, make: dict[str, Callable[[], list[str]]], split: EvalSplit, report: Report
) -> None:
    """Report samples at several numbers of steps, compared with real texts."""
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
    """Report bounds on the cost of real texts, conditional and not, compared with n-grams."""
    rows = split.fitting(model.domain.length, count, "bound")
    nothing = [TextRequest()] * len(rows)
    facts: dict[str, dict[str, float]] = {}
    requests = requests_like(model, source, split, unconditional=False)
    reported = [requests[row] for row in rows]
    texts = [split.texts[row] for row in rows]
    if reported != nothing:
        facts["reported"] = _bound_of(model, texts, reported, seed)
    facts["unconditional"] = _bound_of(model, texts, nothing, seed)
    real = [split.real[row] for row in rows]
    for order in ORDERS:
        ngram = NGramModel(split.trained or split.other, order)
        costs = mean_nats([sum(ngram.nats(one)) for one in real], [len(one) + 1 for one in real])
        facts[f"{order}-gram"] = {"total": costs.pop("per_token"), **costs}
    report.facts["bound"] = {
        name: {term: round(value, 6) for term, value in terms.items()}
        for name, terms in facts.items()
    }
    report.lines.append(f"nats for each token of {len(rows)} texts, of the model at most:")
    report.lines.extend(rows_of(facts, ["", *facts["unconditional"]]))


def _bound_of(
    model: MaskedText, texts: Sequence[str], requests: Sequence[TextRequest], seed: int
) -> dict[str, float]:
    """Return a bound per token and its terms, its standard error, and the bound per text."""
    sources, meanings = ([one.source for one in requests], [one.meaning for one in requests])
    nats = model.nats(texts, meanings, seed=seed, sources=sources)
    count = nats.pop("count").cpu()
    costs = mean_nats(sum(one.cpu() for one in nats.values()), count)
    terms = {name: float(one.sum()) / float(count.sum()) for name, one in nats.items()}
    return {"total": costs.pop("per_token"), **terms, **costs}
