"""Sampler of an editor: drafts are tagged and spans written, until no edit is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from multidiff.core.edit.alignment import Span, rewrite
from multidiff.core.sample import traverse
from multidiff.text.diffuser.drafts import Drafts, edit_tags_of, nearest_words
from multidiff.text.diffuser.mbr import settled
from multidiff.text.diffuser.network import Editor, Encoding, Template
from multidiff.text.diffuser.sampling_config import Choice, EditSamplingConfig, choose
from multidiff.text.diffuser.span_writer import PartialSpan, SpanWriter
from multidiff.text.diffuser.tagging import Tagging
from multidiff.text.domain import TextDomain
from multidiff.text.request import TextRequest, condition_of


@dataclass(frozen=True)
class Revision:
    """One state of a text in editing.

    Attributes:
        tokens: the text.
        spans: the edits that led here from the revision before; empty for the draft.
        score: log probability of all edits so far, in nats; for edits chosen among several
            candidates, that of the tags alone.
    """

    tokens: tuple[int, ...]
    spans: tuple[Span, ...] = ()
    score: float = 0.0


History = list[Revision]


@dataclass(frozen=True)
class EditState:
    """Texts in editing, as the sampling loop steps them.

    Attributes:
        beams: most likely histories of each text, the best first.
        moving: numbers of the texts that still change.
        scores: scores of the revisions that the last step found.
    """

    beams: list[list[History]]
    moving: list[int]
    scores: Tensor

    def values(self) -> tuple[Tensor, ...]:
        """Return what must stay finite; see :func:`~multidiff.core.sample.traverse`."""
        return (self.scores,)


class EditContext(NamedTuple):
    """Requests of texts in editing, and for each text one generator for every candidate."""

    requests: Sequence[TextRequest]
    rngs: Sequence[Sequence[torch.Generator]]


class Reviser:
    """Revises drafts: a sampler whose level is the number of revisions left.

    Args:
        domain: domain of the tokens and conditions.
        editor: the network.
        sampling: sampling configuration.
    """

    def __init__(self, domain: TextDomain, editor: Editor, sampling: EditSamplingConfig):
        self.domain, self.editor, self.sampling = domain, editor, sampling
        self.nearest = nearest_words(domain.vocabulary, editor.nearest_words)
        self.writer = SpanWriter(editor, sampling)

    def __call__(
        self,
        drafts: Sequence[Sequence[int]],
        requests: Sequence[TextRequest],
        rngs: Sequence[Sequence[torch.Generator]],
    ) -> list[History]:
        """Return every revision of each draft on the best path, the draft first.

        Args:
            drafts: tokens.
            requests: request for each.
            rngs: generators of the draws, for each draft one for every candidate.

        Raises:
            ValueError: if the network returned NaN.
        """
        beams: list[list[History]] = [[[Revision(tuple(draft))]] for draft in drafts]
        start = EditState(beams, [*range(len(drafts))], torch.zeros(0))
        levels = range(self.sampling.steps, -1, -1)
        done = traverse(EditContext(requests, rngs), self, levels, start)
        return [ways[0] for ways in done.beams]

    def step(
        self, context: EditContext, state: EditState, left: int, *_: Any
    ) -> tuple[EditState, None]:
        """Return the texts after one more revision, with ``left`` to come, this one included."""
        if not state.moving:
            return state, None
        rows = [row for row in state.moving for _ in state.beams[row]]
        ways = [way for row in state.moving for way in state.beams[row]]
        found = self._revised(
            [way[-1] for way in ways], [context.requests[row] for row in rows],
            [context.rngs[row] for row in rows], left,
        )  # fmt: skip
        grown: dict[int, list[History]] = {row: [] for row in state.moving}
        for row, way, several in zip(rows, ways, found, strict=True):
            grown[row] += [[*way, one] for one in several]
        beams, moving = [*state.beams], []
        for row, longer in grown.items():
            best = _best_of(longer, self.sampling.revision_beams)
            if any(way[-1].spans for way in best):
                moving.append(row)
            # A finished path is compared again with those that continue.
            beams[row] = [way if way[-1].spans else way[:-1] for way in best]
        scores = torch.tensor([one.score for several in found for one in several])
        return EditState(beams, moving, scores), None

    def read(self, texts: Sequence[Sequence[int]], requests: Sequence[TextRequest]) -> Encoding:
        """Encode texts for the tagger, conditioned on their requests."""
        condition = None
        if self.domain.sources:
            real = torch.ones(len(texts), 1, dtype=torch.bool, device=self.domain.device)
            condition = condition_of(self.domain, requests, real)
        return self.editor.encode(Drafts.of(texts, condition, self.domain.device, self.nearest))

    def _revised(
        self,
        texts: Sequence[Revision],
        requests: Sequence[TextRequest],
        rngs: Sequence[Sequence[torch.Generator]],
        left: int,
    ) -> list[list[Revision]]:
        """Return the revisions that follow each text, as many as the beam is wide."""
        encoding = self.read([one.tokens for one in texts], requests)
        choices = self.choices([one.tokens for one in texts], encoding, left)
        positions = encoding.drafts.tokens.shape[1]
        marks = edit_tags_of([one.spans for one in choices], positions, self.domain.device)
        begun = [self._begun(text, one) for text, one in zip(texts, choices, strict=True)]
        template = self.editor.template(encoding, marks)
        if self.sampling.num_candidates > 1:
            found = self._settled(texts, choices, begun, template, rngs)
        else:
            found = self.writer(begun, template, [own for own, *_ in rngs])
            if self.sampling.min_confidence > 0:
                found = [
                    [self._confident(text.score, choice.tagging, one) for one in several]
                    for text, choice, several in zip(texts, choices, found, strict=True)
                ]
        return [
            [Revision(rewrite(text.tokens, one.spans), one.spans, one.score) for one in several]
            for text, several in zip(texts, found, strict=True)
        ]

    def _settled(
        self,
        texts: Sequence[Revision],
        choices: Sequence[Choice],
        begun: Sequence[PartialSpan],
        template: Template,
        rngs: Sequence[Sequence[torch.Generator]],
    ) -> list[list[PartialSpan]]:
        """Return, of several draws of each text's edits, those of minimum Bayes risk."""
        rows = [row for row, own in enumerate(rngs) for _ in own]
        draws = [one for own in rngs for one in own]
        written = iter(
            self.writer([begun[row] for row in rows], template[torch.tensor(rows)], draws)
        )
        settled_on = []
        for text, choice, own in zip(texts, choices, rngs, strict=True):
            ways = [one.spans for one, *_ in islice(written, len(own))]
            spans = settled(text.tokens, ways, choice.tagging, self.editor.length)
            score = text.score + choice.tagging.score(spans)
            settled_on.append([PartialSpan(spans, 0, score, len(spans))])
        return settled_on

    def _confident(self, before: float, tagging: Tagging, made: PartialSpan) -> PartialSpan:
        """Return the edits that are confident enough, and their score after that of the text.

        Without a deletion that room was made by, the text may be too long: then the least
        confident of the edits that make it longer are left out too.
        """
        sure = {
            span: (tagging.confidence(span, written), written)
            for span, written in zip(made.spans, made.written, strict=True)
        }
        spans = [span for span in made.spans if sure[span][0] >= self.sampling.min_confidence]
        while len(tagging) + sum(map(_growth, spans)) > self.editor.length:
            growing = [span for span in spans if _growth(span) > 0]
            if not growing:
                break
            spans.remove(min(growing, key=lambda span: sure[span][0]))
        score = before + tagging.score(spans) + sum(sure[span][1] for span in spans)
        return PartialSpan(tuple(spans), made.room, score, len(spans))

    def choices(
        self, texts: Sequence[Sequence[int]], encoding: Encoding, left: int
    ) -> list[Choice]:
        """Return the edits to make in each text, with ``left`` revisions to come."""
        tags, gaps = (logits.cpu().double() for logits in self.editor.tags(encoding))
        log_tags, log_gaps = tags.log_softmax(dim=-1), _log_ratios(gaps)
        choices = []
        for row, text in enumerate(texts):
            count = len(text)
            tagging = Tagging(log_tags[row, 1 : count + 1], log_gaps[row, : count + 1])
            choices.append(choose(tagging, self.sampling, left, self.editor.length))
        return choices

    def _begun(self, text: Revision, choice: Choice) -> PartialSpan:
        spans = choice.spans
        kept = len(text.tokens) - sum(span.stop - span.start for span in spans)
        return PartialSpan(spans, self.editor.length - kept, text.score + choice.score)


def _growth(span: Span) -> int:
    """Return by how many tokens an edit makes a text longer."""
    return len(span.tokens) - (span.stop - span.start)


def _log_ratios(logits: Tensor) -> Tensor:
    """Return log probabilities of no and yes."""
    return F.logsigmoid(torch.stack([-logits, logits], dim=-1))


def _best_of(ways: list[History], most: int) -> list[History]:
    """Return the likeliest paths; of those that end in the same text only the best."""
    best: dict[tuple[int, ...], History] = {}
    for way in sorted(ways, key=lambda one: -one[-1].score):
        best.setdefault(way[-1].tokens, way)
    return list(best.values())[:most]
