"""One recording ready to train on: its mel at an even loudness, its phones, their durations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import MelPreset
from multidiff.audio.tts.alignment import MelClip, align
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.phones import Phone, parse_phones, write_phones
from multidiff.audio.tts.transcripts import Transcript
from multidiff.utils.errors import InputError

ACTIVE_RMS, LOUDEST_PEAK = 0.08, 0.97
# A frame is active above this share of the loudest frame's energy.
ACTIVE_SHARE = 1e-3
FRAMES_BEFORE, FRAMES_AFTER = 8, 9


@dataclass(frozen=True)
class SpokenUtterance:
    """A recording ready to train on.

    Attributes:
        name: how messages call it.
        speaker: name of the voice.
        phones: line of its phones (:func:`~multidiff.audio.tts.phones.parse_phones`).
        mel: log mel ``(frames, mels)``.
        durations: frames of each phone, together those of the mel.
    """

    name: str
    speaker: str
    phones: str
    mel: np.ndarray
    durations: np.ndarray

    def __post_init__(self) -> None:
        if len(self.durations) and (
            len(self.durations) != len(parse_phones(self.phones))
            or int(self.durations.sum()) != len(self.mel)
        ):
            raise ValueError(
                f"{self.name}: {len(self.durations)} durations of {int(self.durations.sum())} "
                f"frames for {len(parse_phones(self.phones))} phones and {len(self.mel)} frames"
            )


def prepare(
    transcript: Transcript, speaker: str, front_end: FrontEnd, preset: MelPreset
) -> SpokenUtterance:
    """Return an utterance without durations.

    Raises:
        InputError: if its sound or text cannot be used.
    """
    sound = transcript.sound
    opened = SoundFile(sound) if not hasattr(sound, "content") else SoundFile(*sound.content())
    wave = opened.read(preset.sample_rate_hz, whole=True)
    try:
        phones = write_phones(front_end.phones(transcript.text))
    except InputError as fault:
        raise InputError(f"{transcript.name}: {fault}") from fault
    wave = trimmed(levelled(wave, preset, transcript.name), preset)
    mel = preset.mel(wave[None])[0].T.contiguous().numpy()
    return SpokenUtterance(transcript.name, speaker, phones, mel, np.zeros(0, np.int64))


def frame_energies(wave: Float[Tensor, " samples"], preset: MelPreset) -> Float[Tensor, " frames"]:
    """Return the mean energy of each hop."""
    hop = preset.hop_length
    padded = F.pad(wave, (0, -len(wave) % hop))
    return padded.view(-1, hop).square().mean(dim=1)


def levelled(wave: Float[Tensor, " samples"], preset: MelPreset, name: str) -> Tensor:
    """Return a recording whose active frames have a root mean square of :data:`ACTIVE_RMS`.

    Raises:
        InputError: if it is silent.
    """
    energies = frame_energies(wave, preset)
    peak = float(wave.abs().max())
    if peak < 1e-4:
        raise InputError(f"{name}: is silent; leave it out of the list")
    active = energies[energies > ACTIVE_SHARE * energies.max()].mean().sqrt()
    return wave * min(ACTIVE_RMS / float(active), LOUDEST_PEAK / peak)


def trimmed(wave: Float[Tensor, " samples"], preset: MelPreset) -> Tensor:
    """Return a recording with a little silence before and after its speech, in whole hops."""
    energies = frame_energies(wave, preset)
    active = torch.nonzero(energies > ACTIVE_SHARE * energies.max())[:, 0]
    first = max(int(active[0]) - FRAMES_BEFORE, 0)
    last = min(int(active[-1]) + 1 + FRAMES_AFTER, len(energies))
    hop = preset.hop_length
    padded = F.pad(wave, (0, -len(wave) % hop))[first * hop : last * hop]
    return F.pad(padded, (0, max(preset.n_fft - len(padded), 0)))


def aligned(utterances: Sequence[SpokenUtterance]) -> list[SpokenUtterance]:
    """Return the utterances of one speaker with durations; all pauses are one phone here."""
    classes: dict[str, int] = {}

    def number(phone: Phone) -> int:
        return classes.setdefault("" if phone.is_pause else phone.symbol, len(classes))

    clips = [
        MelClip(one.mel, np.array([number(p) for p in parse_phones(one.phones)]), one.name)
        for one in utterances
    ]
    return [replace(one, durations=own) for one, own in zip(utterances, align(clips), strict=True)]
