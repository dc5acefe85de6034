"""Tokens of large sources, prepared once on all cores."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from multidiff.data.columns import Columns
from multidiff.data.prepare import Plan, prepared
from multidiff.data.table_writer import ColumnWriter
from multidiff.text.data.stored import StoredTexts
from multidiff.text.data.streams import Piece
from multidiff.text.data.vocabulary import Vocabulary

VERSION = 1
PIECE_BYTES = 1 << 23
ROWS_AT_ONCE = 1024
COUNTED = 20_000  # texts


def token_table(texts: StoredTexts, name: str, vocabulary: Vocabulary, source: str) -> Columns:
    """Return a table of the tokens of texts on disk: ``tokens``, one row for each text.

    Numbers have two bytes where the vocabulary allows, else four.

    Args:
        texts: the texts.
        name: column of the texts, ``text`` or ``source``.
        vocabulary: vocabulary of the tokens.
        source: name of the source, for messages.

    Raises:
        InputError: if a text cannot be encoded.
    """
    return prepared(tokens_plan(texts, name, vocabulary, source))


def tokens_plan(texts: StoredTexts, name: str, vocabulary: Vocabulary, source: str) -> Plan[Piece]:
    """Return the plan of :func:`token_table`."""
    options = {key: value for key, value in vars(vocabulary).items() if not key.startswith("_")}
    described = {key: repr(value) for key, value in options.items() if key != "source"}
    column = texts.table.variable(name)
    return Plan(
        "tokens",
        {
            "version": VERSION,
            "texts": [texts.table.folder.name, name],
            "vocabulary": [type(vocabulary).__name__, described, vocabulary.assets()],
        },
        {"tokens": "uint16[]" if vocabulary.size <= 1 << 16 else "uint32[]"},
        parts=partial(_pieces, texts.table, name),
        make=partial(_tokenize, texts.table, name, vocabulary),
        size_of=lambda piece: float(column.lengths(slice(piece.start, piece.stop)).sum()),
        source=source,
    )


def _pieces(table: Columns, name: str) -> list[Piece]:
    """Return rows in pieces of about ``PIECE_BYTES`` of text."""
    column = table.variable(name)
    cuts = [column.row_at(start) for start in range(0, max(column.total, 1), PIECE_BYTES)]
    cuts = sorted({*cuts, 0, len(column)})
    return [Piece(a, b) for a, b in pairwise(cuts)]


def _tokenize(
    table: Columns, name: str, vocabulary: Vocabulary, piece: Piece, writer: ColumnWriter
) -> None:
    column: Any = table.variable(name)
    for first in range(piece.start, piece.stop, ROWS_AT_ONCE):
        rows = [
            vocabulary.numbers(t) for t in column[first : min(first + ROWS_AT_ONCE, piece.stop)]
        ]
        values = np.fromiter((number for row in rows for number in row), np.uint32)
        writer.extend({"tokens": [len(row) for row in rows]}, tokens=values)


def prepare(model: Any, batches: Any) -> Any:
    """Prepare the tokens that a text model reads, if the texts are on disk.

    The distribution of lengths of the model is set to that of training texts.

    Args:
        model: text model, with a domain.
        batches: its batches.

    Returns:
        The same batches, whose examples have tokens.
    """
    examples, domain = getattr(batches, "examples", None), getattr(model, "domain", None)
    if domain is not None and hasattr(examples, "tokenized"):
        examples.tokenized(domain.vocabulary, domain.source_length > 0)  # pyright: ignore
        if domain.lengths.requires_grad and not domain.lengths.is_meta:
            _count_lengths(domain, examples)
    return batches


def _count_lengths(domain: Any, examples: Any) -> None:
    """Let lengths be distributed as those of training texts, before they are learned further."""
    if examples.held_out or not hasattr(examples, "looks"):
        return
    rows, listing = examples.looks(COUNTED), examples.listing
    sources = None if listing.sources is None else [listing.sources[row] for row in rows]
    domain.count_lengths([listing.texts[row] for row in rows], sources)
