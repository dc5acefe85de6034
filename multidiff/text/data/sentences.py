"""Training texts with their meanings or sources."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import PIECE
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


class Sentences:
    """Texts of a source, in memory.

    Args:
        source: source of the texts.
        longest: largest number of words (punctuation marks are words); longer texts are skipped
            with a warning. None keeps all.
        held_out: whether to take the texts kept for validation.

    Raises:
        InputError: if the source cannot be read, or no text is left.
    """

    def __init__(self, source: TextSource, longest: int | None = None, held_out: bool = False):
        self.source, self.longest = source, longest
        self.assumed = ""
        self.listing = source.listing()
        rows = source.rows(self.listing, held_out)
        counts = {row: len(PIECE.findall(self.listing.texts[row])) for row in rows}
        kept = [row for row in rows if longest is None or counts[row] <= longest]
        if len(kept) < len(rows):
            logger.warning(
                "%s: %d of %d texts have more than %d words and are skipped",
                source.path, len(rows) - len(kept), len(rows), longest,
            )  # fmt: skip
        if not kept:
            raise InputError(f"{source.path}: no text has {longest} words or fewer; raise longest")
        self.rows = kept
        self.lengths = np.array([counts[row] for row in kept])

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

    def __len__(self) -> int:
        return len(self.rows)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source."""
        return {"source": self.source.fingerprint()}

    @property
    def texts(self) -> list[str]:
        """Return all texts."""
        return [self.listing.texts[row] for row in self.rows]

    @property
    def meanings(self) -> list[dict[str, str]]:
        """Return the meaning of each text; empty if the source has none."""
        described = self.listing.meanings
        return [{} if described is None else described[row] for row in self.rows]

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`: ``text``, ``meaning``, ``name``."""
        row, listing = self.rows[index], self.listing
        example: dict[str, Any] = {"text": listing.texts[row], "name": listing.names[row]}
        if listing.meanings is not None:
            example["meaning"] = listing.meanings[row]
        if listing.sources is not None:
            example["source"] = listing.sources[row]
        return example
