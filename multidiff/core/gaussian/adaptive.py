"""The probability flow in its angle, and Runge-Kutta steps along it.

With ``phi = atan2(sigma, alpha)``, 0 where clean and pi/2 where nothing is left of the signal,

    (1) u = xt / hypot(sigma, alpha),    du / dphi = cos(phi) noise - sin(phi) x0

on every path. No coefficient diverges at either end, so samplers with steps of their own choice,
exact likelihoods and encodings integrate this form.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.predictions import combine, spread
from multidiff.core.gaussian.samplers import is_clean
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.stochastic import levels_between
from multidiff.core.protocols import Estimate, EstimateAt
from multidiff.core.random import Rng

# The pair of Dormand & Prince (1980), orders 5 and 4: rows of the tableau, and what the fifth
# order has over the fourth.
ROWS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# Largest factors by which a step shrinks or grows, and the aimed fraction of the allowed error.
SHRINK, GROW, SAFETY = 0.2, 5.0, 0.9
# The first step, as a fraction of the distance to the next level.
FIRST_STEP = 0.1


def angle(level: NoiseLevel) -> Float[Tensor, " batch"]:
    """Return ``atan2(sigma, alpha)``."""
    return torch.atan2(level.sigma, level.alpha)


def scale_of(level: NoiseLevel) -> Float[Tensor, " batch"]:
    """Return ``hypot(alpha, sigma)``, which u of eq. (1) is divided by."""
    return torch.hypot(level.alpha, level.sigma)


def at_angle(context: Any, phi: Float[Tensor, " batch"]) -> NoiseLevel:
    """Return the path's level at an angle, clamped to its two ends."""
    return context.at_log_snr(-2 * torch.log(torch.tan(phi)))


def slope(estimate: Estimate, level: NoiseLevel) -> Tensor:
    """Return ``du / dphi`` of eq. (1)."""
    scale = scale_of(level)
    return combine(level.alpha / scale, estimate.noise, -level.sigma / scale, estimate.x0)


class RK45:
    """Runge-Kutta of order 5 with adaptive steps between the visited levels.

    Each sample has its own step size, so it does not depend on the others of its batch;
    the network is evaluated until the last of them arrives. Use few levels: the two ends of
    the path, ``log_snr_timesteps(2)``, are enough. At a next level without noise it returns the
    x0 estimate, as every sampler does.

    Args:
        tolerance: error allowed in a step, relative to the state and absolute, in units of data
            of unit variance.
        most: largest number of evaluations between two levels.

    Raises:
        ValueError: if a number is not above 0.
    """

    def __init__(self, tolerance: float = 1e-3, most: int = 1000):
        if not tolerance > 0 or most < 7:
            raise ValueError(f"tolerance {tolerance:g} must be above 0, evaluations {most} over 6")
        self.tolerance, self.most = tolerance, most

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last step size.

        Raises:
            ValueError: if the tolerance is not met within the allowed evaluations.
        """
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        context = levels_between(estimate_at, type(self).__name__)
        phi, end = angle(level), angle(next_level)
        size = FIRST_STEP * (end - phi) if memory is None else memory
        u = xt / spread(scale_of(level), xt).to(xt.dtype)
        first = slope(estimate, level)
        for _ in range((self.most - 1) // 6):
            left = end - phi
            if bool((left == 0).all()):
                return u * spread(scale_of(next_level), u).to(u.dtype), size
            step = torch.where(size.abs() < left.abs(), size, left)
            arrived, last, error = self._attempt(context, u, first, phi, step, end)
            taken = error <= 1
            rows = taken.to(u.device).reshape(-1, *[1] * (u.ndim - 1))
            u, first = torch.where(rows, arrived, u), torch.where(rows, last, first)
            phi = torch.where(taken, torch.where(step == left, end, phi + step), phi)
            factor = (SAFETY * error.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW)
            size = torch.where(left == 0, size, step * factor)
        raise ValueError(
            f"RK45 did not reach the next level in {self.most} evaluations at tolerance "
            f"{self.tolerance:g}: raise the tolerance or most"
        )

    def _attempt(
        self, context: Any, u: Tensor, first: Tensor, phi: Tensor, step: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor, Float[Tensor, " batch"]]:
        """Return the state after a step, its slope there, and its error over what is allowed."""
        slopes, state = [first], u
        for row, node in zip(ROWS, NODES, strict=True):
            state = u + weighted(row, slopes, step)
            level = at_angle(context, phi + node * step)
            xt = state * spread(scale_of(level), state).to(state.dtype)
            slopes.append(slope(context(xt, level), level))
        allowed = self.tolerance * (1 + torch.maximum(u.abs(), state.abs()))
        error = (weighted(ERROR, slopes, step) / allowed).flatten(1)
        return state, slopes[-1], error.square().mean(dim=1).sqrt().to(step)


def weighted(weights: tuple[float, ...], slopes: list[Tensor], step: Tensor) -> Tensor:
    """Return ``step * sum_j weight_j slope_j``."""
    total = sum(weight * one for weight, one in zip(weights, slopes, strict=True) if weight)
    return (spread(step, slopes[0]) * total).to(slopes[0].dtype)
