"""Orders, splits and visits of any number of rows, computed where they are needed.

Sets of up to ``MOST_STORED`` examples keep a permutation of each epoch in memory. Larger ones
compute it: a Feistel network is a bijection of the numbers of some bits, whatever its round
function; numbers beyond the set are permuted again until they fall into it (cycle walking, Black
and Rogaway 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from multidiff.core.random import mixed_seed

# 16 MB of memory in every process.
MOST_STORED = 1 << 21
ROUNDS = 4


class FeistelPermutation:
    """A pseudorandom permutation of ``range(size)`` that takes no memory.

    Args:
        size: number of items, at least 1.
        seed: key of the permutation.
    """

    def __init__(self, size: int, seed: int):
        if size < 1:
            raise ValueError(f"a permutation of {size} items: there must be at least 1")
        bits = max(2, (size - 1).bit_length())
        self.size = size
        self._low = np.uint64(bits // 2)
        self._masks = [np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << bits // 2) - 1)]
        self._keys = [np.uint64(mixed_seed(seed, number)) for number in range(ROUNDS)]

    def __len__(self) -> int:
        return self.size

    def __call__(self, positions: Any) -> np.ndarray:
        """Return the items at positions of the permuted range."""
        found = np.array(positions, np.uint64, ndmin=1)
        beyond = np.arange(len(found))
        while len(beyond):
            found[beyond] = self._permuted(found[beyond])
            beyond = beyond[found[beyond] >= self.size]
        return found.astype(np.int64)

    def _permuted(self, numbers: np.ndarray) -> np.ndarray:
        halves = [numbers >> self._low, numbers & self._masks[1]]
        for number, key in enumerate(self._keys):
            side = number % 2
            halves[side] ^= _scrambled(halves[1 - side] ^ key) & self._masks[side]
        return (halves[0] << self._low) | halves[1]


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of 64-bit numbers (the finalizer of SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class SplitRows(Sequence):
    """Rows kept for validation, every n-th, or the others, by a formula.

    Of each ``held_out_every`` rows, the one in their middle is held out.

    Args:
        count: number of rows of the source.
        held_out_every: n to hold out every n-th row; 0 holds out none.
        held_out: whether these are the rows held out.
    """

    def __init__(self, count: int, held_out_every: int, held_out: bool):
        self.every, self.held_out = held_out_every, held_out
        self.middle = self.every // 2
        kept = max(0, -((self.middle - count) // self.every)) if self.every > 0 else 0
        self.size = kept if held_out else count - kept

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        """Return the row of an index, or the rows of an array of them."""
        if np.ndim(index) == 0:
            index = int(index)
            if not 0 <= index < self.size:  # ends an iteration
                raise IndexError(f"{index} of {self.size} rows")
        else:
            index = np.asarray(index)
        if self.held_out:
            return index * self.every + self.middle
        if self.every < 1:
            return index
        whole, rest = index // (self.every - 1), index % (self.every - 1)
        return whole * self.every + rest + (rest >= self.middle)


class Visits:
    """Visits of items, several of each in turn: visit ``i`` is the ``k``-th of item ``j``.

    Args:
        counts: number of visits of each item.
    """

    def __init__(self, counts: np.ndarray):
        self.ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def locate(self, visits: Any) -> tuple[Any, Any]:
        """Return the items of visits, and which of its visits each one is."""
        items = np.searchsorted(self.ends, visits, side="right")
        return items, visits - np.where(items > 0, self.ends[items - 1], 0)


class EpochOrder:
    """The order of the examples of each epoch, batches of similar length among them.

    Args:
        count: number of examples.
        seed: random seed.
        shuffle: whether to shuffle; otherwise the examples keep their order.
        lengths: length of each example, as an array or as a column on disk; None does not sort.
        window: number of shuffled examples, in whole batches, that are sorted by length.
        batch_size: number of examples of a batch.
        most_stored: largest number of examples whose order is kept in memory.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        shuffle: bool = True,
        lengths: Any = None,
        window: int = 0,
        batch_size: int = 1,
        most_stored: int = MOST_STORED,
    ):
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self.lengths, self.window, self.batch_size = lengths, window, batch_size
        self.is_stored = count <= most_stored
        self._kept: tuple[Any, np.ndarray] | None = None

    def indices(self, first: int, stop: int) -> np.ndarray:
        """Return the examples of consecutive visits, which may lie in several epochs."""
        parts = []
        while first < stop:
            epoch, position = divmod(first, self.count)
            parts.append(self._slice(epoch, position, min(position + stop - first, self.count)))
            first += len(parts[-1])
        return np.concatenate(parts)

    def _slice(self, epoch: int, first: int, stop: int) -> np.ndarray:
        """Return some or all of the positions from ``first`` to ``stop`` of an epoch."""
        if self.is_stored:
            return self._stored(epoch)[first:stop]
        # An epoch may begin within a batch: that batch stays as it is, so that the others
        # are cut at batch boundaries.
        shared = -epoch * self.count % self.batch_size
        if self.lengths is None:
            return self._shuffled(epoch, first, stop)
        if first < shared:
            return self._shuffled(epoch, first, min(stop, shared))
        number = (first - shared) // self.window
        start = shared + number * self.window
        if self._kept is None or self._kept[0] != (epoch, number):
            rng = np.random.default_rng(mixed_seed(self.seed, 2, epoch, number))
            group = self._shuffled(epoch, start, min(start + self.window, self.count))
            self._kept = (epoch, number), np.concatenate(self._alike(group, rng))
        return self._kept[1][first - start : stop - start]

    def _shuffled(self, epoch: int, first: int, stop: int) -> np.ndarray:
        positions = np.arange(first, stop)
        if not self.shuffle:
            return positions
        return FeistelPermutation(self.count, mixed_seed(self.seed, 0, epoch))(positions)

    def _stored(self, epoch: int) -> np.ndarray:
        if self._kept is None or self._kept[0] != epoch:
            rng = np.random.default_rng(mixed_seed(self.seed, 0, epoch))
            order = rng.permutation(self.count) if self.shuffle else np.arange(self.count)
            if self.lengths is not None:
                shared = -epoch * self.count % self.batch_size
                parts = [order[:shared]]
                for first in range(shared, self.count, self.window):
                    parts += self._alike(order[first : first + self.window], rng)
                order = np.concatenate(parts)
            self._kept = epoch, order
        return self._kept[1]

    def _alike(self, group: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Return a window of examples in batches of similar length, in a random order."""
        group = group[np.argsort(self.lengths[group], kind="stable")]
        whole = len(group) // self.batch_size
        cut = np.split(group, [self.batch_size * n for n in range(1, whole + 1)])
        return [cut[n] for n in rng.permutation(whole)] + cut[whole:]
