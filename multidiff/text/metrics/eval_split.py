"""Evaluation texts in two parts: one trains the classifiers, one is compared with samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.utils.errors import InputError

DATA = "starter:restaurant/sentences.csv"
Meaning = Mapping[str, str]


@dataclass(frozen=True)
class EvalSplit:
    """Texts that the model was not trained on, in two parts, and its training texts.

    Attributes:
        other: tokens of the texts that the classifiers are trained on.
        other_meanings: meanings of these.
        real: tokens of the texts that samples are compared with.
        texts: these texts, unchanged.
        meanings: meanings of these.
        sources: sources of these; empty texts if unknown.
        groups: groups of these with equal meanings.
        trained: tokens of the model's training texts; empty if unknown.
    """

    other: list[list[int]]
    other_meanings: list[Meaning]
    real: list[list[int]]
    texts: list[str]
    meanings: list[Meaning]
    sources: list[str]
    groups: list[str]
    trained: list[list[int]]

    def fitting(self, length: int, count: int, option: str) -> list[int]:
        """Return the first ``count`` real texts that fit the model's length.

        Raises:
            InputError: if no text is short enough.
        """
        rows = [row for row, tokens in enumerate(self.real) if 0 < len(tokens) < length]
        if not rows:
            raise InputError(f"--{option} {count}: no text is as short as {length - 1} words")
        return rows[:count]


def source_of(
    data: str | None,
    column: str,
    meaning_column: str | None,
    source_column: str | None = None,
    header: bool = True,
) -> TextSource:
    """Return the texts that a command names, or those that come with the package."""
    if data is None:
        return TextSource(DATA, column, source_column, meaning_column or "meaning")
    return TextSource(data, column, source_column, meaning_column, header=header)


def eval_split(source: TextSource, vocabulary: Vocabulary, num: int) -> EvalSplit:
    """Split the texts of a source in two parts, the second of about ``num`` texts."""
    found = source.listing()
    held_out = source.held_out_every > 0
    rows = source.rows(found, held_out)
    groups = found.groups or found.names
    kinds = list(dict.fromkeys(groups[row] for row in rows))
    every = min(max(2, round(len(rows) / num)), len(kinds))
    second = set(kinds[every // 2 :: every])
    parts: tuple[list[int], list[int]] = ([], [])
    for row in rows:
        parts[groups[row] in second].append(row)
    if not all(parts):
        raise InputError(f"{source.path}: {len(rows)} texts are too few to split in two")
    words = vocabulary.numbers
    meanings: list[Meaning] = [*(found.meanings or [{} for _ in found.texts])]
    sources = found.sources or [""] * len(found.texts)
    trained = source.rows(found, False) if held_out else []
    return EvalSplit(
        [words(found.texts[row]) for row in parts[0]],
        [meanings[row] for row in parts[0]],
        [words(found.texts[row]) for row in parts[1]],
        [found.texts[row] for row in parts[1]],
        [meanings[row] for row in parts[1]],
        [sources[row] for row in parts[1]],
        [groups[row] for row in parts[1]],
        [words(found.texts[row]) for row in trained],
    )
