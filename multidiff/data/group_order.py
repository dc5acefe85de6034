"""The order of examples that are stored in groups, of which only whole ones can be read.

Each epoch permutes the groups and cuts all rows, in the order of the groups, into streams of equal
length. A stream is read window by window; the rows of a window, of several groups, are shuffled.
Row ``p`` of a batch of ``B`` belongs to stream ``p S // B`` of ``S``: so a process that reads some
rows of each batch reads only the groups of its own streams, however many processes there are, and
where a visit lies follows from its number alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multidiff.core.random import mixed_seed
from multidiff.data.order import SplitRows
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class Grouping:
    """Groups of examples, and the streams that read them.

    Attributes:
        sizes: number of examples of each group; those of a group follow each other.
        streams: largest number of streams; a batch is read from as many as divide it.
        window: number of groups whose rows are shuffled together.
    """

    sizes: np.ndarray
    streams: int
    window: int


class GroupRows(Sequence):
    """Rows of the groups that are kept for validation, every n-th, or of the others.

    Args:
        sizes: number of rows of each group of the source.
        held_out_every: n to hold out every n-th group; 0 holds out none.
        held_out: whether these are the rows held out.
        name: name of the source, for messages.

    Raises:
        InputError: if there are none.
    """

    def __init__(self, sizes: np.ndarray, held_out_every: int, held_out: bool, name: str):
        if held_out and held_out_every < 1:
            raise InputError(
                f"{name}: held_out_every is {held_out_every}, so nothing is held out; set it, or "
                "use another source"
            )
        side = SplitRows(len(sizes), held_out_every, held_out)
        if not len(side):
            raise InputError(
                f"{name}: of {len(sizes)} row groups none are on this side of the split; whole "
                f"groups are held out, and held_out_every is {held_out_every}"
            )
        groups = np.asarray(side[np.arange(len(side))])
        self.sizes = sizes[groups]
        self._ends = np.cumsum(self.sizes)
        self._first = (np.cumsum(sizes) - sizes)[groups]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        """Return the row of an index, or the rows of an array or slice of them."""
        if isinstance(index, slice):
            return self[np.arange(*index.indices(len(self)))].tolist()
        if np.ndim(index) == 0 and not 0 <= index < len(self):  # ends an iteration
            raise IndexError(f"{index} of {len(self)} rows")
        group = np.searchsorted(self._ends, index, side="right")
        found = self._first[group] + index - (self._ends[group] - self.sizes[group])
        return int(found) if np.ndim(index) == 0 else found

    def alternatives(self, index: int) -> range:
        """Return the indices of the group that an index lies in."""
        group = int(np.searchsorted(self._ends, index, side="right"))
        end = int(self._ends[group])
        return range(end - int(self.sizes[group]), end)


class GroupOrder:
    """The order of the examples of each epoch; see the module.

    Streams differ in length by one example at most, and each goes on to its next epoch by itself.

    Args:
        grouping: groups of the examples.
        seed: random seed.
        shuffle: whether to shuffle; otherwise each stream keeps the order of the examples.
        batch_size: number of examples of a batch.
    """

    def __init__(self, grouping: Grouping, seed: int, shuffle: bool, batch_size: int):
        self.sizes, self.window = np.asarray(grouping.sizes, np.int64), max(grouping.window, 1)
        self.seed, self.shuffle = seed, shuffle
        self.count = int(self.sizes.sum())
        most = max(1, min(grouping.streams, batch_size, self.count))
        self.streams = next(n for n in range(most, 0, -1) if batch_size % n == 0)
        self.share = batch_size // self.streams  # rows of a stream in each batch
        self.bounds = [number * self.count // self.streams for number in range(self.streams + 1)]
        self._first = np.cumsum(self.sizes) - self.sizes
        self._epochs: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()

    def indices(self, first: int, stop: int) -> np.ndarray:
        """Return the examples of consecutive visits, which may lie in several epochs."""
        return np.array([self._at(visit) for visit in range(first, stop)], np.int64)

    def _at(self, visit: int) -> int:
        batch, place = divmod(visit, self.share * self.streams)
        stream, own = divmod(place, self.share)
        low, high = self.bounds[stream : stream + 2]
        epoch, position = divmod(batch * self.share + own, high - low)
        groups, ends = self._groups(epoch)
        position = self._shuffled(epoch, stream, low, high, low + position, ends)
        where = int(np.searchsorted(ends, position, side="right"))
        group = int(groups[where])
        return int(self._first[group] + position - (ends[where] - self.sizes[group]))

    def _groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the groups in the order of an epoch, and the ends of their rows."""
        if epoch not in self._epochs:
            groups = np.arange(len(self.sizes))
            if self.shuffle:
                groups = np.random.default_rng(mixed_seed(self.seed, 0, epoch)).permutation(groups)
            self._epochs[epoch] = groups, np.cumsum(self.sizes[groups])
            while len(self._epochs) > 2:  # streams do not end their epochs in one batch
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def _shuffled(
        self, epoch: int, stream: int, low: int, high: int, position: int, ends: np.ndarray
    ) -> int:
        """Return the position in the order of the groups that is visited at one of a stream."""
        if not self.shuffle:
            return position
        # The first windows of the streams differ in size: not all streams change at once.
        start = int(np.searchsorted(ends, low, side="right"))
        start -= stream * self.window // self.streams
        number = (int(np.searchsorted(ends, position, side="right")) - start) // self.window
        first, last = start + number * self.window, start + (number + 1) * self.window
        first_row = max(low, int(ends[first - 1]) if first > 0 else 0)
        stop_row = min(high, int(ends[min(last, len(ends)) - 1]))
        key = (epoch, stream, number)
        if key not in self._windows:
            rng = np.random.default_rng(mixed_seed(self.seed, 3, epoch, stream, number))
            self._windows[key] = rng.permutation(stop_row - first_row)
            while len(self._windows) > 2 * self.streams:
                self._windows.popitem(last=False)
        return first_row + int(self._windows[key][position - first_row])
