"""Detection of mels whose levels are on another scale than the preset's.

Levels that were scaled to [-1, 1], normalised, or given in decibels have the right shape and make
full-scale noise. Their range alone does not reveal it: a quiet recording or one of steady noise
has a narrow range as well. The fine structure does. Bands of a short-time spectrum
interfere at random, and the logarithm of a sum of random phasors fluctuates by an amount that
depends on the window and the filters only: not on loudness, not on the
spoken content. The measure here is the time difference of the second band difference,

    d[b, t] = l[b-1, t] - 2 l[b, t] + l[b+1, t],    |d[b, t+1] - d[b, t]|,

which removes envelope and dynamics, relative to the same for white noise through the same
preset. On recordings its median is 0.8 to 1.25, whatever the microphone, codec or noise; a scale
multiplies it by its factor (0.43 for decimal logarithms, 0.15 for [-1, 1], 8.7 for decibels), and
a constant offset, which is loudness, does not change it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from multidiff.audio.mel import MelPreset

BLOCK_FRAMES = 20_000
# Limits of log fluctuation for long recordings, and their widening for few frames, as measured by
# `python -m benchmarks mel-guard --folder FOLDER`. Codecs and denoisers roughen it, clean voices
# without any noise smooth it, and single syllables scatter to the smooth side.
SMOOTH, SMOOTH_OF_A_FRAME, SMOOTH_OF_FEW = 0.18, 1.5, 3.8
ROUGH, ROUGH_OF_A_FRAME = 0.25, 0.7
# Both limits where levels show a shift, which an offset alone may cause.
STRICT, PLATEAU = 0.27, 0.01
LEAST_FRAMES = 1.5
# Fluctuations are skewed to the left: sums of phasors cancel but do not explode.
SKEWED_RIGHT, SKEW_FRAMES = 0.03, 10
# As fractions of the range of levels: tolerance at the preset's own floor; loudness beyond full
# scale that is accepted, with a warning.
AT_FLOOR, OVERLOAD = 0.0006, 0.14
# Exact ends of mels in which each recording is scaled by its own extremes.
SCALED_ENDS = ((-1.0, 1.0), (0.0, 1.0), (-4.0, 4.0))
# Predicted mels are smoother than any recording. They are accepted if they span this fraction of
# the range, from this near its lower end.
SPAN, REACH = 0.68, 0.18
REFERENCE_SECONDS = 8


@dataclass(frozen=True)
class MelStatistics:
    """Statistics of a mel's levels that reveal its scale.

    Attributes:
        least: smallest level.
        greatest: greatest level.
        mean: mean of all levels.
        std: standard deviation of all levels.
        fluctuation: fine structure relative to that of white noise; NaN without any.
        skew: skew of the fluctuations, negative for logarithms of sounds.
        num_frames: number of frames with fluctuations, silence excluded.
        silence: fraction of levels that equal the smallest one exactly.
        is_centred: whether the means of all bands are equal, as after normalising each.
        padding: number of frames at the end that hold one constant, above the least level.
    """

    least: float
    greatest: float
    mean: float
    std: float
    fluctuation: float
    skew: float
    num_frames: float
    silence: float
    is_centred: bool
    padding: int

    @classmethod
    def of(cls, array: np.ndarray, preset: MelPreset) -> MelStatistics:
        """Measure an array ``(mels, frames)``, block by block."""
        sizes, sums, squares, least, greatest = 0, 0.0, 0.0, math.inf, -math.inf
        for block in _blocks(array, 0):
            sizes, sums = sizes + block.size, sums + float(block.sum())
            with np.errstate(invalid="ignore", over="ignore"):
                squares += float(np.square(block).sum())
            least, greatest = min(least, float(block.min())), max(greatest, float(block.max()))
        mean = sums / sizes
        if not np.isfinite([least, greatest]).all():
            return cls(least, greatest, mean, math.nan, math.nan, math.nan, 0, 0, False, 0)
        std = math.sqrt(max(squares / sizes - mean**2, 0.0))
        ends = (least, greatest if preset.log == "decibels" else math.inf)
        found = [_fine_structure(block, preset, ends) for block in _blocks(array, 1)]
        counts = np.array([count for _, _, count in found], dtype=float)
        silence = sum(float((block == least).sum()) for block in _blocks(array, 0)) / sizes
        band_means = sum(block.sum(axis=1) for block in _blocks(array, 0)) / array.shape[1]
        shape = (silence, bool(np.ptp(band_means) < 1e-3 * std), _padding(array, least))
        if counts.sum() == 0:
            return cls(least, greatest, mean, std, math.nan, 0.0, 0.0, *shape)
        kept = [one for one in found if one[2]]
        fluctuation, skew = np.average(
            [[math.log(max(f, 1e-9)), s] for f, s, _ in kept], axis=0, weights=counts[counts > 0]
        )
        frames = counts.sum() / max(array.shape[0] - 2, 1)
        fluctuation = math.exp(fluctuation)
        return cls(least, greatest, mean, std, fluctuation, skew, frames, *shape)

    @property
    def span(self) -> float:
        """Difference of the greatest and the smallest level."""
        return self.greatest - self.least


def _blocks(array: np.ndarray, overlap: int) -> Iterator[np.ndarray]:
    for first in range(0, array.shape[1], BLOCK_FRAMES):
        yield array[:, first : first + BLOCK_FRAMES + overlap].astype(np.float64)


def _padding(array: np.ndarray, least: float) -> int:
    """Count the frames at the end that are one constant above the least level."""
    tail = array[:, -BLOCK_FRAMES:].astype(np.float64)
    last = tail[0, -1]
    if array.shape[1] < 2 or last <= least:
        return 0
    constant = (tail == last).all(axis=0)[::-1]
    return int(constant.argmin()) if not constant.all() else len(constant)


def _fine_structure(
    block: np.ndarray, preset: MelPreset, ends: tuple[float, float]
) -> tuple[float, float, int]:
    """Return the median fluctuation, its skew, and the number of cells they are based on.

    Cells that touch silence or clipping, or do not change from frame to frame at all, carry
    no information about the scale and are excluded.
    """
    if block.shape[0] != preset.n_mels or block.shape[0] < 3 or block.shape[1] < 2:
        return math.nan, 0.0, 0
    slack = 1e-4 * max(abs(ends[0]), 1.0)
    used = (block > ends[0] + slack) & (block < ends[1] - slack)
    if preset.log == "log10" and preset.floor == 0:
        used &= block != 0
    step = np.diff(block, axis=1)
    moves = used[:, 1:] & used[:, :-1] & (step != 0)
    moves = moves[2:] & moves[1:-1] & moves[:-2]
    size = np.abs(step[2:] - 2 * step[1:-1] + step[:-2]) / _reference(preset)[:, None]
    sizes = size[moves]
    return (float(np.median(sizes)) if sizes.size else math.nan), _skew(block, used), sizes.size


def _skew(block: np.ndarray, used: np.ndarray) -> float:
    """Return the skew of levels against their four neighbours, by quantiles."""
    inner = block[1:-1, 1:-1]
    around = block[:-2, 1:-1] + block[2:, 1:-1] + block[1:-1, :-2] + block[1:-1, 2:]
    kept = used[1:-1, 1:-1] & used[:-2, 1:-1] & used[2:, 1:-1] & used[1:-1, :-2] & used[1:-1, 2:]
    values = (inner - around / 4)[kept]
    if values.size < 50:
        return 0.0
    low, middle, high = np.quantile(values, (0.02, 0.5, 0.98))
    return float((high + low - 2 * middle) / max(high - low, 1e-12))


@lru_cache(maxsize=16)
def _reference(preset: MelPreset) -> np.ndarray:
    """Return the median fluctuation of white noise in each inner band."""
    noise = np.random.default_rng(0).standard_normal(REFERENCE_SECONDS * preset.sample_rate_hz)
    samples = len(noise) // preset.hop_length * preset.hop_length
    wave = torch.from_numpy(0.05 * noise[:samples].astype(np.float32))
    levels = preset.mel(wave[None])[0].numpy().astype(np.float64)
    step = np.diff(levels, axis=1)
    size = np.median(np.abs(step[2:] - 2 * step[1:-1] + step[:-2]), axis=1)
    return np.maximum(size, 1e-3 * size.max())


def limits(num_frames: float) -> tuple[float, float]:
    """Return the least and the greatest fluctuation of recordings of that many frames."""
    frames = max(num_frames, 1.0)
    smooth = math.hypot(SMOOTH, SMOOTH_OF_A_FRAME / math.sqrt(frames), SMOOTH_OF_FEW / frames)
    return math.exp(-smooth - 0.02), math.exp(ROUGH + ROUGH_OF_A_FRAME / math.sqrt(frames))


def fault_of(found: MelStatistics, preset: MelPreset) -> str | None:
    """Return why levels cannot be the preset's; None if they can.

    Few cells of fine structure (a few frames, or hardly anything above silence) widen the limits.
    With almost none, levels pass if silence lies at the preset's own floor, and are
    rejected otherwise: a scale that cannot be recognised must be stated.
    """
    low, high = preset.level_range
    size = high - low
    shown = f"its levels, {found.least:.2f} to {found.greatest:.2f},"
    if found.padding:
        return (
            f"its last {found.padding} frames hold one constant above silence, as padding does, "
            "which would be audible; cut them off, or give lengths"
        )
    at_floor = abs(found.least - low) < AT_FLOOR * size
    if found.num_frames < LEAST_FRAMES:
        known = found.greatest <= low + AT_FLOOR * size or (at_floor and found.greatest <= high)
        return None if known else f"{shown} are too few or too even to show their scale"
    least, most = limits(found.num_frames)
    spans = found.span >= SPAN * size and found.least <= low + REACH * size
    is_smooth = found.fluctuation < least
    smooth = is_smooth and not (at_floor or spans)
    skewed = found.skew > SKEWED_RIGHT and found.num_frames >= SKEW_FRAMES
    inverted = skewed and not (at_floor or is_smooth)
    own_ends = (found.least, found.greatest)
    ends = preset.log == "ln" and any(math.dist(pair, own_ends) < 1e-4 for pair in SCALED_ENDS)
    # Silence above the floor, or loudness beyond full scale, only arises from an offset.
    is_moved = found.greatest > high or (found.silence > PLATEAU and found.least > low + 0.1)
    moved = is_moved and abs(math.log(found.fluctuation)) > STRICT
    known = ends or found.is_centred
    if smooth or found.fluctuation > most or inverted or known or moved:
        return f"{shown} are not on the scale of {preset.name} ({low:.1f} to {high:.1f})"
    if found.greatest > high + OVERLOAD * size:
        return f"{shown} are louder than {preset.name} makes any sound ({high:.1f} at most)"
    return None


def warnings_of(found: MelStatistics, preset: MelPreset) -> list[str]:
    """Return warnings about levels that are accepted."""
    low, high = preset.level_range
    size = high - low
    said = []
    if found.least < low - AT_FLOOR * size:
        said.append(f"levels below the floor of {preset.name} ({low:.2f}) are raised to it")
    if found.greatest > high:
        said.append(
            f"levels up to {found.greatest:.2f} are beyond full scale ({high:.2f}); the sound "
            "will be clipped there"
        )
    smooth = found.num_frames >= LEAST_FRAMES and found.fluctuation < limits(found.num_frames)[0]
    if smooth and abs(found.least - low) >= AT_FLOOR * size:
        said.append(
            f"smoother than any recording ({found.fluctuation:.2f} of its fine structure), but "
            f"accepted as {preset.name} by its range"
        )
    return said
