"""Durations of the phones of recordings, without a network.

Expectation maximisation on monophone Gaussians: each phone has one Gaussian of diagonal variance
over cepstra, later three in a row, and the best monotonic path through a clip's phones (monotonic
alignment search, Kim et al. 2020, algorithm 1) says which frame belongs to which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

from multidiff.utils.errors import InputError

CEPSTRA = 20
LEAST_VARIANCE = 0.05
# Weight, in frames, of the variance of all frames in each Gaussian's variance.
PRIOR_FRAMES = 20
CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class MelClip:
    """A recording and its phones.

    Attributes:
        mel: log mel ``(frames, mels)``.
        classes: number of the phone of each position, from 0.
        name: how messages call it.
    """

    mel: np.ndarray
    classes: np.ndarray
    name: str = ""


def align(clips: Sequence[MelClip], rounds: tuple[int, int] = (5, 10)) -> list[np.ndarray]:
    """Return the frames of each phone of each clip; each gets at least one.

    Args:
        clips: recordings of one speaker, some minutes in all.
        rounds: numbers of re-estimations with one and with three Gaussians a phone.

    Raises:
        InputError: if a clip has more phones than frames.
    """
    for clip in clips:
        if len(clip.mel) < len(clip.classes):
            raise InputError(
                f"{clip.name}: has {len(clip.classes)} phones in {len(clip.mel)} frames, so its "
                "text is not what is said there; correct it or leave the recording out"
            )
    features = _standardized([cepstra(clip.mel) for clip in clips])
    classes = [clip.classes for clip in clips]
    count = 1 + max(int(one.max()) for one in classes)
    durations = [_even(len(f), len(c)) for f, c in zip(features, classes, strict=True)]
    for states, number in zip((1, 3), rounds, strict=True):
        rows = [_states(c, len(f), states) for f, c in zip(features, classes, strict=True)]
        durations = [_split(d, r) for d, r in zip(durations, rows, strict=True)]
        for _ in range(number):
            gaussians = _estimated(features, rows, durations, count * states)
            durations = _searched(features, rows, gaussians)
        durations = [_merged(d, r) for d, r in zip(durations, rows, strict=True)]
    return durations


def monotonic_search(
    scores: np.ndarray, frames: np.ndarray, positions: np.ndarray
) -> list[np.ndarray]:
    """Return how many frames each position gets on the best monotonic path.

    Args:
        scores: log-likelihoods ``(batch, frames, positions)``, padded at the ends.
        frames: how many of each are real.
        positions: how many of each are real, at most its frames.
    """
    batch, most, width = scores.shape
    best = np.full((batch, width), -np.inf, scores.dtype)
    best[:, 0] = scores[:, 0, 0]
    moved = np.zeros((most, batch, width), bool)
    for frame in range(1, most):
        before = np.concatenate([np.full((batch, 1), -np.inf, best.dtype), best[:, :-1]], axis=1)
        moved[frame] = before > best
        best = np.maximum(before, best) + scores[:, frame]
    found = np.zeros((batch, width), np.int64)
    position, rows = positions - 1, np.arange(batch)
    for frame in range(most - 1, -1, -1):
        real = frame < frames
        found[rows[real], position[real]] += 1
        position = position - (real & moved[frame, rows, position])
    return [row[:count] for row, count in zip(found, positions, strict=True)]


def cepstra(mel: np.ndarray) -> np.ndarray:
    """Return the first cepstra of each frame and their differences ``(frames, 40)``."""
    found = np.asarray(scipy.fft.dct(mel, axis=1, norm="ortho"))[:, :CEPSTRA]
    padded = np.pad(found, ((2, 2), (0, 0)), "edge")
    difference = (padded[3:-1] - padded[1:-3]) + 2 * (padded[4:] - padded[:-4])
    return np.concatenate([found, difference / 10], axis=1).astype(np.float32)


def _standardized(features: list[np.ndarray]) -> list[np.ndarray]:
    whole = np.concatenate(features)
    mean, std = whole.mean(axis=0), whole.std(axis=0) + 1e-6
    return [(one - mean) / std for one in features]


def _even(frames: int, positions: int) -> np.ndarray:
    edges = np.round(np.linspace(0, frames, positions + 1)).astype(np.int64)
    return np.diff(edges)


def _states(classes: np.ndarray, frames: int, states: int) -> np.ndarray:
    """Return the Gaussian of each part of each phone, ``(positions, parts)``.

    A clip that is too fast for all of a phone's states uses fewer: first and last, or the middle.
    """
    fitting = max(min(states, frames // len(classes)), 1)
    parts = {1: [states // 2], 2: [0, states - 1], 3: [0, 1, 2]}[fitting]
    return classes[:, None] * states + np.array(parts)


def _split(durations: np.ndarray, rows: np.ndarray) -> np.ndarray:
    parts = rows.shape[1]
    number = np.arange(parts)
    return ((durations[:, None] + number) // parts).reshape(-1)


def _merged(durations: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return durations.reshape(rows.shape).sum(axis=1)


def _estimated(
    features: list[np.ndarray],
    rows: list[np.ndarray],
    durations: list[np.ndarray],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means and variances of all Gaussians."""
    states = np.concatenate(
        [np.repeat(r.reshape(-1), d) for r, d in zip(rows, durations, strict=True)]
    )
    whole = np.concatenate(features)
    order = np.argsort(states, kind="stable")
    present, first = np.unique(states[order], return_index=True)
    frames = np.diff([*first, len(states)])[:, None]
    mean = np.zeros((count, whole.shape[1]), np.float32)
    variance = np.ones_like(mean)
    mean[present] = np.add.reduceat(whole[order], first, axis=0) / frames
    squares = np.add.reduceat((whole - mean[states])[order] ** 2, first, axis=0)
    variance[present] = (squares + PRIOR_FRAMES) / (frames + PRIOR_FRAMES)
    return mean, np.maximum(variance, LEAST_VARIANCE)


def _searched(
    features: list[np.ndarray], rows: list[np.ndarray], gaussians: tuple[np.ndarray, np.ndarray]
) -> list[np.ndarray]:
    mean, variance = gaussians
    constant = (mean**2 / variance + np.log(variance)).sum(axis=1)
    order = np.argsort([len(one) for one in features], kind="stable")
    found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(features)
    for first in range(0, len(order), CLIPS_AT_ONCE):
        chosen = order[first : first + CLIPS_AT_ONCE]
        frames = np.array([len(features[one]) for one in chosen])
        positions = np.array([rows[one].size for one in chosen])
        scores = np.full((len(chosen), frames.max(), positions.max()), -1e4, np.float32)
        for row, one in enumerate(chosen):
            x = features[one]
            level = -0.5 * (x**2 @ (1 / variance).T - 2 * x @ (mean / variance).T + constant)
            scores[row, : len(x), : rows[one].size] = level[:, rows[one].reshape(-1)]
        for one, durations in zip(chosen, monotonic_search(scores, frames, positions), strict=True):
            found[one] = durations
    return found
