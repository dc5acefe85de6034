"""TensorBoard previews of drafts and their revisions while an editor trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from multidiff.core.random import generators
from multidiff.text.diffuser.model import EditedText
from multidiff.text.request import TextRequest

EXAMPLES = 8
# Number of corruption steps that leaves enough of a text to see whether it is repaired.
STEPS = 2


def preview(model: EditedText, batch: dict[str, Any]) -> Callable[[Any, int], None]:
    """Return a function that logs corrupted held-out texts once, and their revisions.

    Args:
        model: model in training.
        batch: held-out texts.
    """
    texts = batch["text"][:EXAMPLES]
    requests = _requests(model, batch, len(texts))
    drafts = _drafts(model, texts, batch.get("source", texts)[:EXAMPLES])

    def write(writer: Any, step: int) -> None:
        writer.add_text("original", _listed(texts), 0)
        shown = [model.domain.vocabulary.text(draft) for draft in drafts]
        writer.add_text("draft", _listed(shown), 0)
        writer.add_text("revised", _listed(model.texts(model.revise(drafts, requests))), step)

    return write


def _requests(model: EditedText, batch: dict[str, Any], count: int) -> list[TextRequest]:
    """Return requests with the texts' meanings or sources, if the model is conditioned on them."""
    meanings, sources = [{}] * count, [""] * count
    if model.domain.meanings is not None:
        meanings = batch["meaning"]
    if model.domain.source_length:
        sources = batch["source"]
    return [TextRequest(meanings[row], source=sources[row]) for row in range(count)]


def _drafts(model: EditedText, texts: Sequence[str], sources: Sequence[str]) -> list[list[int]]:
    """Return the model's starting points in training: sources, nothing, or corrupted texts."""
    most = model.editor.length
    if model.from_nothing == 1:
        return [[] for _ in texts]
    if model.from_source:
        return [numbers[:most] for numbers in model.numbers(sources)]
    process = model.corruption()
    steps = min(STEPS, process.steps)
    pairs = zip(model.numbers(texts), generators(range(len(texts))), strict=True)
    return [[*process.corrupt(one, steps, rng)[-1].tokens][:most] for one, rng in pairs]


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
