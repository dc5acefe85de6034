"""Orders, splits and visits computed on the fly, against tables of them."""

import numpy as np
import pytest

from multidiff.core.random import mixed_seed
from multidiff.data.order import EpochOrder, FeistelPermutation, SplitRows, Visits


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 1000, 4096, 65537])
def test_the_permutation_is_a_bijection(size):
    found = FeistelPermutation(size, seed=3)(np.arange(size))
    assert np.array_equal(np.sort(found), np.arange(size))
    if size > 8:
        assert not np.array_equal(found, FeistelPermutation(size, seed=4)(np.arange(size)))


def test_the_permutation_spreads_evenly():
    """Chi square of items by position, serial correlation, spread of batch means."""
    size, cells, draws = 10_007, 20, 30
    counts = np.zeros((cells, cells))
    correlations, spreads = [], []
    for seed in range(draws):
        found = FeistelPermutation(size, seed)(np.arange(size))
        np.add.at(counts, (np.arange(size) * cells // size, found * cells // size), 1)
        unit = (found - found.mean()) / found.std()
        correlations.append((unit[1:] * unit[:-1]).mean())
        spreads.append(unit[:10_000].reshape(100, 100).mean(1).std() * 10)
    expected = counts.sum() / cells**2
    chi_square = ((counts - expected) ** 2 / expected).sum() / (cells - 1) ** 2
    assert 0.8 < chi_square < 1.2  # standard deviation 0.07
    assert abs(np.mean(correlations)) < 4 / np.sqrt(size * draws)
    assert 0.95 < np.mean(spreads) < 1.05  # 0.99 for finite sets, standard deviation 0.013


@pytest.mark.parametrize("every", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("held_out", [False, True])
def test_rows_of_a_split_follow_a_formula(every, held_out):
    for count in (0, 1, 2, 5, 6, 29, 30, 31):
        kept = [every > 0 and row % every == every // 2 for row in range(count)]
        rows = [row for row in range(count) if kept[row] == held_out]
        found = SplitRows(count, every, held_out)
        assert len(found) == len(rows) and list(found) == rows
        assert found[np.arange(len(rows))].tolist() == rows


def test_visits_find_their_items():
    counts = np.array([3, 0, 1, 2])
    listed = [(item, visit) for item, count in enumerate(counts) for visit in range(count)]
    visits = Visits(counts)
    items, numbers = visits.locate(np.arange(len(visits)))
    assert list(zip(items, numbers, strict=True)) == listed


def test_small_sets_keep_their_order():
    """That of numpy's permutation, so that runs go on."""
    order = EpochOrder(10, seed=5)
    for epoch in (0, 2):
        rng = np.random.default_rng(mixed_seed(5, 0, epoch))
        found = order.indices(epoch * 10, epoch * 10 + 10)
        assert np.array_equal(found, rng.permutation(10))


@pytest.mark.parametrize("most_stored", [0, 10**6])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_epoch_visits_everything_once(most_stored, grouped):
    """In whatever slices; and batches, also those cut by no epoch, hold similar lengths."""
    count, batch = 103, 5
    lengths = np.random.default_rng(0).integers(0, 1000, count)
    order = EpochOrder(count, 1, True, lengths if grouped else None, 4 * batch, batch, most_stored)
    visits = order.indices(0, 3 * count)
    for epoch in range(3):
        own = visits[epoch * count : (epoch + 1) * count]
        assert np.array_equal(np.sort(own), np.arange(count))
    assert not np.array_equal(visits[:count], visits[count : 2 * count])
    again = EpochOrder(count, 1, True, lengths if grouped else None, 4 * batch, batch, most_stored)
    for first, stop in ((290, 309), (0, 1), (100, 120), (101, 102)):
        assert np.array_equal(again.indices(first, stop), visits[first:stop])
    spread = np.ptp(lengths[visits[: 60 * batch]].reshape(-1, batch), axis=1)
    assert (np.median(spread) < 300) == grouped
