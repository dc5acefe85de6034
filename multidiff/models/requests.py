"""What models of every modality are asked for, checked in one way: items and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

from multidiff.core.random import seeds_from
from multidiff.utils.errors import InputError

Item = TypeVar("Item")
# One for all samples, which count up from it, or one for each; None draws one.
Seed = SupportsIndex | Sequence[SupportsIndex] | None


def one_each(items: Item | Sequence[Item], kind: type[Item], what: str) -> list[Item]:
    """Return what is asked of each sample as a list; a single item is one sample.

    Args:
        items: one, or several.
        kind: what each must be.
        what: its name in the message, such as "prompt".

    Raises:
        InputError: if they are something else.
    """
    if isinstance(items, kind):
        return [items]
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise InputError(f"{what}s {items!r:.60}: give a list, with a {kind.__name__} for each")
    for number, item in enumerate(items):
        if not isinstance(item, kind):
            raise InputError(
                f"{what} {number} is {item!r:.60}, a {type(item).__name__}: give a {kind.__name__}"
            )
    return [*items]


def checked_seeds(seed: Seed, count: int) -> list[int]:
    """Return a seed for each sample (see :func:`~multidiff.core.random.seeds_from`).

    Raises:
        InputError: if they are not integers of 64 bits, one for all or one for each.
    """
    try:
        return seeds_from(seed, count)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
