"""Hours of recordings for :mod:`benchmarks.data`, and the figures that only sound has.

Recordings are FLAC files of 10 s of noise with the spectrum and the pauses of speech;
:data:`DISTINCT` of them are encoded, and linked under as many names as the minutes need.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import Row
from multidiff.data.batches import Batches

RATE, SECONDS, DISTINCT = 22050, 10, 60
CLOCKS = ("all cores", "CPU of all processes")
BATCH, SEGMENTS = 8, 100
# Where recordings of any length are read from.
_STORE: list[Any] = ["disk"]


def make_recordings(folder: Path, minutes: int) -> Path:
    """Write FLAC files of speech-like noise, of that many minutes in all."""
    import soundfile
    from scipy.signal import lfilter

    place = folder / "recordings"
    place.mkdir(exist_ok=True)
    rng, time_s = np.random.default_rng(0), np.arange(SECONDS * RATE) / RATE
    for number in range(minutes * 60 // SECONDS):
        path = place / f"{number:06d}.flac"
        if number >= DISTINCT:
            os.link(place / f"{number % DISTINCT:06d}.flac", path)
            continue
        noise = np.asarray(lfilter([1.0], [1.0, -0.95], rng.standard_normal(len(time_s))))
        syllables = np.clip(np.sin(8 * np.pi * time_s) + np.sin(time_s + number), 0, None)
        soundfile.write(path, 0.02 * noise * syllables, RATE)
    return place


def sound_batches(path: Path) -> Batches:
    """Return batches of segments of recordings, as the recipe of the vocoder has them."""
    from multidiff.audio.data.segments import SpeechSegments
    from multidiff.audio.data.sources import AudioSource

    return Batches(SpeechSegments([AudioSource(str(path))], store=_STORE[0]), BATCH)


def keep_sound_in_memory(wanted: bool) -> None:
    """Let recordings of any length be read from memory, or from disk."""
    _STORE[0] = "memory" if wanted else "disk"


def sound_rows(case: str, path: Path) -> list[Row]:
    """Measure the making of the store beside bare decoding, and mels beside the whole's."""
    from multidiff.audio.data.segments import sound_plans
    from multidiff.audio.data.sources import AudioSource
    from multidiff.audio.mel import PRESETS
    from multidiff.data.cache import ENVIRONMENT
    from multidiff.data.prepare import available_cores, prepared

    files = sorted(map(str, path.glob("*.flac")))

    def decode() -> None:
        with ProcessPoolExecutor(available_cores()) as pool:
            list(pool.map(_decode, files, chunksize=60))

    def make() -> None:
        (plan,) = sound_plans([AudioSource(str(path))], PRESETS["hifigan-22k"], "disk")
        prepared(plan)

    before = os.environ[ENVIRONMENT]
    with tempfile.TemporaryDirectory(dir=before) as cache:
        os.environ[ENVIRONMENT] = cache
        taken = {"bare decoding": _taken(decode), "making the store": _taken(make)}
    os.environ[ENVIRONMENT] = before
    rows = [
        Row("data", case, f"{name}, {clock}", "s", own, own, own, own / reference)
        for name, values in taken.items()
        for clock, own, reference in zip(CLOCKS, values, taken["bare decoding"], strict=True)
    ]
    return rows + [_mel_row(preset) for preset in PRESETS.values()]


def _taken(action: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds that an action takes, and the CPU seconds of its processes."""
    began, used = time.perf_counter(), sum(os.times()[:4])
    action()
    return time.perf_counter() - began, sum(os.times()[:4]) - used


def _decode(file: str) -> int:
    import soundfile

    return len(soundfile.read(file, dtype="float32")[0])


class _InMemory:
    def __init__(self, samples: np.ndarray):
        self.samples, self.length = samples, len(samples)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.samples[start:stop]


def _mel_row(preset: Any) -> Row:
    """Return the largest difference of segments' mels from those of a whole recording."""
    import torch

    from multidiff.audio.data.reading import segment_with_mel

    rng, hop, frames = np.random.default_rng(0), preset.hop_length, 64
    wave = 0.1 * rng.standard_normal(1000 * hop - 77).astype(np.float32)
    padded = torch.from_numpy(np.pad(wave, (0, 77)))
    mel, last = preset.mel(padded[None])[0], 1000 - frames
    differences = []
    for first in (0, 1, last - 1, last, *rng.integers(0, last, SEGMENTS).tolist()):
        own = segment_with_mel(_InMemory(wave), preset, first, frames, len(padded))[1]
        wanted = mel[:, first : first + own.shape[1]]
        differences.append(float((own - wanted).abs().max()))
    middle = float(np.median(differences))
    name = "a segment's mel, difference from the whole's"
    return Row("data", preset.name, name, "level", middle, min(differences), max(differences))
