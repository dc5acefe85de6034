"""Training task of an editor: texts are corrupted by edits, and it learns to undo them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.devices import in_float64
from multidiff.core.edit.alignment import Span, align_many, rewrite
from multidiff.core.edit.process import EditProcess
from multidiff.core.guidance import drop_condition
from multidiff.core.protocols import Condition
from multidiff.core.random import Rng, uniform
from multidiff.text.data.vocabulary import END, PAD
from multidiff.text.diffuser.drafts import (
    DecoderInput,
    Drafts,
    EditTags,
    Nearest,
    edit_tags_of,
    nearest_words,
)
from multidiff.text.diffuser.mistakes import Mistakes
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.writing_mistakes import WritingMistakes
from multidiff.text.domain import UNWRITTEN, EncodedText, TextDomain

Target = Literal["clean", "before"]


@dataclass(frozen=True)
class EditBatch:
    """Drafts, the edits to make, and the resulting texts."""

    drafts: Drafts
    spans: list[tuple[Span, ...]]
    encoded: EncodedText | None = None

    @classmethod
    def of(
        cls,
        befores: Sequence[Sequence[int]],
        afters: Sequence[Sequence[int]],
        condition: Condition,
        device: torch.device,
        encoded: EncodedText | None = None,
        nearest: Nearest | None = None,
    ) -> EditBatch:
        """Return the edits from some texts to others, passage by passage.

        Args:
            befores: the drafts.
            afters: the target texts.
            condition: condition of the network.
            device: device of the network.
            encoded: the texts, for the loss of their lengths.
            nearest: see :class:`~multidiff.text.diffuser.drafts.Drafts`.
        """
        spans = [one.passages() for one in align_many(befores, afters)]
        return cls(Drafts.of(befores, condition, device, nearest), spans, encoded)


class EditTask(nn.Module):
    """Undoing edits: cross-entropies of tags, of gaps and of written tokens.

    Args:
        domain: texts to tokens, and conditions.
        process: process that corrupts them.
        editor: the network.
        target: the target: the "clean" text, or the state "before" the last step.
        drop_condition: fraction of the samples whose condition is dropped.
        from_source: fraction of the samples whose draft is their source text
            (the paper's source bootstrap).
        from_nothing: fraction of those whose draft is empty. With 1 this is an ordinary
            autoregressive model of texts. The rest are corrupted.
        from_own: fraction of the samples whose draft is first corrected with
            tokens that the editor draws: it learns to see the mistakes that it makes itself.
        mistakes: mistakes that a fraction of the corrupted drafts has instead of random edits.

    Raises:
        ValueError: if a fraction is out of range.
    """

    def __init__(
        self,
        domain: TextDomain,
        process: EditProcess,
        editor: Editor,
        target: Target = "clean",
        drop_condition: float = 0.0,
        from_source: float = 0.0,
        from_nothing: float = 0.0,
        from_own: float = 0.0,
        mistakes: Mistakes | WritingMistakes | None = None,
    ):
        if not 0 <= from_own <= 1:
            raise ValueError(f"from_own {from_own:g}: must be in [0, 1]")
        if min(from_source, from_nothing) < 0 or from_source + from_nothing > 1:
            raise ValueError(
                f"from_source {from_source:g} and from_nothing {from_nothing:g}: must be at least "
                "0 and add up to at most 1"
            )
        super().__init__()
        self.domain, self.process, self.editor = domain, process, editor
        self.target: Target = target
        self.drop_condition = drop_condition
        self.from_source, self.from_nothing = from_source, from_nothing
        self.from_own, self.mistakes = from_own, mistakes
        self.nearest = nearest_words(domain.vocabulary, editor.nearest_words)

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return nats for each tag, gap and written token of each sample, and for its length."""
        edit_batch = self.edit_batch(batch, rng)
        assert edit_batch.encoded is not None
        length = self.domain.length_loss(edit_batch.encoded)
        return {**edit_losses(self.editor, edit_batch), "length": length}

    def edit_batch(self, batch: Any, rng: Rng | None) -> EditBatch:
        """Return drafts of a batch of texts and the edits to make in them."""
        tokens, condition = self.domain.encoded(batch, rng)
        texts = [[n for n in row if n not in (PAD, END)] for row in tokens.tolist()]
        befores, afters = self._pairs(texts, batch.get("source"), rng)
        cond = self._condition(condition, len(texts), rng)
        encoded = EncodedText(tokens, condition, tokens=tokens)
        if self.from_own > 0:
            befores = self._corrected(befores, afters, cond, rng)
        return EditBatch.of(befores, afters, cond, self.domain.device, encoded, self.nearest)

    def _corrected(
        self,
        befores: list[list[int]],
        afters: list[list[int]],
        cond: dict[str, Tensor],
        rng: Rng | None,
    ) -> list[list[int]]:
        """Return the drafts, a fraction of them corrected with the editor's own tokens."""
        rows = (uniform((len(befores),), rng) < self.from_own).nonzero().flatten().tolist()
        if not rows:
            return befores
        some = [befores[row] for row in rows]
        condition = {key: value[rows] for key, value in cond.items()}
        edit_batch = EditBatch.of(
            some, [afters[row] for row in rows], condition, self.domain.device,
            nearest=self.nearest,
        )  # fmt: skip
        rngs = [rng[row] for row in rows] if isinstance(rng, Sequence) else rng
        own = dict(zip(rows, own_drafts(self.editor, edit_batch, some, rngs), strict=True))
        return [own.get(row, before) for row, before in enumerate(befores)]

    def _pairs(
        self, texts: list[list[int]], sources: Sequence[str] | None, rng: Rng | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        levels = self.process.draw_level(len(texts), rng)
        chains = self.process.corrupt_many(texts, levels, rng)
        befores = [[*chain[-1].tokens][: self.editor.length] for chain in chains]
        afters = texts
        if self.target == "before":
            afters = [[*chain[max(0, len(chain) - 2)].tokens] for chain in chains]
        self._add_mistakes(texts, levels, befores, afters, rng)
        start = uniform((len(texts),), rng).tolist()
        for row, draw in enumerate(start):
            if draw < self.from_nothing:
                befores[row], afters[row] = [], texts[row]
            elif sources is not None and draw < self.from_nothing + self.from_source:
                numbers = self.domain.vocabulary.numbers(sources[row])
                befores[row], afters[row] = numbers[: self.editor.length], texts[row]
        return befores, afters

    def _add_mistakes(
        self,
        texts: list[list[int]],
        levels: Tensor,
        befores: list[list[int]],
        afters: list[list[int]],
        rng: Rng | None,
    ) -> None:
        """Replace a fraction of the corrupted drafts by texts with mistakes."""
        if self.mistakes is None:
            return
        drawn = uniform((len(texts),), rng)
        chosen = (drawn < self.mistakes.probability) & (levels.to(drawn.device) > 0)
        for row in chosen.nonzero().flatten().tolist():
            own = rng[row] if isinstance(rng, Sequence) else rng
            damaged = self.mistakes(texts[row], own, self.domain.vocabulary)
            befores[row] = damaged[: self.editor.length]
            afters[row] = texts[row]

    def _condition(
        self, condition: dict[str, Tensor], batch: int, rng: Rng | None
    ) -> dict[str, Tensor]:
        cond = {key: value for key, value in condition.items() if key != "real"}
        if not cond or self.drop_condition == 0:
            return cond
        return drop_condition(cond, uniform((batch,), rng) < self.drop_condition)


@dataclass(frozen=True)
class EditorOutput:
    """An editor's output for a batch of edits.

    Attributes:
        marks: the target edits.
        tags: logits of the tags.
        gaps: logits of insertions.
        stream: the target tokens.
        wrote: logits of the token that follows each real one in the stream.
    """

    marks: EditTags
    tags: Float[Tensor, "batch length tags"]
    gaps: Float[Tensor, "batch length"]
    stream: DecoderInput
    wrote: Float[Tensor, "real size"]

    @classmethod
    def of(cls, editor: Editor, edit_batch: EditBatch) -> EditorOutput:
        """Evaluate the editor with teacher forcing."""
        drafts, device = edit_batch.drafts, edit_batch.drafts.tokens.device
        marks = edit_tags_of(edit_batch.spans, drafts.tokens.shape[1], device)
        encoding = editor.encode(drafts)
        tags, gaps = editor.tags(encoding)
        stream = DecoderInput.of(edit_batch.spans, device)
        wrote = editor.write_real(editor.template(encoding, marks), stream)
        return cls(marks, tags.float(), gaps.float(), stream, wrote.float())


def edit_losses(editor: Editor, edit_batch: EditBatch) -> dict[str, Float[Tensor, " batch"]]:
    """Return the cross-entropies of a batch of edits in nats: ``tag``, ``gap`` and ``write``."""
    said = EditorOutput.of(editor, edit_batch)
    marks, stream = said.marks, said.stream
    tag = F.cross_entropy(said.tags.flatten(0, 1), marks.tags.flatten(), reduction="none")
    gap = F.binary_cross_entropy_with_logits(said.gaps, marks.gaps.float(), reduction="none")
    tokens = edit_batch.drafts.real.clone()
    tokens[:, 0] = False
    wrote = F.cross_entropy(said.wrote, stream.follows[stream.real], reduction="none")
    return {
        "tag": _mean(tag.view_as(marks.tags), tokens),
        "gap": _mean(gap, edit_batch.drafts.real),
        "write": _mean(
            wrote.new_zeros(stream.real.shape).masked_scatter(stream.real, wrote), stream.real
        ),
    }


@torch.no_grad()
def own_drafts(
    editor: Editor, edit_batch: EditBatch, befores: Sequence[Sequence[int]], rng: Rng | None
) -> list[list[int]]:
    """Return drafts with the mistakes that the editor itself makes.

    Every edit of the batch is made, with tokens drawn from the editor's distribution there, with
    teacher forcing: one evaluation for all, and as many tokens as in the target.

    Args:
        editor: the network.
        edit_batch: the target edits.
        befores: the drafts of the batch.
        rng: source of the draws.
    """
    said = EditorOutput.of(editor, edit_batch)
    real = said.stream.real
    words = real & (said.stream.follows != END)
    never = torch.tensor(UNWRITTEN, device=words.device)
    ratios = in_float64(said.wrote[words[real]].index_fill(1, never, -math.inf)).softmax(dim=1)
    # A row's first draws are the same regardless of padding.
    draws = uniform(tuple(words.shape), rng)[words.cpu()].to(ratios.device)
    drawn = torch.searchsorted(ratios.cumsum(dim=1), draws[:, None], right=True)
    written = iter(drawn.flatten().clamp(max=editor.size - 1).tolist())
    return [
        [*rewrite(before, [_filled(span, written) for span in spans])][: editor.length]
        for before, spans in zip(befores, edit_batch.spans, strict=True)
    ]


def _filled(span: Span, words: Iterator[int]) -> Span:
    """Return the span with the next tokens instead of its own."""
    return replace(span, tokens=tuple(islice(words, len(span.tokens))))


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
