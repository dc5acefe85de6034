"""Guidance: a denoiser around a denoiser.

A condition that is left out is written as zeros in floating-point tensors and as -1 in
integer ones (classes, tokens): training leaves it out for some samples, guidance for all. Truth
values stay: they tell which positions of a state or a condition are there at all. Of a condition
with several other parts it has to be said which may be left out: masks, edges, lengths and counts
are structure, and zeros there would be another structure.
Noise, clean and velocity predictions may be guided alike, since at a fixed noisy state they
are affine in each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level

# Keeps the rescaling finite where a prediction is constant.
SMALLEST_DEVIATION = 1e-8
# Keys of a dict, or positions in a tuple or list.
Parts = Sequence[str | int]


def map_condition(function: Callable[..., Tensor], *conditions: Condition) -> Any:
    """The function applied to each tensor of conditions with the same structure.

    Raises:
        TypeError: if a condition holds anything but tensors, dicts, tuples and lists.
    """
    first = conditions[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(*conditions)
    if isinstance(first, dict):
        return {key: map_condition(function, *(one[key] for one in conditions)) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(
            map_condition(function, *parts) for parts in zip(*conditions, strict=True)
        )
    raise TypeError(f"a condition holds tensors, dicts, tuples and lists, not {type(first)}")


def parts_left_out(condition: Condition, parts: Parts | None = None) -> Parts:
    """Return the parts of a condition that may be left out; empty for one that is a tensor.

    Args:
        condition: a tensor, or a dict, tuple or list of parts.
        parts: their keys or positions, where it was said.

    Raises:
        ValueError: if it was not said and cannot be seen, or there is no such part.
    """
    if not isinstance(condition, dict | tuple | list):
        return ()
    keys = [*condition] if isinstance(condition, dict) else [*range(len(condition))]
    if parts is not None:
        missing = [one for one in parts if one not in keys]
        if missing:
            raise ValueError(f"the condition has no part {missing[0]!r}: its parts are {keys}")
        return tuple(parts)
    found = [key for key in keys if not _is_structure(condition[key])]
    if len(found) > 1:
        raise ValueError(
            f"the condition has several parts, {found}: say which of them may be left out, for "
            "masks, edges, lengths and counts must stay: name them in the domain's droppable or in "
            f"drop_condition={{{found[0]!r}: 0.1}} for training, in parts=[...] for guidance"
        )
    return tuple(found)


def _is_structure(part: Condition) -> bool:
    kinds: list[torch.dtype] = []
    map_condition(lambda one: kinds.append(one.dtype) or one, part)
    return all(kind == torch.bool for kind in kinds)


def null_condition(condition: Condition, parts: Parts | None = None) -> Condition:
    """Return the condition left out: zeros, or -1 for integers; truth values stay.

    Args:
        condition: a tensor, or parts.
        parts: which are left out (see :func:`parts_left_out`); the others stay.

    Raises:
        ValueError: if there are several parts and it was not said which.
    """

    def without(x: Tensor) -> Tensor:
        if x.dtype == torch.bool:
            return x
        return torch.zeros_like(x) if x.is_floating_point() else torch.full_like(x, -1)

    def left_out(_: Any, part: Condition) -> Condition:
        return map_condition(without, part)

    return _map_parts(left_out, condition, parts_left_out(condition, parts))


def leave_out(
    condition: Condition,
    rows: Bool[Tensor, " batch"] | Mapping[Any, Bool[Tensor, " batch"]],
    parts: Parts | None = None,
) -> Condition:
    """Return the condition, left out for the samples where ``rows`` is true.

    Args:
        condition: a tensor, or parts.
        rows: of all parts that may be left out, or of each by its name.
        parts: which those are; see :func:`parts_left_out`.

    Raises:
        ValueError: if there are several parts and it was not said which.
    """

    def chosen(key: Any, part: Condition) -> Condition:
        of = rows[key] if isinstance(rows, Mapping) else rows

        def choose(null: Tensor, given: Tensor) -> Tensor:
            where = of.to(given.device).reshape(-1, *[1] * (given.ndim - 1))
            return torch.where(where, null, given)

        return map_condition(choose, null_condition(part, _all_of(part)), part)

    parts = tuple(rows) if isinstance(rows, Mapping) else parts
    return _map_parts(chosen, condition, parts_left_out(condition, parts))


def _all_of(part: Condition) -> Parts | None:
    if isinstance(part, dict):
        return tuple(part)
    return tuple(range(len(part))) if isinstance(part, tuple | list) else None


def _map_parts(
    function: Callable[[Any, Condition], Condition], condition: Condition, parts: Parts
) -> Condition:
    if isinstance(condition, dict):
        return {key: function(key, x) if key in parts else x for key, x in condition.items()}
    if isinstance(condition, tuple | list):
        pairs = enumerate(condition)
        return type(condition)(function(key, x) if key in parts else x for key, x in pairs)
    return function(None, condition)


class ClassifierFreeGuidance:
    """``without + scale * (with - without)`` (Ho & Salimans 2022), in one doubled batch.

    Args:
        denoiser: trained with its condition left out now and then.
        scale: 1 is off, and then the condition alone is evaluated.
        rescale: how far the deviation of the guided prediction is brought back to that of
            the conditional one, 0 to 1 (Lin et al. 2023, section 3.4).
        negative: stands for the condition left out, such as a negative prompt.
        channels: how many channels (dimension 1) are guided, all where not given; the others
            are the conditional ones (learned variances are not guided).
        parts: keys of the parts of the condition that are left out, where it has several.

    Raises:
        ValueError: if the scale is negative or the rescaling not in [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        *,
        rescale: float = 0.0,
        negative: Condition = None,
        channels: int | None = None,
        parts: Parts | None = None,
    ):
        if scale < 0 or not 0 <= rescale <= 1:
            raise ValueError(f"guidance scale {scale:g} < 0 or rescale {rescale:g} not in [0, 1]")
        self.denoiser, self.scale, self.rescale = denoiser, scale, rescale
        self.negative, self.channels, self.parts = negative, channels, parts

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the guided prediction.

        Raises:
            ValueError: if there is no condition to be guided by, or several parts of which it was
                not said which are left out.
        """
        if self.scale == 1:
            return self.denoiser(xt, level, condition)
        if condition is None:
            raise ValueError(
                f"guidance of scale {self.scale:g} has no condition to guide by: give one "
                "(condition=...), or leave the guidance out"
            )
        negative = null_condition(condition, self.parts) if self.negative is None else self.negative
        twice = type(level)(*(torch.cat([part, part]) for part in level.parts()))
        both = map_condition(lambda x, y: torch.cat([x, y]), condition, negative)
        cond, uncond = self.denoiser(torch.cat([xt, xt]), twice, both).chunk(2)
        part = slice(None) if self.channels is None else slice(self.channels)
        guided = uncond[:, part] + self.scale * (cond - uncond)[:, part]
        guided = self._rescaled(guided, cond[:, part])
        return guided if self.channels is None else torch.cat([guided, cond[:, part.stop :]], dim=1)

    def _rescaled(self, guided: Tensor, cond: Tensor) -> Tensor:
        if self.rescale == 0:
            return guided
        dims = tuple(range(1, guided.ndim))
        wanted, found = (x.std(dim=dims, correction=0, keepdim=True) for x in (cond, guided))
        ratio = torch.where(found > SMALLEST_DEVIATION, wanted / found, 1.0)
        return guided * (1 + self.rescale * (ratio - 1))
