"""What made texts are like, beside real ones: probable, varied, obedient, and no copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multidiff.text.metrics.attribute_classifier import Judge
from multidiff.text.metrics.eval_split import Halves
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.metrics.scores import (
    bleu,
    causal_nats_per_token,
    copy_rate,
    distinct,
    entropy,
    self_bleu,
)
from multidiff.text.model import TextModel
from multidiff.text.request import TextOrder
from multidiff.utils.report import Report, table

ORDER = 4  # of the n-gram that judges


def compare(
    model: TextModel,
    orders: Sequence[TextOrder],
    halves: Halves,
    how: dict[str, Any],
    report: Report,
) -> None:
    """Samples and real texts side by side."""
    texts, seconds = timed(lambda: model.generate(orders, **how))
    made = [model.domain.vocabulary.numbers(text) for text in texts]
    ngram = NGramModel(halves.other, ORDER)
    sets = {"samples": made, "real": halves.real}
    facts = {name: described(tokens, ngram, halves.trained) for name, tokens in sets.items()}
    if any(order.meaning or order.source for order in orders):
        alike: dict[str, list[list[int]]] = {}
        for group, tokens in zip(halves.groups, halves.real, strict=True):
            alike.setdefault(group, []).append(tokens)
        wanted = [halves.groups[i % len(halves.groups)] for i in range(len(made))]
        facts["samples"]["bleu"] = bleu(made, [alike[group] for group in wanted])
    if any(order.meaning for order in orders):
        facts |= _obedience(made, halves)
    report.facts.update({**facts, "wall_seconds": round(seconds, 2), "texts": texts})
    report.lines.extend(_table(facts))


def judge_by(folder: Path | None, halves: Halves, report: Report) -> None:
    """Samples and real texts under a causal language model, where one is given."""
    if folder is None:
        return
    found = {
        name: causal_nats_per_token(texts, folder)
        for name, texts in (("samples", report.facts["texts"]), ("real", halves.texts))
    }
    report.facts["language_model"] = found
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    report.lines.append(f"nats for each of its tokens under {folder}: {told}")


def described(
    tokens: Sequence[Sequence[int]], ngram: NGramModel, trained: Sequence[Sequence[int]]
) -> dict[str, float]:
    """What a set of texts is like."""
    facts = {
        "nats_per_token": ngram.nats_per_token(tokens),
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "entropy": entropy(tokens),
        "length": sum(map(len, tokens)) / len(tokens),
    }
    if len(tokens) > 1:
        facts["self_bleu"] = self_bleu(tokens, most=100)
    return facts | ({"copies": copy_rate(tokens, trained)} if trained else {})


def _obedience(made: Sequence[Sequence[int]], halves: Halves) -> dict[str, dict[str, float]]:
    """How often the judge finds said what was to be said, in samples and in real texts."""
    judge = Judge(halves.other, halves.other_meanings)
    wanted = [halves.meanings[i % len(halves.meanings)] for i in range(len(made))]
    return {
        "obeyed": judge.accuracy(made, wanted),
        "obeyed_by_real": judge.accuracy(halves.real, halves.meanings),
    }


def _table(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    pairs = (("samples", "real"), ("obeyed", "obeyed_by_real"))
    return [line for names in pairs if names[0] in facts for line in columns_of(facts, names)]


def columns_of(facts: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """Some of the facts as a table, a column for each."""
    keys = list(dict.fromkeys(key for name in names for key in facts[name]))
    rows = [
        [key, *(f"{facts[name][key]:.3f}" if key in facts[name] else "-" for name in names)]
        for key in keys
    ]
    return table([["", *names], *rows])


def rows_of(
    facts: Mapping[str, Mapping[str, float]], heading: Sequence[str], digits: int = 4
) -> list[str]:
    """Some of the facts as a table, a row for each; the heading names its corner and the facts."""
    corner, *keys = heading
    rows = [
        [name, *(f"{told[key]:.{digits}f}" if key in told else "-" for key in keys)]
        for name, told in facts.items()
    ]
    return table([[corner, *keys], *rows])


def timed(make: Callable[[], list[str]]) -> tuple[list[str], float]:
    """What is made, and how many seconds that took."""
    began = time.perf_counter()
    return make(), time.perf_counter() - began
