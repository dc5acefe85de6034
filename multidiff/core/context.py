"""Context of a sampler: estimates at any state and level, and levels between those visited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import (
    Condition,
    Denoiser,
    Estimate,
    Level,
    Process,
    Projection,
    Reading,
)
from multidiff.core.random import Rng, normal

# Set on projections that differentiate the estimate with respect to the noisy state.
DIFFERENTIATES = "differentiates"


@dataclass(frozen=True)
class SamplerContext:
    """Estimates of one process by one denoiser, as the first argument of ``Sampler.step``.

    Called with a state and a level it returns the estimate there. A sampler may call it as often
    as it needs, also at levels that the timestep schedule does not visit (:meth:`at_log_snr`).

    Attributes:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided.
        condition: condition of each sample.
        project: projection of every estimate, or None (clipping, inpainting, an inverse problem).
    """

    process: Process
    denoiser: Denoiser
    condition: Condition = None
    project: Projection | None = None

    def __call__(self, xt: Tensor, level: Level) -> Reading:
        """Return the estimate at a noisy state, projected."""
        if not getattr(self.project, DIFFERENTIATES, False):
            return self._estimate(xt, level)
        with torch.enable_grad():
            estimate = self._estimate(xt.detach().requires_grad_(), level)
        fraction = estimate.variance_fraction
        return Estimate(
            estimate.x0.detach(),
            estimate.noise.detach(),
            None if fraction is None else fraction.detach(),
        )

    def _estimate(self, xt: Tensor, level: Level) -> Reading:
        output = self.denoiser(xt, level, self.condition)
        estimate = self.process.estimate(output, xt, level)
        if self.project is None:
            return estimate
        estimate = self.project(estimate, xt, level)
        # A projection knows nothing of the subspace that a process keeps its states in.
        keep = getattr(self.process, "in_subspace", None)
        return estimate if keep is None else keep(estimate)

    def noise(self, state: Tensor, rng: Rng | None) -> Tensor:
        """Draw the noise of a stochastic step, on the device of the generators."""
        draw = getattr(self.process, "noise", normal)
        return draw(state.shape, rng).to(state.device)

    def at_log_snr(self, log_snr: Float[Tensor, " batch"]) -> NoiseLevel:
        """Return the level of the process's own path at a log signal-to-noise ratio.

        Networks that embed the time receive the matching one. Ratios beyond the two ends of the
        path are clamped to those ends.

        Raises:
            TypeError: if the process has no noise schedule.
        """
        schedule: Any = getattr(self.process, "schedule", None)
        if not callable(getattr(schedule, "time_at", None)):
            raise TypeError(
                f"{type(self.process).__name__} has no noise schedule: samplers that make levels "
                "of their own need a Gaussian process"
            )
        ends = torch.tensor([1.0, 0.0], dtype=log_snr.dtype)
        lowest, highest = schedule.at(ends).log_snr.to(log_snr)
        time = schedule.time_at(torch.minimum(torch.maximum(log_snr, lowest), highest))
        return schedule.at(time).to(log_snr.device)
