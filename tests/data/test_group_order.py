"""The order of examples that lie in row groups: a function of the seed and the visit."""

from itertools import chain

import numpy as np
import pytest

from multidiff.data.group_order import Grouping, GroupOrder, GroupRows
from multidiff.utils.errors import InputError

SIZES = np.array([7, 10, 10, 3, 10, 10, 10, 4, 10, 10, 10, 6])  # 100 rows


def order(streams=4, window=2, batch_size=8, shuffle=True, sizes=SIZES, seed=5):
    return GroupOrder(Grouping(sizes, streams, window), seed, shuffle, batch_size)


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:-1], np.array([1]), np.array([3, 2])])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_stream_visits_its_part_of_each_epoch_once(sizes, shuffle):
    found, count = order(shuffle=shuffle, sizes=sizes), int(sizes.sum())
    visits = found.indices(0, 8 * 4 * count)
    by_stream = visits.reshape(-1, found.streams, found.share)
    lengths = np.diff(found.bounds)
    for epoch in range(3):
        seen = [
            by_stream[:, stream].ravel()[epoch * length : (epoch + 1) * length]
            for stream, length in enumerate(lengths)
        ]
        assert sorted(np.concatenate(seen).tolist()) == list(range(count))
    if shuffle and count == 100:
        assert not np.array_equal(visits[:100], visits[100:200])
    if not shuffle:
        assert np.array_equal(np.concatenate(seen), np.arange(count))


def test_any_visits_are_those_of_the_whole():
    whole = order().indices(0, 500)
    for first, stop in ((0, 1), (499, 500), (37, 61), (96, 104), (200, 500)):
        assert np.array_equal(order().indices(first, stop), whole[first:stop])
    assert not np.array_equal(order(seed=6).indices(0, 100), whole[:100])


def test_rows_are_shuffled_within_windows_alone():
    """The distance of visits of one group is less than a window of two groups of 100."""
    sizes = np.full(40, 100)
    visits = order(streams=1, batch_size=1, sizes=sizes).indices(0, 4000)
    groups = visits // 100
    spans = [np.ptp(np.flatnonzero(groups == group)) for group in range(40)]
    assert np.median(spans) > 100 and max(spans) < 200
    rows = visits[:200] % 100
    assert abs(np.corrcoef(rows, np.arange(200))[0, 1]) < 0.25


@pytest.mark.parametrize("parts", [2, 4])
def test_processes_share_no_group_but_at_the_ends_of_streams(parts):
    sizes = np.full(80, 10)
    found = order(sizes=sizes)
    visits = found.indices(0, 800).reshape(-1, parts, 8 // parts)
    read = [{*np.unique(visits[:, part] // 10).tolist()} for part in range(parts)]
    assert sum(map(len, read)) <= 80 + parts


def test_streams_divide_the_batch():
    assert [order(8, 2, size).streams for size in (1, 6, 8, 12, 16, 7, 9)] == [1, 6, 8, 6, 8, 7, 3]


def test_whole_groups_are_held_out():
    trained, kept = (GroupRows(SIZES, 3, side, "here") for side in (False, True))
    assert kept.sizes.tolist() == [10, 10, 4, 10]
    rows = [[one[index] for index in range(len(one))] for one in (trained, kept)]
    assert sorted(chain(*rows)) == list(range(100))
    assert np.array_equal(kept[np.arange(len(kept))], rows[1])
    assert kept[3:7] == rows[1][3:7]
    assert [*kept.alternatives(13)] == list(range(10, 20))
    with pytest.raises(IndexError):
        kept[len(kept)]
    with pytest.raises(InputError, match=r"^here: of 12 row groups none .* held_out_every is 99"):
        GroupRows(SIZES, 99, True, "here")
    with pytest.raises(InputError, match=r"^here: held_out_every is 0"):
        GroupRows(SIZES, 0, True, "here")
