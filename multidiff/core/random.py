"""Random draws from one generator, or from one generator for each sample of a batch.

With a list of generators, sample ``i`` depends on its own generator alone: the sample is the
same whether it is generated alone or in a batch, on one process or on eight.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor


class Unpadded(torch.Generator):
    """Generator of one sample that draws for its real positions first, then for the padding.

    The values at the real positions do not depend on the amount of padding. The padding has a
    generator of its own, derived from the sample's seed.

    Args:
        generator: generator for the real positions.
        length: number of real positions along the first dimension of the sample.
    """

    def __new__(cls, generator: torch.Generator, length: int) -> Unpadded:  # noqa: D102
        return super().__new__(cls, generator.device)  # pyright: ignore[reportCallIssue]

    def __init__(self, generator: torch.Generator, length: int):
        super().__init__()
        self.real, self.length = generator, length
        self.manual_seed(mixed_seed(generator.initial_seed(), PADDING))


_WORD = 2**64 - 1
BLOCK = 1024
_FEW = 64  # about what a corruption step on a sentence draws one by one
PADDING = 5  # identifies a separate stream of random numbers
WIDEST_SHARED_DRAW = 4096  # values of a row


class BatchRows(Sequence):
    """Random streams of a training batch's rows, drawn in bulk.

    Row ``i`` of a draw is a function of the seed, the number of the draw and ``first + i`` alone:
    processes that share a batch get the rows that one process would have drawn. A draw of up to
    ``WIDEST_SHARED_DRAW`` values a row comes from one generator, for all ``total`` rows, and this
    process keeps its own; a wider one, which would cost more to draw than a generator to make,
    comes from each row's own generator. The rows can be had one by one, as a list of generators.

    Args:
        seed: random seed of the batch.
        count: number of rows here.
        first: index of the first of them in the whole batch.
        total: number of rows of the whole batch; ``first + count`` where None.
        device: where to draw.

    Raises:
        ValueError: if the rows do not lie in the batch.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        first: int = 0,
        total: int | None = None,
        device: torch.device | str = "cpu",
    ):
        self.total = first + count if total is None else total
        if not 0 <= first <= first + count <= self.total:
            raise ValueError(f"rows {first} to {first + count} of a batch of {self.total}")
        self.seed, self.first, self.size = seed, first, count
        self.device = torch.device(device)
        self._draws = 0
        self._own: dict[int, torch.Generator] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: Any) -> Any:
        """Return the generator of a row, which goes on where its last draw ended; or several."""
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(self.size))]
        if not -self.size <= row < self.size:  # iteration ends by this error
            raise IndexError(f"row {row} of {self.size}")
        row %= self.size
        if row not in self._own:
            seed = mixed_seed(self.seed, self.first + row)
            self._own[row] = torch.Generator(self.device).manual_seed(seed)
        return self._own[row]

    def __iter__(self) -> Iterator[torch.Generator]:
        return (self[row] for row in range(self.size))

    def draw(
        self, source: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor | None:
        """Draw all rows at once; None where the rows are too wide for that.

        Args:
            source: ``torch.randn`` or ``torch.rand``.
            shape: shape of the rows here, ``(count, ...)``.
            dtype: type of the values.
        """
        if math.prod(shape[1:]) > WIDEST_SHARED_DRAW:
            return None
        self._draws += 1
        seed = mixed_seed(self.seed, SHARED, self._draws)
        generator = torch.Generator(self.device).manual_seed(seed)
        drawn = source(
            (self.total, *shape[1:]), generator=generator, device=self.device, dtype=dtype
        )
        return drawn[self.first : self.first + self.size]


SHARED = 6  # identifies a separate stream of random numbers
Rng = torch.Generator | Sequence[torch.Generator]


def device_of(rng: Rng | None) -> torch.device:
    """Return the device that draws happen on; the CPU without a generator."""
    if rng is None:
        return torch.device("cpu")
    if isinstance(rng, torch.Generator | BatchRows):
        return rng.device
    return rng[0].device


def normal(shape: Sequence[int], rng: Rng | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal values of the given shape, ``(batch, ...)``.

    Raises:
        ValueError: if a list of generators does not have one for each sample.
    """
    return _draw(torch.randn, shape, rng, dtype)


def uniform(shape: Sequence[int], rng: Rng | None, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return uniform values in [0, 1) of the given shape, ``(batch, ...)``.

    Raises:
        ValueError: if a list of generators does not have one for each sample.
    """
    return _draw(torch.rand, shape, rng, dtype)


def uniforms(rng: torch.Generator | None) -> Iterator[float]:
    """Yield uniform values in float64: float32 would never draw the rarest tokens."""
    while True:
        yield from uniform((_FEW,), rng).tolist()


def _draw(source, shape: Sequence[int], rng: Rng | None, dtype: torch.dtype) -> Tensor:
    device = device_of(rng)
    if rng is None or isinstance(rng, torch.Generator):
        return source(tuple(shape), generator=rng, device=device, dtype=dtype)
    if len(rng) != shape[0]:
        raise ValueError(f"{len(rng)} generators for a batch of {shape[0]}: give one each")
    # These draws name their generator: DrawsFrom, which redirects unnamed draws, can skip them.
    with torch._C.DisableTorchFunction():
        if isinstance(rng, BatchRows) and (drawn := rng.draw(source, shape, dtype)) is not None:
            return drawn
        return torch.stack([_row(source, shape[1:], one, device, dtype) for one in rng])


def _row(
    source: Callable[..., Tensor],
    shape: Sequence[int],
    rng: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    if not isinstance(rng, Unpadded):
        return source(tuple(shape), generator=rng, device=device, dtype=dtype)
    if not shape:  # a number for the whole sample
        return source((), generator=rng.real, device=device, dtype=dtype)
    real = min(rng.length, shape[0])  # a dimension of size 1 may stand for all positions
    sizes = ((rng.real, real), (rng, shape[0] - real))
    rows = [
        source((size, *shape[1:]), generator=one, device=device, dtype=dtype) for one, size in sizes
    ]
    return torch.cat(rows)


def unpadded(rng: Rng | None, lengths: Sequence[int]) -> list[Unpadded]:
    """Make generators whose draws do not depend on how far each sample is padded.

    Args:
        rng: list of generators, one for each sample.
        lengths: number of real positions of each sample, along dimension 1 of the states.

    Raises:
        ValueError: if there is not one generator for each length.
    """
    if rng is None or isinstance(rng, torch.Generator) or len(rng) != len(lengths):
        raise ValueError(f"{len(lengths)} lengths need a list of generators, one each")
    own = [one.real if isinstance(one, Unpadded) else one for one in rng]
    return [Unpadded(one, length) for one, length in zip(own, lengths, strict=True)]


def generators(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """Return one generator for each seed."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def seeds_from(seed: Any, count: int) -> list[int]:
    """Return one seed for each sample: those given, or consecutive ones from a single seed.

    Args:
        seed: integer of any type, or a sequence with one for each sample; None draws one from
            the system's entropy.
        count: number of samples.

    Raises:
        TypeError: if a seed is not an integer.
        ValueError: if there are several seeds and not one for each sample, or one does not fit
            64 bits.
    """
    if seed is None:
        seed = secrets.randbits(48)
    if not hasattr(seed, "__len__") or getattr(seed, "ndim", 1) == 0:
        first = _integer(seed)
        return [first + i for i in range(count)]
    if isinstance(seed, str | bytes):
        raise TypeError(f"seed {seed!r}: must be an integer, a list with one each, or None")
    if len(seed) != count:
        raise ValueError(f"{len(seed)} seeds for {count} samples: give one, or one for each")
    return [_integer(one) for one in seed]


def _integer(seed: Any) -> int:
    try:
        number = index(seed)
    except TypeError as error:
        raise TypeError(
            f"seed {seed!r}: must be an integer, a list with one each, or None"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"seed {number}: must have 64 bits or fewer")
    return number


def mixed_seed(*numbers: int) -> int:
    """Return a seed that mixes all of the numbers.

    Neighbouring steps, rows or blocks get unrelated streams (the mixing function of
    SplitMix64, Steele et al. 2014, over the numbers in turn).
    """
    state = 0
    for number in numbers:
        state = (state + 0x9E3779B97F4A7C15 + number) & _WORD
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
        state ^= state >> 31
    return state >> 1


def placed_normal(shape: Sequence[int], start: int, seed: int) -> Tensor:
    """Return standard normal values tied to positions on an unbounded last axis.

    Any segment has the same values as the corresponding part of the whole, so overlapping pieces
    of a long state that are generated one after the other start from the same noise.

    Args:
        shape: shape of the segment, the axis last.
        start: position of the segment's first value.
        seed: random seed of the whole axis.
    """
    *before, length = shape
    first, last = start // BLOCK, (start + length - 1) // BLOCK
    blocks = [
        torch.randn(
            (*before, BLOCK), generator=torch.Generator().manual_seed(mixed_seed(seed, number))
        )
        for number in range(first, last + 1)
    ]
    return torch.cat(blocks, dim=-1)[..., start - first * BLOCK :][..., :length]
