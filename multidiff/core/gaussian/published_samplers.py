"""Samplers of published models as the diffusers library steps them: PLMS, TCD, and last steps.

The others are those of the neighbouring modules, with the options that their papers leave open.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multidiff.core.gaussian.multistep import Past, UniPC, exponential_step
from multidiff.core.gaussian.posterior import Transition
from multidiff.core.gaussian.predictions import EpsilonPrediction
from multidiff.core.gaussian.samplers import deterministic_step, is_clean, step_noise
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Corrupted, EstimateAt, Sampler
from multidiff.core.random import Rng

# Weights of the newest outputs first: Adams-Bashforth with even steps, orders 1 to 4.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class PLMS:
    """Pseudo linear multistep method (Liu et al. 2022, PNDM), as Stable Diffusion begins it.

    The network's outputs, whatever it predicts, are combined by the weights of Adams-Bashforth as
    if the steps were even, and DDIM steps by the combination. The first step is made again with
    the mean of the outputs at both ends: one evaluation more than there are steps.
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
        """See :class:`~multidiff.core.protocols.Sampler`; memory is the last outputs."""
        output = _output(estimate_at, xt, level)
        past = (output, *(memory or ()))[:4]
        mixed = sum(w * one for w, one in zip(ADAMS_BASHFORTH[len(past) - 1], past, strict=True))
        state = _by_output(estimate_at, mixed, xt, level, next_level)
        if memory is None and not is_clean(next_level):
            mean = (output + _output(estimate_at, state, next_level)) / 2
            state = _by_output(estimate_at, mean, xt, level, next_level)
        return state, past[:3]


def _prediction(estimate_at: Any) -> Any:
    process = getattr(estimate_at, "process", None)
    return EpsilonPrediction() if process is None else process.prediction


def _output(estimate_at: EstimateAt, xt: Tensor, level: NoiseLevel) -> Tensor:
    """Return the network's output, from its estimate."""
    one = estimate_at(xt, level)
    return _prediction(estimate_at).target(Corrupted(xt, one.x0, one.noise, level))


def _by_output(
    estimate_at: Any, output: Any, xt: Tensor, level: NoiseLevel, next_level: NoiseLevel
) -> Tensor:
    """Return the DDIM step by an output, whose estimate is projected as the network's are."""
    estimate = _prediction(estimate_at).estimate(output, xt, level)
    project = getattr(estimate_at, "project", None)
    estimate = estimate if project is None else project(estimate, xt, level)
    return estimate.x0 if is_clean(next_level) else deterministic_step(estimate, next_level)


class TCD:
    """Trajectory consistency sampling: a DDIM step too far, then noise (Zheng et al. 2024).

    Args:
        eta: fraction of the next time, counted from the clean end, that the step goes too far;
            0 is DDIM, 1 the sampler of consistency models.
    """

    def __init__(self, eta: float = 0.3):
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
        """See :class:`~multidiff.core.protocols.Sampler`; needs a schedule with a table."""
        estimate = estimate_at(xt, level)
        if is_clean(next_level):
            return estimate.x0, None
        schedule = getattr(getattr(estimate_at, "process", None), "schedule", None)
        steps = getattr(schedule, "num_steps", None)
        if schedule is None or steps is None:
            raise ValueError("TCD needs a process whose schedule has a table, such as BetaSchedule")
        index = torch.floor((1 - self.eta) * next_level.timestep(steps).double())
        beyond = schedule.at((index + 1) / steps)
        state = deterministic_step(estimate, beyond)
        if self.eta == 0:
            return state, None
        noise = step_noise(estimate_at, xt, rng)
        return Transition(next_level, beyond).forward(state, noise.to(state.dtype)), None


class FirstOrderUniPC(UniPC):
    """UniPC whose corrector is as before and whose predictor is DDIM: its last step."""

    def _predict(self, xt: Tensor, past: Past, next_level: NoiseLevel) -> Tensor:
        return exponential_step(xt, Past(past.values[:1], past.levels[:1]), next_level)


class WithLastStep:
    """A sampler whose last step is made by another one, such as one of first order.

    Args:
        sampler: sampler of all other steps.
        last: sampler of the last step.
        num_steps: number of steps that are made.
        remembers: whether the last step receives the memory of those before.
    """

    def __init__(self, sampler: Sampler, last: Sampler, num_steps: int, remembers: bool = False):
        self.sampler, self.last, self.num_steps = sampler, last, num_steps
        self.remembers = remembers

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; memory counts the steps."""
        done, inner = memory or (0, None)
        is_last = done + 1 == self.num_steps
        sampler = self.last if is_last else self.sampler
        inner = None if is_last and not self.remembers else inner
        state, inner = sampler.step(estimate_at, xt, level, next_level, inner, rng)
        return state, (done + 1, inner)
