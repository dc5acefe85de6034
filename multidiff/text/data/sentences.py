"""Training texts with their meanings or sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from multidiff.data.columns import Columns
from multidiff.data.group_order import Grouping
from multidiff.text.data.grouped import GroupedTexts
from multidiff.text.data.listing import TextSource
from multidiff.text.data.stored import StoredTexts, selection_of, text_digest
from multidiff.text.data.tokens import token_table
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.text.data.words import PIECE
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


class Sentences:
    """Texts of a source: lists in memory, or tables on disk if the source is large.

    Args:
        source: source of the texts.
        longest: largest number of words (punctuation marks are words); longer texts are skipped
            with a warning. None keeps all.
        held_out: whether to take the texts kept for validation.

    Attributes:
        rows: rows of the source that are taken.
        lengths: number of words of each, if they are not read by row groups.
        selection: table of both, if the texts are on disk.
        grouping: the row groups that the texts are read by, if they are. Blank texts and those that
            are too long are counted then, and the next of their group is read instead.

    Raises:
        InputError: if the source cannot be read, or no text is left.
    """

    rows: Sequence[int]
    lengths: Any

    def __init__(self, source: TextSource, longest: int | None = None, held_out: bool = False):
        self.source, self.longest, self.held_out = source, longest, held_out
        self.assumed = ""
        self.listing = source.listing()
        self.selection: Columns | None = None
        self.grouping: Grouping | None = None
        self._tokens: dict[str, Columns] = {}
        if isinstance(self.listing, StoredTexts):
            self._select(self.listing)
            return
        if isinstance(self.listing, GroupedTexts):
            self.rows = rows = self.listing.split(source.held_out_every, held_out)
            self.grouping = self.listing.table.grouping(rows.sizes)
            return
        rows = source.rows(self.listing, held_out)
        counts = {row: len(PIECE.findall(self.listing.texts[row])) for row in rows}
        self.rows = [row for row in rows if longest is None or counts[row] <= longest]
        self._check_rows(len(rows))
        self.lengths = np.array([counts[row] for row in self.rows])

    @classmethod
    def synthetic(
        cls, source: TextSource, longest: int | None = None, held_out: bool = False
    ) -> Sentences:
        """Return one synthetic text of the largest length, for dry runs."""
        from multidiff.text.made_up import MOST_WORDS, MadeUpSource

        made = cls(MadeUpSource.like(source, longest or MOST_WORDS), longest, held_out)
        words = "as long as the model reads" if longest is None else f"of {longest} words"
        made.assumed = f"every text {words}, the longest that the recipe allows"
        return made

    def _select(self, listing: StoredTexts) -> None:
        self.source.rows(listing, self.held_out)  # refuses a side without texts
        self.selection = selection_of(self.source, listing, self.longest, self.held_out)
        self.rows = self.selection.fixed("row")
        self.lengths = self.selection.fixed("length")
        self._check_rows(sum(note["side"] for note in self.selection.notes))

    def _check_rows(self, count: int) -> None:
        """Report the texts of this side that are too long, or raise if all are."""
        kept, path = len(self.rows), self.source.path
        if kept < count:
            logger.warning(
                "%s: %d of %d texts have more than %d words and are skipped",
                path, count - kept, count, self.longest,
            )  # fmt: skip
        if not kept:
            raise InputError(f"{path}: no text has {self.longest} words or fewer; raise longest")

    def tokenized(self, vocabulary: Vocabulary, sources: bool) -> None:
        """Prepare the tokens of texts on disk; examples then have them too.

        Texts in memory stay as they are: they are encoded at each visit.

        Args:
            vocabulary: vocabulary of the tokens.
            sources: whether the source texts are read too.

        Raises:
            InputError: if the tokens cannot be made.
        """
        if not isinstance(self.listing, StoredTexts):
            return
        for name in ("text", "source") if sources else ("text",):
            self._tokens[name] = token_table(self.listing, name, vocabulary, self.source.path)

    def __len__(self) -> int:
        return len(self.rows)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source."""
        return {"source": self.source.fingerprint()}

    @property
    def texts(self) -> Sequence[str]:
        """Return all texts."""
        chosen = Chosen(self.listing.texts, self.rows)
        return chosen[:] if self.selection is None and self.grouping is None else chosen

    def looks(self, count: int) -> Sequence[int]:
        """Return about that many of the rows, to look at: evenly spread, or of one row group."""
        if self.grouping is not None:
            return [self.rows[index] for index in range(min(count, int(self.grouping.sizes[0])))]
        return self.rows[:: max(1, len(self.rows) // count)]

    def digests(self) -> Iterator[int]:
        """Yield numbers that identify the texts with their sources."""
        sources = self.listing.sources
        for row in self.rows:
            text = self.listing.texts[row]
            yield text_digest(text, "" if sources is None else sources[row])

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`: ``text``, ``meaning``, ``name``.

        Prepared tokens are ``text_tokens`` and ``source_tokens``.
        """
        if isinstance(self.listing, GroupedTexts):
            return self._grouped_example(self.listing, index)
        row, listing = self.rows[index], self.listing
        example: dict[str, Any] = {"text": listing.texts[row], "name": listing.names[row]}
        if listing.meanings is not None:
            example["meaning"] = listing.meanings[row]
        if listing.sources is not None:
            example["source"] = listing.sources[row]
        for name, table in self._tokens.items():
            example[f"{name}_tokens"] = table.variable("tokens")[row]
        return example

    def _grouped_example(self, listing: GroupedTexts, index: int) -> dict[str, Any]:
        row, found = listing.fitting(self.rows, index, self.longest)
        example: dict[str, Any] = {"text": found.text, "name": listing.names[row]}
        if found.meaning is not None:
            example["meaning"] = found.meaning
        if found.source is not None:
            example["source"] = found.source
        return example


class Chosen(Sequence):
    """Some items of a sequence, taken when they are needed.

    Args:
        items: the sequence.
        rows: numbers of the items.
    """

    def __init__(self, items: Sequence[Any], rows: Sequence[int]):
        self.items, self.rows = items, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.items[row] for row in self.rows[index]]
        return self.items[self.rows[index]]
