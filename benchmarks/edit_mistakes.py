"""Mistakes in held-out sentences, and what an editor makes of them.

    python -m benchmarks.edit_mistakes edits data/e2e/trainset.csv --num 200 --seed 7

Every fifth meaning is held out, as the recipe of `edits` states. The mistakes are made here, on
words as they are typed, by code that training does not use:

    doubled   a word stands twice
    foreign   a word of another sentence is inserted or stands for another one
    strange   the same with a word that no sentence of the data has
    swapped   two neighbours change places
    dropped   a word is missing

and ``frequency`` is one step of the model's own random edits, with words by frequency. Distances
are Levenshtein's in words, from the sentence before the mistake; ``falls`` is how much less it is
after the editor.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

import torch

import multidiff as md
from benchmarks.text_source import add_source, source_of
from multidiff.core.random import generators
from multidiff.text.data.sentences import Sentences
from multidiff.text.diffuser.spelling import Spelling
from multidiff.text.metrics.scores import edit_distance

STRANGE = (
    "violin", "tomorrow", "photon", "seventeen", "glacier", "umbrella", "quietly", "parliament",
    "whale", "yesterday", "engine", "brother", "purple", "algebra", "harvest", "thunder",
)  # fmt: skip
KINDS = ("doubled", "foreign", "strange", "swapped", "dropped")


def damaged(words: Sequence[str], kind: str, other: Sequence[str], rng: random.Random) -> list[str]:
    """Return words with one mistake."""
    found, at = [*words], rng.randrange(len(words))
    if kind == "doubled":
        found.insert(at, found[at])
    elif kind == "dropped":
        del found[at]
    elif kind == "swapped":
        places = [n for n in range(len(words) - 1) if words[n] != words[n + 1]]
        at = rng.choice(places)
        found[at], found[at + 1] = found[at + 1], found[at]
    else:
        word = rng.choice(STRANGE) if kind == "strange" else rng.choice(other)
        found[at : at + rng.randrange(2)] = [word]
    return found


def figures(
    before: Sequence[Sequence[str]], after: Sequence[Sequence[str]], real: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return distances, and the fractions of sentences that are nearer, worse and whole again."""
    far = [edit_distance(a, b) for a, b in zip(before, real, strict=True)]
    near = [edit_distance(a, b) for a, b in zip(after, real, strict=True)]
    pairs = [*zip(far, near, strict=True)]
    return {
        "before": sum(far) / len(far),
        "after": sum(near) / len(near),
        "falls_percent": round(100 * (1 - sum(near) / sum(far)), 1),
        "repaired": sum(n == 0 for n in near) / len(near),
        "worse": sum(n > f for f, n in pairs) / len(pairs),
    }


def main() -> None:
    """Print a table, or JSON."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("model")
    add_source(reader)
    reader.add_argument("--num", type=int, default=200)
    reader.add_argument("--seed", type=int, default=7)
    reader.add_argument("--num-candidates", type=int)
    reader.add_argument("--edit-margin", type=float)
    reader.add_argument("--min-confidence", type=float)
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args()
    model: Any = md.load(given.model)
    vocabulary = model.domain.vocabulary
    sentences = Sentences(source_of(given), longest=model.editor.length - 4, held_out=True)
    rng = random.Random(given.seed)
    texts = sentences.texts
    chosen = rng.sample(range(len(texts)), 2 * given.num)
    split = [vocabulary.split(texts[row]) for row in chosen]
    split = [one for one in split if len(one) > 3]
    real, others = split[: given.num], split[given.num :]
    options = {
        name: getattr(given, name) for name in ("num_candidates", "edit_margin", "min_confidence")
    }

    def revised(drafts: Sequence[Sequence[str]]) -> list[list[str]]:
        typed = [Spelling(vocabulary, vocabulary.join(one)) for one in drafts]
        histories = model.revise([one.tokens for one in typed], **options)
        pairs = zip(typed, histories, strict=True)
        return [vocabulary.split(one.texts(history)[-1]) for one, history in pairs]

    found = {}
    for kind in KINDS:
        drafts = [damaged(one, kind, others[n % len(others)], rng) for n, one in enumerate(real)]
        found[kind] = figures(drafts, revised(drafts), real)
    found["frequency"] = by_frequency(model, real, revised)
    kept = [a == b for a, b in zip(revised(real), real, strict=True)]
    found["clean"] = {"untouched": sum(kept) / len(kept)}
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for kind, one in found.items():
        print(f"{kind:>10}  " + "  ".join(f"{name} {value:.3g}" for name, value in one.items()))


def by_frequency(model: Any, real: Sequence[Sequence[str]], revised: Any) -> dict[str, float]:
    """Return figures of one step of random edits, with words by frequency."""
    vocabulary, process = model.domain.vocabulary, model.corruption("frequency")
    drafts = []
    for words, rng in zip(real, generators(range(len(real))), strict=True):
        tokens = vocabulary.numbers(vocabulary.join(words))
        state = process.corrupt(tokens, 1, rng)[-1].tokens[: model.editor.length]
        drafts.append(vocabulary.split(vocabulary.text(state)))
    with torch.no_grad():
        return figures(drafts, revised(drafts), real)


if __name__ == "__main__":
    main()
