"""Corrections of English sentences, judged by F0.5 of word edits.

    uv pip install codespell symspellpy
    python -m benchmarks.english_edits english-edits data/english.txt \
        --training data/english_training.txt

An edit is all that differs between two words that stay, by a minimal alignment; it counts if the
same words are changed into the same words (as in the evaluation of grammatical error correction,
where recall counts half as much as precision; Bryant et al. 2017). Three sets:

    slips    200 held-out sentences, a misspelling of codespell's dictionary in one or two words of
             each, which training does not know
    by hand  100 sentences damaged by hand (english_mistakes.txt)
    clean    the first 200 without slips; every edit is wrong

Beside the model: symspellpy, with its own dictionary and with the words of the training sentences
too; and a 4-gram of the training sentences, which takes words of at least two occurrences at one
edit (insertion, deletion, replacement or swap of letters) and the deletion of a doubled word if the
log probability rises by a margin. That margin, and symspellpy's distance, are chosen here on 200
other held-out sentences with the mistakes of training; ``--tune`` lists the model's margins and
confidences there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.text_source import add_source, source_of
from multidiff.core.edit.alignment import align_many

WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
HAND = Path(__file__).with_name("english_mistakes.txt")
Pair = tuple[str, str]
Corrector = Callable[[Sequence[str]], list[str]]


def by_hand() -> list[Pair]:
    """Return the sentences damaged by hand, and the clean ones."""
    lines = [line for line in HAND.read_text("utf-8").splitlines() if not line.startswith("#")]
    pairs = [line.split(" | ") for line in lines]
    return [(damaged, clean) for damaged, clean in pairs]


def codespell_slips() -> dict[str, list[str]]:
    """Return the misspellings of each word in codespell's dictionary."""
    import codespell_lib

    path = Path(os.path.dirname(codespell_lib.__file__), "data", "dictionary.txt")
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        wrong, _, right = line.partition("->")
        words = right.split(",")
        several = right.endswith(",")
        if wrong.isalpha() and (several or len(words) == 1):
            for word in words:
                if word.strip().isalpha():
                    found.setdefault(word.strip(), []).append(wrong)
    return found


def with_slips(sentences: Sequence[str], count: int, rng: random.Random) -> list[Pair]:
    """Return sentences with a misspelling in one or two of their words."""
    slips, pairs = codespell_slips(), []
    for sentence in sentences:
        places = [m for m in WORD.finditer(sentence) if m[0].lower() in slips]
        places = [m for m in places if m[0].islower() or m[0].istitle()]
        if not places or len(pairs) == count:
            continue
        damaged = sentence
        chosen = rng.sample(places, min(len(places), 1 + (rng.random() < 0.3)))
        for place in sorted(chosen, key=lambda m: -m.start()):
            wrong = rng.choice(slips[place[0].lower()])
            wrong = wrong.capitalize() if place[0].istitle() else wrong
            damaged = damaged[: place.start()] + wrong + damaged[place.end() :]
        pairs.append((damaged, sentence))
    return pairs


def with_mistakes(sentences: Sequence[str], seed: int) -> list[Pair]:
    """Return sentences with the mistakes of training, to choose margins by."""
    from multidiff.core.random import generators, uniforms
    from multidiff.text.diffuser.writing_mistakes import WritingMistakes

    made = WritingMistakes(mean=1.5)
    rngs = generators(range(seed, seed + len(sentences)))
    return [
        (made.damaged(one, uniforms(rng)), one) for one, rng in zip(sentences, rngs, strict=True)
    ]


def edits(befores: Sequence[str], afters: Sequence[str]) -> list[set[tuple[int, int, str]]]:
    """Return the edits of each pair: first and last word changed, and the new words."""
    pairs = [(WORD.findall(a), WORD.findall(b)) for a, b in zip(befores, afters, strict=True)]
    names = {word: n for n, word in enumerate({w for pair in pairs for one in pair for w in one})}
    back = list(names)
    first, second = ([[names[w] for w in pair[side]] for pair in pairs] for side in (0, 1))
    return [
        {(s.start, s.stop, " ".join(back[n] for n in s.tokens)) for s in one.passages()}
        for one in align_many(first, second)
    ]


