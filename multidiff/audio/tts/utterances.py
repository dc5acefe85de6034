"""Utterances to train on: crops of mels beside the phones and durations of their sentences."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multidiff.audio.mel import MelPreset, preset_named
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.phones import Phone, parse_phones, write_phones
from multidiff.audio.tts.transcripts import Part, TranscribedSource
from multidiff.audio.tts.utterance import SpokenUtterance, aligned, prepare
from multidiff.audio.tts.utterance_cache import cached
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

logger = logging.getLogger(__name__)

TooFast = Literal["stop", "drop"]


class Utterances:
    """Crops of utterances, each beside all the phones of its sentence.

    Recordings are brought to one loudness and trimmed to their speech; which frames belong to
    which phone is found once, over all recordings of a speaker but those of the test part.

    Args:
        sources: where recordings and texts come from.
        mel: the preset, or the name of one.
        crop_frames: mel frames of an example; even.
        part: ``train`` or ``validation``.
        cache: folder where prepared recordings are kept; prepared at each start where None.
        too_fast: what becomes of a recording with more phones than frames: training stops, or
            it is dropped and reported.

    Raises:
        InputError: if a source cannot be read, or there is nothing to train on.
    """

    def __init__(
        self,
        sources: list[TranscribedSource],
        mel: str | MelPreset = "hifigan-22k",
        crop_frames: int = 160,
        part: Part = "train",
        cache: str | None = None,
        too_fast: TooFast = "stop",
    ):
        if crop_frames < 2 or crop_frames % 2 or not sources:
            raise ValueError(f"{crop_frames} frames of {len(sources)} sources: an even number")
        self.sources, self.preset = sources, preset_named(mel)
        self.crop_frames, self.too_fast = crop_frames, too_fast
        self.cache = None if cache is None else Path(cache)
        self.utterances: list[SpokenUtterance] = []
        self.visits: list[int] = []
        for speaker in dict.fromkeys(source.speaker for source in sources):
            self._add(speaker, part)
        self.read_by = FrontEnd().version
        if not self.utterances:
            raise InputError(f"the sources keep no recordings for {part}; raise their number")

    def _add(self, speaker: str, part: Part) -> None:
        sources = [source for source in self.sources if source.speaker == speaker]
        made_of = [
            *({**asdict(one), "data": one.fingerprint()} for one in sources),
            self.preset.description(),
            [FrontEnd(one.language).version for one in sources],
        ]
        known = {one.name: one for one in cached(self.cache, made_of, lambda: self._made(sources))}
        for source in sources:
            for transcript in source.transcripts(part):
                if transcript.name in known:
                    self.visits += [len(self.utterances)] * source.repeat
                    self.utterances.append(known[transcript.name])

    def _made(self, sources: list[TranscribedSource]) -> list[SpokenUtterance]:
        """Return the utterances of one speaker, those of the test part left out."""
        found: list[SpokenUtterance] = []
        for source in sources:
            front_end = FrontEnd(source.language)
            transcripts = source.transcripts("train") + source.transcripts("validation")
            for one in transcripts:
                utterance = prepare(one, source.speaker, front_end, self.preset)
                if self._fits(utterance):
                    found.append(utterance)
        return aligned(found)

    def _fits(self, utterance: SpokenUtterance) -> bool:
        count = len(parse_phones(utterance.phones))
        if count <= len(utterance.mel):
            return True
        fault = (
            f"{utterance.name}: {count} phones in {len(utterance.mel)} frames, so its text is not "
            "what is said there"
        )
        if self.too_fast == "stop":
            raise InputError(f"{fault}; correct it, or set too_fast: drop")
        logger.warning("%s; dropped", fault)
        return False

    @property
    def lengths(self) -> list[int]:
        """Phones of each example, by which batches are grouped."""
        return [len(self.utterances[number].durations) for number in self.visits]

    def __len__(self) -> int:
        return len(self.visits)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of each source."""
        return {
            f"sources.{number}": source.fingerprint() for number, source in enumerate(self.sources)
        }

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each band, over each visit's frames."""
        frames = np.concatenate([self.utterances[number].mel for number in self.visits])
        found = torch.from_numpy(frames).double()
        return found.mean(dim=0).float(), found.std(dim=0).float()

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        utterance = self.utterances[self.visits[index]]
        frames, size = len(utterance.mel), self.crop_frames
        # Positions of two frames are those of the whole sentence, so crops begin at even frames.
        first = 2 * int(rng.integers(0, max(frames - size, 0) // 2 + 1))
        real = min(frames - first, size)
        mel = torch.from_numpy(utterance.mel[first : first + real])
        return {
            "mel": F.pad(mel, (0, 0, 0, size - real)),
            "mask": F.pad(torch.ones(real), (0, size - real)),
            "first": first,
            "phones": utterance.phones,
            "speaker": utterance.speaker,
            "durations": utterance.durations,
            "name": utterance.name,
        }

    @classmethod
    def synthetic(cls, sources: list[TranscribedSource], **options: Any) -> Utterances:
        """Return utterances of noise, which need no recordings, for dry runs."""
        made = cls.__new__(cls)
        made.sources = sources
        made.preset = preset_named(options.get("mel", "hifigan-22k"))
        made.crop_frames = options.get("crop_frames", 160)
        made.too_fast, made.read_by = "stop", ""
        count = 100
        phones = write_phones([Phone(".")] * count)
        mel = np.random.default_rng(0).standard_normal((6 * count, made.preset.n_mels))
        made.utterances = [
            SpokenUtterance(
                "noise", sources[0].speaker, phones, mel.astype(np.float32), np.full(count, 6)
            )
        ]
        made.visits = [0]
        return made
