"""Training times whose density itself is the weighting of the loss.

:class:`~multidiff.core.gaussian.timesteps.UniformTimes` and its subclasses keep the mean loss that
of uniform times. The distributions of this file do not: they train some levels more than others,
and each example has weight 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.flow import shift_times
from multidiff.core.gaussian.schedules import NoiseSchedule
from multidiff.core.random import Rng, normal


class TimeLaw:
    """A distribution of training times without weights: the base of those below."""

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """Return a time in [0, 1] for each sample."""
        raise NotImplementedError(f"{type(self).__name__} does not define how to draw times")

    def weight(self, time: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return 1 for each sample: the density of the times is the weighting."""
        return torch.ones_like(time)

    def observe(self, time: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]) -> None:
        """Ignore the losses: the distribution is fixed."""


class LogitNormalTimes(TimeLaw):
    """Times whose logit is normal, then shifted (Esser et al. 2024, section 3.1).

    Args:
        mean: mean of the logit; above 0 trains noisier levels more.
        std: standard deviation of the logit.
        shift: shift towards the noise, for large images; see
            :func:`~multidiff.core.gaussian.flow.shift_times`.

    Raises:
        ValueError: if ``std`` or ``shift`` is not above 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, shift: float = 1.0):
        if not (std > 0 and shift > 0):
            raise ValueError(f"logit-normal times: std {std:g} and shift {shift:g} must be above 0")
        self.mean, self.std, self.shift = mean, std, shift

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """Return a time in (0, 1) for each sample."""
        logits = self.mean + self.std * normal((batch,), rng, torch.float64)
        return shift_times(torch.sigmoid(logits), self.shift)


class LogNormalSigmas(TimeLaw):
    """Noise-to-signal ratios whose logarithm is normal (Karras et al. 2022, table 1).

    Ratios beyond the two ends of the schedule are trained at that end.

    Args:
        mean: mean of the natural logarithm of ``sigma / alpha``.
        std: standard deviation of the natural logarithm.

    Raises:
        ValueError: if ``std`` is not above 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2):
        if not std > 0:
            raise ValueError(f"log-normal sigmas: std {std:g} must be above 0")
        self.mean, self.std = mean, std

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """Return a time in [0, 1] for each sample."""
        log_snr = -2 * (self.mean + self.std * normal((batch,), rng, torch.float64))
        ends = schedule.at(torch.tensor([1.0, 0.0], dtype=torch.float64)).log_snr.tolist()
        return schedule.time_at(log_snr.clamp(*ends))
