"""Inverse problems: samples given a measurement ``y = A x0 + noise`` of them.

The x0 estimate of a posterior sample is, with J the derivative of the estimate by the noisy state,

    (1) x0 <- x0 + sigma^2 / alpha J^T A^T v,    (A C A^T + std^2 I) v = y - A x0

where C is the covariance of x0 given the noisy state. The choice of C determines the method:

    PiGDM    sigma^2 / (alpha^2 + sigma^2) I, that of data from N(0, I) (Song et al. 2023)
    MMPS     sigma^2 / alpha J, Tweedie's covariance, exact for an exact network
             (Rozet et al. 2024), by conjugate gradients with one backward pass each

Both are projections, so they work with every sampler. DPS and RePaint change the state instead and
are samplers around a sampler. On a pair of normals with a known posterior only MMPS is unbiased;
docs/paths.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.posterior import Transition
from multidiff.core.gaussian.predictions import combine, spread, with_x0
from multidiff.core.gaussian.samplers import DDPM, is_clean, step_noise
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Estimate, EstimateAt, Sampler
from multidiff.core.random import Rng

Operator = Callable[[Tensor], Tensor]


def observe_mask(mask: Tensor) -> Operator:
    """Return the operator that observes the state where the mask is 1: inpainting.

    Args:
        mask: 1 where the state is observed, broadcastable to it.
    """
    return lambda state: state * mask.to(state)


@dataclass(frozen=True)
class _PosteriorGuidance:
    """A projection after eq. (1).

    Attributes:
        measured: y, one for each sample or broadcastable to them.
        operator: A, any differentiable function of clean states; nonlinear ones are linearised.
        noise_std: standard deviation of the measurement's noise.
    """

    measured: Tensor
    operator: Operator
    noise_std: float = 0.01
    differentiates: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not self.noise_std > 0:
            raise ValueError(f"noise_std {self.noise_std:g} must be above 0")

    def __call__(self, estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        """Return the estimate given the measurement.

        Raises:
            ValueError: if the estimate was made without gradients (pass the projection to
                ``sample()``), or the measurement does not fit the operator.
        """
        if not (xt.requires_grad and estimate.x0.requires_grad):
            if xt.requires_grad:  # a network that ignores its state: it has no gradient
                return estimate
            raise ValueError(
                f"{type(self).__name__} differentiates the estimate: pass it to sample() as "
                "project=, alone or as the last of several projections"
            )
        x0, seen = self._seen(estimate.x0)
        gap = (self.measured.to(seen) - seen).detach()
        if gap.shape != seen.shape:
            raise ValueError(
                f"the measurement has shape {tuple(self.measured.shape)}, but the operator makes "
                f"{tuple(seen.shape)} of the states"
            )

        def transposed(v: Tensor) -> Tensor:
            return torch.autograd.grad(seen, x0, v, retain_graph=True)[0]

        def pulled(state: Tensor) -> Tensor:  # J^T
            return torch.autograd.grad(estimate.x0, xt, state, retain_graph=True)[0]

        has_signal = level.alpha > 0
        factor = torch.where(has_signal, level.sigma**2 / level.alpha, 0.0)
        v = self._solved(gap, transposed, pulled, level, factor)
        shift = spread(factor, xt) * pulled(transposed(v))
        return with_x0(estimate, (estimate.x0 + shift).to(xt.dtype), xt, level)

    def _seen(self, estimated: Tensor) -> tuple[Tensor, Tensor]:
        x0 = estimated.detach().requires_grad_()
        return x0, self.operator(x0)

    def _solved(
        self,
        gap: Tensor,
        transposed: Operator,
        pulled: Operator,
        level: NoiseLevel,
        factor: Float[Tensor, " batch"],
    ) -> Tensor:
        raise NotImplementedError

    def _forward(self, state: Tensor) -> Tensor:
        with torch.no_grad():
            return self.operator(state)


@dataclass(frozen=True)
class MMPS(_PosteriorGuidance):
    """Posterior guidance with Tweedie's covariance, the exact one (Rozet et al. 2024).

    Attributes:
        measured: y, one for each sample or broadcastable to them.
        operator: A, any differentiable function of clean states; nonlinear ones are linearised.
        noise_std: standard deviation of the measurement's noise.
        iterations: number of conjugate gradient steps, each one backward pass through the network.
    """

    iterations: int = 5

    def _solved(
        self,
        gap: Tensor,
        transposed: Operator,
        pulled: Operator,
        level: NoiseLevel,
        factor: Float[Tensor, " batch"],
    ) -> Tensor:
        def system(v: Tensor) -> Tensor:
            spread_out = spread(factor, gap) * pulled(transposed(v))
            return self._forward(spread_out.to(v.dtype)) + self.noise_std**2 * v

        return conjugate_gradients(system, gap, self.iterations)


@dataclass(frozen=True)
class PiGDM(_PosteriorGuidance):
    """Posterior guidance with the covariance of data from N(0, I) (Song et al. 2023).

    It costs one backward pass, and its samples are biased where the data are not from N(0, I).

    Attributes:
        measured: y, one for each sample or broadcastable to them.
        operator: A, any differentiable function of clean states; nonlinear ones are linearised.
        noise_std: standard deviation of the measurement's noise.
        iterations: number of conjugate gradient steps, which do not evaluate the network; 1 is
            exact where A selects values.
    """

    iterations: int = 5

    def _solved(
        self,
        gap: Tensor,
        transposed: Operator,
        pulled: Operator,
        level: NoiseLevel,
        factor: Float[Tensor, " batch"],
    ) -> Tensor:
        variance = level.sigma**2 / (level.alpha**2 + level.sigma**2)

        def system(v: Tensor) -> Tensor:
            seen = self._forward(transposed(v))
            return (spread(variance, v) * seen).to(v.dtype) + self.noise_std**2 * v

        return conjugate_gradients(system, gap, self.iterations)


def conjugate_gradients(
    system: Operator, right: Tensor, iterations: int
) -> Float[Tensor, " batch *measured"]:
    """Return v with ``system(v) = right``, each sample solved for itself.

    Args:
        system: a symmetric positive map of ``(batch, ...)``.
        right: right-hand side.
        iterations: largest number of steps; the number of measured values solves it exactly.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        total = (a * b).flatten(1).sum(dim=1)
        return total.reshape(-1, *[1] * (a.ndim - 1))

    v, residual = torch.zeros_like(right), right
    direction, size = residual, dot(residual, residual)
    smallest = torch.finfo(right.dtype).eps ** 2 * size
    for _ in range(iterations):
        image = system(direction)
        along = dot(direction, image)
        rate = torch.where((size > smallest) & (along > 0), size / along, 0.0)
        v, residual = v + rate * direction, residual - rate * image
        before, size = size, dot(residual, residual)
        direction = residual + torch.where(before > 0, size / before, 0.0) * direction
    return v


