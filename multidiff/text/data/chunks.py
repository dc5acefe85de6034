"""Stretches of running text to train on: they begin and end anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from multidiff.text.data.listing import TextSource
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint


class TextChunks:
    """Stretches of one long text, in memory.

    A stretch is so many characters, since a source knows of no tokens; with a vocabulary of
    characters these are the same. For pieces of words take as many characters as the pieces that
    the model reads mostly have: what is longer is cut.

    The last part of the text is held out, and its stretches follow each other. Those to train on
    begin anywhere in the rest: an epoch is as many as would cover it, drawn anew at each visit.

    Args:
        source: where the text comes from; it says ``running: true``.
        length: characters of a stretch.
        held_out: take the part that training does not see.
        held_out_ratio: share of the text that is held out.

    Attributes:
        text: the part that the stretches are of.
        before: the part before it; none of it where the stretches are to train on.

    Raises:
        InputError: if the source cannot be read or is no running text, or the part is shorter
            than a stretch.
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
                f"{source.path}: stretches are cut from running text; set running: true in this "
                "source and in that of the vocabulary"
            )
        if length < 1 or not 0 <= held_out_ratio < 1:
            raise InputError(
                f"length {length} or held_out_ratio {held_out_ratio:g}: give a length from 1 and "
                "a share in [0, 1)"
            )
        (whole,) = source.listing().texts
        cut = int(len(whole) * (1 - held_out_ratio))
        self.source, self.length, self.held_out = source, length, held_out
        self.before, self.text = (whole[:cut], whole[cut:]) if held_out else ("", whole[:cut])
        if len(self.text) < length:
            which = "held out" if held_out else "to train on"
            raise InputError(
                f"{source.path}: {len(self.text)} of {len(whole)} characters are {which}, less "
                f"than one stretch of {length}; make the stretches shorter or change "
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
        """Return stretches of a text that is made up, for dry runs."""
        from multidiff.text.made_up import MadeUpSource

        words = max(1, math.ceil(length / max(1 - held_out_ratio, 0.01)))
        return cls(MadeUpSource.like(source, words), length, held_out, held_out_ratio)

    def __len__(self) -> int:
        return len(self.text) // self.length

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source."""
        return {"source": self.source.fingerprint()}

    def stretch(self, start: int) -> str:
        """The one that begins at that character of the part."""
        return self.text[start : start + self.length]

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.training.batches.Examples`: ``text`` and ``name``."""
        last = len(self.text) - self.length
        start = index * self.length if self.held_out else int(rng.integers(last + 1))
        position = len(self.before) + start
        name = f"{self.source.path}[{position}:{position + self.length}]"
        return {"text": self.stretch(start), "name": name}
