"""Sounds, spectrograms and alignments for TensorBoard while an acoustic model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.tts.model import AcousticModel
from multidiff.audio.tts.speech import sound_of

EXAMPLES = 2
# Pixels of a phone's row.
ROW_HEIGHT = 4


def preview(
    model: AcousticModel, batch: dict[str, Any] | None
) -> Callable[[Any, int], None] | None:
    """Return a function that writes what the model makes of some validation sentences.

    For each: the spectrogram and sound with predicted durations, the spectrogram with the
    recording's durations, which frames each phone gets, and the recording's own once.

    Args:
        model: in training.
        batch: validation utterances; without them there is nothing to show.
    """
    if batch is None:
        return None
    phones, speakers = batch["phones"][:EXAMPLES], batch["speaker"][:EXAMPLES]
    true = [np.asarray(one) for one in batch["durations"][:EXAMPLES]]

    def write(writer: Any, step: int) -> None:
        vocoder = model.loaded_vocoder()
        for number, (line, speaker, durations) in enumerate(
            zip(phones, speakers, true, strict=True)
        ):
            (made,) = model.mels([line], speaker)
            (timed,) = model.mels([line], speaker, durations=[durations])
            rate = model.preset.sample_rate_hz
            wave = sound_of(vocoder, made.mel, 0, predicted=True)
            writer.add_audio(f"{number}/made", wave[None], step, rate)
            writer.add_image(f"{number}/made", _shades(made.mel, model), step)
            writer.add_image(f"{number}/with recorded durations", _shades(timed.mel, model), step)
            writer.add_image(f"{number}/alignment made", alignment_image(made.durations), step)
            writer.add_image(f"{number}/alignment recorded", alignment_image(durations), 0)

    return write


def alignment_image(durations: np.ndarray) -> Float[Tensor, "1 height frames"]:
    """Return an image whose rows are phones, the first below, and whose columns are frames."""
    phone = np.repeat(np.arange(len(durations)), durations)
    image = torch.zeros(len(durations), len(phone))
    image[torch.from_numpy(phone), torch.arange(len(phone))] = 1
    return image.flip(0).repeat_interleave(ROW_HEIGHT, dim=0)[None]


def _shades(mel: Tensor, model: AcousticModel) -> Tensor:
    low, high = model.preset.level_range
    return ((mel - low) / (high - low)).clamp(0, 1).flip(0)[None]
