"""Guidance: a denoiser around a denoiser.

A condition that is left out is written as zeros in floating-point tensors and as -1 in
integer ones (classes, tokens): training leaves it out for some samples, guidance for all. Truth
values stay: they tell which places of a state or a condition are there at all.
Noise, clean and velocity predictions may be guided alike, since at a fixed noisy state they
are affine in each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level

# Keeps the rescaling finite where a prediction is constant.
SMALLEST_DEVIATION = 1e-8


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


def null_condition(condition: Condition) -> Condition:
    """The condition left out: zeros, or -1 for integers; truth values stay."""

    def without(x: Tensor) -> Tensor:
        if x.dtype == torch.bool:
            return x
        return torch.zeros_like(x) if x.is_floating_point() else torch.full_like(x, -1)

    return map_condition(without, condition)


def leave_out(condition: Condition, rows: Tensor) -> Condition:
    """The condition, left out for the samples where ``rows`` is true."""

    def choose(null: Tensor, given: Tensor) -> Tensor:
        return torch.where(rows.to(given.device).reshape(-1, *[1] * (given.ndim - 1)), null, given)

    return map_condition(choose, null_condition(condition), condition)


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
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        *,
        rescale: float = 0.0,
        negative: Condition = None,
        channels: int | None = None,
    ):
        if scale < 0 or not 0 <= rescale <= 1:
            raise ValueError(f"guidance scale {scale:g} < 0 or rescale {rescale:g} not in [0, 1]")
        self.denoiser, self.scale, self.rescale = denoiser, scale, rescale
        self.negative, self.channels = negative, channels

    def __call__(self, noisy: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """The guided prediction."""
        if self.scale == 1 or condition is None:
            return self.denoiser(noisy, level, condition)
        negative = null_condition(condition) if self.negative is None else self.negative
        twice = type(level)(*(torch.cat([part, part]) for part in level.parts()))
        both = map_condition(lambda x, y: torch.cat([x, y]), condition, negative)
        told, untold = self.denoiser(torch.cat([noisy, noisy]), twice, both).chunk(2)
        part = slice(None) if self.channels is None else slice(self.channels)
        guided = untold[:, part] + self.scale * (told - untold)[:, part]
        guided = self._rescaled(guided, told[:, part])
        return guided if self.channels is None else torch.cat([guided, told[:, part.stop :]], dim=1)

    def _rescaled(self, guided: Tensor, told: Tensor) -> Tensor:
        if self.rescale == 0:
            return guided
        dims = tuple(range(1, guided.ndim))
        wanted, found = (x.std(dim=dims, correction=0, keepdim=True) for x in (told, guided))
        ratio = torch.where(found > SMALLEST_DEVIATION, wanted / found, 1.0)
        return guided * (1 + self.rescale * (ratio - 1))
