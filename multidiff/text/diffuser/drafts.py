"""Inputs of an editor: drafts, edit tags on them, and the stream of written tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, Span
from multidiff.core.protocols import Condition
from multidiff.text.data.vocabulary import END, PAD

Nearest = Callable[[Sequence[int]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Drafts:
    """Texts to be edited, with a slot before each.

    Attributes:
        tokens: token numbers, END in the slot, padded with PAD.
        real: true at tokens and the slot, false at padding.
        condition: condition of the network.
        nearest: words near the word in characters that a token is in, PAD for none; None for
            editors that do not read them.
    """

    tokens: Int[Tensor, "batch length"]
    real: Bool[Tensor, "batch length"]
    condition: Condition = None
    nearest: Int[Tensor, "batch length words"] | None = None

    @classmethod
    def of(
        cls,
        texts: Sequence[Sequence[int]],
        condition: Condition,
        device: torch.device,
        nearest: Nearest | None = None,
    ) -> Drafts:
        """Return drafts from texts.

        Args:
            texts: their tokens.
            condition: condition of the network.
            device: device of the network.
            nearest: function that returns the words near each token of a text.
        """
        longest = 1 + max(map(len, texts))
        rows = [[END, *text] + [PAD] * (longest - 1 - len(text)) for text in texts]
        tokens = torch.tensor(rows, device=device)
        near = None
        if nearest is not None:
            found = [torch.tensor(nearest([END, *text])) for text in texts]
            near = pad_sequence(found, batch_first=True, padding_value=PAD).to(device)
        return cls(tokens, tokens != PAD, condition, near)


@dataclass(frozen=True)
class EditTags:
    """Edits of drafts.

    Attributes:
        tags: KEEP, REPLACE or DELETE at each position; KEEP in the slot and in padding.
        gaps: whether something is inserted behind each position.
    """

    tags: Int[Tensor, "batch length"]
    gaps: Bool[Tensor, "batch length"]


@dataclass(frozen=True)
class DecoderInput:
    """The generator's output so far, span after span, each closed by END.

    Attributes:
        read: the token before each written one; END where a span begins.
        slots: position in the draft at which the span is written.
        kinds: 1 for an insertion, 0 for a replacement.
        real: false at padding.
    """

    read: Int[Tensor, "batch written"]
    slots: Int[Tensor, "batch written"]
    kinds: Int[Tensor, "batch written"]
    real: Bool[Tensor, "batch written"]

    @classmethod
    def of(cls, spans: Sequence[Sequence[Span]], device: torch.device) -> DecoderInput:
        """Return the stream of spans that are written, or begun; deletions are skipped."""
        rows = [
            [
                (token, span.start + (span.edit != INSERT), int(span.edit == INSERT), True)
                for span in some
                if span.edit != DELETE
                for token in (END, *span.tokens)
            ]
            for some in spans
        ]
        longest = max(1, *map(len, rows))
        padded = [row + [(PAD, 0, 0, False)] * (longest - len(row)) for row in rows]
        read, slots, kinds, real = torch.tensor(padded, device=device).unbind(dim=-1)
        return cls(read, slots, kinds, real.bool())

    @property
    def follows(self) -> Int[Tensor, "batch written"]:
        """Return the token that follows each, PAD where nothing follows.

        Where a span begins, END is read: the same END closes the span before.
        """
        last = self.real & ~F.pad(self.real[:, 1:], (0, 1))
        return F.pad(self.read[:, 1:], (0, 1), value=PAD).masked_fill(last, END)


def edit_tags_of(spans: Sequence[Sequence[Span]], positions: int, device: torch.device) -> EditTags:
    """Return the tags of drafts with that number of positions, the slot counted."""
    tags = torch.full((len(spans), positions), int(KEEP))
    gaps = torch.zeros(len(spans), positions, dtype=torch.bool)
    for row, some in enumerate(spans):
        for span in some:
            if span.edit == INSERT:
                gaps[row, span.start] = True
            tags[row, 1 + span.start : 1 + span.stop] = int(span.edit)
    return EditTags(tags.to(device), gaps.to(device))


def nearest_words(vocabulary: Any, count: int) -> Nearest | None:
    """Return the function that finds the words near each token; None for a count of 0.

    Args:
        vocabulary: a vocabulary with words in characters.
        count: number of words.
    """
    return partial(vocabulary.nearest, count=count) if count else None
