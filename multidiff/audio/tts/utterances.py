"""Utterances to train on: crops of mels beside the phones and durations of their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multidiff.audio.data.survey import fits_in_memory
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.audio.tts.front_end import FrontEnd
from multidiff.audio.tts.phones import Phone, parse_phones, write_phones
from multidiff.audio.tts.transcripts import Part, TranscribedSource
from multidiff.audio.tts.utterance import SpokenUtterance, aligned, prepare
from multidiff.audio.tts.utterance_cache import cached
from multidiff.audio.tts.utterance_store import ListedSource, StoredUtterances, utterance_plan
from multidiff.data.columns import Columns
from multidiff.data.order import Visits
from multidiff.data.prepare import prepared
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

TooFast = Literal["stop", "drop"]
UtteranceStore = Literal["auto", "memory", "disk"]


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
        store: where utterances are kept: in ``memory``, on ``disk``
            (:mod:`multidiff.audio.tts.utterance_store`), or ``auto``: in memory up to a gigabyte
            of decoded sound.

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
        store: UtteranceStore = "auto",
    ):
        if crop_frames < 2 or crop_frames % 2 or not sources:
            raise ValueError(f"{crop_frames} frames of {len(sources)} sources: an even number")
        self.sources, self.preset = sources, preset_named(mel)
        self.crop_frames, self.too_fast = crop_frames, too_fast
        self.cache = None if cache is None else Path(cache)
        self.read_by = FrontEnd().version
        self.utterances: Sequence[SpokenUtterance] | StoredUtterances
        table = self._table(store)
        if table is not None:
            self.utterances = StoredUtterances(table, sources, self.preset, part)
            repeats = self.utterances.repeats
        else:
            self.utterances, repeats = self._in_memory(part)
        if not len(self.utterances):
            raise InputError(f"the sources keep no recordings for {part}; raise their number")
        self.visits = Visits(np.asarray(repeats))

    def _table(self, store: UtteranceStore) -> Columns | None:
        """Return the store of the sources; None where they are kept in memory."""
        if store == "memory":
            return None
        listed = [ListedSource.of(source) for source in self.sources]
        if store == "auto" and fits_in_memory([one.found for one in listed], self.preset):
            return None
        return prepared(utterance_plan(listed, self.preset, self.too_fast))

    def _in_memory(self, part: Part) -> tuple[list[SpokenUtterance], list[int]]:
        """Return the utterances of a part, and how often an epoch visits each."""
        found: list[SpokenUtterance] = []
        repeats: list[int] = []
        for speaker in dict.fromkeys(source.speaker for source in self.sources):
            sources = [source for source in self.sources if source.speaker == speaker]
            made_of = [
                *({**asdict(one), "data": one.fingerprint()} for one in sources),
                self.preset.description(),
                [FrontEnd(one.language).version for one in sources],
            ]
            made = cached(self.cache, made_of, partial(self._made, sources))
            known = {one.name: one for one in made}
            for source in sources:
                own = [one.name for one in source.transcripts(part) if one.name in known]
                found += [known[name] for name in own]
                repeats += [source.repeat] * len(own)
        return found, repeats

    def _made(self, sources: list[TranscribedSource]) -> list[SpokenUtterance]:
        """Return the utterances of one speaker, those of the test part left out.

        Raises:
            InputError: if one cannot be used, or none is left.
        """
        found: list[SpokenUtterance] = []
        for source in sources:
            front_end = FrontEnd(source.language)
            transcripts = source.transcripts("train") + source.transcripts("validation")
            for one in transcripts:
                utterance = prepare(one, source.speaker, front_end, self.preset)
                if utterance.fits(self.too_fast):
                    found.append(utterance)
        if not found:
            paths = ", ".join(dict.fromkeys(source.path for source in sources))
            raise InputError(
                f"{paths}: every recording was dropped, as it has more phones than frames; correct "
                "the texts, or leave this source out"
            )
        return aligned(found)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Phones of each example, by which batches are grouped."""
        return self._lengths[self.visits.locate(np.arange(len(self)))[0]]

    @property
    def _lengths(self) -> np.ndarray:
        if isinstance(self.utterances, StoredUtterances):
            return self.utterances.lengths
        return np.array([len(one.durations) for one in self.utterances])

    @property
    def totals(self) -> tuple[int, int]:
        """Return the numbers of mel frames and of phones of all utterances."""
        if isinstance(self.utterances, StoredUtterances):
            return self.utterances.frames, int(self._lengths.sum())
        return sum(one.frames for one in self.utterances), int(self._lengths.sum())

    @property
    def symbols(self) -> set[str]:
        """Return the symbols of their phones."""
        if isinstance(self.utterances, StoredUtterances):
            return self.utterances.symbols
        return {phone.symbol for one in self.utterances for phone in parse_phones(one.phones)}

    def __len__(self) -> int:
        return len(self.visits)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of each source."""
        return {
            f"sources.{number}": source.fingerprint() for number, source in enumerate(self.sources)
        }

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each band, over each visit's frames."""
        if isinstance(self.utterances, StoredUtterances):
            return self.utterances.statistics()
        visited = self.visits.locate(np.arange(len(self)))[0].tolist()
        frames = np.concatenate([self.utterances[number].mel for number in visited])
        found = torch.from_numpy(frames).double()
        return found.mean(dim=0).float(), found.std(dim=0).float()

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        utterance = self.utterances[int(self.visits.locate(index)[0])]
        frames, size = utterance.frames, self.crop_frames
        # Positions of two frames are those of the whole sentence, so crops begin at even frames.
        first = 2 * int(rng.integers(0, max(frames - size, 0) // 2 + 1))
        real = min(frames - first, size)
        mel = torch.from_numpy(utterance.crop(first, real))
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
        made.visits = Visits(np.ones(1, np.int64))
        return made
