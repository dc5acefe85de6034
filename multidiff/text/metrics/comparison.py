"""Generated texts compared with real ones: probability, diversity, control accuracy, copies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.models.sampling_config import SamplingConfig
from multidiff.text.metrics.attribute_classifier import AttributeClassifier
from multidiff.text.metrics.causal import causal_reading
from multidiff.text.metrics.eval_split import EvalSplit
from multidiff.text.metrics.mauve import mauve
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.metrics.scores import (
    bleu,
    copy_rate,
    distinct,
    entropy,
    self_bleu,
)
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.report import Report, table

ORDER = 4  # order of the scoring n-gram model
REAL_OUTLIERS = 0.01  # fraction of the real texts that count as outliers
LEAST_FEATURES = 50  # texts of a set, for MAUVE


def compare(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    sampling: SamplingConfig,
    seed: int,
    report: Report,
) -> None:
    """Report samples and real texts side by side."""
    texts, seconds = timed(lambda: model.generate(requests, config=sampling, seed=seed))
    made = [model.domain.vocabulary.numbers(text) for text in texts]
    ngram = NGramModel(split.other, ORDER)
    sets = {"samples": made, "real": split.real}
    facts = {name: described(tokens, ngram, split.trained) for name, tokens in sets.items()}
    for name, fraction in outliers(sets, ngram).items():
        facts[name]["outliers"] = fraction
    if any(request.meaning or request.source for request in requests):
        group_by_length: dict[str, list[list[int]]] = {}
        for group, tokens in zip(split.groups, split.real, strict=True):
            group_by_length.setdefault(group, []).append(tokens)
        wanted = [split.groups[i % len(split.groups)] for i in range(len(made))]
        facts["samples"]["bleu"] = bleu(made, [group_by_length[group] for group in wanted])
    if any(request.meaning for request in requests):
        facts |= _obedience(made, split)
    report.facts.update({**facts, "wall_seconds": round(seconds, 2), "texts": texts})
    report.lines.extend(_table(facts))


def language_model_facts(folder: Path | None, split: EvalSplit, report: Report) -> None:
    """Report samples and real texts under a causal language model, if one is given."""
    if folder is None:
        return
    found: dict[str, dict[str, float]] = {}
    features = {}
    for name, texts in (("samples", report.facts["texts"]), ("real", split.texts)):
        nats, features[name] = causal_reading(texts, folder)
        # A low perplexity with a low entropy is repetition (Zheng et al. 2024, arXiv 2409.02908).
        entropy = report.facts[name]["entropy"]
        found[name] = {"nats": nats, "perplexity": math.exp(nats), "entropy": entropy}
    if min(map(len, features.values())) >= LEAST_FEATURES:
        found["samples"]["mauve"] = mauve(features["samples"], features["real"])
    report.facts["language_model"] = found
    report.lines.append(f"generative perplexity, for each token of {folder}, beside the entropy:")
    report.lines.extend(rows_of(found, ["", *found["samples"]], 3))


def described(
    tokens: Sequence[Sequence[int]], ngram: NGramModel, trained: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return statistics of a set of texts."""
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


def outliers(sets: Mapping[str, Sequence[Sequence[int]]], ngram: NGramModel) -> dict[str, float]:
    """Return the fraction of each set's texts that cost more than the worst 1 % of the real ones.

    A mean hides a few broken texts among bland ones. The cost is in nats a token.

    Args:
        sets: token rows of each set, "real" among them.
        ngram: the scoring model.
    """
    nats = {
        name: np.array([ngram.nats_per_token([row]) for row in rows]) for name, rows in sets.items()
    }
    limit = np.quantile(nats["real"], 1 - REAL_OUTLIERS)
    return {name: float((cost > limit).mean()) for name, cost in nats.items()}


def _obedience(made: Sequence[Sequence[int]], split: EvalSplit) -> dict[str, dict[str, float]]:
    """Return how often the classifier finds the requested values, in samples and real texts."""
    classifier = AttributeClassifier(split.other, split.other_meanings)
    wanted = [split.meanings[i % len(split.meanings)] for i in range(len(made))]
    return {
        "obeyed": classifier.accuracy(made, wanted),
        "obeyed_by_real": classifier.accuracy(split.real, split.meanings),
    }


def _table(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    pairs = (("samples", "real"), ("obeyed", "obeyed_by_real"))
    return [line for names in pairs if names[0] in facts for line in columns_of(facts, names)]


def columns_of(facts: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """Format some of the facts as a table, a column for each."""
    keys = list(dict.fromkeys(key for name in names for key in facts[name]))
    rows = [
        [key, *(f"{facts[name][key]:.3f}" if key in facts[name] else "-" for name in names)]
        for key in keys
    ]
    return table([["", *names], *rows])


def rows_of(
    facts: Mapping[str, Mapping[str, float]], heading: Sequence[str], digits: int = 4
) -> list[str]:
    """Format some of the facts as a table, a row for each; the heading has the column names."""
    corner, *keys = heading
    rows = [
        [name, *(f"{reported[key]:.{digits}f}" if key in reported else "-" for key in keys)]
        for name, reported in facts.items()
    ]
    return table([[corner, *keys], *rows])


def mean_nats(nats: Any, counts: Any) -> dict[str, float]:
    """Return nats per token and per text, and the standard error of the first.

    Args:
        nats: nats of each text.
        counts: number of its tokens.
    """
    cost, tokens = np.asarray(nats, dtype=float), np.asarray(counts, dtype=float)
    mean = cost.sum() / tokens.sum()
    found = {"per_token": mean, "per_text": cost.mean()}
    if len(cost) > 1:
        found["error"] = (cost - mean * tokens).std(ddof=1) / tokens.mean() / len(cost) ** 0.5
    return {name: round(float(value), 5) for name, value in found.items()}


def timed(make: Callable[[], list[str]]) -> tuple[list[str], float]:
    """Return a function's result, and the seconds it took."""
    began = time.perf_counter()
    return make(), time.perf_counter() - began
