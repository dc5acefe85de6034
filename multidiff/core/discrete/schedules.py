"""Mask schedules: from a time in [0, 1] to the fraction of tokens that is kept.

Time 0 is the clean end, where all tokens are kept; everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import finest_dtype
from multidiff.core.gaussian.schedules import checked_times


@dataclass(frozen=True)
class MaskLevel:
    """Level of masking of each state of a batch.

    Attributes:
        time: 0 (nothing masked) to 1 (most masked).
        alpha: fraction of the tokens that is kept.
        slope: derivative of ``alpha`` in time.
    """

    time: Float[Tensor, " batch"]
    alpha: Float[Tensor, " batch"]
    slope: Float[Tensor, " batch"]

    @property
    def weight(self) -> Float[Tensor, " batch"]:
        """Return the weight of a masked token in the bound, eq. (3); 0 where none is masked."""
        masked = 1 - self.alpha
        return torch.where(masked > 0, -self.slope / masked, torch.zeros_like(masked))

    @property
    def log_snr(self) -> Float[Tensor, " batch"]:
        """Return the log odds of a token being kept, which networks embed."""
        return torch.logit(self.alpha)

    def to(self, device: torch.device | str) -> MaskLevel:
        """Return the same level on another device (as float32 where float64 is missing)."""
        dtype = finest_dtype(device)
        return MaskLevel(*(part.to(device=device, dtype=dtype) for part in self.parts()))

    def expand(self, batch: int) -> MaskLevel:
        """Return one level for every state of a batch of that size."""
        return MaskLevel(*(part.expand(batch) for part in self.parts()))

    def __getitem__(self, rows: slice | Tensor) -> MaskLevel:
        return MaskLevel(*(part[rows] for part in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three tensors, in the order of construction."""
        return self.time, self.alpha, self.slope


def reveal_chance(level: MaskLevel, earlier: MaskLevel) -> Float[Tensor, " batch"]:
    """Return the probability that a mask is lifted between two levels, eq. (2)."""
    return (earlier.alpha - level.alpha) / (1 - level.alpha)


class MaskSchedule:
    """Fraction of tokens kept over time, falling from exactly 1 at time 0; in float64."""

    num_steps = None  # no table: see multidiff.core.gaussian.schedules.NoiseSchedule

    def at(self, time: Float[Tensor, " batch"]) -> MaskLevel:
        """Return the level at each time in [0, 1]."""
        time = checked_times(time)
        return MaskLevel(time, self.kept(time), self.slope(time))

    def kept(self, time: Tensor) -> Tensor:
        """Return ``alpha`` at float64 times."""
        raise NotImplementedError

    def slope(self, time: Tensor) -> Tensor:
        """Return the derivative of ``alpha`` in time."""
        raise NotImplementedError

    def time_at(self, kept: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at which that fraction is kept; 1 for less than the schedule keeps."""
        raise NotImplementedError


class LogLinearMasks(MaskSchedule):
    """``alpha = 1 - (1 - eps) t`` (Sahoo et al. 2024); LLaDA's linear one with ``eps=0``."""

    def __init__(self, eps: float = 1e-3):
        if not 0 <= eps < 1:
            raise ValueError(f"eps must be in [0, 1), got {eps:g}")
        self.eps = eps

    def kept(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`."""
        return 1 - (1 - self.eps) * time

    def slope(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`."""
        return torch.full_like(time, self.eps - 1)

    def time_at(self, kept: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`MaskSchedule`."""
        return ((1 - kept) / (1 - self.eps)).clamp(max=1)


class PolynomialMasks(MaskSchedule):
    """``alpha = 1 - t^power`` (Shi et al. 2024); linear with power 1."""

    def __init__(self, power: float = 1.0):
        if power <= 0:
            raise ValueError(f"power must be above 0, got {power:g}")
        self.power = power

    def kept(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`; precise near time 1, where it is small."""
        return -torch.expm1(self.power * torch.log(time))

    def slope(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`."""
        return -self.power * time ** (self.power - 1)

    def time_at(self, kept: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`MaskSchedule`."""
        return (1 - kept) ** (1 / self.power)


class CosineMasks(MaskSchedule):
    """``cos(pi/2 (1 - t))`` of the tokens masked: MaskGIT's (Chang et al. 2022, section 3.2)."""

    def kept(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`; ``1 - sin`` as ``cos^2 / (1 + sin)`` keeps precision."""
        quarter = math.pi / 2
        return torch.sin(quarter * (1 - time)) ** 2 / (1 + torch.sin(quarter * time))

    def slope(self, time: Tensor) -> Tensor:
        """See :class:`MaskSchedule`."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - time))

    def time_at(self, kept: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`MaskSchedule`."""
        return (1 - 4 / math.pi * torch.asin(torch.sqrt(kept / 2))).clamp(min=0)
