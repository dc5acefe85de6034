"""Training data of vocoders: recordings, cut into segments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from torch import Tensor

from multidiff.audio.data.decoded import GroupedRecordings, Utterance, cut_of, prepare
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.data.sources import AudioSource, NoiseSource
from multidiff.audio.data.store import StoredRecordings, sound_plan
from multidiff.audio.data.survey import fits_in_memory, survey
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.data.group_order import Grouping
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
        contents: hash of each one's samples; empty if they are not known.
    """

    contents: np.ndarray

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return the name of a recording in messages."""
        ...

    def frames_of(self, number: int) -> int:
        """Return the mel frames of a recording."""
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
    segments. Of sources that are read by row groups, such as those in an object store, recordings
    are decoded at each visit; an epoch visits each ``repeat`` times, whatever its length.

    Sources with ``mels`` are kept in memory.

    Args:
        sources: sources of recordings, either all or none of them read by row groups.
        mel: the preset, or its name.
        segment_frames: number of mel frames of a segment.
        gain_db: range of the random gain in dB; both ends 0 for none.
        held_out: whether to take the recordings kept for validation.
        store: where samples are read from: ``memory``, the store on ``disk``, ``seek`` (WAV and
            FLAC files themselves, other formats from the store), or ``auto``. The store rounds
            resampled sound to 16 bits; otherwise all are equal. ``disk`` copies what lies in an
            object store; ``auto`` and the others read it by row groups.

    Attributes:
        grouping: the row groups that the recordings are read by, if they are.

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
        self.grouping: Grouping | None = None
        whole: list[MemoryRecordings | StoredRecordings] = []
        if store != "disk" and any(one.grouped is not None for one in sides):
            self._by_groups(sides, held_out)
            return
        tables = all_prepared(sound_plans(sides, self.preset, store))
        for source, table in zip(sides, tables or [None] * len(sides), strict=True):
            whole.append(
                MemoryRecordings(
                    source.recordings(held_out), self.preset, segment_frames, source.mel_file
                )
                if table is None
                else StoredRecordings(table, source, self.preset, held_out, segment_frames)
            )
        self.recordings += whole
        self._ends = np.cumsum([len(one) for one in whole])
        if not sides or not self._ends[-1]:
            raise InputError("no usable recordings in any of the sources")
        counts = [
            -(-one.frames // segment_frames) * source.repeat
            for one, source in zip(whole, sides, strict=True)
        ]
        self.visits = Visits(np.concatenate(counts))

    def _by_groups(self, sides: Sequence[AudioSource], held_out: bool) -> None:
        if any(one.grouped is None for one in sides):
            raise InputError(
                f"{sides[0].path}: sources are either all read by row groups or none of them; set "
                "row_groups for all, or store: disk"
            )
        if any(one.mels for one in sides):
            raise InputError(
                f"{sides[0].path}: mels cannot be given for recordings that are read by row "
                "groups; remove mels, or copy the recordings to a local folder"
            )
        found = [
            GroupedRecordings(one, self.preset, held_out, self.segment_frames) for one in sides
        ]
        self.recordings = [*found]
        self._ends = np.cumsum([len(one) for one in found])
        repeats = [np.full(len(a), b.repeat) for a, b in zip(found, sides, strict=True)]
        self.visits = Visits(np.concatenate(repeats))
        sizes = [a.rows.sizes * b.repeat for a, b in zip(found, sides, strict=True)]
        self.grouping = found[0].sounds.table.grouping(np.concatenate(sizes))

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
        if isinstance(recordings, GroupedRecordings):
            number = recordings.readable(number)
        first = int(rng.integers(0, recordings.frames_of(number) - frames + 1))
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
        self.contents = np.array([one.content for one in self.utterances], np.uint64)

    def __len__(self) -> int:
        return len(self.utterances)

    def name(self, number: int) -> str:
        """See :class:`Recordings`."""
        return self.utterances[number].name

    def frames_of(self, number: int) -> int:
        """See :class:`Recordings`."""
        return int(self.frames[number])

    def band_hz(self, number: int) -> float:
        """See :class:`Recordings`."""
        return self.utterances[number].band_hz

    def cut(self, number: int, first: int, hops: int) -> tuple[Tensor, Tensor]:
        """See :class:`Recordings`."""
        return cut_of(self.utterances[number], self.preset, first, hops)
