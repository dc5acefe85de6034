"""Random draws from one generator, or from one generator for each sample of a batch.

With a list of generators, sample ``i`` depends on its own generator alone: the same
sample comes out whether it is made alone or in a batch, on one process or on eight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Rng = torch.Generator | Sequence[torch.Generator]


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
