"""Checks of a vocoder's data before training."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    contents = np.concatenate([one.contents for one in trained.recordings])
    repeated = [
        side.name(number)
        for side in kept.recordings
        for number in np.flatnonzero(np.isin(side.contents, contents)).tolist()
    ]
    if not repeated:
        return []
    return [
        f"{len(repeated)} of {sum(map(len, kept.recordings))} held-out recordings are trained on "
        f"as well, such as {repeated[0]}: held-out losses flatter the model; use "
        "held_out_every, or remove copies"
    ]
