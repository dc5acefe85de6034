"""Pictures for TensorBoard while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multidiff.image.autoencoders.training import Restoring
from multidiff.image.data.image_files import grid
from multidiff.image.diffusion.model import PictureDiffusion

EXAMPLES = 8
MOST_STEPS = 50


def preview(model: PictureDiffusion, batch: dict[str, Any]) -> Callable[[Any, int], None]:
    """Writes samples of some held-out captions or classes, and the originals once.

    Args:
        model: in training.
        batch: held-out pictures.
    """
    prompts = _prompts(model, batch)[:EXAMPLES]
    steps = min(model.walk.steps, MOST_STEPS)

    def write(writer: Any, step: int) -> None:
        if "picture" in batch:
            writer.add_image("original", grid(batch["picture"][:EXAMPLES]), 0)
        writer.add_image("made", grid(model.generate(prompts, steps=steps, batch_size=4)), step)
        writer.add_text("prompts", " | ".join(prompts), step)

    return write


def _prompts(model: PictureDiffusion, batch: dict[str, Any]) -> list[str]:
    count = len(next(iter(batch.values())))
    if model.domain.reads == "prompt":
        return list(batch["caption"])
    if model.domain.reads == "class":
        return [model.subjects[int(label)] for label in batch["label"]]
    return [""] * count


def preview_autoencoder(model: Restoring, batch: dict[str, Any]) -> Callable[[Any, int], None]:
    """Writes reconstructions of some held-out pictures, and the originals once.

    Args:
        model: in training.
        batch: held-out pictures.
    """
    pictures = batch["picture"][:EXAMPLES]

    def write(writer: Any, step: int) -> None:
        writer.add_image("original", grid(pictures), 0)
        writer.add_image("reconstructed", grid(model.reconstruct(pictures).cpu()), step)

    return write
