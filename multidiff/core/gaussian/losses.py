"""Objectives of the Gaussian process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import in_float64, moved
from multidiff.core.draws import draws_nothing
from multidiff.core.gaussian.likelihood import (
    DiscretisedDecoder,
    LikelihoodDecoder,
    bound_term,
    last_variance_of,
)
from multidiff.core.gaussian.posterior import Transition
from multidiff.core.gaussian.predictions import mean_over_state
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.time_laws import TimeLaw
from multidiff.core.gaussian.timesteps import UniformTimes
from multidiff.core.protocols import Corrupted

if TYPE_CHECKING:
    from multidiff.core.gaussian.process import GaussianProcess

DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {"l2": torch.square, "l1": torch.abs}


@runtime_checkable
class Objective(Protocol):
    """Training objective."""

    def __call__(
        self, process: GaussianProcess, output: Tensor, corrupted: Corrupted, mask: Tensor | None
    ) -> Float[Tensor, " batch"]:
        """Return one loss for each sample."""
        ...


@runtime_checkable
class Weight(Protocol):
    """Weight of the loss at a level."""

    def __call__(self, process: GaussianProcess, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """Return a factor for each sample."""
        ...


class MinSNR:
    """``min(SNR, gamma)`` in units of the clean state's squared error (Hang et al. 2023).

    For epsilon prediction that is ``min(SNR, gamma) / SNR``, for v prediction
    ``min(SNR, gamma) / (SNR + 1)``.
    """

    def __init__(self, gamma: float = 5.0):
        self.gamma = gamma

    def __call__(self, process: GaussianProcess, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Weight`; finite at zero and at infinite SNR."""
        snr = (level.alpha / level.sigma) ** 2
        unit = process.prediction.squared_error_per_x0(level)
        weight = snr.clamp(max=self.gamma) / unit
        # SNR 0 under epsilon prediction is 0 / 0; its limit is 1.
        return torch.where(unit == 0, torch.ones_like(weight), weight)


class FlowWeight:
    """Squared error of the flow's velocity in units of the clean state's, ``(1 + r)^2 / r^2``.

    ``r`` is the noise-to-signal ratio. A network that predicts the clean state is so trained for
    the velocity of rectified flow (Li & He 2025); ``r / (1 + r)`` is bounded below, since the
    weight would be infinite at a clean state.

    Args:
        least_sigma: least sigma of the flow, ``r / (1 + r)``.

    Raises:
        ValueError: if it is not in (0, 1].
    """

    def __init__(self, least_sigma: float = 0.05):
        if not 0 < least_sigma <= 1:
            raise ValueError(f"least_sigma {least_sigma:g} is not in (0, 1]")
        self.least_sigma = least_sigma

    def __call__(self, process: GaussianProcess, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Weight`."""
        sigma = (level.sigma / (level.alpha + level.sigma)).clamp(min=self.least_sigma)
        return 1 / (sigma**2 * process.prediction.squared_error_per_x0(level))


class ConstantWeight:
    """One weight for every level; 0 leaves only the losses that a domain adds.

    Args:
        value: the factor.
    """

    def __init__(self, value: float):
        self.value = value

    def __call__(self, process: GaussianProcess, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """See :class:`Weight`."""
        return torch.full_like(level.alpha, self.value)


class SimpleLoss:
    """Distance between the network's output and its target.

    L2 is L_simple of Ho et al. 2020 (eq. 14), L1 is WaveGrad's.

    Args:
        distance: "l2" or "l1".
        weight: weight of each level; uniform by default.
    """

    def __init__(self, distance: Literal["l2", "l1"] = "l2", weight: Weight | None = None):
        if distance not in DISTANCES:
            raise ValueError(f"distance {distance!r}: one of {', '.join(DISTANCES)}")
        self.distance = DISTANCES[distance]
        self.weight = weight

    def errors(self, process: GaussianProcess, output: Tensor, corrupted: Corrupted) -> Tensor:
        """Return the distance at every position, unreduced and unweighted."""
        prediction, _ = process.split(output)
        return self.distance(prediction - process.prediction.target(corrupted))

    @draws_nothing
    def __call__(
        self, process: GaussianProcess, output: Tensor, corrupted: Corrupted, mask: Tensor | None
    ) -> Float[Tensor, " batch"]:
        """See :class:`Objective`."""
        loss = mean_over_state(self.errors(process, output, corrupted), mask)
        if self.weight is None:
            return loss
        return loss * self.weight(process, corrupted.level).to(loss)


class HybridLoss:
    """L_simple plus the variational bound, which trains only the variance.

    Nichol & Dhariwal 2021, eq. 16: the mean is detached in the bound's term. Draw times
    from the table (:class:`~multidiff.core.gaussian.timesteps.DiscreteTimes`).

    Args:
        simple: loss of the prediction.
        bound_weight: weight of the bound, in nats per dimension: one term drawn out of the
            T steps is multiplied by T.
        decoder: likelihood of the last term; 256 grey levels in [-1, 1] by default.
    """

    def __init__(
        self,
        simple: SimpleLoss | None = None,
        bound_weight: float = 0.001,
        decoder: LikelihoodDecoder | None = None,
    ):
        self.simple = SimpleLoss() if simple is None else simple
        self.bound_weight = bound_weight
        self.decoder = DiscretisedDecoder() if decoder is None else decoder

    def __call__(
        self, process: GaussianProcess, output: Tensor, corrupted: Corrupted, mask: Tensor | None
    ) -> Float[Tensor, " batch"]:
        """See :class:`Objective`.

        Raises:
            ValueError: if the process does not learn its variance, has no table, or draws
                times between its entries.
        """
        schedule = process.schedule
        if not process.learns_variance or schedule.num_steps is None:
            raise ValueError("the hybrid loss needs learns_variance=True and a table of betas")
        # A subclass, DiscreteTimes, uses the table.
        if type(process.times) is UniformTimes or isinstance(process.times, TimeLaw):
            raise ValueError("the hybrid loss needs times of the table: times=DiscreteTimes()")
        prediction, raw = output.chunk(2, dim=1)
        frozen = torch.cat([prediction.detach(), raw], dim=1)
        estimate = process.estimate(frozen, corrupted.xt, corrupted.level)
        time = in_float64(corrupted.level.time)
        earlier = schedule.at(time - 1 / schedule.num_steps).to(corrupted.xt.device)
        step = Transition(corrupted.level, earlier)
        floor = moved(last_variance_of(schedule, self.decoder), corrupted.xt.device)
        term = bound_term(step, corrupted, estimate, "learned", floor, self.decoder)
        bound = mean_over_state(term, mask) * schedule.num_steps * self.bound_weight
        return self.simple(process, output, corrupted, mask) + bound
