"""Several calls of a network as one call, and its output as theirs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor


def mapped(function: Callable[..., Any], *values: Any) -> Any:
    """Return a function applied to the tensors of values of one structure.

    Structures are dicts, lists, tuples and dataclasses; what else they hold is that of the first.
    """
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, dict):
        new = copy.copy(first)
        for key in first:
            dict.__setitem__(new, key, mapped(function, *(dict.get(one, key) for one in values)))
        return new
    if isinstance(first, tuple | list):
        return type(first)(mapped(function, *parts) for parts in zip(*values, strict=True))
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first) if field.init]
        return dataclasses.replace(
            first,
            **{name: mapped(function, *(getattr(one, name) for one in values)) for name in names},
        )
    return first


def signature(value: Any) -> Hashable:
    """Return what calls must have in common to be merged: structure, shapes, types, other values.

    The number of rows counts too: each call keeps the arithmetic that it has alone.
    """
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device)
    if isinstance(value, dict):
        parts = ((key, signature(dict.get(value, key))) for key in value)
        return (type(value), *parts, *map(signature, getattr(value, "__dict__", {}).items()))
    if isinstance(value, tuple | list):
        return (type(value), *map(signature, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return (type(value), *((f.name, signature(getattr(value, f.name))) for f in fields))
    return value if isinstance(value, Hashable) else id(value)


def merged(values: Sequence[Any]) -> Any:
    """Return values of one structure as one, their rows behind each other."""
    return mapped(lambda *parts: torch.cat(parts), *values)


def parted(value: Any, count: int) -> list[Any]:
    """Return a merged value as that many, each in memory of its own."""
    return [
        mapped(lambda one, number=number: one.chunk(count)[number].clone(), value)
        for number in range(count)
    ]


def equal(one: Any, other: Any) -> bool:
    """Return whether all tensors of two values are equal to the bit."""
    found: list[bool] = []
    mapped(lambda a, b: found.append(torch.equal(a, b)) or a, one, other)
    return all(found)
