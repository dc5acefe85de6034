"""Variational bound (negative ELBO, NELBO) on the likelihood, term by term.

    -log p(x_0) <= KL(q(x_T | x_0) || p(x_T))                          prior
                   + sum_t KL(q(x_t-1 | x_t, x_0) || p(x_t-1 | x_t))   one for each step
                   - log p(x_0 | x_1)                                  decoder

(Ho et al. 2020, eq. 5). Everything is in nats for each dimension of the state; divided by
``log 2`` it is bits per dimension. Written as a lower bound of ``log p`` every sign flips.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.decoders import (
    ContinuousDecoder,
    DiscretisedDecoder,
    LikelihoodDecoder,
)
from multidiff.core.gaussian.posterior import ReverseVariance, Transition, check_variance
from multidiff.core.gaussian.predictions import ROUNDING, mean_over_state, spread
from multidiff.core.gaussian.samplers import is_clean
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.protocols import (
    Condition,
    Corrupted,
    Denoiser,
    Estimate,
    Projection,
    check_times,
)
from multidiff.core.random import Rng

if TYPE_CHECKING:
    from multidiff.core.gaussian.process import GaussianProcess


def gaussian_kl(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """Return KL(q || p) of two Gaussians at every position, in nats."""
    ratio = torch.exp(log_var_q - log_var_p)
    distance = (mean_q - mean_p) ** 2 * torch.exp(-log_var_p)
    return 0.5 * (log_var_p - log_var_q + ratio + distance - 1)


def last_variance_of(schedule: NoiseSchedule, decoder: LikelihoodDecoder) -> Float[Tensor, " 1"]:
    """Return the decoder's variance for a reverse process over every step of a table.

    Raises:
        ValueError: if the schedule has no table of at least two steps.
    """
    if schedule.num_steps is None or schedule.num_steps < 2:
        raise ValueError("a bound over a table needs one with at least two steps")
    times = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64) / schedule.num_steps
    x0, first, second = (schedule.at(time) for time in times)
    return decoder.last_variance(Transition(second, first), Transition(first, x0))


def bound_term(
    step: Transition,
    corrupted: Corrupted,
    estimate: Estimate,
    variance: ReverseVariance,
    floor: Float[Tensor, " one"],
    decoder: LikelihoodDecoder,
    residual: Float[Tensor, " batch"] | None = None,
) -> Tensor:
    """Return one term of the bound at every position, in nats.

    It is the decoder's where the step ends at the clean level, a KL elsewhere. ``floor`` is the
    variance of a step to the clean level, ``residual`` that of the clean state itself, if
    it is known; it then determines the variance of every step.
    """
    mean = step.posterior_mean(estimate.x0, corrupted.xt)
    if residual is None:
        log_variance = step.log_variance(variance, estimate, floor.to(step.level.alpha.device))
    else:
        log_variance = spread(step.blurred_variance(residual), mean).log()
    true_mean = step.posterior_mean(corrupted.x0, corrupted.xt)
    # At the clean end the posterior has no width; its row is replaced below.
    true_variance = step.posterior_variance.clamp(min=1e-300)
    kl = gaussian_kl(true_mean, spread(true_variance, mean).log(), mean, log_variance)
    nll = decoder.nll(corrupted.x0, mean, log_variance)
    return torch.where(spread(step.earlier.sigma, mean) == 0, nll, kl)


@dataclass(frozen=True)
class Bound:
    """The variational bound of each sample, in nats for each dimension.

    Attributes:
        prior: KL of the noisiest state from the prior.
        steps: KL of each step, noisiest first; the last is the decoder's term.
    """

    prior: Float[Tensor, " batch"]
    steps: Float[Tensor, " batch steps"]

    @property
    def decoder(self) -> Float[Tensor, " batch"]:
        """Return the negative log likelihood of the clean state at the last step."""
        return self.steps[:, -1]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Return the whole bound: at least the negative log likelihood, in expectation."""
        return self.prior + self.steps.sum(dim=1)

    @property
    def bits_per_dim(self) -> Float[Tensor, " batch"]:
        """Return the whole bound in bits for each dimension."""
        return self.total / math.log(2)


