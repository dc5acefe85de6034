"""What is wrong with texts before a model is trained or measured on them.

Unknown tokens flatter every figure: they are few, and easily guessed. Held-out texts that stand in
the training texts too are remembered, not predicted. Neither shows in a loss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.text.domain import TextDomain
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

logger = logging.getLogger(__name__)

# Shares of the characters that stand in unknown tokens.
WARNED, REFUSED = 0.1, 0.5
# Texts that are looked at, evenly spread.
LOOKS = 1000
# Shorter lines, such as names of speakers, recur in any text.
SHORTEST_LINE = 20
FIX = (
    "take a larger vocabulary, or a CharacterVocabulary or SentencePieceVocabulary, which read "
    "any script"
)


@dataclass(frozen=True)
class Unknown:
    """How much of some texts a vocabulary does not know.

    Attributes:
        tokens: share of the tokens.
        characters: share of the characters, white space not counted.
    """

    tokens: float
    characters: float

    @classmethod
    def of(cls, vocabulary: Vocabulary, texts: Sequence[str]) -> Unknown:
        """Look at some of the texts, evenly spread."""
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
    """Return how much of some texts a vocabulary does not know; warn where that is much.

    Args:
        name: of the texts, for messages.
        vocabulary: of the model.
        texts: that it reads.

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
    """State in a report how much of the measured texts the vocabulary does not know.

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
    """Return what is to be known of texts before training on them; warn of what is wrong.

    Args:
        model: of texts, with a domain.
        data: batches to train on.
        held_out: batches to validate by, or None.

    Raises:
        InputError: if the vocabulary does not know the greater part of them.
    """
    lines = []
    parts = {"training texts": data, "held-out texts": held_out}
    for what, batches in parts.items():
        examples = getattr(batches, "examples", None)
        if not isinstance(examples, Sentences | TextChunks):
            continue
        name = f"{examples.source.path}, {what}"
        texts = texts_of(examples)
        unknown = check_unknown(name, model.domain.vocabulary, texts)
        lines.append(f"{name}: unknown to the vocabulary: {unknown}")
        if isinstance(examples, Sentences):
            _warn_of_cuts(name, model.domain, examples)
    if held_out is not None:
        warn_of_repeats(data.examples, held_out.examples)
    return lines


def texts_of(examples: Sentences | TextChunks) -> Sequence[str]:
    """Return all texts, or of running text some stretches."""
    if isinstance(examples, Sentences):
        return examples.texts
    starts = range(0, len(examples) * examples.length, examples.length)
    return [examples.stretch(start) for start in starts[:: max(1, len(starts) // LOOKS)]]


def _warn_of_cuts(name: str, domain: TextDomain, examples: Sentences) -> None:
    """Warn of texts, and of what they are made from, that the model does not read whole."""
    rows = examples.rows[:: max(1, len(examples.rows) // LOOKS)]
    count, end = domain.vocabulary.numbers, int(domain.ends)
    kinds = {"length": (examples.listing.texts, domain.length)}
    if domain.source_length and examples.listing.sources is not None:
        kinds["source_length"] = (examples.listing.sources, domain.source_length)
    for option, (texts, most) in kinds.items():
        longer = sum(len(count(texts[row])) + end > most for row in rows)
        if longer:
            logger.warning(
                "%s: %d of %d looked at have more tokens than %s %d and are cut; raise it, or "
                "leave longer ones out (longest)", name, longer, len(rows), option, most,
            )  # fmt: skip


def warn_of_repeats(data: Any, held_out: Any) -> None:
    """Warn of held-out texts, or lines of running text, that stand in the training texts too.

    Args:
        data: examples to train on.
        held_out: examples to validate by.
    """
    if isinstance(data, Sentences) and isinstance(held_out, Sentences):
        count, total = repeated(_keys(held_out), _keys(data))
        what = "texts"
    elif isinstance(data, TextChunks) and isinstance(held_out, TextChunks):
        count, total = repeated(_long_lines(held_out.text), _long_lines(data.text))
        what = f"lines of {SHORTEST_LINE} characters or more"
    else:
        return
    if count:
        logger.warning(
            "%s: %d of %d held-out %s stand in the training texts too (%s), which flatters the "
            "held-out figures; remove them, or keep repeated texts on one side by group_by",
            held_out.source.path, count, total, what, data.source.path,
        )  # fmt: skip


def repeated(held_out: Iterable[Any], trained: Iterable[Any]) -> tuple[int, int]:
    """Return how many held-out items stand among the trained ones, and how many there are."""
    items = list(held_out)
    wanted = {*items}  # the smaller side
    there = {one for one in trained if one in wanted}
    return sum(one in there for one in items), len(items)


def _keys(examples: Sentences) -> Iterable[Any]:
    """Each text, with what it is made from: both have to be the same."""
    texts, sources = examples.listing.texts, examples.listing.sources
    for row in examples.rows:
        yield plain(texts[row]), "" if sources is None else plain(sources[row])


def plain(text: str) -> str:
    """Return a text as it is compared with others, white space aside."""
    return " ".join(text.split())


def _long_lines(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if len(line.strip()) >= SHORTEST_LINE:
            yield plain(line)
