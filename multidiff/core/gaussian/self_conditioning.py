"""A denoiser that is told its own last estimate (Chen et al. 2023, section 3).

The network reads twice the channels: the noisy state and, beside it, the clean state that was
estimated last, zeros where there is none. Training makes a first estimate, without gradients,
for some of the samples. Of some it may tell a part of the clean state itself, as a walk tells
what is known from its first step: so filling in is trained, and no mere replacement.
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
    """How a network is told its last estimate.

    Attributes:
        ratio: of the samples that training tells one.
        axis: of the state, along which it stands beside it.
        known: share of the samples of which training tells a part as it is. How large a part
            is uniform, and its places are independent.

    Raises:
        ValueError: if a share is none.
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
        """Which places training tells as they are, broadcastable to the state; None for none."""
        if self.known == 0:
            return None
        positions = [*xt.shape]
        positions[self.axis] = 1
        chance = uniform((len(xt), 2), rng).reshape(-1, 2, *[1] * (xt.ndim - 1))
        part = torch.where(chance[:, 0] < self.known, chance[:, 1], 0.0)
        return (uniform(positions, rng) < part).to(xt.device)

    def concat(self, xt: Tensor, last: Tensor) -> Tensor:
        """What the network reads."""
        return torch.cat([xt, last], dim=self.axis)


class SelfConditionedDenoiser:
    """A denoiser and a projection that remember the last estimate of a walk.

    One object serves one walk: pass it to :func:`~multidiff.core.sample.sample` as the
    denoiser and its :meth:`project` as the projection.

    Args:
        denoiser: trained with self-conditioning, perhaps guided.
        how: as it was trained.
        project: what is put into every estimate, before it is remembered.
        first: what is told before there is an estimate: what is known of the clean state,
            zeros where nothing is.
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
        """The denoiser's output, told the last estimate."""
        last = torch.zeros_like(xt) if self.last is None else self.last.to(xt)
        return self.denoiser(self.how.concat(xt, last), level, condition)

    def project(self, estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        """The projected estimate, which is remembered."""
        if self.inner is not None:
            estimate = self.inner(estimate, xt, level)
        self.last = estimate.x0
        return estimate
