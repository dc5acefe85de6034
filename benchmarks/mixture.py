"""One-dimensional Gaussian mixtures whose best denoiser and probability flow are closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """A mixture of normals.

    Attributes:
        weights: of the parts; they sum to 1.
        means: of the parts.
        stds: standard deviations of the parts.
    """

    weights: Sequence[float]
    means: Sequence[float]
    stds: Sequence[float]

    def _parts(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and standard deviations of the noisy law, ``(batch, parts)``."""
        weights, means, stds = (
            torch.tensor(one, dtype=torch.float64) for one in (self.weights, self.means, self.stds)
        )
        spread = ((alpha[:, None] * stds) ** 2 + sigma[:, None] ** 2).sqrt()
        return weights, alpha[:, None] * means, spread

    def x0(self, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the expected clean state of noisy ones, ``(batch, 1)`` in float64."""
        weights, means, stds = self._parts(alpha, sigma)
        variances = torch.tensor(self.stds, dtype=torch.float64) ** 2
        z = (xt - means) / stds
        posterior = torch.softmax(weights.log() - stds.log() - z**2 / 2, dim=1)
        gain = alpha[:, None] * variances / stds**2
        inner = torch.tensor(self.means, dtype=torch.float64) + gain * (xt - means)
        return (posterior * inner).sum(dim=1, keepdim=True)

    def denoiser(self, process, calls: list | None = None):
        """Return the exact network of a process: the prediction of the expected pair."""
        from multidiff.core.protocols import Corrupted

        def network(xt, level, condition=None):
            if calls is not None:
                calls.append(float(level.time[0]))
            state, alpha, sigma = xt.double(), level.alpha.double(), level.sigma.double()
            clean = self.x0(state, alpha, sigma)
            noise = (state - alpha[:, None] * clean) / sigma[:, None]
            return process.prediction.target(Corrupted(state, clean, noise, level)).to(xt)

        return network

    def cdf(self, x: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """Return the distribution function of the law at a level."""
        one = torch.ones(1, dtype=torch.float64)
        weights, means, stds = self._parts(alpha * one, sigma * one)
        return (weights * torch.special.ndtr((x[:, None] - means) / stds)).sum(dim=1)

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log density of clean states, ``(batch,)``."""
        weights, means, stds = (
            torch.tensor(one).double() for one in (self.weights, self.means, self.stds)
        )
        z = (x[:, None] - means) / stds
        terms = weights.log() - stds.log() - z**2 / 2 - math.log(2 * math.pi) / 2
        return torch.logsumexp(terms, dim=1)

    def quantiles(self, probabilities: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """Return the quantiles of the law at a level, by bisection."""
        reach = 20 * (alpha + sigma)
        low = torch.full_like(probabilities, -reach)
        high = torch.full_like(probabilities, reach)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle, alpha, sigma) < probabilities
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


# Weights, means and deviations of general use; grids and samplers may be chosen on TUNED, while
# HELD_OUT is measured alone.
TUNED = Mixture((0.35, 0.65), (-1.0, 0.6), (0.15, 0.25))
HELD_OUT = Mixture((0.2, 0.5, 0.3), (-1.4, 0.1, 1.2), (0.1, 0.3, 0.2))


def even_quantiles(count: int) -> Tensor:
    """Return the probabilities (i + 1/2) / count."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count
