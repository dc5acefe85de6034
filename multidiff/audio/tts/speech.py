"""Texts to sentences, and sentences to sound, one after the other."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.mel_files import MelArray
from multidiff.audio.tts.front_end import FrontEnd, Sentence
from multidiff.audio.tts.phones import START, Phone, write_phones
from multidiff.core.random import mixed_seed
from multidiff.models.requests import checked_seeds
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.audio.tts.model import AcousticModel, SpokenMel
    from multidiff.audio.tts.sampling_config import SpeechSamplingConfig
    from multidiff.audio.vocoder.model import Vocoder

logger = logging.getLogger(__name__)

# About 15 seconds: more is cut at a pause, or else between words.
MOST_PHONES = 160
# Silence after a sentence, after a piece of one, and after a paragraph, beside what they end with.
SENTENCE_PAUSE, PIECE_PAUSE, PARAGRAPH_PAUSE = 0.25, 0.0, 0.6


@dataclass(frozen=True)
class SpokenSentence:
    """A sentence of a text, or a piece of a long one, as sound.

    Attributes:
        text: its words.
        phones: line of its phones.
        wave: its samples in [-1, 1], the pause after it included.
        mel: log mel ``(mels, frames)`` of the sound without that pause.
        durations: frames of each phone.
        rate_hz: sample rate.
    """

    text: str
    phones: str
    wave: Float[Tensor, " samples"]
    mel: Float[Tensor, "mels frames"]
    durations: np.ndarray
    rate_hz: int


@dataclass(frozen=True)
class Piece:
    """A sentence, or a piece of a long one, and the pause after it.

    Attributes:
        sentence: its words and phones.
        pause_seconds: silence after it.
    """

    sentence: Sentence
    pause_seconds: float


def pieces_of(text: str, front_end: FrontEnd) -> list[Piece]:
    """Return what is spoken at once of a text: its sentences, long ones cut.

    Args:
        text: paragraphs, a line each or blank lines between them.
        front_end: reads them.

    Raises:
        InputError: if the text has no words.
    """
    paragraphs = [one for one in text.splitlines() if one.strip()]
    if not paragraphs:
        raise InputError("the text is empty; give a sentence")
    pieces: list[Piece] = []
    faults: list[InputError] = []
    for paragraph in paragraphs:
        try:
            sentences = front_end.sentences(paragraph)
        except InputError as fault:  # such as a line of dashes between paragraphs
            faults.append(fault)
            continue
        for number, sentence in enumerate(sentences, start=1):
            parts = shortened(sentence)
            last = PARAGRAPH_PAUSE if number == len(sentences) else SENTENCE_PAUSE
            pauses = [PIECE_PAUSE] * (len(parts) - 1) + [last]
            pieces += [Piece(*pair) for pair in zip(parts, pauses, strict=True)]
    if not pieces:
        raise faults[0]
    return [*pieces[:-1], replace(pieces[-1], pause_seconds=0.0)]


def shortened(sentence: Sentence, most: int = MOST_PHONES) -> list[Sentence]:
    """Return a sentence cut into pieces of at most ``most`` phones, at pauses where it has some.

    Args:
        sentence: sentence of any length.
        most: maximum number of phones of a piece; a single word may have more.
    """
    phones = sentence.phones
    if len(phones) <= most:
        return [sentence]
    starts = [place for place, phone in enumerate(phones) if phone.starts_word]
    cuts = [starts[0]]
    for here, following in pairwise([*starts, len(phones)]):
        if following - cuts[-1] > most and here > cuts[-1]:
            reached = [one for one in starts if cuts[-1] < one <= here]
            after_pause = [one for one in reached if phones[one - 1].is_pause]
            cuts.append((after_pause or reached)[-1])
    words = sentence.text.split()
    found = []
    for first, last in pairwise([*cuts, len(phones)]):
        body = list(phones[first:last])
        if not body[-1].is_pause:
            body.append(Phone(","))
        count = sum(one < first for one in starts), sum(one < last for one in starts)
        text = " ".join(words[slice(*count)])
        found.append(Sentence(text, (Phone(START), *body)))
    return found


class Speaker:
    """Speaks the pieces of one text.

    Args:
        model: the acoustic model.
        text: sentences and paragraphs.
        config: options of sampling; the model's own by default.
        speaker: name of the voice; the first where None.
        seed: random seed of the whole.
        dictionary: phones of words, by word in lower case.
        **overrides: single options in place of the config's.

    Raises:
        InputError: if the text has no words, the speaker is not known, or an option is wrong.
    """

    def __init__(
        self,
        model: AcousticModel,
        text: str,
        config: SpeechSamplingConfig | None = None,
        *,
        speaker: str | None = None,
        seed: SupportsIndex = 0,
        dictionary: Mapping[str, Sequence[Phone]] | None = None,
        **overrides: Any,
    ):
        self.model = model
        self.config = (config or model.sampling).replace(**overrides)
        self.voice = model.text.speakers[0] if speaker is None else speaker
        model.text.speaker_number(self.voice)
        front_end = FrontEnd(model.languages[self.voice], dictionary)
        if model.read_by not in ("", front_end.version):
            logger.warning(
                "the voice learned phones of %s, but %s is installed: some words may sound wrong",
                model.read_by, front_end.version,
            )  # fmt: skip
        (self.seed,) = checked_seeds(seed, 1)
        self.pieces = pieces_of(text, front_end)
        self.vocoder = model.loaded_vocoder()

    def sentences(self) -> Iterator[SpokenSentence]:
        """Yield each sentence as a whole; see :meth:`AcousticModel.speak`."""
        rate = self.vocoder.preset.sample_rate_hz
        for piece in self.pieces:
            phones, seed, made = self._mel(piece)
            sound = sound_of(self.vocoder, made.mel, seed, predicted=True)
            wave = torch.cat([sound, self._pause(piece)])
            yield SpokenSentence(piece.sentence.text, phones, wave, made.mel, made.durations, rate)

    def chunks(self, first_chunk_frames: int) -> Iterator[Float[Tensor, " samples"]]:
        """Yield the sound of all sentences; see :meth:`AcousticModel.stream`."""
        for piece in self.pieces:
            _, seed, made = self._mel(piece)
            yield from chunks_of(
                self.vocoder, made.mel, seed, predicted=True, first_chunk_frames=first_chunk_frames
            )
            if piece.pause_seconds:
                yield self._pause(piece)

    def _mel(self, piece: Piece) -> tuple[str, int, SpokenMel]:
        phones = write_phones(piece.sentence.phones)
        seed = seed_of(phones, self.seed)
        (made,) = self.model.mels([phones], self.voice, seed=seed, config=self.config)
        return phones, seed, made

    def _pause(self, piece: Piece) -> Float[Tensor, " samples"]:
        return torch.zeros(round(piece.pause_seconds * self.vocoder.preset.sample_rate_hz))


def seed_of(phones: str, seed: int) -> int:
    """Return a sentence's seed: it sounds the same whatever stands around it."""
    digest = hashlib.blake2b(phones.encode(), digest_size=6).digest()
    return mixed_seed(seed, int.from_bytes(digest, "big"))


