"""Mels that a voice predicts for recordings, in their own timing: pairs to tune a vocoder on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from multidiff.audio.data.mel_files import write_mel
from multidiff.audio.data.sound import write_sound
from multidiff.audio.tts.model import AcousticModel
from multidiff.audio.tts.transcripts import Part, TranscribedSource
from multidiff.audio.tts.utterance import levelled_sound
from multidiff.audio.tts.utterances import Utterances

SOUNDS, MELS = "sounds", "mels"


def write_predicted(
    model: AcousticModel,
    source: TranscribedSource,
    folder: Path,
    *,
    part: Part = "train",
    seed: int = 0,
    strength: float = 1.0,
    **overrides: Any,
) -> int:
    """Write recordings and the mels that a voice predicts for them, frame for frame.

    The phones have the durations of the recordings, found as in the voice's training. With a
    strength below 1 sampling starts from the recordings' own mels with noise, so that the predicted
    ones have their pitch and stress too: a mel with another pitch than its recording teaches a
    vocoder not to trust what it reads. Recordings
    are trimmed and levelled as there. A vocoder is tuned on the result with the source
    ``{path: FOLDER/sounds, mels: FOLDER/mels}``.

    Args:
        model: the voice.
        source: recordings with their texts.
        folder: folder of the pairs.
        part: part of the source.
        seed: random seed of the first recording; those after it count up from it.
        strength: the time that the recordings' mels are noised to; at 1 nothing of them is left.
        **overrides: options of sampling, such as ``temperature=0.3``.

    Returns:
        Number of pairs.

    Raises:
        InputError: if the source cannot be read, the model does not know the speaker or a phone,
            or the system refuses to write.
    """
    preset = model.preset
    transcripts = {one.name: one for one in source.transcripts(part)}
    utterances = Utterances([source], preset, part=part, too_fast="drop", store="memory").utterances
    for place in (SOUNDS, MELS):
        (folder / place).mkdir(parents=True, exist_ok=True)
    stems = _file_names([one.name for one in utterances])
    for number, (one, stem) in enumerate(zip(utterances, stems, strict=True)):
        (spoken,) = model.mels(
            [one.phones], one.speaker, seed=seed + number, durations=[one.durations],
            recorded=[torch.from_numpy(one.mel.T)], strength=strength, **overrides,
        )  # fmt: skip
        sound = levelled_sound(transcripts[one.name], preset)
        wave = sound.gain * sound.speech
        wave = F.pad(wave, (0, preset.num_samples(one.frames) - len(wave)))
        write_sound(folder / SOUNDS / f"{stem}.wav", iter([wave.numpy()]), preset.sample_rate_hz)
        write_mel(folder / MELS / f"{stem}.npz", spoken.mel, preset)
    return len(utterances)


def _file_names(names: Sequence[str]) -> list[str]:
    """Return the stems of files' names, numbered where several folders have the same."""
    seen: Counter[str] = Counter()
    found = []
    for stem in (Path(name).stem for name in names):
        seen[stem] += 1
        found.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return found
