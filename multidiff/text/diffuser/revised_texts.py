"""Whole texts from the revisions of their drafts, which may be those of their sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from multidiff.text.diffuser.draft_sources import Draft
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.rendering import facts_of
from multidiff.text.diffuser.reviser import History, Revision
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.spelling import Spelling


@dataclass
class RevisedText:
    """A text after revision.

    Attributes:
        seed: random seed of its draws.
        source: the draft.
        text: the text after the last revision.
        facts: text, score and edits of each revision; see
            :func:`~multidiff.text.diffuser.rendering.facts_of`.
        unread: lines, from 1, of the sentences that stay because they are in another language or
            longer than the model reads.
    """

    seed: int
    source: str = ""
    text: str = ""
    facts: list[dict[str, Any]] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)

    def add(self, draft: Draft, spelling: Spelling, history: History) -> None:
        """Add a draft and its revisions; a sentence that none of them edits stays as typed."""
        texts = [draft.typed]
        if len(history) > 1 or draft.sentence is None:
            texts = spelling.texts(history)
            self.facts += facts_of(spelling, history)
        self.source += texts[0] + draft.gap
        self.text += texts[-1] + draft.gap
        if draft.unread in ("foreign", "long"):
            self.unread.append(draft.line)


def revise_drafts(
    model: EditedText,
    drafts: Sequence[Draft],
    config: EditSamplingConfig,
    on_draft: Callable[[Draft, Spelling, History], None] | None = None,
    on_text: Callable[[RevisedText], None] | None = None,
) -> list[RevisedText]:
    """Return the texts that drafts become; drafts that the model does not read stay.

    Args:
        model: the model.
        drafts: the drafts; those of a text's sentences in their order.
        config: options of revising.
        on_draft: function that receives the revisions of each draft in turn.
        on_text: function that receives each text as soon as it is complete.
    """
    found: list[RevisedText] = []
    waiting, begun = iter(drafts), False

    def note(draft: Draft, history: History) -> None:
        nonlocal begun
        if not begun:
            found.append(RevisedText(draft.seed))
        begun = not draft.last
        spelling: Spelling
        if draft.sentence is not None:
            spelling = draft.sentence
            history = draft.sentence.kept(history)
        else:
            spelling = Spelling(model.domain.vocabulary, draft.typed)
        if on_draft is not None:
            on_draft(draft, spelling, history)
        found[-1].add(draft, spelling, history)
        if draft.last and on_text is not None:
            on_text(found[-1])

    def revised(history: History) -> None:
        for draft in waiting:
            if not draft.unread:
                return note(draft, history)
            note(draft, [Revision(tuple(draft.tokens))])

    read = [one for one in drafts if not one.unread]
    model.revise(
        [one.tokens for one in read], [one.request for one in read],
        config=config, seed=[one.seed for one in read], on_history=revised,
    )  # fmt: skip
    for draft in waiting:
        note(draft, [Revision(tuple(draft.tokens))])
    return found
