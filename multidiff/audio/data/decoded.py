"""Whole recordings with their mels, decoded in memory."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
import xxhash
from torch import Tensor

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.pcm import band_edge_hz
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.data.sources import AudioSource, open_place
from multidiff.audio.data.store import QUIETEST_PEAK
from multidiff.audio.mel import MelPreset
from multidiff.data.group_order import GroupRows
from multidiff.utils.errors import InputError
from multidiff.utils.packages import PackageError

logger = logging.getLogger(__name__)


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
    content: int


def prepare(
    recording: SoundFile, preset: MelPreset, least_frames: int, mel_file: Path | None = None
) -> Utterance:
    """Read a recording, and compute its mel or read it from a file.

    Raises:
        InputError: if it cannot be read, is truncated, or is silent, or the file's mel has
            another length.
    """
    wave = recording.read(preset.sample_rate_hz, whole=True)
    content = xxhash.xxh3_64_intdigest(wave.numpy().data)
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


def cut_of(one: Utterance, preset: MelPreset, first: int, hops: int) -> tuple[Tensor, Tensor]:
    """Return a segment of a recording and its part of the mel of the whole."""
    samples, start = hops * preset.hop_length, first * preset.hop_length
    frames = preset.num_frames(samples)
    return one.wave[start : start + samples], one.mel[:, first : first + frames]


class GroupedRecordings:
    """Recordings of one side of a source that are decoded at each visit.

    Args:
        source: the source.
        preset: the mel.
        held_out: whether these are the row groups kept for validation.
        least_frames: frames that each has at least; shorter ones end in silence.
    """

    def __init__(self, source: AudioSource, preset: MelPreset, held_out: bool, least_frames: int):
        self.sounds, self.preset, self._least = source.grouped_sounds(), preset, least_frames
        sizes = self.sounds.table.sizes
        self.rows = GroupRows(sizes, source.held_out_every, held_out, source.path)
        self.contents = np.zeros(0, np.uint64)
        self._kept: tuple[int, Utterance] | None = None
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def readable(self, number: int) -> int:
        """Return a recording, or the next of its row group that can be used.

        Raises:
            InputError: if the row group cannot be read, or none of it can be used.
        """
        group = self.rows.alternatives(number)
        for step in range(len(group)):
            one = group[(number - group.start + step) % len(group)]
            if one in self._broken:
                continue
            where = self.sounds[self.rows[one]]
            try:
                self._utterance(one, where)
                return one
            except PackageError:
                raise
            except InputError as fault:
                logger.warning("skipped: %s", fault)
                self._broken.add(one)
        raise InputError(f"{self.name(number)}: no recording of its row group can be used")

    def name(self, number: int) -> str:
        """See :class:`Recordings`."""
        return self.sounds.table.name(self.rows[number])

    def frames_of(self, number: int) -> int:
        """See :class:`Recordings`."""
        return self._utterance(number).mel.shape[1]

    def band_hz(self, number: int) -> float:
        """See :class:`Recordings`."""
        return self._utterance(number).band_hz

    def cut(self, number: int, first: int, hops: int) -> tuple[Tensor, Tensor]:
        """See :class:`Recordings`."""
        return cut_of(self._utterance(number), self.preset, first, hops)

    def _utterance(self, number: int, where: Any = None) -> Utterance:
        if self._kept is None or self._kept[0] != number:
            sound = open_place(where or self.sounds[self.rows[number]])
            self._kept = number, prepare(sound, self.preset, self._least)
        return self._kept[1]
