"""Metrics of generated sentences: diversity and similarity to references.

No single one suffices: a model that repeats one good sentence has a high probability, and
one that writes its training text is close to it. So nats are reported with distinct n-grams,
entropy and the fraction of copies.

Sentences are lists of tokens. BLEU and SARI run from 0 to 100.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from multidiff.text.metrics.ngram import Sentence
from multidiff.utils.packages import needs

# BLEU and SARI use n-grams of 1 to 4 tokens.
ORDERS = (1, 2, 3, 4)

# ---------------------------------------------------------------------------------- variety


def distinct(sentences: Sequence[Sentence], n: int) -> float:
    """Return the ratio of distinct n-grams to all n-grams (Li et al. 2016); 0 without any.

    Raises:
        ValueError: if there are no sentences.
    """
    _refuse_none(sentences)
    grams = [gram for sentence in sentences for gram in _grams(sentence, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def entropy(sentences: Sequence[Sentence]) -> float:
    """Return the entropy in nats of the token frequencies; 0 without any tokens.

    Raises:
        ValueError: if there are no sentences.
    """
    _refuse_none(sentences)
    counts = Counter(token for sentence in sentences for token in sentence).values()
    total = sum(counts)
    return math.fsum(count / total * math.log(total / count) for count in counts)


def copy_rate(sentences: Sequence[Sentence], training: Sequence[Sentence]) -> float:
    """Return the fraction of sentences that occur, token for token, in the training text.

    Raises:
        ValueError: if there are no sentences.
    """
    _refuse_none(sentences)
    known = {tuple(sentence) for sentence in training}
    return sum(tuple(sentence) in known for sentence in sentences) / len(sentences)


def self_bleu(sentences: Sequence[Sentence], most: int = 200) -> float:
    """Return the mean BLEU of each sentence with all others as references (Zhu et al. 2018).

    Args:
        sentences: two or more sentences.
        most: number of sentences used at most, since the cost grows quadratically.

    Raises:
        ValueError: if fewer than two sentences are left.
    """
    lines = _lines(sentences[:most])
    if len(lines) < 2:
        raise ValueError(f"{len(lines)} sentences: at least two are needed")
    score = _sentence_bleu()
    scores = [
        score(line, lines[:position] + lines[position + 1 :]).score
        for position, line in enumerate(lines)
    ]
    return math.fsum(scores) / len(scores)


# --------------------------------------------------------------------- nearness to references


def bleu(candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> float:
    """Return the corpus BLEU (Papineni et al. 2002), by sacrebleu without tokenization.

    Args:
        candidates: candidate sentences.
        references: one or more references for each candidate; their number may vary.

    Raises:
        ValueError: if there are no candidates, or some have no references.
    """
    with needs("sacrebleu", "BLEU"):
        from sacrebleu.metrics.bleu import BLEU  # takes a tenth of a second to import

    _refuse_unpaired(candidates, references)
    lines = iter(_lines([*candidates, *chain.from_iterable(references)]))
    made = list(islice(lines, len(candidates)))
    groups = [list(islice(lines, len(group))) for group in references]
    score: Any = BLEU(tokenize="none").corpus_score
    return score(made, list(zip_longest(*groups))).score


def minimum_bayes_risk(candidates: Sequence[Sentence]) -> int:
    """Choose the candidate most like the others (minimum Bayes risk, Kumar & Byrne 2004).

    Args:
        candidates: candidates to choose from.

    Returns:
        Index of the one with the highest mean BLEU, each other candidate as the reference; the
        first of equals.

    Raises:
        ValueError: if there are no candidates.
    """
    _refuse_none(candidates)
    lines, score = _lines(candidates), _sentence_bleu()
    # Rounded once, so that the order of summation cannot break ties.
    gains = [
        math.fsum(score(one, [other]).score for j, other in enumerate(lines) if j != i)
        for i, one in enumerate(lines)
    ]
    return gains.index(max(gains))


def _sentence_bleu() -> Any:
    """Return BLEU for one line: n-grams longer than it do not count, missing ones are smoothed."""
    with needs("sacrebleu", "BLEU"):
        from sacrebleu.metrics.bleu import BLEU  # takes a tenth of a second to import

    return BLEU(tokenize="none", effective_order=True).sentence_score


def _lines(sentences: Sequence[Sentence]) -> list[str]:
    """Replace tokens by numbers: BLEU sees the same matches, and tokens with spaces stay whole."""
    numbers: dict[str | int, str] = {}
    return [
        " ".join(numbers.setdefault(token, str(len(numbers))) for token in sentence)
        for sentence in sentences
    ]


def edit_distance(one: Sentence, other: Sentence) -> int:
    """Return the number of insertions, deletions and replacements (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for number, token in enumerate(one, start=1):
        left, above = number, row[0]
        row[0] = number
        for position, wanted in enumerate(other, start=1):
            left = min(left + 1, row[position] + 1, above + (token != wanted))
            above, row[position] = row[position], left
    return row[-1]


# ------------------------------------------------------------------------------ simplification


def sari(
    sources: Sequence[Sentence],
    candidates: Sequence[Sentence],
    references: Sequence[Sequence[Sentence]],
) -> float:
    """Return SARI (Xu et al. 2016, section 4), the mean over sentences.

    A sentence's score is the mean of F1 of the n-grams added, F1 of those kept and the precision
    of those deleted. As in the paper, an n-gram counts once in a sentence, precision and recall
    are averaged over n = 1 to 4 before computing F1, and of several references each contributes
    its fraction to what is kept and deleted. The paper does not define empty cases: they count as
    1 if nothing was to be done, and as 0 otherwise; so copies of the source earn nothing for
    deletion, and a candidate that is its only reference has 100.

    Args:
        sources: sentences to rewrite.
        candidates: one candidate for each source.
        references: one or more references for each source.

    Raises:
        ValueError: if there are no candidates, or some have no source or references.
    """
    _refuse_unpaired(candidates, references)
    if len(sources) != len(candidates):
        raise ValueError(
            f"{len(sources)} sources for {len(candidates)} candidates: give one for each"
        )
    scores = map(_sentence_sari, sources, candidates, references)
    return 100 * math.fsum(scores) / len(candidates)


def _sentence_sari(source: Sentence, made: Sentence, references: Sequence[Sentence]) -> float:
    rates = [_rewriting_rates(source, made, references, n) for n in ORDERS]
    means = [sum(rate) / len(ORDERS) for rate in zip(*rates, strict=True)]
    add, add_recall, keep, keep_recall, delete = means
    return (_f1(add, add_recall) + _f1(keep, keep_recall) + delete) / 3


def _rewriting_rates(
    source: Sentence, made: Sentence, references: Sequence[Sentence], n: int
) -> tuple[float, float, float, float, float]:
    """Return precision and recall of additions and of keeps, and precision of deletions."""
    given, found = set(_grams(source, n)), set(_grams(made, n))
    votes = Counter(gram for reference in references for gram in set(_grams(reference, n)))
    kept = {gram: votes[gram] / len(references) for gram in given}
    added, wanted = found - given, set(votes) - given
    right = len(added & wanted)
    right_keeps = sum(kept[gram] for gram in given & found)
    right_deletions = sum(1 - kept[gram] for gram in given - found)
    keeps, deletions = sum(kept.values()), sum(1 - ratio for ratio in kept.values())
    return (
        _rate(right, len(added), len(wanted)),
        _rate(right, len(wanted), len(added)),
        _rate(right_keeps, len(given & found), keeps),
        _rate(right_keeps, keeps, len(given & found)),
        _rate(right_deletions, len(given - found), deletions),
    )


def _rate(right: float, number: float, counterpart: float) -> float:
    """Return the fraction of right ones; for an empty set, 1 if the other side is empty too."""
    if number:
        return right / number
    return 0.0 if counterpart else 1.0


def _f1(precision: float, recall: float) -> float:
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


# ----------------------------------------------------------------------------------- shared


def _grams(sentence: Sentence, n: int) -> list[tuple[str | int, ...]]:
    return [tuple(sentence[start : start + n]) for start in range(len(sentence) - n + 1)]


def _refuse_none(sentences: Collection[Sentence]) -> None:
    if not sentences:
        raise ValueError("no sentences to measure")


def _refuse_unpaired(
    candidates: Sequence[Sentence], references: Sequence[Sequence[Sentence]]
) -> None:
    _refuse_none(candidates)
    if len(references) != len(candidates):
        raise ValueError(
            f"references for {len(references)} of {len(candidates)} candidates: each needs some"
        )
    if not all(references):
        raise ValueError(f"candidate {[*map(bool, references)].index(False)} has no references")
