"""Writing the spans of an edited text, token by token, by sampling or beam search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.discrete.samplers import TokenDraw
from multidiff.core.edit.alignment import DELETE, Span
from multidiff.nn.transformer import KVCache
from multidiff.text.data.vocabulary import END
from multidiff.text.diffuser.drafts import DecoderInput
from multidiff.text.diffuser.network import Editor, Template
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.domain import UNWRITTEN


@dataclass(frozen=True)
class PartialSpan:
    """Spans of one text while they are written, from the left.

    Attributes:
        spans: the edits, with the tokens written so far.
        room: number of tokens that may be written in total, at least one for each span.
        score: log probability of all edits so far, in nats.
        current: number of the span being written; deletions are skipped.
        position: index in the previous beam of the hypothesis that it extends.
        written: log probability of the tokens written in each span, 0 for deletions.
    """

    spans: tuple[Span, ...]
    room: int
    score: float = 0.0
    current: int = 0
    position: int = 0
    written: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        current = self.current
        while current < len(self.spans) and self.spans[current].edit == DELETE:
            current += 1
        object.__setattr__(self, "current", current)
        object.__setattr__(self, "written", self.written or (0.0,) * len(self.spans))

    @property
    def done(self) -> bool:
        """Return whether all spans are written."""
        return self.current == len(self.spans)

    @property
    def begun(self) -> tuple[Span, ...]:
        """Return the spans up to the current one."""
        return self.spans[: self.current + 1]

    def allowed(self, logits: Float[Tensor, " size"]) -> Float[Tensor, " size"]:
        """Return logits of the tokens allowed next, -inf elsewhere.

        No span is empty, and none uses up the tokens reserved for those that follow.
        """
        begun = bool(self.spans[self.current].tokens)
        later = sum(span.edit != DELETE for span in self.spans[self.current + 1 :])
        full = sum(len(span.tokens) for span in self.spans) + later >= self.room
        if begun and full:
            return torch.full_like(logits, -math.inf).index_fill(0, torch.tensor(END), 0.0)
        never = [token for token in UNWRITTEN if token != END or not begun]
        return logits.index_fill(0, torch.tensor(never), -math.inf)

    def followed(self, token: int, log_prob: float) -> PartialSpan:
        """Return the state after one more token; END closes a span."""
        at, score = self.current, self.score + log_prob
        written = (*self.written[:at], self.written[at] + log_prob, *self.written[at + 1 :])
        if token == END:
            return replace(self, score=score, current=at + 1, written=written)
        span = self.spans[at]
        longer = replace(span, tokens=(*span.tokens, token))
        spans = (*self.spans[:at], longer, *self.spans[at + 1 :])
        return replace(self, spans=spans, score=score, written=written)


class SpanWriter:
    """Writes spans with an editor's generator.

    Args:
        editor: the network.
        sampling: sampling configuration: token draws, or beam width.
    """

    def __init__(self, editor: Editor, sampling: EditSamplingConfig):
        self.editor, self.beam = editor, sampling.beam
        self.draw = TokenDraw(sampling.temperature, sampling.top_p)

    def __call__(
        self, begun: Sequence[PartialSpan], template: Template, rngs: Sequence[torch.Generator]
    ) -> list[list[PartialSpan]]:
        """Return the best ways to write the spans of each text, as many as the beam is wide.

        Args:
            begun: spans of each text.
            template: the texts as the generator reads them.
            rngs: generators of the draws, one for each text.
        """
        beams = [[replace(one, position=row)] for row, one in enumerate(begun)]
        grow = self._drawn if self.beam == 1 else self._widened
        memory = KVCache()
        while True:
            rows = [row for row, ways in enumerate(beams) for way in ways if not way.done]
            if not rows:
                return beams
            ways = [way for ways in beams for way in ways if not way.done]
            memory.reorder(torch.tensor([way.position for way in ways]))
            log_probs = self._following(ways, template[torch.tensor(rows)], memory)
            ways = [replace(way, position=position) for position, way in enumerate(ways)]
            grown = grow(ways, log_probs, [rngs[row] for row in rows])
            beams = [[way for way in ways if way.done] for ways in beams]
            for row, several in zip(rows, grown, strict=True):
                beams[row] += several
            beams = [sorted(ways, key=lambda way: -way.score)[: self.beam] for ways in beams]

    def _following(
        self, ways: Sequence[PartialSpan], template: Template, memory: KVCache
    ) -> Float[Tensor, "ways size"]:
        """Return log probabilities of the token that follows each, on the CPU.

        Every hypothesis grows by a token at a time, including END, so their streams are equally
        long.
        """
        stream = DecoderInput.of([way.begun for way in ways], template.hidden.device)
        found = self.editor.write(template, stream, memory)[:, -1].cpu().double()
        allowed = [way.allowed(row) for way, row in zip(ways, found, strict=True)]
        return torch.log_softmax(torch.stack(allowed), dim=-1)

    def _drawn(
        self, ways: Sequence[PartialSpan], log_probs: Tensor, rngs: Sequence[torch.Generator]
    ) -> list[list[PartialSpan]]:
        """Return each hypothesis with a token drawn."""
        everywhere = torch.ones(len(ways), 1, dtype=torch.bool)
        drawn = self.draw(log_probs[:, None], everywhere, rngs)
        found = log_probs.gather(1, drawn)
        return [
            [way.followed(token, log_prob)]
            for way, (token,), (log_prob,) in zip(ways, drawn.tolist(), found.tolist(), strict=True)
        ]

    def _widened(
        self, ways: Sequence[PartialSpan], log_probs: Tensor, rngs: Sequence[torch.Generator]
    ) -> list[list[PartialSpan]]:
        """Return each hypothesis with each of the likeliest tokens."""
        found, tokens = log_probs.topk(min(self.beam, log_probs.shape[1]), dim=1)
        return [
            [
                way.followed(token, log_prob)
                for token, log_prob in zip(numbers, ratios, strict=True)
                if log_prob > -math.inf
            ]
            for way, numbers, ratios in zip(ways, tokens.tolist(), found.tolist(), strict=True)
        ]