def judged(pairs: Sequence[Pair], corrected: Sequence[str]) -> dict[str, float]:
    """Return precision, recall and F0.5 of corrections, and the fraction of whole sentences."""
    damaged, clean = zip(*pairs, strict=True)
    wanted, made = edits(damaged, clean), edits(damaged, corrected)
    right = sum(len(a & b) for a, b in zip(wanted, made, strict=True))
    proposed, needed = sum(map(len, made)), sum(map(len, wanted))
    precision = right / proposed if proposed else float(not needed)
    recall = right / needed if needed else 1.0
    both = 0.25 * precision + recall
    return {
        "precision": precision, "recall": recall,
        "F0.5": 1.25 * precision * recall / both if both else 0.0,
        "whole": sum(a == b for a, b in zip(corrected, clean, strict=True)) / len(pairs),
    }  # fmt: skip


def symspell(words: Counter[str] | None, distance: int) -> Corrector:
    """Return symspellpy, word by word; it leaves words with apostrophes and numbers alone."""
    from symspellpy import SymSpell, Verbosity

    speller = SymSpell(max_dictionary_edit_distance=2, prefix_length=7)
    folder = Path(__import__("symspellpy").__file__).parent
    speller.load_dictionary(str(folder / "frequency_dictionary_en_82_765.txt"), 0, 1)
    for word, count in (words or {}).items():
        if word.isalpha():
            speller.create_dictionary_entry(word, count)

    def better(match: re.Match[str]) -> str:
        word = match[0]
        if not word.isalpha() or len(word) == 1:
            return word
        found = speller.lookup(
            word, Verbosity.TOP, max_edit_distance=distance, include_unknown=True,
            transfer_casing=True,
        )  # fmt: skip
        return found[0].term

    return lambda texts: [WORD.sub(better, text) for text in texts]


