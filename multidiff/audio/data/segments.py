"""Training data of vocoders: recordings, cut into segments."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.pcm import band_edge_hz
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.data.sources import AudioSource, NoiseSource
from multidiff.audio.data.store import (
    QUIETEST_PEAK,
    StoredRecordings,
    content_number,
    sound_plan,
)
from multidiff.audio.data.survey import fits_in_memory, survey
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.data.order import Visits
from multidiff.data.prepare import Plan, all_prepared
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.packages import PackageError

logger = logging.getLogger(__name__)

Store = Literal["auto", "memory", "disk", "seek"]


class Recordings(Protocol):
    """Recordings of one source.

    Attributes:
        frames: mel frames of each.
        contents: hash of each one's samples.
    """

    frames: np.ndarray
    contents: np.ndarray

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return the name of a recording in messages."""
        ...

    def band_hz(self, number: int) -> float:
        """Return the upper edge of a recording's band."""
        ...

    def cut(self, number: int, first: int, hops: int) -> tuple[Tensor, Tensor]:
        """Return a segment of a recording and its part of the mel of the whole."""
        ...


class SpeechSegments:
    """Random segments of recordings, with the same frames of their whole mel.

    A segment's mel is that of the whole recording, as at synthesis: computed from the segment
    alone, it would see mirrored edges. Recordings are kept in memory up to a gigabyte of decoded
    sound (estimated from the files' sizes); more lie in a store on disk, made once
    (:mod:`multidiff.audio.data.store`). An epoch visits each recording as often as it has
    segments.

    Sources with ``mels`` are kept in memory.

    Args:
        sources: sources of recordings.
        mel: the preset, or its name.
        segment_frames: number of mel frames of a segment.
        gain_db: range of the random gain in dB; both ends 0 for none.
        held_out: whether to take the recordings kept for validation.
        store: where samples are read from: ``memory``, the store on ``disk``, ``seek`` (WAV and
            FLAC files themselves, other formats from the store), or ``auto``. The store rounds
            resampled sound to 16 bits; otherwise all are equal.

    Raises:
        InputError: if a source has no readable recordings.
    """

    def __init__(
        self,
        sources: list[AudioSource],
        mel: str | MelPreset = "hifigan-22k",
        segment_frames: int = 64,
        gain_db: tuple[float, float] = (0.0, 0.0),
        held_out: bool = False,
        store: Store = "auto",
    ):
        if segment_frames < 1 or not sources:
            raise ValueError(f"{segment_frames} frames of {len(sources)} sources: nothing to cut")
        self.preset = preset_named(mel)
        self.segment_frames, self.gain_db, self.sources = segment_frames, gain_db, sources
        sides = [one for one in sources if one.held_out_every or not held_out]
        self.recordings: list[Recordings] = []
        tables = all_prepared(sound_plans(sides, self.preset, store))
        for source, table in zip(sides, tables or [None] * len(sides), strict=True):
            self.recordings.append(
                MemoryRecordings(
                    source.recordings(held_out), self.preset, segment_frames, source.mel_file
                )
                if table is None
                else StoredRecordings(table, source, self.preset, held_out, segment_frames)
            )
        self._ends = np.cumsum([len(one) for one in self.recordings])
        if not sides or not self._ends[-1]:
            raise InputError("no usable recordings in any of the sources")
        counts = [
            -(-one.frames // segment_frames) * source.repeat
            for one, source in zip(self.recordings, sides, strict=True)
        ]
        self.visits = Visits(np.concatenate(counts))

    @classmethod
    def synthetic(cls, sources: list[AudioSource], **options: Any) -> SpeechSegments:
        """Return segments of noise, which need no recordings, for dry runs."""
        noise: list[AudioSource] = [
            NoiseSource(source.path, source.held_out_every) for source in sources
        ]
        return cls(noise, **{**options, "store": "memory"})

    def __len__(self) -> int:
        return len(self.visits)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of each source."""
        return {
            f"sources.{number}": source.fingerprint() for number, source in enumerate(self.sources)
        }

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        item = int(self.visits.locate(index)[0])
        group = int(np.searchsorted(self._ends, item, side="right"))
        recordings, preset = self.recordings[group], self.preset
        number = item - int(self._ends[group - 1]) if group else item
        frames = preset.num_frames(self.segment_frames * preset.hop_length)
        first = int(rng.integers(0, int(recordings.frames[number]) - frames + 1))
        gain = 10 ** (rng.uniform(*self.gain_db) / 20)
        wave, mel = recordings.cut(number, first, self.segment_frames)
        return {
            "wave": gain * wave,
            "mel": preset.compress(preset.expand(mel) * gain**preset.power),
            "band_hz": recordings.band_hz(number),
            "name": recordings.name(number),
        }


def sound_plans(sources: Sequence[AudioSource], preset: MelPreset, store: Store) -> list[Plan]:
    """Return the work that makes the stores of some sources; none if they are kept in memory."""
    if store not in get_args(Store):
        raise ValueError(f"store {store!r}: one of {', '.join(get_args(Store))}")
    with_mels = [one.mels for one in sources if one.mels]
    if with_mels and store in ("disk", "seek"):
        raise InputError(f"mels {with_mels[0]}: are read with store: memory or auto, not {store}")
    if store == "memory" or with_mels:
        return []
    found = [survey(one.places(), one.root, one.fingerprint) for one in sources]
    if store == "auto" and fits_in_memory(found, preset):
        return []
    pairs = zip(sources, found, strict=True)
    return [sound_plan(source, own, preset, store == "seek") for source, own in pairs]


@dataclass(frozen=True)
class Utterance:
    """A recording ready to be cut.

    Attributes:
        wave: its samples.
        mel: mel of the whole recording.
        band_hz: upper edge of its band.
        name: name in messages.
        content: hash of its samples.
    """

    wave: Tensor
    mel: Tensor
    band_hz: float
    name: str
    content: bytes


class MemoryRecordings:
    """Recordings in memory, with their mels.

    Args:
        sounds: recordings; those that cannot be used are reported and skipped.
        preset: the mel.
        least_frames: frames that each has at least; shorter ones end in silence.
        mel_file: function from a recording's name to the file of its mel, or to None for a
            recording whose mel is computed.
    """

    def __init__(
        self,
        sounds: Sequence[SoundFile],
        preset: MelPreset,
        least_frames: int,
        mel_file: Callable[[str], Path | None] = lambda name: None,
    ):
        self.preset = preset
        self.utterances: list[Utterance] = []
        for sound in sounds:
            try:
                file = mel_file(sound.name)
                self.utterances.append(prepare(sound, preset, least_frames, file))
            except PackageError:
                raise
            except InputError as fault:
                logger.warning("skipped: %s", fault)
        if len(self.utterances) < len(sounds):
            skipped = len(sounds) - len(self.utterances)
            logger.warning("%d of %d recordings were skipped", skipped, len(sounds))
        self.frames = np.array([one.mel.shape[1] for one in self.utterances], np.int64)
        contents = [content_number(one.content) for one in self.utterances]
        self.contents = np.array(contents, np.uint64)

    def __len__(self) -> int:
        return len(self.utterances)

    def name(self, number: int) -> str:
        """See :class:`Recordings`."""
        return self.utterances[number].name

    def band_hz(self, number: int) -> float:
        """See :class:`Recordings`."""
        return self.utterances[number].band_hz

    def cut(self, number: int, first: int, hops: int) -> tuple[Tensor, Tensor]:
        """See :class:`Recordings`."""
        one, samples = self.utterances[number], hops * self.preset.hop_length
        start = first * self.preset.hop_length
        frames = self.preset.num_frames(samples)
        return one.wave[start : start + samples], one.mel[:, first : first + frames]


def prepare(
    recording: SoundFile, preset: MelPreset, least_frames: int, mel_file: Path | None = None
) -> Utterance:
    """Read a recording, and compute its mel or read it from a file.

    Raises:
        InputError: if it cannot be read, is truncated, or is silent, or the file's mel has
            another length.
    """
    wave = recording.read(preset.sample_rate_hz, whole=True)
    content = hashlib.blake2b(wave.numpy().tobytes(), digest_size=16).digest()
    if float(wave.abs().max()) < QUIETEST_PEAK:
        raise InputError(f"{recording.name}: is silent")
    hop = preset.hop_length
    frames = preset.num_frames(math.ceil(len(wave) / hop) * hop)
    padded = max(math.ceil(len(wave) / hop), least_frames, preset.n_fft // hop) * hop
    wave = F.pad(wave, (0, padded - len(wave)))
    edge = min(band_edge_hz(wave, preset.sample_rate_hz), recording.rate_hz / 2)
    if mel_file is None:
        mel = preset.mel(wave[None])[0]
    else:
        mel = _read_mel_beside(mel_file, preset, frames, preset.num_frames(padded))
    return Utterance(wave, mel, edge, recording.name, content)


def _read_mel_beside(path: Path, preset: MelPreset, frames: int, padded: int) -> Tensor:
    """Return the mel of a recording from a file; silence fills it up.

    Args:
        path: mel file.
        preset: its preset.
        frames: number of frames of the recording, from which the mel's may differ by one, since
            tools round differently.
        padded: number of frames to return.

    Raises:
        InputError: if it cannot be read or has another length: a shifted mel would teach the
            vocoder to smear.
    """
    found = read_mel(path, preset)
    if abs(found.num_frames - frames) > 1:
        raise InputError(
            f"{path}: has {found.num_frames} frames and its recording {frames}; make both of the "
            "same part of the sound"
        )
    mel = found.frames(0, padded)[0]
    return F.pad(mel, (0, padded - mel.shape[1]), value=preset.level_range[0])
