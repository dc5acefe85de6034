"""Predictions: a network's output, read as the pair (x0, noise).

A network may predict the noise (epsilon), the clean state (x0), or the velocity v,
``alpha noise - sigma x0`` (Salimans & Ho 2022). ``xt = alpha x0 + sigma noise``
converts each to the pair, and everything downstream uses only the pair: three conversions
instead of a table of them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.draws import draws_nothing
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Corrupted, Estimate

# A path is variance preserving if its alpha^2 + sigma^2 differs from 1 by less.
ROUNDING = 1e-9


def spread(coefficient: Float[Tensor, " batch"], state: Tensor) -> Tensor:
    """Return a coefficient for each sample, shaped to multiply states of any rank.

    It stays float32 (float64 for float64 states): the finished coefficient is rounded once,
    and half precision would round a small sigma beside a state of size 1 to 0.
    """
    dtype = torch.float64 if state.dtype == torch.float64 else torch.float32
    return coefficient.to(state.device, dtype).reshape(-1, *[1] * (state.ndim - 1))


@draws_nothing
def combine(first: Tensor, x: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """Return ``first * x + second * y`` for coefficients ``(batch,)``, in the dtype of ``x``."""
    return (spread(first, x) * x + spread(second, y) * y).to(x.dtype)


@draws_nothing
def mean_over_state(values: Tensor, mask: Tensor | None = None) -> Float[Tensor, " batch"]:
    """Return the mean of each sample over all but the batch dimension, where the mask is 1."""
    flat = values.flatten(1)
    if mask is None:
        return flat.mean(dim=1)
    # In float16 sums over more than 65504 values would be infinite.
    counts = mask.to(torch.promote_types(values.dtype, torch.float32)).expand_as(values).flatten(1)
    return ((flat * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)).to(values.dtype)


class X0Estimate(Estimate):
    """An estimate of the clean state, whose noise is computed when a sampler needs it.

    Ancestral steps never do, and a chain of projections at most at its end.
    """

    _noisy: Tensor
    _level: NoiseLevel

    def __init__(
        self,
        x0: Tensor,
        xt: Tensor,
        level: NoiseLevel,
        variance_fraction: Tensor | None = None,
    ):
        vars(self).update(x0=x0, variance_fraction=variance_fraction)
        vars(self).update(_noisy=xt, _level=level)

    @cached_property
    def noise(self) -> Tensor:
        """Noise that turns the clean state into the noisy one."""
        return noise_between(self._noisy, self.x0, self._level)


@runtime_checkable
class Prediction(Protocol):
    """A network's prediction: one coordinate of the pair (x0, noise)."""

    def target(self, corrupted: Corrupted) -> Tensor:
        """Return the output of a perfect network."""
        ...

    def estimate(
        self, output: Tensor, xt: Tensor, level: NoiseLevel, fraction: Tensor | None = None
    ) -> Estimate:
        """Return the output read as (x0, noise), with the fraction of a learned variance."""
        ...

    def squared_error_per_x0(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """Return the prediction's squared error for a squared error of 1 in x0."""
        ...


class EpsilonPrediction:
    """The network returns the noise (Ho et al. 2020)."""

    def target(self, corrupted: Corrupted) -> Tensor:
        """See :class:`Prediction`."""
        return corrupted.noise

    def estimate(
        self, output: Tensor, xt: Tensor, level: NoiseLevel, fraction: Tensor | None = None
    ) -> Estimate:
        """See :class:`Prediction`."""
        x0 = combine(1 / level.alpha, xt, -level.sigma / level.alpha, output)
        return Estimate(x0, output, fraction)

    def squared_error_per_x0(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Prediction`."""
        return (level.alpha / level.sigma) ** 2


class X0Prediction:
    """The network returns the clean state."""

    def target(self, corrupted: Corrupted) -> Tensor:
        """See :class:`Prediction`."""
        return corrupted.x0

    def estimate(
        self, output: Tensor, xt: Tensor, level: NoiseLevel, fraction: Tensor | None = None
    ) -> Estimate:
        """See :class:`Prediction`."""
        return X0Estimate(output, xt, level, fraction)

    def squared_error_per_x0(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Prediction`."""
        return torch.ones_like(level.alpha)


class VPrediction:
    """The network returns ``alpha noise - sigma x0`` (Salimans & Ho 2022, appendix D).

    On a path whose ``alpha^2 + sigma^2`` is not 1, the pair is divided by it.
    """

    def target(self, corrupted: Corrupted) -> Tensor:
        """See :class:`Prediction`."""
        level = corrupted.level
        return combine(level.alpha, corrupted.noise, -level.sigma, corrupted.x0)

    def estimate(
        self, output: Tensor, xt: Tensor, level: NoiseLevel, fraction: Tensor | None = None
    ) -> Estimate:
        """See :class:`Prediction`."""
        power = _power(level)
        alpha, sigma = level.alpha / power, level.sigma / power
        x0 = combine(alpha, xt, -sigma, output)
        return Estimate(x0, combine(sigma, xt, alpha, output), fraction)

    def squared_error_per_x0(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Prediction`."""
        return _power(level) ** 2 / level.sigma**2


def _power(level: NoiseLevel) -> Float[Tensor, " batch"]:
    """Return ``alpha^2 + sigma^2``, exactly 1 on a variance-preserving path."""
    power = level.alpha**2 + level.sigma**2
    return torch.where((power - 1).abs() < ROUNDING, 1.0, power)


def noise_between(xt: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
    """Return the noise that turns ``x0`` into ``xt``; 0 at a level without noise."""
    inverse = torch.where(level.sigma > 0, 1 / level.sigma, 0.0)
    return combine(inverse, xt, -level.alpha * inverse, x0)


def with_x0(estimate: Estimate, x0: Tensor, xt: Tensor, level: NoiseLevel) -> Estimate:
    """Return the estimate with another clean state and its noise derived again to fit.

    Clipping changes samples depending on whether the noise is derived again (guided-diffusion
    does, diffusers by default does not); here it always is.
    """
    return X0Estimate(x0, xt, level, estimate.variance_fraction)
