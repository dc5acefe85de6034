"""Checks of texts before a model is trained or evaluated on them.

Unknown tokens flatter every figure: they are few, and easily guessed. Held-out texts that are in
the training texts too may be memorised. Neither shows in a loss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.stored import count_repeats
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.text.data.words import plain
from multidiff.text.domain import TextDomain
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

logger = logging.getLogger(__name__)

# Fractions of the characters that are in unknown tokens.
WARNED, REFUSED = 0.1, 0.5
# Fraction of the tokens from which a vocabulary that is made from texts is refused.
REFUSED_TOKENS = 0.05
# Number of texts to check, evenly spread.
LOOKS = 1000
# Shorter lines, such as names of speakers, recur in any text.
SHORTEST_LINE = 20
FIX = (
    "use a larger vocabulary, or a CharacterVocabulary or SentencePieceVocabulary, which read "
    "any script"
)


@dataclass(frozen=True)
class Unknown:
    """Fractions of some texts that a vocabulary does not know.

    Attributes:
        tokens: fraction of the tokens.
        characters: fraction of the characters, white space not counted.
    """

    tokens: float
    characters: float

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: Sequence[str]) -> Unknown:
        """Measure them on some of the texts, evenly spread."""
        tokens = characters = unknown = missed = 0
        for text in texts[:: max(1, len(texts) // LOOKS)]:
            found = vocabulary.unknown(text)
            tokens += len(vocabulary.numbers(text))
            characters += _visible(text)
            unknown += len(found)
            missed += sum(map(_visible, found))
        return cls(unknown / max(1, tokens), missed / max(1, characters))

    def __str__(self) -> str:
        return f"{self.tokens:.1%} of the tokens, {self.characters:.1%} of the characters"


def _visible(text: str) -> int:
    return sum(not one.isspace() for one in text)


def check_unknown(name: str, vocabulary: Vocabulary, texts: Sequence[str]) -> Unknown:
    """Return the fractions of some texts that a vocabulary does not know; warn if they are large.

    Args:
        name: name of the texts, for messages.
        vocabulary: vocabulary of the model.
        texts: texts that the model reads.

    Raises:
        InputError: if it does not know the greater part.
    """
    found = Unknown.of(vocabulary, texts)
    problem = f"{name}: unknown to the vocabulary: {found}"
    if found.characters > REFUSED:
        raise InputError(f"{problem}; {FIX}")
    if found.characters > WARNED:
        logger.warning("%s, which flatters all figures; %s", problem, FIX)
    return found


def note_unknown(name: str, vocabulary: Vocabulary, texts: Sequence[str], report: Report) -> None:
    """Add the fractions of the evaluated texts that the vocabulary does not know to a report.

    Raises:
        InputError: see :func:`check_unknown`.
    """
    found = check_unknown(name, vocabulary, texts)
    report.facts["unknown"] = {
        "tokens": round(found.tokens, 4),
        "characters": round(found.characters, 4),
    }
    report.lines.append(f"unknown to the vocabulary: {found}")


def inspect(model: Any, data: Any, held_out: Any) -> list[str]:
    """Return notes on texts before training on them; warn of problems.

    Args:
        model: text model, with a domain.
        data: training batches.
        held_out: validation batches, or None.

    Raises:
        InputError: if the vocabulary does not know 5 % of their tokens.
    """
    lines = []
    parts = {"training texts": data, "held-out texts": held_out}
    for what, batches in parts.items():
        examples = getattr(batches, "examples", None)
        if not isinstance(examples, Sentences | TextChunks):
            continue
        name = f"{examples.source.path}, {what}"
        texts = texts_of(examples)
        words = model.domain.vocabulary
        unknown = check_unknown(name, words, texts)
        # A published tokenizer is as it is; one made from texts can be made larger.
        if unknown.tokens > REFUSED_TOKENS and getattr(words, "source", None) is not None:
            raise InputError(f"{name}: unknown to the vocabulary: {unknown}; {FIX}")
        lines.append(f"{name}: unknown to the vocabulary: {unknown}")
        if isinstance(examples, Sentences):
            _warn_of_cuts(name, model.domain, examples)
    if held_out is not None:
        warn_of_repeats(data.examples, held_out.examples)
    return lines


def texts_of(examples: Sentences | TextChunks) -> Sequence[str]:
    """Return all texts, or some chunks of running text."""
    if isinstance(examples, Sentences):
        if examples.grouping is not None:
            return [examples.listing.texts[row] for row in examples.looks(LOOKS)]
        return examples.texts
    starts = range(0, len(examples) * examples.length, examples.length)
    return [examples.stretch(start) for start in starts[:: max(1, len(starts) // LOOKS)]]


def _warn_of_cuts(name: str, domain: TextDomain, examples: Sentences) -> None:
    """Warn of texts, and of their sources, that are longer than the model reads."""
    rows = examples.looks(LOOKS)
    count, end = domain.vocabulary.numbers, int(domain.ends)
    kinds = {"length": (examples.listing.texts, domain.length)}
    if domain.source_length and examples.listing.sources is not None:
        kinds["source_length"] = (examples.listing.sources, domain.source_length)
    for option, (texts, most) in kinds.items():
        longer = sum(len(count(texts[row])) + end > most for row in rows)
        if longer:
            logger.warning(
                "%s: %d of %d checked have more tokens than %s %d and are truncated; raise it, or "
                "skip longer ones (longest)", name, longer, len(rows), option, most,
            )  # fmt: skip


def warn_of_repeats(data: Any, held_out: Any) -> None:
    """Warn of held-out texts, or lines of running text, that are in the training texts too.

    Args:
        data: training examples.
        held_out: validation examples.
    """
    if isinstance(data, Sentences) and isinstance(held_out, Sentences):
        if data.grouping is not None or held_out.grouping is not None:
            return  # all texts would have to be fetched
        count, total = _repeated_texts(held_out, data)
        what = "texts"
    elif isinstance(data, TextChunks) and isinstance(held_out, TextChunks):
        if not isinstance(held_out.text, str) or not isinstance(data.text, str):
            return  # on disk, where reading all of it takes minutes
        count, total = repeated(_long_lines(held_out.text), _long_lines(data.text))
        what = f"lines of {SHORTEST_LINE} characters or more"
    else:
        return
    if count:
        logger.warning(
            "%s: %d of %d held-out %s are in the training texts too (%s), which flatters the "
            "held-out figures; remove them, or keep repeated texts on one side with group_by",
            held_out.source.path, count, total, what, data.source.path,
        )  # fmt: skip


def repeated(held_out: Iterable[Any], trained: Iterable[Any]) -> tuple[int, int]:
    """Return how many held-out items are among the trained ones, and how many there are."""
    items = list(held_out)
    wanted = {*items}  # the smaller side
    there = {one for one in trained if one in wanted}
    return sum(one in there for one in items), len(items)


def _repeated_texts(held_out: Sentences, data: Sentences) -> tuple[int, int]:
    if held_out.selection is None and data.selection is None:
        return repeated(_keys(held_out), _keys(data))
    if held_out.selection is None or data.selection is None:
        return repeated(held_out.digests(), data.digests())
    tables = [held_out.listing.table, data.listing.table]  # pyright: ignore
    return count_repeats(held_out.selection, data.selection, tables)


def _keys(examples: Sentences) -> Iterable[Any]:
    """Return each text with its source: both have to be equal."""
    texts, sources = examples.listing.texts, examples.listing.sources
    for row in examples.rows:
        yield plain(texts[row]), "" if sources is None else plain(sources[row])


def _long_lines(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if len(line.strip()) >= SHORTEST_LINE:
            yield plain(line)