class NGramCorrector:
    """A 4-gram that exchanges words as long as a sentence becomes more probable.

    Args:
        sentences: training sentences.
        margin: nats by which each edit must raise the log probability.
    """

    def __init__(self, sentences: Sequence[str], margin: float):
        from multidiff.text.metrics.ngram import NGramModel

        split = [[word.lower() for word in WORD.findall(one)] for one in sentences]
        self.model, self.margin = NGramModel(split, 4), margin
        self.counts = Counter(word for one in split for word in one)
        self._near: dict[str, list[str]] = {}

    def near(self, word: str) -> list[str]:
        """Return the words of at least two occurrences at one edit; of one letter, none."""
        if len(word) == 1:
            return []
        if word not in self._near:
            cuts = [(word[:n], word[n:]) for n in range(len(word) + 1)]
            letters = string.ascii_lowercase + "'"
            made = {a + b[1:] for a, b in cuts if b}
            made |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
            made |= {a + c + b[1:] for a, b in cuts if b for c in letters}
            made |= {a + c + b for a, b in cuts for c in letters}
            self._near[word] = sorted(one for one in made - {word} if self.counts[one] > 1)
        return self._near[word]

    def gain(self, words: Sequence[str], at: int, new: Sequence[str]) -> float:
        """Return how much the log probability rises if a word is exchanged.

        Only the next three words depend on it; all others cost the same and are left out.
        """
        before, after = words[max(0, at - 3) : at], words[at + 1 : at + 4]
        old, new = ([*before, *some, *after] for some in ([words[at]], new))
        return sum(self.model.nats(old)) - sum(self.model.nats(new))

    def corrected(self, text: str) -> str:
        """Return a sentence after the best edits, one after another."""
        while True:
            places = [*WORD.finditer(text)]
            words = [place[0].lower() for place in places]
            best, chosen = self.margin, None
            for at, word in enumerate(words):
                options = [[new] for new in self.near(word)] if word[0].isalpha() else []
                options += [[]] if at and words[at - 1] == word else []
                for new in options:
                    gain = self.gain(words, at, new)
                    if gain > best:
                        best, chosen = gain, (places[at], new)
            if chosen is None:
                return text
            place, new = chosen
            start, written = place.start(), "".join(new)
            if not new:
                start = len(text[:start].rstrip())
            elif place[0][0].isupper():
                written = written.capitalize()
            text = text[:start] + written + text[place.end() :]

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the sentences corrected."""
        return [self.corrected(text) for text in texts]


def editor(model: Any, **options: Any) -> Corrector:
    """Return a model of edits as a corrector, as ``multidiff sample`` uses it."""
    from multidiff.text.diffuser.draft_sources import DraftSource, drafts_of
    from multidiff.text.diffuser.revised_texts import revise_drafts
    from multidiff.text.request import TextRequest

    def corrected(texts: Sequence[str]) -> list[str]:
        seeds = [range(row, row + 1) for row in range(len(texts))]
        drafts = drafts_of(model, [TextRequest()], seeds, DraftSource(texts))
        found = revise_drafts(model, drafts, model.sampling.replace(**options))
        return [one.text for one in found]

    return corrected


def main() -> None:
    """Print a table, or JSON."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("model")
    add_source(reader, "text", None, 20)
    reader.add_argument("--num", type=int, default=200)
    reader.add_argument("--seed", type=int, default=7)
    reader.add_argument("--edit-margin", type=float)
    reader.add_argument("--min-confidence", type=float)
    reader.add_argument("--num-candidates", type=int)
    reader.add_argument(
        "--tune", action="store_true", help="margins and confidences of the model alone"
    )
    reader.add_argument("--training", type=Path, help="a file of all training sentences, if other")
    reader.add_argument("--json", action="store_true")
    given = reader.parse_args()
    import multidiff as md

    source = source_of(given)
    listing = source.listing()
    train, held = ([listing.texts[n] for n in source.rows(listing, out)] for out in (False, True))
    if given.training:
        train = given.training.read_text("utf-8").splitlines()
    rng = random.Random(given.seed)
    rng.shuffle(held)
    tuning, rest = with_mistakes(held[: given.num], given.seed), held[given.num :]
    model: Any = md.load(given.model)
    if given.tune:
        for margin, least in itertools.product((-1.0, 0.0), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
            corrector = editor(model, edit_margin=margin, min_confidence=least)
            found = judged(tuning, corrector([one for one, _ in tuning]))
            figures = "  ".join(f"{name} {one:.3f}" for name, one in found.items())
            print(f"margin {margin:g}, confidence {least:g}: {figures}")
        return
    sets = {"slips": with_slips(rest, given.num, rng), "by hand": by_hand()}
    sets["clean"] = [(one, one) for one in rest[: given.num]]
    options = {
        name: getattr(given, name) for name in ("edit_margin", "min_confidence", "num_candidates")
    }
    systems: dict[str, Corrector] = {"model": editor(model, **options), **baselines(train, tuning)}
    found = {
        name: {
            kind: judged(pairs, system([one for one, _ in pairs])) for kind, pairs in sets.items()
        }
        for name, system in systems.items()
    }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, kinds in found.items():
        for kind, one in kinds.items():
            shown = {"untouched": one["whole"]} if kind == "clean" else one
            figures = "  ".join(f"{what} {value:.3f}" for what, value in shown.items())
            print(f"{name:>24} {kind:>8}  {figures}")


def baselines(train: Sequence[str], tuning: Sequence[Pair]) -> dict[str, Corrector]:
    """Return the baselines, their options chosen by F0.5 of some sentences."""
    damaged = [one for one, _ in tuning]

    def best(made: dict[str, Corrector]) -> tuple[str, Corrector]:
        return max(made.items(), key=lambda one: judged(tuning, one[1](damaged))["F0.5"])

    grams = NGramCorrector(train, 0.0)
    found = [best({f"symspell, {n} edits": symspell(None, n) for n in (1, 2)})]
    found.append(best({f"symspell+words, {n}": symspell(grams.counts, n) for n in (1, 2)}))

    def at(margin: float) -> Corrector:
        def corrected(texts: Sequence[str]) -> list[str]:
            grams.margin = margin
            return grams(texts)

        return corrected

    found.append(best({f"4-gram, margin {n}": at(n) for n in (3, 6, 9, 12, 15)}))
    return dict(found)


if __name__ == "__main__":
    main()
