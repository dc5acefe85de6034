"""Checks of requests to models of every modality: items and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

from multidiff.core.random import seeds_from
from multidiff.utils.errors import InputError

Item = TypeVar("Item")
# One seed for consecutive seeds from it, or one for each sample; None draws one.
Seed = SupportsIndex | Sequence[SupportsIndex] | None
# The seed of every request's first sample, or one for each request.
FirstSeeds = int | Sequence[int]


def one_each(items: Item | Sequence[Item], kind: type[Item], what: str) -> list[Item]:
    """Return the items of a request as a list; a single item is one sample.

    Args:
        items: one item, or several.
        kind: type that each must have.
        what: name in messages, such as "prompt".

    Raises:
        InputError: if an item has another type.
    """
    if isinstance(items, kind):
        return [items]
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise InputError(f"{what}s {items!r:.60}: pass a list, with a {kind.__name__} for each")
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise InputError(
                f"{what} {number} is {item!r:.60}, a {type(item).__name__}: pass a {kind.__name__}"
            )
    return [*items]


def checked_seeds(seed: Seed, count: int) -> list[int]:
    """Return one seed for each sample (see :func:`~multidiff.core.random.seeds_from`).

    Raises:
        InputError: if they are not 64-bit integers, one for all or one for each.
    """
    try:
        return seeds_from(seed, count)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def seed_ranges(seed: FirstSeeds, requests: int, num: int) -> list[range]:
    """Return the seeds of each request's samples.

    Args:
        seed: random seed of the first sample of every request; a sequence has one for each.
        requests: number of requests.
        num: number of samples of each.
    """
    firsts = [seed] * requests if isinstance(seed, int) else seed
    return [range(first, first + num) for first in firsts]
