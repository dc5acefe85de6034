"""The step between two levels: forward, posterior, and the variances of the reverse step.

With the noisier level ``a, s`` and the earlier (cleaner) one ``a', s'``:

    (1) a_step = a / a',  v_step = s^2 - a_step^2 s'^2   q(x_t | x_t')
    (2) mean = (a_step s'^2 noisy + a' v_step clean) / s^2
        variance = v_step s'^2 / s^2                     q(x_t' | x_t, x_0)

(2) is Ho et al. 2020, eq. 6 and 7. Both hold for any two levels, so a schedule that skips steps
takes its betas from the levels it visits and needs no table of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.predictions import combine, spread
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Estimate

ReverseVariance = Literal["small", "large", "learned"]


def check_variance(kind: str) -> None:
    """Reject an unknown kind of variance.

    Raises:
        ValueError: if it is not small, large or learned.
    """
    if kind not in get_args(ReverseVariance):
        raise ValueError(f"variance {kind!r}: one of {', '.join(get_args(ReverseVariance))}")


@dataclass(frozen=True)
class Transition:
    """The Gaussian between two levels: ``alpha_step``, ``variance_step`` of eq. (1).

    Attributes:
        level: the noisier level.
        earlier: the cleaner level.
    """

    level: NoiseLevel
    earlier: NoiseLevel

    @property
    def alpha_step(self) -> Float[Tensor, " batch"]:
        """Scale of x_t' in x_t."""
        return self.level.alpha / self.earlier.alpha

    @property
    def variance_step(self) -> Float[Tensor, " batch"]:
        """Variance added between the two: beta_t if they are neighbours in a table."""
        return self.level.sigma**2 - (self.alpha_step * self.earlier.sigma) ** 2

    @property
    def posterior_variance(self) -> Float[Tensor, " batch"]:
        """Variance of q(x_t' | x_t, x_0), eq. (2): the smallest reverse variance."""
        return self.variance_step * (self.earlier.sigma / self.level.sigma) ** 2

    @property
    def clean_weight(self) -> Float[Tensor, " batch"]:
        """Weight of the clean state in the mean of q(x_t' | x_t, x_0), eq. (2)."""
        return self.earlier.alpha * self.variance_step / self.level.sigma**2

    def posterior_mean(self, x0: Tensor, xt: Tensor) -> Tensor:
        """Return the mean of q(x_t' | x_t, x_0), eq. (2)."""
        from_noisy = self.alpha_step * (self.earlier.sigma / self.level.sigma) ** 2
        return combine(from_noisy, xt, self.clean_weight, x0)

    def blurred_variance(self, residual: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the variance of q(x_t' | x_t) if x_0 given x_t has the residual variance."""
        return self.posterior_variance + self.clean_weight**2 * residual

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        """Draw from q(x_t | x_t'), eq. (1), with the given noise."""
        return combine(self.alpha_step, state, self.variance_step.sqrt(), noise)

    def log_variance(
        self,
        kind: ReverseVariance,
        estimate: Estimate,
        floor: Float[Tensor, " batch"] | None = None,
    ) -> Tensor:
        """Return the log variance of p(x_t' | x_t), broadcastable to the state.

        Args:
            kind: "small" is the posterior's variance, "large" is beta, "learned" lies between
                the two, in logs, as the network predicts (Nichol & Dhariwal 2021, eq. 15).
            estimate: estimate with the learned fraction.
            floor: replaces the posterior's variance where that is 0, at the last step to
                the clean end; by convention that of the step before.

        Raises:
            ValueError: if the variance is to be learned and the network does not predict it.
        """
        check_variance(kind)
        small, large = self.posterior_variance, self.variance_step
        if floor is not None:
            last = self.earlier.sigma == 0
            small = torch.where(last, floor, small)
            large = torch.where(last, floor, large) if kind == "large" else large
        if kind != "learned":
            return spread(small if kind == "small" else large, estimate.x0).log()
        if estimate.variance_fraction is None:
            raise ValueError("the variance is not learned by this network: use small or large")
        low, high = spread(small, estimate.x0).log(), spread(large, estimate.x0).log()
        return low + (high - low) * estimate.variance_fraction
