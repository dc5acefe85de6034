"""The variational bound on the likelihood, term by term.

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
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import in_float64
from multidiff.core.gaussian.posterior import ReverseVariance, Transition, check_variance
from multidiff.core.gaussian.predictions import mean_over_state, spread
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

# In steps of the grid: what rounding to half precision and back leaves of a grey level.
OFF_GRID = 0.05


def gaussian_kl(mean_q: Tensor, log_var_q: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(q || p) of two Gaussians at every place, in nats."""
    ratio = torch.exp(log_var_q - log_var_p)
    distance = (mean_q - mean_p) ** 2 * torch.exp(-log_var_p)
    return 0.5 * (log_var_p - log_var_q + ratio + distance - 1)


@runtime_checkable
class LikelihoodDecoder(Protocol):
    """The likelihood of the clean state under the last Gaussian of the walk."""

    def last_variance(self, before: Transition, last: Transition) -> Tensor:
        """The variance of that Gaussian, whose posterior has none (log 0).

        Args:
            before: the last step but one.
            last: the last step, to the clean level.
        """
        ...

    def nll(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Negative log likelihood at every place, in nats."""
        ...


class ContinuousDecoder:
    """The Gaussian's density, for states that are real numbers."""

    def last_variance(self, before: Transition, last: Transition) -> Tensor:
        """The largest admissible one, that of the noise removed (see ``LikelihoodDecoder``)."""
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
        bins: how many values there are; 256 for 8-bit images.
    """

    def __init__(self, bins: int = 256):
        if bins < 2:
            raise ValueError(f"{bins} bins: at least 2 are needed")
        self.half_width = 1 / (bins - 1)

    def check_range(self, x0: Tensor, mask: Tensor | None = None) -> None:
        """Refuse states outside the grid.

        Raises:
            ValueError: if a state that counts lies outside [-1, 1] by more than rounding.
        """
        furthest = float(_counted(x0, mask).abs().max())
        if not furthest <= 1 + self.half_width / 2:
            raise ValueError(
                f"states reach {furthest:.3g}, outside the grid in [-1, 1] of this decoder: use "
                "decoder=ContinuousDecoder() for states that are real numbers"
            )

    def check_grid(self, x0: Tensor, mask: Tensor | None = None) -> None:
        """Refuse states that are not values of the grid.

        Raises:
            ValueError: if one that counts lies outside [-1, 1], or most lie between two values.
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
        # Both on the left of the mean, where tails keep their digits: P(l < z < u) =
        # P(-u < z < -l); then log(e^a - e^b) = a + log1p(-e^(b - a)).
        flip = lower > 0
        left, right = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        log_right, log_left = torch.special.log_ndtr(right), torch.special.log_ndtr(left)
        inside = -torch.expm1((log_left - log_right).clamp(max=-1e-12))
        return -(log_right + inside.log())


def _counted(x0: Tensor, mask: Tensor | None) -> Tensor:
    return x0 if mask is None else x0[mask.to(torch.bool).expand_as(x0)]


def last_variance_of(schedule: NoiseSchedule, decoder: LikelihoodDecoder) -> Float[Tensor, " 1"]:
    """The decoder's variance for a walk over every step of a table.

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
    """One term of the bound at every place, in nats.

    The decoder's where the step ends at the clean level, a KL elsewhere. ``floor`` is the
    variance of a step to the clean level, ``residual`` that of the clean state itself, where
    it is known; it then settles the variance of every step.
    """
    mean = step.posterior_mean(estimate.x0, corrupted.xt)
    if residual is None:
        log_variance = step.log_variance(variance, estimate, floor.to(step.level.alpha.device))
    else:
        log_variance = spread(step.blurred_variance(residual), mean).log()
    true_mean = step.posterior_mean(corrupted.x0, corrupted.xt)
    # At the clean end the posterior has no width; its row is replaced just below.
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
        """Negative log likelihood of the clean state at the last step."""
        return self.steps[:, -1]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The whole bound: at least the negative log likelihood, in expectation."""
        return self.prior + self.steps.sum(dim=1)

    @property
    def bits_per_dim(self) -> Float[Tensor, " batch"]:
        """The whole bound in bits for each dimension."""
        return self.total / math.log(2)


def prior_kl(x0: Tensor, level: NoiseLevel, mask: Tensor | None = None) -> Float[Tensor, " batch"]:
    """KL(q(x_T | x_0) || N(0, I)) for each dimension, in nats."""
    mean = spread(level.alpha, x0) * x0
    zero = torch.zeros_like(mean)
    log_variance = 2 * spread(level.sigma, x0).log()
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
    """The bound along a walk, with one draw of the noise for each step.

    Args:
        process: whose walk it is.
        denoiser: any denoiser of it.
        x0: states to measure.
        condition: what the denoiser is told.
        times: the walk; every step of the table is the bound that papers report.
        rng: source of the draws.
        variance: that of the reverse steps.
        decoder: the last term's likelihood: :class:`ContinuousDecoder` for real numbers,
            :class:`DiscretisedDecoder` for a grid; where not given, the 256 grey levels in
            [-1, 1], which the states then must be.
        project: put into every estimate, as in sampling.
        mask: 1 where the state counts, 0 where it is padding; broadcast to it. Nats are then
            for each dimension that counts.
        residual: variance of the clean state given a noisy one that even a perfect estimate
            leaves, at every level; where it is known it takes the place of ``variance``.

    Raises:
        TypeError: if the times are a number, or the states integers.
        ValueError: if the walk has fewer than two steps, the variance is none, or the states are
            not on the decoder's grid.
    """
    check_times(times)
    check_variance(variance)
    if times.num_steps < 2:
        raise ValueError("a bound needs a walk of at least two steps")
    decoder = _decoder_of(x0, mask, decoder)
    batch = x0.shape[0]
    levels = [level.to(x0.device).expand(batch) for level in process.levels(times)]
    before, last = Transition(levels[-3], levels[-2]), Transition(levels[-2], levels[-1])
    floor = decoder.last_variance(before, last)
    terms = []
    for level, earlier in itertools.pairwise(levels):
        corrupted = process.corrupt(x0, level, rng)
        output = denoiser(corrupted.xt, level, condition)
        estimate = process.estimate(output, corrupted.xt, level)
        if project is not None:
            estimate = project(estimate, corrupted.xt, level)
        step = Transition(level, earlier)
        left = None if residual is None else residual(level)
        term = bound_term(step, corrupted, estimate, variance, floor, decoder, left)
        terms.append(mean_over_state(term, mask))
    return Bound(prior_kl(x0, levels[0], mask), torch.stack(terms, dim=1))


def prior_nats(
    process: GaussianProcess, x0: Tensor, level: NoiseLevel, mask: Tensor | None = None
) -> Float[Tensor, " batch"]:
    """Return KL(q(x_T | x_0) || prior) of each whole state, in nats."""
    x0, mask = _in_coordinates(process, x0), _of_coordinates(process, mask)
    return prior_kl(x0, level, mask) * _count(x0, mask)


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
        output: what the network returned.
        corrupted: noisy states, and what they were made of.
        earlier: level where the step ends.
        mask: 1 where the state counts.
        noisier: level of the step before, of which the decoder may take its variance.
        decoder: likelihood at the clean level; the density of real numbers where not given.
    """
    level = corrupted.level
    decoder = ContinuousDecoder() if decoder is None else decoder
    estimate = process.estimate(output, corrupted.xt, level)
    states = (corrupted.xt, corrupted.x0, corrupted.noise, estimate.x0, estimate.noise)
    xt, x0, noise, x0_found, noise_found = (_in_coordinates(process, one) for one in states)
    step = Transition(level, earlier)
    before = step if noisier is None else Transition(noisier, level)
    term = bound_term(
        step,
        Corrupted(xt, x0, noise, level),
        Estimate(x0_found, noise_found, estimate.variance_fraction),
        "learned" if process.learns_variance else "small",
        decoder.last_variance(before, step),
        decoder,
    )
    mask = _of_coordinates(process, mask)
    return mean_over_state(term, mask) * _count(term, mask)


def _in_coordinates(process: GaussianProcess, state: Tensor) -> Tensor:
    """Return states as coordinates of the subspace that they lie in, where there is one."""
    coordinates = getattr(process, "coordinates", None)
    return state if coordinates is None else coordinates(state)


def _of_coordinates(process: GaussianProcess, mask: Tensor | None) -> Tensor | None:
    return mask if getattr(process, "coordinates", None) is None else None


def _count(state: Tensor, mask: Tensor | None) -> Float[Tensor, " batch"]:
    ones = torch.ones_like(state) if mask is None else mask.to(state).expand_as(state)
    return ones.flatten(1).sum(dim=1)