@dataclass(frozen=True)
class DPS:
    """Diffusion posterior sampling: a sampler around a sampler (Chung et al. 2023, alg. 1).

    After each step the state moves against the gradient of ``|y - A x0|``. The length of the
    move is tuned, not derived, so the samples are not draws from the posterior.

    Attributes:
        sampler: sampler that makes each step.
        measured: y, one for each sample or broadcastable to them.
        operator: A, any differentiable function of clean states.
        step_size: zeta of the paper, 0.3 to 1 for images.
    """

    sampler: Sampler
    measured: Tensor
    operator: Operator
    step_size: float = 1.0

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
        with torch.enable_grad():
            leaf = xt.detach().requires_grad_()
            estimate = estimate_at(leaf, level)
            gap = self.measured.to(leaf) - self.operator(estimate.x0)
            # The norm's gradient is 0 at 0, where that of a root of squares is NaN.
            distance = torch.linalg.vector_norm(gap.flatten(1), dim=1).sum()
            (gradient,) = torch.autograd.grad(distance, leaf)
        fraction = estimate.variance_fraction
        fraction = None if fraction is None else fraction.detach()
        known = Estimate(estimate.x0.detach(), estimate.noise.detach(), fraction)
        asked = _Known(estimate_at, xt, known)
        state, memory = self.sampler.step(asked, xt, level, next_level, memory, rng)
        return state - self.step_size * gradient, memory


@dataclass(frozen=True)
class _Known:
    """A context with a known estimate at one state."""

    context: Any
    state: Tensor
    estimate: Estimate

    def __call__(self, xt: Tensor, level: NoiseLevel) -> Estimate:
        return self.estimate if xt is self.state else self.context(xt, level)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


@dataclass(frozen=True)
class RePaint:
    """Inpainting by going back and forth at each step (Lugmayr et al. 2022, jump length 1).

    At each step the known part is inserted at the next level's noise, and the step is repeated
    from a state that is noised up from there. It approaches the posterior as resamplings grow.

    Attributes:
        known: clean states, broadcastable to the batch.
        mask: 1 where known, 0 where free, broadcastable to the batch.
        resamplings: number of steps made at each level, 10 in the paper.
        sampler: sampler that makes each step.
    """

    known: Tensor
    mask: Tensor
    resamplings: int = 10
    sampler: Sampler = field(default_factory=DDPM)

    def __post_init__(self) -> None:
        if self.resamplings < 1:
            raise ValueError(f"{self.resamplings} resamplings: at least 1")

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
        last, state = is_clean(next_level), xt
        for number in range(1 if last else self.resamplings):
            if number:
                noise = step_noise(estimate_at, state, rng).to(state.dtype)
                state = Transition(level, next_level).forward(state, noise)
            state, _ = self.sampler.step(estimate_at, state, level, next_level, None, rng)
            known = self.known.to(state).expand_as(state)
            if not last:
                noise = step_noise(estimate_at, state, rng).to(state.dtype)
                known = combine(next_level.alpha, known, next_level.sigma, noise)
            state = torch.where(self.mask.to(state.device).bool(), known, state)
        return state, None
