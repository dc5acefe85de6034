"""Likelihood of clean states under the last Gaussian of the reverse process."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from multidiff.core.devices import in_float64
from multidiff.core.gaussian.posterior import Transition

# In steps of the grid: the error that rounding to half precision and back leaves.
OFF_GRID = 0.05


@runtime_checkable
class LikelihoodDecoder(Protocol):
    """Likelihood of the clean state under the last Gaussian of the reverse process."""

    def last_variance(self, before: Transition, last: Transition) -> Tensor:
        """Return the variance of that Gaussian, whose posterior variance is 0.

        Args:
            before: the last step but one.
            last: the last step, to the clean level.
        """
        ...

    def nll(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return the negative log likelihood at every position, in nats."""
        ...


class ContinuousDecoder:
    """The Gaussian's density, for states that are real numbers."""

    def last_variance(self, before: Transition, last: Transition) -> Tensor:
        """Return the largest admissible one, that of the noise removed."""
        return last.variance_step

    def nll(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """See :class:`LikelihoodDecoder`."""
        squared = (x0 - mean) ** 2 * torch.exp(-log_variance)
        return 0.5 * (math.log(2 * math.pi) + log_variance + squared)


class DiscretisedDecoder:
    """The Gaussian's mass in the bin of the clean value (Ho et al. 2020, eq. 13).

    Values are ``bins`` evenly spaced numbers in [-1, 1]; the outermost bins reach to infinity.
    The normal's distribution function is the exact one, not its tanh approximation.

    Args:
        bins: number of values; 256 for 8-bit images.
    """

    def __init__(self, bins: int = 256):
        if bins < 2:
            raise ValueError(f"{bins} bins: at least 2 are needed")
        self.half_width = 1 / (bins - 1)

    def check_range(self, x0: Tensor, mask: Tensor | None = None) -> None:
        """Reject states outside the grid.

        Raises:
            ValueError: if a state that counts is outside [-1, 1] by more than rounding.
        """
        furthest = float(_counted(x0, mask).abs().max())
        if not furthest <= 1 + self.half_width / 2:
            raise ValueError(
                f"states reach {furthest:.3g}, outside the grid in [-1, 1] of this decoder: use "
                "decoder=ContinuousDecoder() for states that are real numbers"
            )

    def check_grid(self, x0: Tensor, mask: Tensor | None = None) -> None:
        """Reject states that are not values of the grid.

        Raises:
            ValueError: if one that counts is outside [-1, 1], or most lie between two values.
        """
        self.check_range(x0, mask)
        position = (_counted(x0, mask) + 1) / (2 * self.half_width)
        off = in_float64((position - position.round()).abs() > OFF_GRID).mean()
        if float(off) > 0.5:
            raise ValueError(
                f"{float(off):.0%} of the states lie between the 256 grey levels in [-1, 1]: give "
                "the decoder, ContinuousDecoder() for real numbers or DiscretisedDecoder(bins)"
            )

    def last_variance(self, before: Transition, last: Transition) -> Tensor:
        """Return the variance of the step before's posterior, as in the published code.

        See :class:`LikelihoodDecoder`. Bins are wider than that; a tiny constant would wreck the
        interpolation of learned
        variances.
        """
        return before.posterior_variance

    def nll(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """See :class:`LikelihoodDecoder`."""
        scale = torch.exp(-0.5 * log_variance)
        upper = (x0 - mean + self.half_width) * scale
        lower = (x0 - mean - self.half_width) * scale
        edge = 1 - self.half_width / 2
        upper = torch.where(x0 > edge, torch.inf, upper)
        lower = torch.where(x0 < -edge, -torch.inf, lower)
        # Both on the left of the mean, where the tails keep precision: P(l < z < u) =
        # P(-u < z < -l); then log(e^a - e^b) = a + log1p(-e^(b - a)).
        flip = lower > 0
        left, right = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        log_right, log_left = torch.special.log_ndtr(right), torch.special.log_ndtr(left)
        inside = -torch.expm1((log_left - log_right).clamp(max=-1e-12))
        return -(log_right + inside.log())


def _counted(x0: Tensor, mask: Tensor | None) -> Tensor:
    return x0 if mask is None else x0[mask.to(torch.bool).expand_as(x0)]
