"""Continuations of held-out beginnings, beside the real ones.

    python -m benchmarks.continuations masked data/e2e/trainset.csv

Fifty held-out sentences of known words, evenly spread, are cut after a third of their words, and
the model continues each with its defaults, as by ``multidiff sample masked --infill BEGINNING``.
Nats are those of the new words and of END, under the 4-gram of other held-out sentences by which
``multidiff eval`` judges. A continuation is closed if END is written before the longest length,
and ends if its last word is a full stop, question or exclamation mark.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import multidiff as md
from benchmarks.text_source import add_source, source_of
from multidiff.text.cli import requests_of
from multidiff.text.data.vocabulary import UNKNOWN
from multidiff.text.metrics.comparison import ORDER
from multidiff.text.metrics.eval_split import eval_split
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.metrics.scores import distinct

STOPS = {".", "!", "?"}
LEAST_WORDS = 6


def nats_after(ngram: NGramModel, texts: Sequence[Sequence[int]], known: Sequence[int]) -> float:
    """Return the mean nats of each token after the known ones, END included."""
    scores = [one for text, n in zip(texts, known, strict=True) for one in ngram.nats(text)[n:]]
    return sum(scores) / len(scores)


def main() -> None:
    """Print figures and some continuations, or JSON."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("model")
    add_source(reader)
    reader.add_argument("--num", type=int, default=50)
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--temperature", type=float)
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args()
    model: Any = md.load(given.model)
    words = model.domain.vocabulary
    split = eval_split(source_of(given), words, 10 * given.num)
    fitting = [one for one in split.real if LEAST_WORDS <= len(one) < model.domain.length]
    fitting = [one for one in fitting if UNKNOWN not in one]
    real = fitting[:: max(1, len(fitting) // given.num)][: given.num]
    known = [max(2, len(one) // 3) for one in real]
    begun = [words.text(one[:n]) for one, n in zip(real, known, strict=True)]
    asked = requests_of(model, [], begun, None, [])
    options = {} if given.temperature is None else {"temperature": given.temperature}
    texts = model.generate([one.request for one in asked], seed=given.seed, **options)
    made = [words.numbers(text) for text in texts]
    ngram = NGramModel(split.other, ORDER)
    triples = [*zip(made, real, known, strict=True)]
    found = {
        "continue": sum(len(one) > n for one, _, n in triples) / len(made),
        "keep": sum(one[:n] == other[:n] for one, other, n in triples) / len(made),
        "closed": sum(len(one) < model.domain.length - 1 for one in made) / len(made),
        "end": sum(words.text(one[-1:]) in STOPS for one in made) / len(made),
        "end_real": sum(words.text(one[-1:]) in STOPS for one in real) / len(real),
        "nats": nats_after(ngram, made, known),
        "nats_real": nats_after(ngram, real, known),
        "distinct_2": distinct(made, 2),
        "distinct_2_real": distinct(real, 2),
    }
    if given.json:
        print(json.dumps({**found, "texts": texts}, indent=1))
        return
    for name, value in found.items():
        print(f"{name:>16}  {value:.3f}")
    for beginning, text in zip(begun[:5], texts, strict=False):
        print(f"  {beginning} |{text.removeprefix(beginning)}")


if __name__ == "__main__":
    main()
