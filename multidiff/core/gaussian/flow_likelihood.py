"""The exact likelihood of a model's probability flow (Song et al. 2021, section 4.3).

In the angle of :mod:`~multidiff.core.gaussian.adaptive` the flow is ``du/dphi = f(u, phi)`` and

    log p(x0) = log N(u_end; 0, I) + int div f dphi + d log(alpha_0 / hypot(alpha_0, sigma_0))

for d values a state, over the levels from the cleanest visited (index 0) to the noisiest. Unlike
the variational bound it is an equation: the likelihood of the deterministic sampler's samples.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.context import SamplerContext
from multidiff.core.gaussian.adaptive import angle, at_angle, scale_of, slope
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule, log_snr_timesteps
from multidiff.core.protocols import Condition, Denoiser
from multidiff.core.random import Rng, uniform

# An exact trace needs one backward pass for each value of a state.
MOST_EXACT = 1024


@dataclass(frozen=True)
class _Divergence:
    """The slope of the flow and its divergence, exact or by fixed probes."""

    context: SamplerContext
    probes: Tensor | None  # (probes, batch, ...)

    def __call__(self, u: Tensor, level: NoiseLevel) -> tuple[Tensor, Float[Tensor, " batch"]]:
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            xt = leaf * spread(scale_of(level), leaf).to(leaf.dtype)
            change = slope(self.context(xt, level), level)
            trace = self._trace(change, leaf)
        return change.detach(), trace

    def _trace(self, change: Tensor, leaf: Tensor) -> Float[Tensor, " batch"]:
        batch, values = len(leaf), leaf[0].numel()
        if self.probes is None:
            basis = torch.eye(values, dtype=leaf.dtype, device=leaf.device)
            vectors = [row.reshape(1, *leaf.shape[1:]).expand_as(leaf) for row in basis]
        else:
            vectors = list(self.probes)
        total = torch.zeros(batch, dtype=torch.float64, device=leaf.device)
        for vector in vectors:
            (pulled,) = torch.autograd.grad(change, leaf, vector, retain_graph=True)
            total = total + (pulled * vector).flatten(1).sum(dim=1)
        return total if self.probes is None else total / len(vectors)


@torch.no_grad()
def flow_log_likelihood(
    process: Any,
    denoiser: Denoiser,
    x0: Float[Tensor, " batch *state"],
    condition: Condition = None,
    *,
    times: TimestepSchedule | None = None,
    probes: int | None = None,
    rng: Rng | None = None,
) -> Float[Tensor, " batch"]:
    """Return the log likelihood of clean states under the probability flow.

    Args:
        process: a Gaussian process.
        denoiser: any denoiser of it.
        x0: states to measure, of real numbers.
        condition: condition of each sample.
        times: timestep schedule, four evaluations between two levels; 100 levels even in log SNR
            by default.
        probes: number of random vectors for the trace (Hutchinson, Rademacher), the same along
            the path; the exact trace by default, with a backward pass for each value of a state.
        rng: source of the probes.

    Returns:
        Nats of each whole state; divided by the number of values, and by ``-log 2``, bits per
        dimension.

    Raises:
        ValueError: if there are fewer than two levels, no probes, or too many values for an exact
            trace.
    """
    times = log_snr_timesteps(100) if times is None else times
    if times.num_steps < 2:
        raise ValueError("the flow's likelihood needs at least two levels")
    rate = _Divergence(SamplerContext(process, denoiser, condition), _rademacher(x0, probes, rng))
    visited = [level.to(x0.device).expand(len(x0)) for level in process.levels(times)[:-1]]
    kept = visited[-1].alpha / scale_of(visited[-1])
    u = spread(kept, x0).to(x0.dtype) * x0
    total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    for level, next_level in itertools.pairwise(reversed(visited)):
        u, gained = _runge_kutta(rate, u, level, next_level)
        total = total + gained
    subspace = getattr(process, "subspace", None)
    values = x0[0].numel() if subspace is None else subspace.dimension(x0).double()
    end = -0.5 * ((u.double() ** 2).flatten(1).sum(dim=1) + values * math.log(2 * math.pi))
    return end + total + values * kept.log()


def _runge_kutta(
    rate: _Divergence,
    u: Tensor,
    level: NoiseLevel,
    next_level: NoiseLevel,
) -> tuple[Tensor, Float[Tensor, " batch"]]:
    """Return the state after a fourth-order step, and the integral of the divergence."""
    phi, end = angle(level), angle(next_level)
    step, middle = end - phi, at_angle(rate.context, (phi + end) / 2)
    size = spread(step, u).to(u.dtype)
    a, a_div = rate(u, level)
    b, b_div = rate(u + size / 2 * a, middle)
    c, c_div = rate(u + size / 2 * b, middle)
    d, d_div = rate(u + size * c, next_level)
    gained = step / 6 * (a_div + 2 * b_div + 2 * c_div + d_div)
    return u + size / 6 * (a + 2 * b + 2 * c + d), gained


def _rademacher(x0: Tensor, probes: int | None, rng: Rng | None) -> Tensor | None:
    values = x0[0].numel()
    if probes is None:
        if values > MOST_EXACT:
            raise ValueError(
                f"an exact trace of {values} values a state takes as many backward passes at each "
                "evaluation: give probes=8 or so"
            )
        return None
    if probes < 1:
        raise ValueError(f"{probes} probes: at least 1")
    signs = [uniform(x0.shape, rng) < 0.5 for _ in range(probes)]
    return torch.stack([torch.where(one, 1.0, -1.0).to(x0) for one in signs])
