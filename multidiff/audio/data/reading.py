"""Samples of recordings, read where they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset, mirrored
from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading

# Seconds of sound on each side of a segment that is resampled: with 20 ms its samples are those
# of the whole recording to 3e-8, with 5 ms to 1e-5.
RESAMPLING_CONTEXT = 0.02


class SampleReader(Protocol):
    """A recording at one rate."""

    @property
    def length(self) -> int:
        """Return the number of samples."""
        ...

    def read(self, start: int, stop: int) -> Float[np.ndarray, " samples"]:
        """Return the samples ``start`` to ``stop``, which lie within the recording."""
        ...


@dataclass(frozen=True)
class SeekableSound:
    """A WAV or FLAC file of which segments are decoded, resampled each on its own.

    Segments of MP3 and Opus differ from those of the whole recording, so they are not read so.

    Attributes:
        path: the file.
        source_rate_hz: its sample rate.
        source_length: number of its samples.
        rate_hz: rate of the samples that are returned.
        channel: channel that is read; None for the mean of all.
    """

    path: Path
    source_rate_hz: int
    source_length: int
    rate_hz: int
    channel: int | None = None

    @property
    def length(self) -> int:
        """Return the number of samples at the rate that is asked for."""
        return resampled_length(self.source_length, self.source_rate_hz, self.rate_hz)

    def read(self, start: int, stop: int) -> Float[np.ndarray, " samples"]:
        """See :class:`SampleReader`.

        Raises:
            InputError: if the file is not there any more, or has changed.
        """
        if self.rate_hz == self.source_rate_hz:
            return self._decoded(start, stop)
        first, last = resampled_span(
            start, stop, self.source_length, self.source_rate_hz, self.rate_hz
        )
        found = soxr.resample(self._decoded(first, last), self.source_rate_hz, self.rate_hz, "VHQ")
        offset = start - first * self.rate_hz // self.source_rate_hz
        return found[offset : offset + stop - start]

    def _decoded(self, start: int, stop: int) -> Float[np.ndarray, " samples"]:
        with reading(self.path), soundfile.SoundFile(self.path) as file:
            file.seek(start)
            found = file.read(stop - start, dtype="float32", always_2d=True)
            rate_hz = file.samplerate
        if len(found) != stop - start or rate_hz != self.source_rate_hz:
            raise InputError(f"{self.path}: changed while it was read; start again")
        if self.channel is not None:
            return found[:, self.channel]
        return (found @ np.full(found.shape[1], 1 / found.shape[1])).astype(np.float32)


def resampled_length(length: int, source_rate_hz: int, rate_hz: int) -> int:
    """Return the number of samples of a recording at another rate."""
    return (2 * length * rate_hz + source_rate_hz) // (2 * source_rate_hz)


def resampled_span(
    start: int, stop: int, length: int, source_rate_hz: int, rate_hz: int
) -> tuple[int, int]:
    """Return the samples of the source that a resampled segment is made from.

    The first one coincides with a sample at the new rate.
    """
    step = source_rate_hz // math.gcd(source_rate_hz, rate_hz)
    context = math.ceil(RESAMPLING_CONTEXT * source_rate_hz)
    first = max(start * source_rate_hz // rate_hz - context, 0) // step * step
    return first, min(math.ceil(stop * source_rate_hz / rate_hz) + context, length)


def segment_with_mel(
    sound: SampleReader, preset: MelPreset, first: int, hops: int, total: int
) -> tuple[Float[Tensor, " samples"], Float[Tensor, "mels frames"]]:
    """Return a segment of a recording, and its part of the mel of the whole.

    Args:
        sound: the recording, at the preset's rate.
        preset: parameters of the mel.
        first: first frame.
        hops: length of the segment.
        total: samples of the recording with the silence after it.
    """
    hop, context = preset.hop_length, preset.padding
    wave = mirrored_segment(
        partial(silenced, sound), total, first * hop - context, (first + hops) * hop + context
    )
    return wave[context : len(wave) - context], preset.mel_in_context(wave[None])[0]


def mel_frames(
    sound: SampleReader, preset: MelPreset, first: int, frames: int, total: int
) -> Float[Tensor, "mels frames"]:
    """Return frames of a recording's mel; arguments as of :func:`segment_with_mel`."""
    start = first * preset.hop_length - preset.padding
    samples = (frames - 1 + preset.drops_last) * preset.hop_length + preset.n_fft
    wave = mirrored_segment(partial(silenced, sound), total, start, start + samples)
    return preset.mel_in_context(wave[None])[0]


def mirrored_segment(
    read: Callable[[int, int], np.ndarray], total: int, start: int, stop: int
) -> Float[Tensor, " samples"]:
    """Return samples ``start`` to ``stop`` of a recording, mirrored beyond its ends.

    Args:
        read: returns a part of the recording.
        total: number of samples of the recording.
        start: first sample; may be negative.
        stop: end of the segment; may lie beyond the recording's.
    """
    left, right = max(-start, 0), max(stop - total, 0)
    low, high = max(start, 0), min(stop, total)
    low = min(low, total - 1 - right) if right else low
    high = max(high, left + 1) if left else high
    wave = torch.from_numpy(np.ascontiguousarray(read(low, high)))
    wave = mirrored(wave[None], left, right)[0] if left or right else wave
    return wave[start - low + left : stop - low + left]


def silenced(sound: SampleReader, start: int, stop: int) -> Float[np.ndarray, " samples"]:
    """Return samples of a recording that is followed by silence."""
    found = sound.read(min(start, sound.length), min(stop, sound.length))
    return np.pad(found, (0, stop - start - len(found)))
