"""Training chunks of running text: they begin and end anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint


class TextChunks:
    """Chunks of one long text, in memory or, if it is large, on disk.

    The length of a chunk is counted in characters, since a source has no tokens; with a character
    vocabulary these are the same. For subwords, choose the number of characters that the tokens
    of the model's context usually have: longer chunks are truncated.

    The last part of the text is held out, and its chunks follow each other. Training chunks
    begin anywhere in the rest: an epoch has the number that would cover it, drawn again at each
    visit.

    Args:
        source: source of the text, with ``running: true``.
        length: number of characters of a chunk.
        held_out: whether to take the part kept for validation.
        held_out_ratio: fraction of the text that is held out.

    Attributes:
        text: part of the text that the chunks are taken from.
        before: the part before it; empty for training chunks. Parts on disk are read by ``str``.

    Raises:
        InputError: if the source cannot be read or is not running text, or the part is shorter
            than a chunk.
    """

    def __init__(
        self,
        source: TextSource,
        length: int,
        held_out: bool = False,
        held_out_ratio: float = 0.1,
    ):
        if not source.running:
            raise InputError(
                f"{source.path}: chunks are taken from running text; set running: true in this "
                "source and in that of the vocabulary"
            )
        if length < 1 or not 0 <= held_out_ratio < 1:
            raise InputError(
                f"length must be at least 1, got {length}, and held_out_ratio in [0, 1), got "
                f"{held_out_ratio:g}"
            )
        whole: Any = source.listing().texts[0]
        cut = int(len(whole) * (1 - held_out_ratio))
        self.source, self.length, self.held_out = source, length, held_out
        self.before, self.text = (whole[:cut], whole[cut:]) if held_out else ("", whole[:cut])
        self._vocabulary: Vocabulary | None = None
        if len(self.text) < length:
            which = "held out" if held_out else "to train on"
            raise InputError(
                f"{source.path}: {len(self.text)} of {len(whole)} characters are {which}, less "
                f"than one chunk of {length}; shorten the chunks or change "
                "held_out_ratio"
            )

    @classmethod
    def synthetic(
        cls,
        source: TextSource,
        length: int,
        held_out: bool = False,
        held_out_ratio: float = 0.1,
    ) -> TextChunks:
        """Return chunks of a synthetic text, for dry runs."""
        from multidiff.text.made_up import MadeUpSource

        words = max(1, math.ceil(length / max(1 - held_out_ratio, 0.01)))
        return cls(MadeUpSource.like(source, words), length, held_out, held_out_ratio)

    def __len__(self) -> int:
        return len(self.text) // self.length

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source."""
        return {"source": self.source.fingerprint()}

    def stretch(self, start: int) -> str:
        """Return the chunk that begins at that character of the part."""
        return str(self.text[start : start + self.length])

    def tokenized(self, vocabulary: Vocabulary, sources: bool) -> None:
        """Let examples of a text on disk have tokens, which worker processes find.

        Args:
            vocabulary: vocabulary of the tokens.
            sources: must be false: chunks have no sources.
        """
        if not isinstance(self.text, str):
            self._vocabulary = vocabulary

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`: ``text`` and ``name``."""
        last = len(self.text) - self.length
        start = index * self.length if self.held_out else int(rng.integers(last + 1))
        position = len(self.before) + start
        name = f"{self.source.path}[{position}:{position + self.length}]"
        example: dict[str, Any] = {"text": self.stretch(start), "name": name}
        if self._vocabulary is not None:
            example["text_tokens"] = np.array(self._vocabulary.numbers(example["text"]))
        return example
