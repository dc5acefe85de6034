"""Texts for TensorBoard while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multidiff.text.diffusion import TextDiffusion
from multidiff.text.orders import TextOrder

EXAMPLES = 8
MOST_STEPS = 50


def preview(model: TextDiffusion, batch: dict[str, Any]) -> Callable[[Any, int], None]:
    """Writes samples of some held-out meanings, and the originals once.

    Args:
        model: in training.
        batch: held-out texts.
    """
    meanings = batch.get("meaning", [{}] * EXAMPLES)[:EXAMPLES]
    if model.domain.meanings is None:
        meanings = [{}] * len(meanings)
    orders = [TextOrder(meaning) for meaning in meanings]
    steps = min(model.walk.steps, MOST_STEPS)

    def write(writer: Any, step: int) -> None:
        writer.add_text("original", _listed(batch["text"][:EXAMPLES]), 0)
        writer.add_text("made", _listed(model.generate(orders, steps=steps)), step)
        writer.add_scalar("embeddings/distance", float(model.domain.spread()), step)

    return write


def _listed(texts: list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
