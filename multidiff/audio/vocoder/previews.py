"""Sounds and spectrograms for TensorBoard while a vocoder trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from multidiff.audio.vocoder.model import Vocoder

EXAMPLES = 3


def preview(model: Vocoder, batch: dict[str, Any] | None) -> Callable[[Any, int], None] | None:
    """Return a function that logs synthesised held-out mels, and the originals once.

    Args:
        model: vocoder in training.
        batch: held-out segments; without them there is no preview.
    """
    if batch is None:
        return None
    mel, wave = batch["mel"][:EXAMPLES], batch["wave"][:EXAMPLES]

    def write(writer: Any, step: int) -> None:
        made = model.synthesize(mel, mel_scale="preset").cpu()
        for number in range(len(mel)):
            _write(writer, f"{number}/original", wave[number], mel[number], 0, model)
            found = model.preset.mel(made[number][None])[0]
            _write(writer, f"{number}/made", made[number], found, step, model)

    return write


def _write(writer: Any, tag: str, wave: Tensor, mel: Tensor, step: int, model: Vocoder) -> None:
    writer.add_audio(tag, wave[None], step, model.preset.sample_rate_hz)
    low, high = model.preset.level_range
    image = ((mel - low) / (high - low)).clamp(0, 1).flip(0)
    writer.add_image(tag, image[None], step)
