"""Multistep samplers: orders 2 and 3 with one evaluation a step.

With ``lam = log(alpha / sigma)``, half the log SNR, and ``r = sigma / alpha``, the probability
flow from a level to the next (primed) one is, exactly,

    (1) xt' = sigma'/sigma xt + alpha' int_0^h exp(u - h) x0(lam + u) du,   h = lam' - lam
    (2) xt' = alpha'/alpha xt + alpha' int_r^r' noise dr

A multistep sampler interpolates the last estimates by a polynomial under the integral, which it
then solves exactly: exponential Adams-Bashforth. With one estimate both are DDIM, so a step is
DDIM and a correction of weighted differences of estimates:

    (3) xt' = alpha' x0 + sigma' noise + alpha' sum_j w_j (f_j - f_0)

At a level without any signal (``alpha = 0``, the start of a rectified flow) ``lam`` and ``r`` are
infinite: a step from there, or in encoding to there, is DDIM and passes nothing to the next one.
The third form is finite at both ends of every path. In the time of the rectified flow,
``tau = sigma / (alpha + sigma)``,

    (4) u = xt / (alpha + sigma),    du / dtau = noise - x0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.predictions import combine, noise_between, spread
from multidiff.core.gaussian.samplers import deterministic_step, has_no_signal, is_clean
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Estimate, EstimateAt
from multidiff.core.random import Rng

Coefficient = Float[Tensor, " batch"]


def interpolation_weights(
    nodes: Sequence[Coefficient], moments: Sequence[Coefficient]
) -> list[Coefficient]:
    """Return the weights of a sum over nodes that integrates their interpolating polynomial.

    Args:
        nodes: points where the function is known.
        moments: integrals of the powers 0, 1, .. of the variable, at least one for each node.
    """
    weights = []
    for j, node in enumerate(nodes):
        powers, scale = [torch.ones_like(node)], torch.ones_like(node)
        for other in (*nodes[:j], *nodes[j + 1 :]):  # times (u - other) / (node - other)
            shifted = [torch.zeros_like(node), *powers]
            kept = [-other * power for power in powers] + [torch.zeros_like(node)]
            powers = [a + b for a, b in zip(shifted, kept, strict=True)]
            scale = scale * (node - other)
        total = sum(power * moment for power, moment in zip(powers, moments, strict=False))
        weights.append(total / scale)
    return weights


def x0_moments(step: Coefficient, count: int) -> list[Coefficient]:
    """Return the integrals of ``exp(u - h) u^k`` over 0 .. h for k = 0, 1, .., eq. (1)."""
    moments = [-torch.expm1(-step)]
    for power in range(1, count):
        moments.append(step**power - power * moments[-1])
    return moments


def half_log_snr(level: NoiseLevel) -> Coefficient:
    """Return ``log(alpha / sigma)``."""
    return level.log_snr / 2


@dataclass(frozen=True)
class Past:
    """Estimates of earlier steps and their levels, newest first."""

    values: tuple[Tensor, ...] = ()
    levels: tuple[NoiseLevel, ...] = ()

    def after(self, value: Tensor, level: NoiseLevel, most: int) -> Past:
        """Return the past with one more estimate, of which the newest ``most`` are kept."""
        return Past((value, *self.values)[:most], (level, *self.levels)[:most])


def corrected(
    base: Tensor, weights: Sequence[Coefficient], values: Sequence[Tensor], value: Tensor
) -> Tensor:
    """Return ``base + sum_j w_j (f_j - f)``, the correction of eq. (3)."""
    terms = [
        spread(weight, one) * (one - value) for weight, one in zip(weights, values, strict=True)
    ]
    return (base + sum(terms)).to(base.dtype) if terms else base


class AdamsBashforth:
    """Exponential Adams-Bashforth of the x0 estimate in ``lam``, eq. (1) and (3).

    Order 2 is DPM-Solver++(2M) with exact weights, order 3 is the third order that
    DPM-Solver++(3M) claims: its usual code halves the second difference and is of order 2.
    Use a schedule even in log SNR; few steps on EDM's schedule overshoot.

    Args:
        order: order of convergence, 2 or 3.
    """

    def __init__(self, order: int = 3):
        check_order(order)
        self.order = order

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the past of x0."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        base = deterministic_step(estimate, next_level)
        if has_no_signal(level) or has_no_signal(next_level):
            return base, None
        past = memory or Past()
        weights = x0_weights(level, next_level, past.levels)
        return (
            corrected(base, weights, past.values, estimate.x0),
            past.after(estimate.x0, level, self.order - 1),
        )


def x0_weights(
    level: NoiseLevel, next_level: NoiseLevel, past: Sequence[NoiseLevel]
) -> list[Coefficient]:
    """Return the weights of the past x0 estimates in eq. (3), with those before ``level``."""
    now = half_log_snr(level)
    nodes = [torch.zeros_like(now), *(half_log_snr(one) - now for one in past)]
    moments = x0_moments(half_log_snr(next_level) - now, len(nodes))
    weights = interpolation_weights(nodes, moments)[1:]
    return [next_level.alpha * weight for weight in weights]


class DEIS:
    """Adams-Bashforth of the noise over ``r^(1/rho)``, eq. (2) (Zhang & Chen 2023, rho-AB).

    The best of the samplers here at 5 to 10 evaluations on the variance-exploding path. Near
    pure noise an error of the predicted noise is multiplied by ``1 / alpha``, which samplers of
    the x0 estimate do not do.

    Args:
        order: order of convergence, 2 to 4.
        rho: exponent of the variable in which the noise is a polynomial: 1 is the linear multistep
            method (LMS) of k-diffusion and diffusers, infinity the logarithm of diffusers' DEIS.
        extrapolates_to_clean: whether the step to the clean level uses earlier estimates too, as in
            LMS; otherwise it returns the x0 estimate.
    """

    def __init__(self, order: int = 3, rho: float = 7.0, extrapolates_to_clean: bool = False):
        check_order(order, 4)
        if not rho > 0:
            raise ValueError(f"rho {rho:g} must be above 0")
        if extrapolates_to_clean and math.isinf(rho):
            raise ValueError("a logarithm does not reach the clean level: give a finite rho")
        self.order, self.rho, self.extrapolates_to_clean = order, rho, extrapolates_to_clean

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the past of the noise."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level) and not self.extrapolates_to_clean:
            return estimate.x0, None
        base = deterministic_step(estimate, next_level)
        if has_no_signal(level) or has_no_signal(next_level):
            return base, None
        past = memory or Past()
        weights = self._weights(level, next_level, past.levels)
        return (
            corrected(base, weights, past.values, estimate.noise),
            past.after(estimate.noise, level, self.order - 1),
        )

    def _weights(
        self, level: NoiseLevel, next_level: NoiseLevel, past: Sequence[NoiseLevel]
    ) -> list[Coefficient]:
        start, end, *_ = ends = [self._root(one) for one in (level, next_level, *past)]
        nodes = [start, *ends[2:]]
        if math.isinf(self.rho):
            moments = log_moments(start, end, len(nodes))
        else:
            rho = self.rho
            moments = [
                rho * (end ** (k + rho) - start ** (k + rho)) / (k + rho) for k in range(len(nodes))
            ]
        return [next_level.alpha * one for one in interpolation_weights(nodes, moments)[1:]]

    def _root(self, level: NoiseLevel) -> Coefficient:
        ratio = level.sigma / level.alpha
        return torch.log(ratio) if math.isinf(self.rho) else ratio ** (1 / self.rho)


def log_moments(start: Coefficient, end: Coefficient, count: int) -> list[Coefficient]:
    """Return the integrals of ``log(r)^k dr`` for k = 0, 1, .., between two logarithms of r."""
    moments = [torch.exp(end) - torch.exp(start)]
    for power in range(1, count):
        edges = torch.exp(end) * end**power - torch.exp(start) * start**power
        moments.append(edges - power * moments[-1])
    return moments


class FlowABM:
    """Adams-Bashforth-Moulton of the flow velocity in the flow's time, eq. (4), on every path.

    A predictor of one order less and a corrector share one evaluation a step, as in UniPC: the
    velocity at the predicted state corrects that state before the next step starts from it. With
    :func:`~multidiff.core.gaussian.flow.shifted_timesteps` it is the most exact sampler here, from
    5 evaluations to 20, see docs/paths.md.

    Args:
        order: order of the corrector, 2 or 3.
    """

    def __init__(self, order: int = 3):
        check_order(order)
        self.order = order

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last u and the past."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        velocity, past = estimate.noise - estimate.x0, Past()
        u = (xt / spread(level.alpha + level.sigma, xt)).to(xt.dtype)
        if memory is not None:
            before, past = memory
            u = _along_flow(before, past, flow_time(level), velocity)
        past = past.after(velocity, level, self.order - 1)
        there = _along_flow(u, past, flow_time(next_level))
        scale = spread(next_level.alpha + next_level.sigma, there)
        return (there * scale).to(xt.dtype), (u, past)


def flow_time(level: NoiseLevel) -> Coefficient:
    """Return ``sigma / (alpha + sigma)``, 0 where clean and 1 where no signal is left."""
    return level.sigma / (level.alpha + level.sigma)


def _along_flow(u: Tensor, past: Past, end: Coefficient, arrived: Tensor | None = None) -> Tensor:
    """Return u of eq. (4) at a flow time, from the newest level of the past.

    Args:
        u: value at the newest level of the past.
        past: velocities, at least one.
        end: flow time of the result.
        arrived: velocity there; the step is then implicit, of one order more.
    """
    now = flow_time(past.levels[0])
    step, values = end - now, [*past.values]
    nodes = [flow_time(one) - now for one in past.levels]
    if arrived is not None:
        nodes, values = [step, *nodes], [arrived, *values]
    moments = [step ** (k + 1) / (k + 1) for k in range(len(nodes))]
    weights = interpolation_weights(nodes, moments)
    change = sum(spread(w, v) * v for w, v in zip(weights, values, strict=True))
    return (u + change).to(u.dtype)


class UniPC:
    """A predictor and a corrector that share one evaluation a step (Zhao et al. 2023).

    The estimate at the predicted state corrects that state before the next step starts from it:
    one order more for no further evaluation. Of order 2 the predictor is DPM-Solver++(2M), so
    this is the published UniPC-2 with B2(h); weights of order 3 are those of the exact integral.

    Args:
        order: degree of the predictor's and the corrector's polynomial, 2 or 3; the order of
            convergence is one more.
        first_by_mean: whether the first correction uses the mean of its two estimates, as
            published, in place of the exact weights.
    """

    def __init__(self, order: int = 2, first_by_mean: bool = False):
        check_order(order)
        self.order, self.first_by_mean = order, first_by_mean

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last state and the past."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        if has_no_signal(level):
            return deterministic_step(estimate, next_level), None
        past = Past()
        if memory is not None:
            before, past = memory
            xt = self._correct(before, past, estimate, level)
        if has_no_signal(next_level):
            noise = noise_between(xt, estimate.x0, level)
            return (spread(next_level.sigma, xt) * noise).to(xt.dtype), None
        past = past.after(estimate.x0, level, self.order)
        return self._predict(xt, past, next_level), (xt, past)

    def _correct(self, before: Tensor, past: Past, estimate: Estimate, level: NoiseLevel) -> Tensor:
        """Return the corrected state at ``level``, from the one before and the estimate there."""
        if self.first_by_mean and len(past.values) == 1:
            mean = Past(((past.values[0] + estimate.x0) / 2,), past.levels)
            return exponential_step(before, mean, level)
        return exponential_step(before, past, level, estimate.x0)

    def _predict(self, xt: Tensor, past: Past, next_level: NoiseLevel) -> Tensor:
        used = Past(past.values[: self.order], past.levels[: self.order])
        if self.order == 2 and len(used.values) == 2:
            return midpoint_step(xt, used, next_level)
        return exponential_step(xt, used, next_level)


def exponential_step(
    xt: Tensor, past: Past, next_level: NoiseLevel, arrived: Tensor | None = None
) -> Tensor:
    """Return eq. (1) with the polynomial through the past x0 estimates, newest first.

    Args:
        xt: state at the newest level of the past.
        past: at least one estimate.
        next_level: level where the step ends.
        arrived: an x0 estimate at that level; the step is then implicit, of one order more.
    """
    level = past.levels[0]
    now, step = half_log_snr(level), half_log_snr(next_level) - half_log_snr(level)
    nodes, values = [half_log_snr(one) - now for one in past.levels], [*past.values]
    if arrived is not None:
        nodes, values = [step, *nodes], [arrived, *values]
    weights = interpolation_weights(nodes, x0_moments(step, len(nodes)))
    total = combine(next_level.sigma / level.sigma, xt, next_level.alpha * weights[0], values[0])
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + (spread(next_level.alpha * weight, value) * value).to(total.dtype)
    return total


def midpoint_step(xt: Tensor, past: Past, next_level: NoiseLevel) -> Tensor:
    """Return the step of DPM-Solver++(2M) (Lu et al. 2022, algorithm 2)."""
    (x0, last_x0), (level, last_level) = past.values, past.levels
    now, then = half_log_snr(level), half_log_snr(next_level)
    ratio = (then - now) / (now - half_log_snr(last_level))
    slope = combine(1 + ratio / 2, x0, -ratio / 2, last_x0)
    pull = -next_level.alpha * torch.expm1(now - then)
    return combine(next_level.sigma / level.sigma, xt, pull, slope)


def check_order(order: int, highest: int = 3) -> None:
    """Reject an order that a multistep sampler does not have.

    Raises:
        ValueError: if it is not 2 to the highest.
    """
    if not 2 <= order <= highest:
        raise ValueError(f"order {order}: 2 to {highest}")
