"""Texts for TensorBoard while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.masked.model import MaskedText
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest

EXAMPLES = 8
MOST_STEPS = 50

Preview = Callable[[Any, int], None]


def preview(model: TextDiffusion, batch: dict[str, Any]) -> Preview:
    """Return a function that logs samples of held-out meanings, and the originals once.

    Args:
        model: model in training.
        batch: held-out texts.
    """
    write = _samples(model, batch, min(model.sampling.steps, MOST_STEPS))

    def write_all(writer: Any, step: int) -> None:
        write(writer, step)
        writer.add_scalar("embeddings/distance", float(model.domain.spread()), step)

    return write_all


def preview_masked(model: MaskedText, batch: dict[str, Any]) -> Preview:
    """Return a function that logs samples of held-out meanings or sources, and originals once.

    Args:
        model: model in training.
        batch: held-out texts.
    """
    return _samples(model, batch, min(model.sampling.steps or MOST_STEPS, MOST_STEPS))


def _samples(model: TextModel, batch: dict[str, Any], steps: int) -> Preview:
    originals = batch["text"][:EXAMPLES]
    requests = [TextRequest() for _ in originals]
    if model.domain.meanings is not None:
        requests = [TextRequest(meaning) for meaning in batch["meaning"][:EXAMPLES]]
    elif model.domain.source_length:
        requests = [TextRequest(source=source) for source in batch["source"][:EXAMPLES]]

    def write(writer: Any, step: int) -> None:
        writer.add_text("original", _listed(originals), 0)
        writer.add_text("made", _listed(model.generate(requests, steps=steps)), step)

    return write


def _listed(texts: list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
