"""How well a model fills in what was taken out of real texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from multidiff.text.metrics.comparison import ORDER, columns_of
from multidiff.text.metrics.eval_split import Halves
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.model import TextModel
from multidiff.text.request import TextOrder
from multidiff.utils.report import Report


def fill_blanks(
    model: TextModel,
    orders: Sequence[TextOrder],
    count: int,
    halves: Halves,
    how: dict[str, Any],
    report: Report,
) -> None:
    """A third of the tokens of real texts filled in, by the model and by an n-gram."""
    rng = np.random.default_rng(how["seed"])
    fits = halves.fitting(model.domain.length, count, "blanks")
    real = [halves.real[row] for row in fits]
    holes = [set(rng.permutation(len(one))[: max(1, len(one) // 3)].tolist()) for one in real]
    known = [
        {place: token for place, token in enumerate(one) if place not in hole}
        for one, hole in zip(real, holes, strict=True)
    ]
    asked = [
        replace(orders[row], known=there, length=len(one))
        for row, there, one in zip(fits, known, real, strict=True)
    ]
    filler = NGramModel(halves.trained or halves.other, ORDER)
    sets = {
        "filled by the model": [model.domain.vocabulary.numbers(one)
                                for one in model.generate(asked, **how)],
        "by the n-gram": [filler.fill([there.get(place) for place in range(len(one))], rng)
                          for there, one in zip(known, real, strict=True)],
        "real": real,
    }  # fmt: skip
    judge = NGramModel(halves.other, ORDER)
    facts = {}
    for name, made in sets.items():
        kept = [made[row][place] == token for row, there in enumerate(known)
                for place, token in there.items()]  # fmt: skip
        found = [made[row][place] == real[row][place] for row, hole in enumerate(holes)
                 for place in hole]  # fmt: skip
        facts[name] = {
            "nats_per_token": judge.nats_per_token(made),
            "known_kept": sum(kept) / len(kept),
            "blanks_as_real": sum(found) / len(found),
        }
    report.facts["blanks"] = facts
    report.lines.extend(columns_of(facts, tuple(facts)))
