"""Variations of a seed: its noise mixed with that of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class Variation:
    """Noise from which each image's own is led away, so that the image is a variation of it.

    Attributes:
        seeds: random seed of the other noise of each image.
        strength: fraction of the way to it, 0 to 1.

    Raises:
        InputError: if the strength is out of range.
    """

    seeds: Sequence[int]
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(
                f"--variation-strength {self.strength:g}: must be in 0 (the seed itself) to 1 "
                "(the variation's)"
            )


def slerp(first: Tensor, second: Tensor, weight: Float[Tensor, " batch"]) -> Tensor:
    """Return noise between two independent draws, of the same variance; exact at both ends.

    Spherical interpolation (Shoemake 1985) at an angle of 90 degrees: that between independent
    draws, up to the inverse square root of the number of values.
    """
    angle = (weight * math.pi / 2).to(first).view(-1, *[1] * (first.ndim - 1))
    ends = weight.to(first).view_as(angle)
    return torch.where(ends == 1, second, torch.cos(angle) * first + torch.sin(angle) * second)
