"""Checks of a vocoder's data before training."""

from __future__ import annotations

from typing import Any

from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.vocoder.model import Vocoder
from multidiff.utils.errors import InputError


def inspect(model: Vocoder, data: Any, held_out: Any) -> list[str]:
    """Return warnings about the data of a training run.

    Args:
        model: the vocoder.
        data: training batches.
        held_out: validation batches, or None.

    Raises:
            InputError: if the mels of the data are not those that the model reads.
    """
    segments = [getattr(batches, "examples", None) for batches in (data, held_out)]
    for section, examples in zip(("data", "validation"), segments, strict=True):
        made_by = getattr(examples, "preset", model.preset)
        if made_by != model.preset:
            raise InputError(
                f"{section}.examples.mel: makes {made_by.name} mels, but the model reads "
                f"{model.preset.name}; set both to the same"
            )
    trained, kept = segments
    if not isinstance(trained, SpeechSegments) or not isinstance(kept, SpeechSegments):
        return []
    contents = {utterance.content for utterance in trained.utterances}
    repeated = [one.name for one in kept.utterances if one.content in contents]
    if not repeated:
        return []
    return [
        f"{len(repeated)} of {len(kept.utterances)} held-out recordings are trained on "
        f"as well, such "
        f"as {repeated[0]}: held-out losses flatter the model; use held_out_every, or "
        f"remove copies"
    ]
