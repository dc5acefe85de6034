"""Infilling accuracy: tokens removed from real texts and predicted by a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from multidiff.models.sampling_config import SamplingConfig
from multidiff.text.metrics.comparison import ORDER, columns_of
from multidiff.text.metrics.eval_split import EvalSplit
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.report import Report


def fill_blanks(
    model: TextModel,
    requests: Sequence[TextRequest],
    count: int,
    split: EvalSplit,
    sampling: SamplingConfig,
    seed: int,
    report: Report,
) -> None:
    """Report a third of the tokens of real texts filled in, by the model and by an n-gram."""
    rng = np.random.default_rng(seed)
    fits = split.fitting(model.domain.length, count, "blanks")
    real = [split.real[row] for row in fits]
    holes = [set(rng.permutation(len(one))[: max(1, len(one) // 3)].tolist()) for one in real]
    known = [
        {position: token for position, token in enumerate(one) if position not in hole}
        for one, hole in zip(real, holes, strict=True)
    ]
    asked = [
        replace(requests[row], known=there, length=len(one))
        for row, there, one in zip(fits, known, real, strict=True)
    ]
    filler = NGramModel(split.trained or split.other, ORDER)
    sets = {
        "filled by the model": [model.domain.vocabulary.numbers(one)
                                for one in model.generate(asked, config=sampling, seed=seed)],
        "by the n-gram": [filler.fill([there.get(position) for position in range(len(one))], rng)
                          for there, one in zip(known, real, strict=True)],
        "real": real,
    }  # fmt: skip
    ngram = NGramModel(split.other, ORDER)
    facts = {}
    for name, made in sets.items():
        kept = [made[row][position] == token for row, there in enumerate(known)
                for position, token in there.items()]  # fmt: skip
        found = [made[row][position] == real[row][position] for row, hole in enumerate(holes)
                 for position in hole]  # fmt: skip
        facts[name] = {
            "nats_per_token": ngram.nats_per_token(made),
            "known_kept": sum(kept) / len(kept),
            "blanks_as_real": sum(found) / len(found),
        }
    report.facts["blanks"] = facts
    report.lines.extend(columns_of(facts, tuple(facts)))
