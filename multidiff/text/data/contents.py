"""Contents of a file that its user says nothing about: kind of text, columns, vocabulary, lengths.

The rules, all on the texts that are not held out:

- a ``.txt`` file is running text if its lines are wrapped or long, one text per line otherwise;
- a table with a column of sources and one of texts is pairs; two columns are source and text;
- tokens of texts are words, in their case or else in lower case, if at most 2 % of them stay
  unknown, otherwise pieces (BPE), as for languages without spaces: one for each eight characters of
  text beside the single characters;
- tokens of running text are characters, or pieces for an hour of training or more.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unicodedata import category

from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import SentencePieceVocabulary
from multidiff.text.data.tables import DELIMITERS, ENDINGS, read_table
from multidiff.text.data.words import PIECE
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path

SOURCES = ("source", "src", "input", "prompt", "question", "draft", "original", "wrong", "before")
TEXTS = ("target", "tgt", "output", "answer", "response", "corrected", "right", "after",
         "rewrite", "text", "sentence", "story", "ref", "content")  # fmt: skip
FINAL = tuple(".!?\"'")
FINAL_CATEGORIES = ("Po", "Pf", "Pe")  # full stops and closing quotes of any script
LEAST_TEXTS = 10
# Words per line from which lines are paragraphs, and characters from which they may be wrapped.
PARAGRAPH_WORDS, WRAPPED = 64, 30
# Fraction of the tokens that may be unknown: of words, and of any vocabulary.
WORDS_UNKNOWN, REFUSED = 0.02, 0.05
MOST_CHARACTERS = 6000
PIECES_FROM_MINUTES = 60.0
MOST_PIECES, CHARACTERS_A_PIECE = 4000, 8
PART = 0.1  # held out
Kind = Literal["running", "sentences", "pairs"]


@dataclass(frozen=True)
class Contents:
    """Contents of a file.

    Attributes:
        kind: running text, one text per row, or pairs of a source and a text.
        source: where its texts are.
        trained: texts to train on.
        held_out: texts kept for validation.
        sources: sources to train on, of pairs.
    """

    kind: Kind
    source: TextSource
    trained: Sequence[str]
    held_out: Sequence[str]
    sources: Sequence[str] = ()


@dataclass(frozen=True)
class VocabularyChoice:
    """A kind of tokens.

    Attributes:
        use: name of the vocabulary's class.
        size: its size.
        options: further options.
        unknown: fraction of the held-out tokens that it does not know.
        split: function from a text to its tokens.
    """

    use: str
    size: int
    options: dict[str, Any]
    unknown: float
    split: Callable[[str], Sequence[Any]]


def contents_of(path: str) -> Contents:
    """Return the contents of a file.

    Raises:
        InputError: if it cannot be read, or has too few texts or columns of texts.
    """
    ending = resolve_path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: --data reads texts, in {', '.join(ENDINGS)}; convert the file")
    if ending == ".txt":
        source = TextSource(path, running=True)
        whole = source.listing().texts[0]
        lines = str(whole).split("\n")
        if is_running(lines):
            cut = int(len(whole) * (1 - PART))
            return Contents("running", source, [str(whole[:cut])], [str(whole[cut:])])
        return _rows(TextSource(path, group_by="text"), "sentences")
    return _rows(*_columns(path, ending))


def is_running(lines: Sequence[str]) -> bool:
    """Return whether the lines of a file are parts of one text: wrapped, or whole paragraphs."""
    full = [line.strip() for line in lines if line.strip()]
    if not full:
        return False
    blank = 1 - len(full) / max(1, len(lines) - (not lines[-1].strip()))
    lengths = sorted(map(len, full))
    ended = sum(_is_final(line[-1]) for line in full) / len(full)
    words = sum(len(PIECE.findall(line)) for line in full[:1000]) / len(full[:1000])
    long = lengths[len(full) // 2]
    return words > PARAGRAPH_WORDS or (long >= WRAPPED and (ended < 0.5 or blank > 0.05))


def _is_final(one: str) -> bool:
    """Return whether a character ends a sentence, in any script; a comma does not."""
    return one in FINAL or (not one.isascii() and category(one) in FINAL_CATEGORIES)


def _columns(path: str, ending: str) -> tuple[TextSource, Kind]:
    """Return the columns of a table: of the texts, and of their sources if there are any."""
    header = ending not in DELIMITERS or _has_header(path, ending)
    names = list(read_table(path, [], header, "train", None).columns)
    lower = {name.lower(): name for name in names}
    text = next((lower[one] for one in TEXTS if one in lower), None)
    source = next((lower[one] for one in SOURCES if one in lower), None)
    if len(names) == 1:
        text, source = names[0], None
    elif text is None and len(names) == 2:
        source = source or names[0]
        text = next(name for name in names if name != source)
    if text is None:
        raise InputError(
            f"{path}: has the columns {', '.join(names)}; name the texts 'text', and what they are "
            "made from 'source', or write a recipe"
        )
    if source is None:
        return TextSource(path, text, header=header, group_by=text), "sentences"
    return TextSource(path, text, source, header=header, group_by=source), "pairs"


def _has_header(path: str, ending: str) -> bool:
    """Return whether the first row of a table names the columns: short, distinct, no sentences."""
    with Path(resolve_path(path)).open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().rstrip("\r\n")
    cells = next(csv.reader([first], delimiter=DELIMITERS[ending]), [])
    known = any(cell.strip().lower() in {*SOURCES, *TEXTS} for cell in cells)
    return known or all(re.fullmatch(r"[\w .-]{1,30}", one) and one.count(" ") < 2 for one in cells)


def _rows(source: TextSource, kind: Kind) -> Contents:
    """Return one text per row, of which a part is held out."""
    found = source.listing()
    count = len({*(found.groups or found.texts)})
    if count < LEAST_TEXTS:
        raise InputError(
            f"{source.path}: has {count} different texts; a model needs {LEAST_TEXTS} or more"
        )
    source = replace(source, held_out_every=5 if len(found.texts) < 1000 else 10)
    trained, held = source.rows(found, False), source.rows(found, True)
    origins = [] if found.sources is None else [found.sources[row] for row in trained]
    return Contents(
        kind, source, [found.texts[row] for row in trained], [found.texts[row] for row in held],
        origins,
    )  # fmt: skip


def choose_vocabulary(found: Contents, minutes: float) -> VocabularyChoice:
    """Return the kind of tokens for texts, by the rules of this module.

    Args:
        found: the texts.
        minutes: time of training.

    Raises:
        InputError: if every kind leaves more than 5 % of the tokens unknown.
    """
    read = [*found.trained, *found.sources]
    if found.kind != "running":
        for lower in (False, True):
            choice = _words(read, found.held_out, lower, 2 * MOST_PIECES)
            if choice.unknown <= WORDS_UNKNOWN:
                return choice
    counts = Counter(one for text in read for one in text)
    size = min(len(counts), MOST_CHARACTERS)
    kept = {one for one, _ in counts.most_common(size)}
    unknown = _unknown(kept, found.held_out, list)
    if unknown > REFUSED:
        raise InputError(
            f"{found.source.path}: {unknown:.1%} of the held-out characters are not among the "
            f"{size} that are trained on; give more text"
        )
    if found.kind != "running" or minutes >= PIECES_FROM_MINUTES:
        more = min(MOST_PIECES, counts.total() // CHARACTERS_A_PIECE)
        return _pieces(found.source, len(counts) + 3, more, unknown)
    return VocabularyChoice("CharacterVocabulary", size + 3, {}, unknown, list)


def _pieces(source: TextSource, least: int, more: int, unknown: float) -> VocabularyChoice:
    """Return a vocabulary of pieces, of the largest size up to that wanted that the texts yield."""
    while True:
        vocabulary = SentencePieceVocabulary(least + more, source, kind="bpe")
        try:
            vocabulary.numbers("")
        except InputError:
            if more == 0:
                raise
            more //= 2
            continue
        return VocabularyChoice(
            type(vocabulary).__name__, least + more, {"kind": "bpe"}, unknown, vocabulary.numbers
        )


def _words(
    read: Iterable[str], held_out: Iterable[str], lower: bool, most: int
) -> VocabularyChoice:
    """Return a vocabulary of words that are seen twice or more."""

    def split(text: str) -> list[str]:
        return PIECE.findall(text.lower() if lower else text)

    counts = Counter(word for text in read for word in split(text))
    often = [word for word, count in counts.most_common(most) if count > 1]
    unknown = _unknown({*often}, held_out, split) if often else 1.0
    return VocabularyChoice("WordVocabulary", len(often) + 3, {"lower": lower}, unknown, split)


def _unknown(kept: set[str], texts: Iterable[str], split: Callable[[str], Sequence[str]]) -> float:
    """Return the fraction of the tokens of texts that are not among those kept."""
    tokens = Counter(token for text in texts for token in split(text))
    missed = sum(count for token, count in tokens.items() if token not in kept)
    return missed / max(1, tokens.total())
