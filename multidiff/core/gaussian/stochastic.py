"""Stochastic samplers: EDM's churn, DPM-Solver++(2M) SDE, and that of consistency models.

Noise added during sampling forgets errors of earlier steps, which helps with many steps and
hurts with few. ``DDPM`` and ``DDIM(eta)`` are the others: Euler ancestral of k-diffusion is
``DDIM(eta)``, and at eta 1 it is ``DDPM("small")``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multidiff.core.gaussian.multistep import half_log_snr
from multidiff.core.gaussian.predictions import combine, spread
from multidiff.core.gaussian.samplers import (
    DPMSolverPP,
    Heun,
    has_no_signal,
    is_clean,
    step_noise,
)
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import EstimateAt
from multidiff.core.random import Rng


class EDMChurn:
    """EDM's stochastic sampler: up to a noisier level, then Heun (Karras et al. 2022, alg. 2).

    Args:
        gamma: growth of the noise-to-signal ratio before each step: ``S_churn / N`` there, at
            most ``sqrt(2) - 1``; 0 is Heun.
        lowest: ratio ``sigma / alpha`` below which nothing is added, ``S_tmin``.
        highest: ratio above which nothing is added, ``S_tmax``.
        noise_scale: standard deviation of the noise added, ``S_noise``.

    Raises:
        ValueError: if a number is negative.
    """

    def __init__(
        self,
        gamma: float = 0.1,
        lowest: float = 0.0,
        highest: float = math.inf,
        noise_scale: float = 1.0,
    ):
        if min(gamma, lowest, highest, noise_scale) < 0:
            raise ValueError(
                f"churn gamma {gamma:g}, lowest {lowest:g}, highest {highest:g}, noise_scale "
                f"{noise_scale:g}: 0 or more"
            )
        self.gamma, self.lowest, self.highest = gamma, lowest, highest
        self.noise_scale = noise_scale

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; needs levels between those visited."""
        ratio = level.sigma / level.alpha
        if self.gamma > 0 and self._inside(ratio) and not has_no_signal(level):
            between = levels_between(estimate_at, type(self).__name__)
            up = between.at_log_snr(level.log_snr - 2 * math.log1p(self.gamma))
            added = ((up.sigma / up.alpha) ** 2 - ratio**2).clamp(min=0).sqrt()
            noise = self.noise_scale * step_noise(estimate_at, xt, rng)
            xt = combine(up.alpha / level.alpha, xt, up.alpha * added, noise)
            level = up
        return Heun().step(estimate_at, xt, level, next_level, None, rng)

    def _inside(self, ratio: Tensor) -> bool:
        if self.lowest == 0 and self.highest == math.inf:
            return True
        return bool(((ratio >= self.lowest) & (ratio <= self.highest)).all())


def levels_between(estimate_at: Any, name: str) -> Any:
    """Return a sampler's context, if it can give estimates at levels between those visited.

    Raises:
        TypeError: if it is a plain function: pass a SamplerContext, as ``sample()`` does.
    """
    if not hasattr(estimate_at, "at_log_snr"):
        raise TypeError(
            f"{name} makes levels between those visited: step it by sample(), or hand it a "
            "SamplerContext of a Gaussian process"
        )
    return estimate_at


class DPMSolverPPSDE:
    """DPM-Solver++(2M) SDE: the second-order step of the reverse diffusion (Lu et al. 2022).

    Args:
        eta: fraction of the noise that is drawn again; 0 is :class:`DPMSolverPP`, 1 is the reverse
            diffusion.
    """

    def __init__(self, eta: float = 1.0):
        if eta < 0:
            raise ValueError(f"eta {eta:g}: 0 or more")
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
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last (x0, level)."""
        if self.eta == 0:
            return DPMSolverPP().step(estimate_at, xt, level, next_level, memory, rng)
        x0 = estimate_at(xt, level).x0
        if is_clean(next_level):
            return x0, None
        now, then = half_log_snr(level), half_log_snr(next_level)
        slope = x0
        if memory is not None:
            last_x0, last_level = memory
            ratio = (then - now) / (now - half_log_snr(last_level))
            slope = combine(1 + ratio / 2, x0, -ratio / 2, last_x0)
        decay = self.eta * (now - then)
        keep = next_level.sigma / level.sigma * torch.exp(decay)
        pull = -next_level.alpha * torch.expm1(now - then + decay)
        state = combine(keep, xt, pull, slope)
        std = next_level.sigma * torch.sqrt(-torch.expm1(2 * decay))
        noise = step_noise(estimate_at, xt, rng)
        return state + (spread(std, state) * noise).to(state.dtype), (x0, level)


class ConsistencySampler:
    """Multistep consistency sampling: the x0 estimate, noised again (Song et al. 2023, alg. 1).

    For networks whose estimate is a whole sample, such as those of
    :mod:`~multidiff.core.gaussian.distillation` or of latent consistency models (LCM; Luo et al.
    2023). A denoiser's estimate is a mean of many samples, and this sampler leaves it so smooth.
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
        """See :class:`~multidiff.core.protocols.Sampler`."""
        x0 = estimate_at(xt, level).x0
        if is_clean(next_level):
            return x0, None
        noise = step_noise(estimate_at, xt, rng)
        return combine(next_level.alpha, x0, next_level.sigma, noise), None