def sound_of(
    vocoder: Vocoder, mel: Float[Tensor, "mels frames"], seed: int, predicted: bool = False
) -> Float[Tensor, " samples"]:
    """Return the sound of a mel of the vocoder's preset; see :func:`chunks_of`."""
    return torch.cat(list(chunks_of(vocoder, mel, seed, predicted)))


def chunks_of(
    vocoder: Vocoder,
    mel: Float[Tensor, "mels frames"],
    seed: int,
    predicted: bool = False,
    first_chunk_frames: int | None = None,
) -> Iterator[Float[Tensor, " samples"]]:
    """Yield the sound of a mel of the vocoder's preset.

    Args:
        vocoder: the vocoder.
        mel: log mel.
        seed: random seed of the sound.
        predicted: whether an acoustic model made the mel. It is smoother than a recording's, and
            estimates that are projected on it before the last step sound worse: DistillMOS 3.70
            against 3.85 (`kathleen`, 20 sentences). The finished sound alone is projected then.
        first_chunk_frames: see :meth:`Vocoder.stream`.
    """
    left = vocoder.preset.num_samples(mel.shape[1])
    source = MelArray(mel.numpy(), "speech")
    plan = vocoder.plan()
    if predicted:
        plan = replace(plan, projections=(0,) * plan.num_steps)
    chunks = vocoder.stream(source, plan=plan, seed=seed, first_chunk_frames=first_chunk_frames)
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk[:left])