def prior_kl(x0: Tensor, level: NoiseLevel, mask: Tensor | None = None) -> Float[Tensor, " batch"]:
    """Return KL(q(x_T | x_0) || N(0, (alpha^2 + sigma^2) I)) for each dimension, in nats."""
    scale = torch.hypot(level.alpha, level.sigma)
    scale = torch.where((scale - 1).abs() < ROUNDING, 1.0, scale)
    mean = spread(level.alpha / scale, x0) * x0
    zero = torch.zeros_like(mean)
    log_variance = 2 * spread(level.sigma / scale, x0).log()
    return mean_over_state(gaussian_kl(mean, log_variance, zero, zero), mask)


def _decoder_of(
    x0: Tensor, mask: Tensor | None, decoder: LikelihoodDecoder | None
) -> LikelihoodDecoder:
    """Return the decoder, or that of 8-bit images; it must fit the states."""
    if decoder is None:
        images = DiscretisedDecoder()
        images.check_grid(x0, mask)
        return images
    if isinstance(decoder, DiscretisedDecoder):
        decoder.check_range(x0, mask)
    return decoder


@torch.no_grad()
def vlb(
    process: GaussianProcess,
    denoiser: Denoiser,
    x0: Float[Tensor, " batch *state"],
    condition: Condition = None,
    *,
    times: TimestepSchedule,
    rng: Rng | None = None,
    variance: ReverseVariance = "small",
    decoder: LikelihoodDecoder | None = None,
    project: Projection | None = None,
    mask: Tensor | None = None,
    residual: Callable[[NoiseLevel], Tensor] | None = None,
) -> Bound:
    """Return the bound along a timestep schedule, with one draw of the noise for each step.

    Args:
        process: process that the denoiser was trained on.
        denoiser: any denoiser of it.
        x0: states to measure.
        condition: condition passed to the denoiser.
        times: timestep schedule; every step of the table gives the bound that papers report.
        rng: source of the draws.
        variance: variance of the reverse steps.
        decoder: likelihood of the last term: :class:`ContinuousDecoder` for real numbers,
            :class:`DiscretisedDecoder` for a grid; by default the 256 grey levels in
            [-1, 1], on which the states must then be.
        project: projection of every estimate, as in sampling.
        mask: 1 where the state counts, 0 at padding; broadcastable to it. Nats are then
            for each dimension that counts.
        residual: variance of the clean state given a noisy one that even a perfect estimate
            leaves, at every level; if given, it replaces ``variance``.

    Raises:
        TypeError: if the times are a number, or the states integers.
        ValueError: if there are fewer than two steps, the last does not end at the clean level, the
            variance is unknown, or the states are not on the decoder's grid.
    """
    check_times(times)
    check_variance(variance)
    if times.num_steps < 2:
        raise ValueError("a bound needs a walk of at least two steps")
    decoder = _decoder_of(x0, mask, decoder)
    batch = x0.shape[0]
    levels = [level.to(x0.device).expand(batch) for level in process.levels(times)]
    if not is_clean(levels[-1]):
        raise ValueError(
            f"times end at time {float(levels[-1].time[0]):.4g}: a bound needs a walk to the clean "
            "level, time 0 (stop_short=False)"
        )
    before, last = Transition(levels[-3], levels[-2]), Transition(levels[-2], levels[-1])
    floor = decoder.last_variance(before, last)
    own, terms = _masked(process, mask), []
    for level, earlier in itertools.pairwise(levels):
        corrupted = own.corrupt(x0, level, rng)
        output = denoiser(corrupted.xt, level, condition)
        estimate = own.estimate(output, corrupted.xt, level)
        if project is not None:
            estimate = project(estimate, corrupted.xt, level)
        step = Transition(level, earlier)
        left = None if residual is None else residual(level)
        term = partial(bound_term, step, variance=variance, floor=floor, decoder=decoder)
        term = partial(term, residual=left)
        terms.append(_mean_term(own, term, corrupted, estimate, mask))
    return Bound(_mean_prior(own, x0, levels[0], mask), torch.stack(terms, dim=1))


