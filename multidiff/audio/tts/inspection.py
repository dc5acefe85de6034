"""Checks of the data before an acoustic model is trained."""

from __future__ import annotations

from typing import Any

from multidiff.audio.tts.model import AcousticModel
from multidiff.audio.tts.utterances import Utterances
from multidiff.utils.errors import InputError


def inspect(model: AcousticModel, data: Any, validation: Any) -> list[str]:
    """Return a line about the data of a training run.

    Args:
        model: the acoustic model.
        data: batches to train on.
        validation: batches to validate on, or None.

    Raises:
        InputError: if the model does not know a phone or a speaker of theirs, or reads other
            mels.
    """
    lines = []
    for section, batches in (("data", data), ("validation", validation)):
        examples = getattr(batches, "examples", None)
        if not isinstance(examples, Utterances):
            continue
        if examples.preset != model.preset:
            raise InputError(
                f"{section}.examples.mel: makes {examples.preset.name} mels, but the model reads "
                f"{model.preset.name}; give both the same"
            )
        for source in examples.sources:
            model.text.speaker_number(source.speaker)
        for symbol in sorted(examples.symbols):
            model.text.number_of(symbol)
        frames, phones = examples.totals
        seconds = frames * model.preset.hop_length / model.preset.sample_rate_hz
        lines.append(
            f"{section}: {len(examples.utterances)} utterances, {seconds / 60:.1f} minutes, "
            f"{phones} phones of {frames / phones:.2f} frames each"
        )
    return lines
