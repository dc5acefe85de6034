"""What trains an editor: texts are corrupted by edits, and it learns to undo them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.alignment import Alignment, align_many
from multidiff.core.edits import EditProcess
from multidiff.core.guidance import leave_out
from multidiff.core.protocols import Condition
from multidiff.core.randomness import Rng, uniform
from multidiff.text.domain import EncodedText, TextDomain
from multidiff.text.drafts import Drafts, Stream, marks_of
from multidiff.text.editor import Editor
from multidiff.text.vocabulary import END, PAD

Aim = Literal["clean", "before"]


@dataclass(frozen=True)
class Lesson:
    """Drafts, the edits that are to be made of them, and the texts that then stand there."""

    drafts: Drafts
    alignments: list[Alignment]
    encoded: EncodedText


class EditTask(nn.Module):
    """Undoing edits: cross-entropies of tags, of gaps and of what is written.

    Args:
        domain: texts to tokens, and conditions.
        process: that corrupts them.
        editor: the network.
        aim: what it is to lead to: the "clean" text, or the state "before" the last step.
        drop_condition: share of the samples whose condition is left out.
        from_source: share of the samples whose draft is the text that theirs is made from
            (the paper's source bootstrap).
        from_nothing: share of those whose draft is empty. With all of them this is an ordinary
            autoregressive model of texts. The rest are corrupted.

    Raises:
        ValueError: if the shares are none.
    """

    def __init__(
        self,
        domain: TextDomain,
        process: EditProcess,
        editor: Editor,
        aim: Aim = "clean",
        drop_condition: float = 0.0,
        from_source: float = 0.0,
        from_nothing: float = 0.0,
    ):
        if min(from_source, from_nothing) < 0 or from_source + from_nothing > 1:
            raise ValueError(
                f"from_source {from_source:g} and from_nothing {from_nothing:g}: shares of one"
            )
        super().__init__()
        self.domain, self.process, self.editor = domain, process, editor
        self.aim: Aim = aim
        self.drop_condition = drop_condition
        self.from_source, self.from_nothing = from_source, from_nothing

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Nats for each tag, gap and written token of each sample, and for its length."""
        lesson = self.lesson(batch, rng)
        length = self.domain.length_loss(lesson.encoded)
        return {**lesson_losses(self.editor, lesson), "length": length}

    def lesson(self, batch: Any, rng: Rng | None) -> Lesson:
        """Drafts of a batch of texts and what is to be made of them."""
        tokens, condition = self.domain.encoded(batch, rng)
        texts = [[n for n in row if n not in (PAD, END)] for row in tokens.tolist()]
        befores, afters = self._pairs(texts, batch.get("source"), rng)
        told = self._condition(condition, len(texts), rng)
        drafts = Drafts.of(befores, told, self.domain.device)
        encoded = EncodedText(tokens, condition, tokens=tokens)
        return Lesson(drafts, align_many(befores, afters), encoded)

    def _pairs(
        self, texts: list[list[int]], sources: Sequence[str] | None, rng: Rng | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        levels = self.process.draw_level(len(texts), rng)
        walks = self.process.corrupt_many(texts, levels, rng)
        befores = [[*walk[-1].tokens][: self.editor.length] for walk in walks]
        afters = texts
        if self.aim == "before":
            afters = [[*walk[max(0, len(walk) - 2)].tokens] for walk in walks]
        start = uniform((len(texts),), rng).tolist()
        for row, draw in enumerate(start):
            if draw < self.from_nothing:
                befores[row], afters[row] = [], texts[row]
            elif sources is not None and draw < self.from_nothing + self.from_source:
                numbers = self.domain.vocabulary.numbers(sources[row])
                befores[row], afters[row] = numbers[: self.editor.length], texts[row]
        return befores, afters

    def _condition(self, condition: dict[str, Tensor], batch: int, rng: Rng | None) -> Condition:
        told = {key: value for key, value in condition.items() if key != "real"}
        if not told or self.drop_condition == 0:
            return told
        return leave_out(told, uniform((batch,), rng) < self.drop_condition)


def lesson_losses(editor: Editor, lesson: Lesson) -> dict[str, Float[Tensor, " batch"]]:
    """The cross-entropies of a lesson in nats: ``tag``, ``gap`` and ``write``."""
    drafts, device = lesson.drafts, lesson.drafts.tokens.device
    places = drafts.tokens.shape[1]
    marks = marks_of(
        [one.tags for one in lesson.alignments], [one.gaps for one in lesson.alignments],
        places, device,
    )  # fmt: skip
    encoding = editor.encode(drafts)
    tags, gaps = editor.tags(encoding)
    tag = F.cross_entropy(tags.float().flatten(0, 1), marks.tags.flatten(), reduction="none")
    gap = F.binary_cross_entropy_with_logits(gaps.float(), marks.gaps.float(), reduction="none")
    tokens = drafts.real.clone()
    tokens[:, 0] = False
    spans = [one.spans() for one in lesson.alignments]
    stream = Stream.of(spans, device)
    logits = editor.write(editor.template(encoding, marks), stream).float()
    last = stream.real & ~F.pad(stream.real[:, 1:], (0, 1))
    # Where a span begins, END is read: the same END closes the span before.
    follows = F.pad(stream.read[:, 1:], (0, 1)).masked_fill(last, END)
    wrote = F.cross_entropy(logits.flatten(0, 1), follows.flatten(), reduction="none")
    return {
        "tag": _mean(tag.view_as(marks.tags), tokens),
        "gap": _mean(gap, drafts.real),
        "write": _mean(wrote.view_as(follows), stream.real),
    }


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
