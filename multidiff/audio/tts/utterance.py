"""One recording ready to train on: its mel at an even loudness, its phones, their durations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.sources import open_place
from multidiff.audio.mel import MelPreset
from multidiff.audio.tts.alignment import MelClip, align
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.phones import Phone, parse_phones, write_phones
from multidiff.audio.tts.transcripts import Transcript
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

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

    @property
    def frames(self) -> int:
        """Return the number of mel frames."""
        return len(self.mel)

    def fits(self, too_fast: str) -> bool:
        """Return whether it has a frame for each phone; if not, it is reported.

        Raises:
            InputError: if it does not, and ``too_fast`` is ``stop``.
        """
        count = len(parse_phones(self.phones))
        if count <= self.frames:
            return True
        fault = (
            f"{self.name}: {count} phones in {self.frames} frames, so its text is not what is "
            "said there"
        )
        if too_fast == "stop":
            raise InputError(f"{fault}; correct it, or set too_fast: drop")
        logger.warning("%s; dropped", fault)
        return False

    def crop(self, first: int, count: int) -> np.ndarray:
        """Return some frames of the mel."""
        return self.mel[first : first + count]


@dataclass(frozen=True)
class LevelledSound:
    """A recording, the factor that brings it to an even loudness, and where its speech lies.

    Attributes:
        wave: samples as they were recorded.
        gain: factor of its samples.
        start: first sample of the speech.
        length: number of samples of the speech, in whole hops; silence follows a shorter wave.
    """

    wave: Float[Tensor, " samples"]
    gain: float
    start: int
    length: int

    @property
    def speech(self) -> Float[Tensor, " samples"]:
        """Return the speech as it was recorded."""
        return self.wave[self.start : self.start + self.length]

    def mel(self, preset: MelPreset) -> np.ndarray:
        """Return the log mel ``(frames, mels)`` of the speech at an even loudness."""
        wave = self.speech * self.gain
        wave = F.pad(wave, (0, padded_speech(self.length, preset) - len(wave)))
        return preset.mel(wave[None])[0].T.contiguous().numpy()


def padded_speech(length: int, preset: MelPreset) -> int:
    """Return the samples of a mel of that much speech: enough for a frame."""
    return max(length, preset.n_fft)


def levelled_sound(transcript: Transcript, preset: MelPreset) -> LevelledSound:
    """Return a recording at an even loudness, and where its speech lies.

    Raises:
        InputError: if its sound cannot be used.
    """
    wave = open_place(transcript.sound).read(preset.sample_rate_hz, whole=True)
    gain = levelling_gain(wave, preset, transcript.name)
    first, last = speech_span(wave * gain, preset)
    hop = preset.hop_length
    return LevelledSound(wave, gain, first * hop, (last - first) * hop)


def read_phones(transcript: Transcript, front_end: FrontEnd) -> str:
    """Return the line of a transcript's phones.

    Raises:
        InputError: if its text cannot be read.
    """
    try:
        return write_phones(front_end.phones(transcript.text))
    except InputError as fault:
        raise InputError(f"{transcript.name}: {fault}") from fault


def prepare(
    transcript: Transcript, speaker: str, front_end: FrontEnd, preset: MelPreset
) -> SpokenUtterance:
    """Return an utterance without durations.

    Raises:
        InputError: if its sound or text cannot be used.
    """
    mel = levelled_sound(transcript, preset).mel(preset)
    phones = read_phones(transcript, front_end)
    return SpokenUtterance(transcript.name, speaker, phones, mel, np.zeros(0, np.int64))


def frame_energies(wave: Float[Tensor, " samples"], preset: MelPreset) -> Float[Tensor, " frames"]:
    """Return the mean energy of each hop."""
    hop = preset.hop_length
    padded = F.pad(wave, (0, -len(wave) % hop))
    return padded.view(-1, hop).square().mean(dim=1)


def levelling_gain(wave: Float[Tensor, " samples"], preset: MelPreset, name: str) -> float:
    """Return the factor to a root mean square of :data:`ACTIVE_RMS` in a recording's active frames.

    Raises:
        InputError: if it is silent.
    """
    energies = frame_energies(wave, preset)
    peak = float(wave.abs().max())
    if peak < 1e-4:
        raise InputError(f"{name}: is silent; leave it out of the list")
    active = energies[energies > ACTIVE_SHARE * energies.max()].mean().sqrt()
    return min(ACTIVE_RMS / float(active), LOUDEST_PEAK / peak)


def speech_span(wave: Float[Tensor, " samples"], preset: MelPreset) -> tuple[int, int]:
    """Return the hops of a recording's speech, with a little silence before and after it."""
    energies = frame_energies(wave, preset)
    active = torch.nonzero(energies > ACTIVE_SHARE * energies.max())[:, 0]
    first = max(int(active[0]) - FRAMES_BEFORE, 0)
    return first, min(int(active[-1]) + 1 + FRAMES_AFTER, len(energies))


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
