"""Classifier guidance: a sampler around a sampler (plug-and-play, Li et al. 2022, section 5.1).

After each step the new state is moved towards a higher likelihood of the wanted properties:

    x <- x + rate sigma^2 grad [ log p(wanted | x) - fluency |x - x'|^2 / (2 sigma^2) ]

with ``x'`` the state that the step reached. Each sample has its own gradient: the
properties wanted of one do not affect the others in its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.samplers import is_clean
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import EstimateAt, Sampler
from multidiff.core.random import Rng

LogLikelihood = Callable[[Tensor, NoiseLevel], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class ClassifierGuidance:
    """A sampler whose states are guided by the gradient of a classifier.

    Attributes:
        sampler: sampler that makes each step.
        wanted: log likelihood of the wanted properties, given noisy states and their level.
        updates: number of updates of the state after each step; 0 changes nothing, to the bit.
        rate: size of each update; 1 is the scale of classifier guidance for one update.
        fluency: weight of the penalty on moving away from the sampler's state.

    Raises:
        ValueError: if a number is negative.
    """

    sampler: Sampler
    wanted: LogLikelihood
    updates: int = 3
    rate: float = 1.0
    fluency: float = 0.01

    def __post_init__(self) -> None:
        if self.updates < 0 or self.rate < 0 or self.fluency < 0:
            raise ValueError(
                f"updates {self.updates}, rate {self.rate:g}, fluency {self.fluency:g}: 0 or more"
            )

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`; the last step is not changed."""
        state, memory = self.sampler.step(estimate_at, xt, level, next_level, memory, rng)
        if is_clean(next_level):
            return state, memory
        come_to, variance = state, spread(next_level.sigma**2, state)
        for _ in range(self.updates):
            control_strength = variance * self._gradient(state, next_level)
            state = state + self.rate * (control_strength - self.fluency * (state - come_to))
        return state, memory

    @torch.enable_grad()
    def _gradient(self, state: Tensor, level: NoiseLevel) -> Tensor:
        found = state.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.wanted(found, level).sum(), found)
        return gradient
