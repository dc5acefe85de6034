"""Durations without a network: the search against all paths, the estimate against the truth."""

from itertools import combinations

import numpy as np
import pytest

from multidiff.audio.tts.alignment import MelClip, align, monotonic_search
from multidiff.utils.errors import InputError


def best_of_all(scores):
    """The best monotonic path, by trying each."""
    frames, positions = scores.shape
    found = []
    for cuts in combinations(range(1, frames), positions - 1):
        edges = [0, *cuts, frames]
        total = sum(scores[edges[p] : edges[p + 1], p].sum() for p in range(positions))
        found.append((total, np.diff(edges).tolist()))
    return max(found)[1]


def test_the_search_finds_the_best_of_all_paths():
    rng = np.random.default_rng(0)
    sizes = [(9, 4), (6, 6), (7, 1), (8, 3)]
    scores = np.full((len(sizes), 9, 6), -1e4, np.float32)
    for row, (frames, positions) in enumerate(sizes):
        scores[row, :frames, :positions] = rng.standard_normal((frames, positions))
    found = monotonic_search(scores, *map(np.array, zip(*sizes, strict=True)))
    for row, (frames, positions) in enumerate(sizes):
        assert found[row].tolist() == best_of_all(scores[row, :frames, :positions])


def test_durations_of_made_up_speech_are_found():
    rng = np.random.default_rng(1)
    spectra = 2 * rng.standard_normal((6, 80))
    clips, truth = [], []
    for _ in range(30):
        classes = rng.integers(0, 6, 8)
        durations = rng.integers(4, 14, 8)
        mel = np.repeat(spectra[classes], durations, axis=0)
        mel += 0.5 * rng.standard_normal(mel.shape)
        clips.append(MelClip(mel.astype(np.float32), classes))
        truth.append(durations)
    found = align(clips)
    off = np.concatenate([np.cumsum(f) - np.cumsum(t) for f, t in zip(found, truth, strict=True)])
    assert np.median(np.abs(off)) <= 1 and all(one.min() >= 1 for one in found)
    assert [one.sum() for one in found] == [one.sum() for one in truth]


def test_more_phones_than_frames_is_a_fault_with_the_name():
    clip = MelClip(np.zeros((5, 80), np.float32), np.zeros(6, np.int64), "clip.wav")
    with pytest.raises(InputError, match=r"clip\.wav.* 6 phones in 5 frames"):
        align([clip])
