"""Images for TensorBoard while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multidiff.data.batches import examples_in
from multidiff.image.autoencoders.training import AutoencoderTrainer
from multidiff.image.data.image_files import grid
from multidiff.image.data.labels import class_labels
from multidiff.image.diffusion.model import ImageDiffusion

EXAMPLES = 8
MOST_STEPS = 50


def preview(model: ImageDiffusion, batch: dict[str, Any]) -> Callable[[Any, int], None]:
    """Return a function that logs samples of held-out captions or classes, and originals once.

    Args:
        model: model in training.
        batch: held-out images.
    """
    prompts = _prompts(model, batch)[:EXAMPLES]
    steps = min(model.sampling.steps, MOST_STEPS)

    def write(writer: Any, step: int) -> None:
        if "image" in batch:
            writer.add_image("original", grid(batch["image"][:EXAMPLES]), 0)
        writer.add_image("made", grid(model.generate(prompts, steps=steps, batch_size=4)), step)
        writer.add_text("prompts", " | ".join(prompts), step)

    return write


def _prompts(model: ImageDiffusion, batch: dict[str, Any]) -> list[str]:
    count = examples_in(batch)
    if model.domain.reads == "prompt":
        return list(batch["caption"])
    if model.domain.reads == "class":
        return [model.subjects[int(label)] for label in class_labels(batch, len(model.subjects))]
    return [""] * count


def preview_autoencoder(
    model: AutoencoderTrainer, batch: dict[str, Any]
) -> Callable[[Any, int], None]:
    """Return a function that logs reconstructions of held-out images, and the originals once.

    Args:
        model: model in training.
        batch: held-out images.
    """
    images = batch["image"][:EXAMPLES]

    def write(writer: Any, step: int) -> None:
        writer.add_image("original", grid(images), 0)
        writer.add_image("reconstructed", grid(model.reconstruct(images).cpu()), step)

    return write
