"""The walk of an editor: drafts are tagged, spans are written, until nothing is to be edited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from multidiff.core.alignment import DELETE, EDITS, INSERT, KEEP, Span, find_spans, rewrite
from multidiff.core.mask_solvers import TokenDraw
from multidiff.errors import InputError
from multidiff.text.domain import UNWRITTEN, TextDomain
from multidiff.text.editor import Drafts, Editor, Encoding, Marks, Stream, Template, marks_of
from multidiff.text.orders import TextOrder, told_of
from multidiff.text.vocabulary import END

Pace = Literal["all", "even"]


@dataclass(frozen=True)
class EditWalk:
    """How drafts are revised.

    Attributes:
        steps: most revisions.
        pace: do all edits that the tagger wants, or an even share of them, the surest first.
        caution: nats by which an edit must be likelier than keeping what is there.
        temperature: of the tokens written; 0 takes the likeliest.
        nucleus: they are drawn among the likeliest up to this probability; 0.6 in the paper.
        beam: token sequences that are kept while writing; 1 draws one.
        revisions: texts that are kept from revision to revision (the paper's second beam).

    Raises:
        InputError: if a number is out of range.
    """

    steps: int = 12
    pace: Pace = "all"
    caution: float = 0.0
    temperature: float = 0.0
    nucleus: float = 1.0
    beam: int = 1
    revisions: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "beam", "revisions"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: at least 1")
        if self.revisions > self.beam:
            raise InputError(
                f"--revisions {self.revisions}: no more than --beam {self.beam}, which they are "
                "chosen from"
            )
        if self.temperature < 0 or not 0 < self.nucleus <= 1:
            raise InputError(
                f"--temperature {self.temperature:g}: 0 or more, and --nucleus "
                f"{self.nucleus:g}: above 0, up to 1"
            )


@dataclass(frozen=True)
class Revision:
    """A text on its way.

    Attributes:
        tokens: the text.
        spans: the edits that led here from the revision before; none for the draft.
        score: log probability of all edits up to here, in nats.
    """

    tokens: tuple[int, ...]
    spans: tuple[Span, ...] = ()
    score: float = 0.0


@dataclass
class _Written:
    """Spans of one text while they are written."""

    spans: list[Span]
    room: int
    current: int = 0
    score: float = 0.0
    tokens: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = self.tokens or [[] for _ in self.spans]
        self._pass_deletions()

    def _pass_deletions(self) -> None:
        while not self.done and self.spans[self.current].edit == DELETE:
            self.current += 1

    @property
    def done(self) -> bool:
        return self.current >= len(self.spans)

    def begun(self) -> list[Span]:
        """The spans up to the current one, with their tokens."""
        return [
            Span(span.edit, span.start, span.stop, tuple(tokens))
            for span, tokens in zip(
                self.spans[: self.current + 1], self.tokens[: self.current + 1], strict=True
            )
        ]

    def forbidden(self) -> list[int]:
        """Tokens that may not follow: a span is not empty, and a text not too long."""
        unwritten = [number for number in UNWRITTEN if number != END]
        return unwritten if self.tokens[self.current] else [*unwritten, END]

    @property
    def full(self) -> bool:
        """Whether the span has to end here."""
        return bool(self.tokens[self.current]) and sum(map(len, self.tokens)) >= self.room

    def followed(self, token: int, cost: float) -> _Written:
        """What it is after one more token."""
        tokens = [list(some) for some in self.tokens]
        after = _Written(self.spans, self.room, self.current, self.score - cost, tokens)
        if token == END:
            after.current += 1
            after._pass_deletions()
        else:
            tokens[self.current].append(token)
        return after


class Reviser:
    """Revises drafts.

    Args:
        domain: what numbers and conditions are.
        editor: the network.
        walk: how.
    """

    def __init__(self, domain: TextDomain, editor: Editor, walk: EditWalk):
        self.domain, self.editor, self.walk = domain, editor, walk
        self.draw = TokenDraw(walk.temperature, walk.nucleus)

    def __call__(
        self,
        drafts: Sequence[Sequence[int]],
        orders: Sequence[TextOrder],
        rngs: Sequence[torch.Generator],
    ) -> list[list[Revision]]:
        """Every revision of each draft on the best way, the draft first."""
        beams = [[[Revision(tuple(draft))]] for draft in drafts]
        resting = [False] * len(beams)
        for number in range(self.walk.steps):
            rows = [
                (row, way)
                for row, ways in enumerate(beams)
                if not resting[row]
                for way in range(len(ways))
            ]
            if not rows:
                break
            texts = [beams[row][way][-1] for row, way in rows]
            found = self._revised(
                texts,
                [orders[row] for row, _ in rows],
                [rngs[row] for row, _ in rows],
                self.walk.steps - number,
            )
            grown: dict[int, list[list[Revision]]] = {}
            for (row, way), several in zip(rows, found, strict=True):
                grown.setdefault(row, []).extend([*beams[row][way], one] for one in several)
            for row, ways in grown.items():
                ways = _best_of(ways, self.walk.revisions)
                resting[row] = not any(way[-1].spans for way in ways)
                beams[row] = [way if way[-1].spans else way[:-1] for way in ways]
        return [ways[0] for ways in beams]

    def _revised(
        self,
        texts: Sequence[Revision],
        orders: Sequence[TextOrder],
        rngs: Sequence[torch.Generator],
        left: int,
    ) -> list[list[Revision]]:
        """The revisions that follow each text: as many as the beam is wide."""
        condition = None
        if self.domain.sources:
            real = torch.ones(len(texts), 1, dtype=torch.bool, device=self.domain.device)
            condition = told_of(self.domain, orders, real)
        drafts = Drafts.of([one.tokens for one in texts], condition, self.domain.device)
        encoding = self.editor.encode(drafts)
        spans, scores = self._chosen(texts, encoding, left)
        marks = _marks(spans, texts, drafts)
        template = self.editor.template(encoding, marks)
        written = [
            _Written(list(some), self._room(text, some), score=text.score + score)
            for some, text, score in zip(spans, texts, scores, strict=True)
        ]
        every = self._beams(written, template, rngs)
        return [
            [_revision(text, one) for one in several]
            for text, several in zip(texts, every, strict=True)
        ]

    def _room(self, text: Revision, spans: Sequence[Span]) -> int:
        """Tokens that may be written; every span gets at least one."""
        kept = len(text.tokens) - sum(span.stop - span.start for span in spans)
        return self.editor.length - kept

    def _chosen(
        self, texts: Sequence[Revision], encoding: Encoding, left: int
    ) -> tuple[list[tuple[Span, ...]], list[float]]:
        """The edits of each text, and their log probability."""
        tags, gaps = self.editor.tags(encoding)
        log_tags = torch.log_softmax(tags.double(), dim=-1).cpu()
        log_gaps = torch.nn.functional.logsigmoid(
            torch.stack([-gaps.double(), gaps.double()], dim=-1)
        ).cpu()
        spans, scores = [], []
        for row, text in enumerate(texts):
            one = _edits(log_tags[row, 1:], log_gaps[row], len(text.tokens), self.walk, left)
            spans.append(find_spans(*one[:2]))
            scores.append(one[2])
        return spans, scores

    def _beams(
        self, written: list[_Written], template: Template, rngs: Sequence[torch.Generator]
    ) -> list[list[_Written]]:
        """The best ways to write the spans of each text."""
        beams = [[one] for one in written]
        while True:
            open_ = [
                (row, way)
                for row, ways in enumerate(beams)
                for way, one in enumerate(ways)
                if not one.done
            ]
            if not open_:
                return beams
            ways = [beams[row][way] for row, way in open_]
            rows = torch.tensor([row for row, _ in open_], device=self.domain.device)
            logits = self._next(ways, template[rows])
            if self.walk.beam == 1:
                self._draw_next(beams, open_, logits, rngs)
            else:
                beams = self._widened(beams, open_, logits)

    def _next(self, ways: Sequence[_Written], template: Template) -> Tensor:
        """Log probabilities of the token that follows each."""
        stream = Stream.of([one.begun() for one in ways], self.domain.device)
        logits = self.editor.write(template, stream)
        last = stream.real.sum(dim=1) - 1
        found = logits[torch.arange(len(ways)), last].double().cpu()
        for row, one in enumerate(ways):
            if one.full:
                found[row] = torch.where(torch.arange(found.shape[1]) == END, found[row], -math.inf)
            else:
                found[row, one.forbidden()] = -math.inf
        return torch.log_softmax(found, dim=-1)

    def _draw_next(
        self,
        beams: list[list[_Written]],
        open_: Sequence[tuple[int, int]],
        logits: Tensor,
        rngs: Sequence[torch.Generator],
    ) -> None:
        everywhere = torch.ones(len(open_), 1, dtype=torch.bool)
        drawn = self.draw(logits[:, None], everywhere, [rngs[row] for row, _ in open_])[:, 0]
        for (row, way), token, line in zip(open_, drawn.tolist(), logits, strict=True):
            beams[row][way] = beams[row][way].followed(token, -float(line[token]))

    def _widened(
        self, beams: list[list[_Written]], open_: Sequence[tuple[int, int]], logits: Tensor
    ) -> list[list[_Written]]:
        wide = self.walk.beam
        grown = [[one for one in ways if one.done] for ways in beams]
        best, tokens = logits.topk(min(wide, logits.shape[1]), dim=1)
        for (row, way), costs, numbers in zip(open_, best.tolist(), tokens.tolist(), strict=True):
            grown[row] += [
                beams[row][way].followed(number, -cost)
                for cost, number in zip(costs, numbers, strict=True)
                if cost > -math.inf
            ]
        return [sorted(ways, key=lambda one: -one.score)[:wide] for ways in grown]


def _edits(
    log_tags: Tensor, log_gaps: Tensor, count: int, walk: EditWalk, left: int
) -> tuple[list, list, float]:
    """Tags and gaps of one text of so many tokens, and their log probability."""
    keep = log_tags[:count, KEEP]
    best, tag = log_tags[:count, 1:].max(dim=1)
    sure = torch.cat([best - keep, log_gaps[: count + 1, 1] - log_gaps[: count + 1, 0]])
    wanted = sure > walk.caution
    if walk.pace == "even" and int(wanted.sum()) > 0:
        most = math.ceil(int(wanted.sum()) / left)
        order = sure.masked_fill(~wanted, -math.inf).argsort(descending=True)
        wanted = torch.zeros_like(wanted).scatter(0, order[:most], True) & wanted
    tags = [EDITS[int(t) + 1] if w else KEEP for t, w in zip(tag, wanted[:count], strict=True)]
    gaps = wanted[count:].tolist()
    score = torch.where(wanted[:count], best, keep).sum()
    score += log_gaps[: count + 1].gather(1, wanted[count:, None].long()).sum()
    return tags, gaps, float(score)


def _marks(spans: Sequence[Sequence[Span]], texts: Sequence[Revision], drafts: Drafts) -> Marks:
    tags, gaps = [], []
    for some, text in zip(spans, texts, strict=True):
        tag, gap = [KEEP] * len(text.tokens), [False] * (len(text.tokens) + 1)
        for span in some:
            if span.edit == INSERT:
                gap[span.start] = True
            tag[span.start : span.stop] = [span.edit] * (span.stop - span.start)
        tags.append(tag)
        gaps.append(gap)
    return marks_of(tags, gaps, drafts.tokens.shape[1], drafts.tokens.device)


def _revision(text: Revision, written: _Written) -> Revision:
    spans = tuple(
        Span(span.edit, span.start, span.stop, tuple(tokens))
        for span, tokens in zip(written.spans, written.tokens, strict=True)
    )
    return Revision(rewrite(text.tokens, spans), spans, written.score)


def _best_of(ways: list[list[Revision]], most: int) -> list[list[Revision]]:
    """The likeliest ways, of those that end in the same text only the best."""
    best: dict[tuple[int, ...], list[Revision]] = {}
    for way in sorted(ways, key=lambda one: -one[-1].score):
        best.setdefault(way[-1].tokens, way)
    return list(best.values())[:most]
