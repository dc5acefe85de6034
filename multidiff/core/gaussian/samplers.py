"""Samplers, one reverse step each: DDPM, DDIM, Heun, DPM-Solver++(2M).

A sampler requests an estimate at a state and level, as often as it needs, and moves the
state to the next level. State kept between steps travels through ``memory``, so a
sampler object has no state and serves any number of sampling runs. At a next level without noise
every sampler returns the x0 estimate.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from multidiff.core.gaussian.posterior import ReverseVariance, Transition, check_variance
from multidiff.core.gaussian.predictions import combine, spread
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Estimate, EstimateAt
from multidiff.core.random import Rng, normal


class DDPM:
    """Ancestral sampling: a draw from p(x_t' | x_t) (Ho et al. 2020, algorithm 2).

    Args:
        variance: variance of the draw. "small" is the posterior's, "large" is beta, "learned" is
            the network's. No noise is added at the last step.
    """

    def __init__(self, variance: ReverseVariance = "small"):
        check_variance(variance)
        self.variance: ReverseVariance = variance

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        step = Transition(level, next_level)
        mean = step.posterior_mean(estimate.x0, xt)
        std = torch.exp(0.5 * step.log_variance(self.variance, estimate))
        return mean + (std * step_noise(estimate_at, xt, rng)).to(mean.dtype), None


class DDIM:
    """The non-Markovian reverse process of Song et al. 2021 (eq. 12).

    Args:
        eta: 0 is deterministic, 1 is DDPM with the small variance.
    """

    def __init__(self, eta: float = 0.0):
        if not 0 <= eta <= 1:
            raise ValueError(f"eta {eta:g} is not in [0, 1]")
        self.eta = eta

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        if self.eta == 0:
            return deterministic_step(estimate, next_level), None
        variance = self.eta**2 * Transition(level, next_level).posterior_variance
        direction = (next_level.sigma**2 - variance).clamp(min=0).sqrt()
        mean = combine(next_level.alpha, estimate.x0, direction, estimate.noise)
        return mean + (spread(variance.sqrt(), mean) * step_noise(estimate_at, xt, rng)).to(
            mean.dtype
        ), None


class Heun:
    """Second order: the mean of the slopes at both ends of a step, two evaluations each.

    Along the probability flow the slope of ``x / sigma`` over ``alpha / sigma`` is the x0
    estimate. Karras et al. 2022 (algorithm 1) take ``x / alpha`` over ``sigma / alpha``, whose
    slope is the noise: the same flow, but errors near pure noise are multiplied by
    ``1 / alpha``, by which this form never divides. The last step is of first order.

    Args:
        slope: "x0", or "noise" as Karras et al.
    """

    def __init__(self, slope: Literal["x0", "noise"] = "x0"):
        if slope not in ("x0", "noise"):
            raise ValueError(f"slope {slope!r}: x0 or noise")
        self.slope = slope

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        euler = deterministic_step(estimate, next_level)
        there = estimate_at(euler, next_level)
        # From pure noise sigma / alpha is infinite, and alpha / sigma is 0.
        if self.slope == "noise" and not has_no_signal(level):
            change = there.noise - estimate.noise
            pull = next_level.sigma - next_level.alpha * level.sigma / level.alpha
        else:
            change = there.x0 - estimate.x0
            pull = next_level.alpha - level.alpha * next_level.sigma / level.sigma
        return euler + (spread(pull, euler) * change / 2).to(euler.dtype), None


class DPMSolverPP:
    """DPM-Solver++(2M): second order with one evaluation a step (Lu et al. 2022, algorithm 2).

    The first step and the step to the clean level are of first order, that is, DDIM.
    """

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last (clean, level)."""
        estimate = estimate_at(xt, level)
        x0 = estimate.x0
        if is_clean(next_level):
            return x0, None
        if has_no_signal(next_level):  # the end of encoding, where the log SNR is infinite
            return deterministic_step(estimate, next_level), None
        # Half log SNRs, and the step between two of them.
        now, then = level.log_snr / 2, next_level.log_snr / 2
        slope = x0
        if memory is not None:
            last_clean, last_level = memory
            ratio = (then - now) / (now - last_level.log_snr / 2)  # 1 / r of the paper
            slope = combine(1 + ratio / 2, x0, -ratio / 2, last_clean)
        keep = next_level.sigma / level.sigma
        pull = -next_level.alpha * torch.expm1(now - then)
        return combine(keep, xt, pull, slope), (x0, level)


def deterministic_step(estimate: Estimate, next_level: NoiseLevel) -> Tensor:
    """Return the estimated pair, mixed again at another level: DDIM with eta 0."""
    return combine(next_level.alpha, estimate.x0, next_level.sigma, estimate.noise)


def is_clean(level: NoiseLevel) -> bool:
    """Return whether a level has no noise.

    Raises:
        ValueError: if only some rows have noise: sampling visits one level at a time.
    """
    if level.end is not None:
        return level.end == "clean"
    clean = level.sigma == 0
    count = int(clean.sum())
    if count not in (0, len(clean)):
        raise ValueError(
            f"{count} of {len(clean)} rows are at the clean level and the others are not: "
            "a sampler's step takes the whole batch to one level"
        )
    return count > 0


def has_no_signal(level: NoiseLevel) -> bool:
    """Return whether a level is pure noise."""
    if level.end is not None:
        return level.end == "noise"
    return bool((level.alpha == 0).any())


def step_noise(estimate_at: EstimateAt, state: Tensor, rng: Rng | None) -> Tensor:
    """Return the noise of a step: the process's own, standard normal if it defines none."""
    draw = getattr(estimate_at, "noise", None)
    return draw_like(state, rng) if draw is None else draw(state, rng)


def draw_like(state: Tensor, rng: Rng | None) -> Tensor:
    """Draw standard normal noise for a state, on the device of the generators."""
    return normal(state.shape, rng).to(state.device)
