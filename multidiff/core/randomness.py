"""Random draws from one generator, or from one generator for each sample of a batch.

With a list of generators, sample ``i`` depends on its own generator alone: the same
sample comes out whether it is made alone or in a batch, on one process or on eight.
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

Rng = torch.Generator | Sequence[torch.Generator]

_WORD = 2**64 - 1
BLOCK = 1024


def device_of(rng: Rng | None) -> torch.device:
    """The device that draws happen on; the CPU without a generator."""
    if rng is None:
        return torch.device("cpu")
    first = rng if isinstance(rng, torch.Generator) else rng[0]
    return first.device


def normal(shape: Sequence[int], rng: Rng | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal values of the given shape, ``(batch, ...)``.

    Raises:
        ValueError: if a list of generators does not have one for each sample.
    """
    return _draw(torch.randn, shape, rng, dtype)


def uniform(shape: Sequence[int], rng: Rng | None, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform values in [0, 1) of the given shape, ``(batch, ...)``.

    Raises:
        ValueError: if a list of generators does not have one for each sample.
    """
    return _draw(torch.rand, shape, rng, dtype)


def _draw(source, shape: Sequence[int], rng: Rng | None, dtype: torch.dtype) -> Tensor:
    device = device_of(rng)
    if rng is None or isinstance(rng, torch.Generator):
        return source(tuple(shape), generator=rng, device=device, dtype=dtype)
    if len(rng) != shape[0]:
        raise ValueError(f"{len(rng)} generators for a batch of {shape[0]}: give one each")
    rows = [source(tuple(shape[1:]), generator=one, device=device, dtype=dtype) for one in rng]
    return torch.stack(rows)


def generators(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each seed."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def seeds_from(seed: SupportsIndex | Sequence[SupportsIndex] | None, count: int) -> list[int]:
    """Return a seed for each sample: those given, or the given one and those that follow it.

    Args:
        seed: a whole number of any type, numpy's and torch's too, or one for each sample; None
            draws one from the system, and leaves every generator as it is.
        count: samples.
    """
    if seed is None:
        seed = secrets.randbits(62)
    try:
        first = operator.index(seed)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return [operator.index(one) for one in seed]  # pyright: ignore[reportGeneralTypeIssues]
    return [first + i for i in range(count)]


def mixed_seed(*numbers: int) -> int:
    """A seed that depends on all of the numbers and looks like none of them.

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
    """Standard normal values that belong to places on an endless last axis.

    Any stretch of it has the same values as the whole, so pieces of a long state that are
    made one after the other begin from the same noise where they overlap.

    Args:
        shape: of the stretch, the axis last.
        start: its first place.
        seed: of the whole.
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
