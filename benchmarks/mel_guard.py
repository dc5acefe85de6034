"""Mels of real recordings that the guard rejects, correct and on other scales.

For each family of changes: the number of recordings whose mels are rejected, and the fluctuation
of their fine structure relative to white noise (multidiff/audio/data/mel_guard.py). Correct mels
should all pass, those on other scales none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.timing import Row
from multidiff.audio.data.mel_guard import MelStatistics, fault_of
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import MelPreset, preset_named

PART = "mel-guard"
TEN = math.log(10)
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
# Changes of the sound, whose mels are correct.
SOUNDS: dict[str, Change] = {
    "as it is": lambda x, rng: x,
    "x 0.01": lambda x, rng: 0.01 * x,
    "x 0.01 in 16 bits": lambda x, rng: np.round(327.68 * x) / 32768,
    "x 0.001": lambda x, rng: 0.001 * x,
    "white noise at 0 dB": lambda x, rng: x + x.std() * rng.standard_normal(len(x)),
    "white noise at 20 dB": lambda x, rng: x + 0.1 * x.std() * rng.standard_normal(len(x)),
    "white noise alone": lambda x, rng: 0.01 * rng.standard_normal(len(x)),
    "clipped": lambda x, rng: np.clip(20 * x, -1, 1),
    "8 bits": lambda x, rng: np.round(128 * x) / 128,
    "silence around it": lambda x, rng: np.pad(x, 11025),
    "digital silence": lambda x, rng: 0 * x,
}
# Changes of the mel that leave it correct.
MELS: dict[str, Change] = {
    "5 frames": lambda m, rng: _cut(m, rng, 5),
    "20 frames": lambda m, rng: _cut(m, rng, 20),
    "an offset in -4..1.5": lambda m, rng: m + rng.uniform(-4, 1.5),
    "float16": lambda m, rng: m.astype(np.float16),
}
SCALES: dict[str, Change] = {
    "[-1, 1]": lambda m, rng: (m + 11.5129) / 13.5129 * 2 - 1,
    "[0, 1]": lambda m, rng: (m + 11.5129) / 13.5129,
    "[-4, 4]": lambda m, rng: (m + 11.5129) / 13.5129 * 8 - 4,
    "[-1, 1] by its own ends": lambda m, rng: (m - m.min()) / np.ptp(m) * 2 - 1,
    "[0, 1] by its own ends": lambda m, rng: (m - m.min()) / np.ptp(m),
    "[-4, 4] by its own ends": lambda m, rng: (m - m.min()) / np.ptp(m) * 8 - 4,
    "mean and std of its own": lambda m, rng: (m - m.mean()) / m.std(),
    "mean and std of LJ Speech": lambda m, rng: (m + 5.536622) / 2.116101,
    "mean and std of each band": lambda m, rng: (
        (m - m.mean(1, keepdims=True)) / (m.std(1, keepdims=True) + 1e-5)
    ),
    "decibels": lambda m, rng: 20 * m / TEN,
    "decibels, 80 below the peak": lambda m, rng: np.maximum(20 * (m - m.max()) / TEN, -80),
    "decibels over 100, plus 1": lambda m, rng: np.clip((20 * m / TEN + 80) / 100, 0, 1),
    "decimal logarithms": lambda m, rng: m / TEN,
    "Whisper": lambda m, rng: (np.maximum(2 * m / TEN, (2 * m / TEN).max() - 8) + 4) / 4,
    "logarithms of powers": lambda m, rng: 2 * m,
    "the same, floored": lambda m, rng: np.maximum(2 * m, math.log(1e-5)),
    "no logarithm": lambda m, rng: np.exp(m),
    "upside down": lambda m, rng: -m - 8,
    **{
        f"affine, x {low}..{high}": lambda m, rng, low=low, high=high: (
            rng.uniform(low, high) * m + rng.uniform(-12, 6)
        )
        for low, high in (
            (0.05, 0.5), (0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (1.1, 1.2), (1.2, 1.3),
            (1.3, 1.5), (1.5, 2.0), (2.0, 20.0),
        )
    },
}  # fmt: skip


def measure(
    threads: int, rounds: int, *, folder: str = "starter:speech", count: int = 200, seed: int = 0,
    preset: str = "hifigan-22k",
) -> list[Row]:  # fmt: skip
    """Count the rejected mels of each family.

    Args:
        threads: unused.
        rounds: unused.
        folder: folder of recordings; several separated by commas, with equal numbers from each.
        count: largest number of recordings to draw.
        seed: random seed of the draw.
        preset: preset of the mels.
    """
    rng, how = np.random.default_rng(seed), preset_named(preset)
    waves = list(_drawn(folder.split(","), count, rng, how.sample_rate_hz))
    families = {
        f"right: {name}": _of_sounds(waves, change, rng, how) for name, change in SOUNDS.items()
    }
    mels = families["right: as it is"]
    for kind, changes in (("right", MELS), ("wrong", SCALES)):
        for name, change in changes.items():
            families[f"{kind}: {name}"] = [change(mel, rng) for mel in mels]
    return [row for case, found in families.items() for row in _rows(case, found, how)]


def _drawn(
    folders: list[str], count: int, rng: np.random.Generator, rate_hz: int
) -> Iterator[np.ndarray]:
    logging.disable(logging.WARNING)
    for folder in folders:
        recordings = AudioSource(folder).recordings()
        for number in rng.permutation(len(recordings))[: count // len(folders)]:
            yield recordings[number].read(rate_hz).numpy().astype(np.float64)
    logging.disable(logging.NOTSET)


def _of_sounds(
    waves: list[np.ndarray], change: Change, rng: np.random.Generator, preset: MelPreset
) -> list[np.ndarray]:
    mels = []
    for wave in waves:
        changed = torch.from_numpy(change(wave, rng).astype(np.float32))
        short = max(4 * preset.hop_length - len(changed), -len(changed) % preset.hop_length)
        mels.append(preset.mel(torch.nn.functional.pad(changed, (0, short))[None])[0].numpy())
    return mels


def _cut(mel: np.ndarray, rng: np.random.Generator, frames: int) -> np.ndarray:
    first = rng.integers(0, max(mel.shape[1] - frames, 1))
    return mel[:, first : first + frames]


def _rows(case: str, mels: list[np.ndarray], preset: MelPreset) -> list[Row]:
    found = [MelStatistics.of(mel, preset) for mel in mels]
    write_error = sum(fault_of(one, preset) is not None for one in found)
    rows = [Row(PART, case, "write_error", f"of {len(mels)}", float(write_error))]
    levels = [one.fluctuation for one in found if np.isfinite(one.fluctuation)]
    if levels:
        ends = (float(min(levels)), float(max(levels)))
        rows.append(Row(PART, case, "fluctuation", "x noise", float(np.median(levels)), *ends))
    return rows
