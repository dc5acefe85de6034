"""Self-conditioning: a denoiser that reads its own last estimate (Chen et al. 2023, section 3).

The network reads twice the channels: the noisy state and, beside it, the last x0 estimate,
zeros before there is one. Training makes a first estimate, without gradients,
for some of the samples. For some it may reveal a part of the clean state itself, as sampling does
with known positions from its first step: so infilling is trained, not just replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Condition, Denoiser, Estimate, Projection
from multidiff.core.random import Rng, uniform


@dataclass(frozen=True)
class SelfConditioning:
    """Settings of self-conditioning.

    Attributes:
        ratio: fraction of the samples that receive their last estimate in training.
        axis: axis of the state along which the estimate is concatenated.
        known: fraction of the samples of which training reveals a part of the clean state. The
            size of the part is uniform, and its positions are independent.

    Raises:
        ValueError: if a fraction is out of range.
    """

    ratio: float = 0.5
    axis: int = -1
    known: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"share {self.ratio:g} is not in (0, 1]")
        if not 0 <= self.known <= 1:
            raise ValueError(f"known {self.known:g} is not in [0, 1]")

    def known_positions(self, xt: Tensor, rng: Rng | None) -> Tensor | None:
        """Return the positions that training reveals, broadcastable to the state, or None."""
        if self.known == 0:
            return None
        positions = [*xt.shape]
        positions[self.axis] = 1
        chance = uniform((len(xt), 2), rng).reshape(-1, 2, *[1] * (xt.ndim - 1))
        part = torch.where(chance[:, 0] < self.known, chance[:, 1], 0.0)
        return (uniform(positions, rng) < part).to(xt.device)

    def concat(self, xt: Tensor, last: Tensor) -> Tensor:
        """Return the network's input."""
        return torch.cat([xt, last], dim=self.axis)


class SelfConditionedDenoiser:
    """A denoiser and a projection that keep the last estimate of a sampling run.

    One object serves one run: pass it to :func:`~multidiff.core.sample.sample` as the
    denoiser and its :meth:`project` as the projection.

    Args:
        denoiser: network trained with self-conditioning, perhaps guided.
        how: settings that it was trained with.
        project: projection of every estimate, before it is kept.
        first: input before there is an estimate: known parts of the clean state,
            zeros elsewhere.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        how: SelfConditioning,
        project: Projection | None = None,
        first: Tensor | None = None,
    ):
        self.denoiser, self.how, self.inner, self.last = denoiser, how, project, first

    def __call__(self, xt: Tensor, level: NoiseLevel, condition: Condition = None) -> Tensor:
        """Return the denoiser's output, given the last estimate."""
        last = torch.zeros_like(xt) if self.last is None else self.last.to(xt)
        return self.denoiser(self.how.concat(xt, last), level, condition)

    def project(self, estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        """Return the projected estimate, and keep it."""
        if self.inner is not None:
            estimate = self.inner(estimate, xt, level)
        self.last = estimate.x0
        return estimate