def prior_nats(
    process: GaussianProcess, x0: Tensor, level: NoiseLevel, mask: Tensor | None = None
) -> Float[Tensor, " batch"]:
    """Return KL(q(x_T | x_0) || prior) of each whole state, in nats."""
    own = _masked(process, mask)
    return _mean_prior(own, x0, level, mask) * _dimensions(own, x0, mask)


def step_nats(
    process: GaussianProcess,
    output: Tensor,
    corrupted: Corrupted,
    earlier: NoiseLevel,
    mask: Tensor | None = None,
    *,
    noisier: NoiseLevel | None = None,
    decoder: LikelihoodDecoder | None = None,
) -> Float[Tensor, " batch"]:
    """Return one term of the bound of each whole state, in nats.

    Args:
        process: process that the output belongs to.
        output: output of the network.
        corrupted: noisy states with their clean ones.
        earlier: level where the step ends.
        mask: 1 where the state counts.
        noisier: level of the step before, from which the decoder may take its variance.
        decoder: likelihood at the clean level; the density of real numbers by default.

    Raises:
        ValueError: if the decoder needs the step before, and the walk has only one.
    """
    level, own = corrupted.level, _masked(process, mask)
    decoder = ContinuousDecoder() if decoder is None else decoder
    step = Transition(level, earlier)
    before = step if noisier is None else Transition(noisier, level)
    kind = "learned" if process.learns_variance else "small"
    floor = decoder.last_variance(before, step)
    if bool(((earlier.sigma == 0) & (floor == 0)).any()):
        raise ValueError(
            f"{type(decoder).__name__} takes its variance from the step before the last: give a "
            "walk of at least two steps"
        )

    estimate = own.estimate(output, corrupted.xt, level)
    term = partial(bound_term, step, variance=kind, floor=floor, decoder=decoder)
    found = _mean_term(own, term, corrupted, estimate, mask)
    return found * _dimensions(own, corrupted.x0, mask)


def _masked(process: GaussianProcess, mask: Tensor | None) -> GaussianProcess:
    """Return the process of the states that are real, where its noise depends on that."""
    masked = getattr(process, "masked", None)
    return process if masked is None else masked(mask)


def _mean_term(
    process: GaussianProcess,
    term: Callable[[Corrupted, Estimate], Tensor],
    corrupted: Corrupted,
    estimate: Estimate,
    mask: Tensor | None,
) -> Float[Tensor, " batch"]:
    """Return a bound's term for each dimension that a state really has.

    In a subspace all states are zero along the other dimensions, whose equal terms are
    subtracted.
    """
    terms = term(corrupted, estimate)
    if not hasattr(process, "subspace"):
        return mean_over_state(terms, mask)
    zero = corrupted.x0.new_zeros(len(terms), 1)
    blank = term(Corrupted(zero, zero, zero, corrupted.level), Estimate(zero, zero))
    return _without_blank(process, terms.flatten(1).sum(dim=1), blank[:, 0], corrupted.x0)


def _mean_prior(
    process: GaussianProcess, x0: Tensor, level: NoiseLevel, mask: Tensor | None
) -> Float[Tensor, " batch"]:
    if not hasattr(process, "subspace"):
        return prior_kl(x0, level, mask)
    whole = prior_kl(x0, level) * x0[0].numel()
    return _without_blank(process, whole, prior_kl(x0.new_zeros(len(x0), 1), level), x0)


def _without_blank(
    process: GaussianProcess, whole: Tensor, blank: Tensor, state: Tensor
) -> Float[Tensor, " batch"]:
    count = _dimensions(process, state, None)
    return (whole - (state[0].numel() - count) * blank) / count


def _dimensions(
    process: GaussianProcess, state: Tensor, mask: Tensor | None
) -> Float[Tensor, " batch"]:
    subspace = getattr(process, "subspace", None)
    if subspace is not None:
        return subspace.dimension(state).clamp(min=1)
    ones = torch.ones_like(state) if mask is None else mask.to(state).expand_as(state)
    return ones.flatten(1).sum(dim=1)
