"""Evaluation of models that answer prompts: a bound on the likelihood of real answers."""

from __future__ import annotations

from pathlib import Path

from multidiff.text.data.split import held_out_of
from multidiff.text.masked_lm.model import PromptedText
from multidiff.text.metrics.comparison import mean_nats, rows_of
from multidiff.text.metrics.eval_split import source_of
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts


def measure(
    model: PromptedText,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    bound: int = 100,
    column: str = "text",
    source_column: str = "source",
    held_out_every: int | None = None,
) -> Report:
    """Bound the cost of real answers, given their prompts and alone (NELBO).

    The length of an answer is given; its END counts as a token.

    Args:
        model: the model.
        data: prompts and answers, held out, or all of which every n-th is held out.
        folder: folder of the model, whose recipe has its training data.
        seed: random seed of the first answer's masks; answer ``i`` uses ``seed + i``.
        bound: number of answers, the first ones that fit the model.
        column: column of the answers.
        source_column: column of the prompts.
        held_out_every: n of the held-out split; by default the recipe's for its data, 0 for all.

    Raises:
        InputError: if there are no data, or no answer that fits.
    """
    if data is None:
        raise InputError("DATA is missing: give a table of prompts and answers")
    most = checked_counts({"bound": bound})
    report = Report()
    source = held_out_of(source_of(data, column, None, source_column), folder, held_out_every,
                         report)  # fmt: skip
    found = source.listing()
    rows = source.rows(found, held_out=source.held_out_every > 0)
    sources = found.sources or [""] * len(found.texts)
    words, longest = model.domain.vocabulary, model.domain.source_length
    fits = [
        row
        for row in rows
        if 0 < len(words.numbers(found.texts[row])) < model.domain.length
        and len(words.numbers(model.domain.prompt(sources[row]))) <= longest
    ][:most]
    if not fits:
        raise InputError(f"{data}: no answer and prompt fit the model; it reads prompts of up to "
                         f"{longest} tokens")  # fmt: skip
    texts, prompts = [found.texts[row] for row in fits], [sources[row] for row in fits]
    facts: dict[str, dict[str, float]] = {}
    for name, asked in {"given the prompt": prompts, "alone": [""] * len(fits)}.items():
        nats = model.nats(texts, [{}] * len(fits), seed=seed, sources=asked)
        facts[name] = mean_nats(nats["tokens"], nats["count"])
    report.facts["bound"] = facts
    report.lines.append(f"nats for each token of {len(fits)} answers, at most:")
    report.lines.extend(rows_of(facts, ["", *facts["alone"]]))
    return report
