"""The Gaussian process: ``xt = alpha x0 + sigma noise``, learned and undone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.likelihood import prior_nats, step_nats
from multidiff.core.gaussian.losses import Objective, SimpleLoss
from multidiff.core.gaussian.predictions import (
    PREDICTIONS,
    EpsilonPrediction,
    PredictionName,
    combine,
)
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.timesteps import TimeSampler, TimestepSchedule, UniformTimes
from multidiff.core.protocols import Corrupted, Estimate
from multidiff.core.random import Rng, normal

# A level's total scale, sqrt(alpha^2 + sigma^2), at time 1: sampling starts from noise of scale 1.
LARGEST_FINAL_SCALE = 1.1
# By how much the first step of a walk may multiply an error of the predicted noise: a warning,
# and what is refused.
LARGE_GAIN, LARGEST_GAIN = 10.0, 50.0
# Above this signal scale the noisiest level is far from pure noise, and a walk that starts
# from pure noise starts where no training example was.
LARGEST_FINAL_ALPHA = 0.5


class GaussianProcess:
    """Gaussian diffusion of states of any shape ``(batch, ...)``.

    Args:
        schedule: how much noise at which time.
        prediction: what the network returns.
        objective: the training loss; mean squared error of the prediction where not given.
        times: how training draws times; uniform where not given.
        learns_variance: the network returns twice the channels (dimension 1), the second
            half saying where the reverse variance lies (Nichol & Dhariwal 2021, eq. 15).
        offset_noise: deviation of a further noise that is the same all over a channel
            (dimension 1). A network trained with some (0.1 is usual) learns to move a whole
            image's brightness, which plain noise never hides. Sampling has none.

    Raises:
        TypeError: if the schedule is none, such as the name of one.
        ValueError: if the network predicts noise and the schedule ends without signal (the
            clean state cannot be read from the noise there), if the schedule ends at a scale
            that sampling does not start from, or if nothing would train a learned variance.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "prior" in vars(cls) and cls.noise is GaussianProcess.noise:
            raise TypeError(
                f"{cls.__name__} has a prior of its own, but stochastic steps draw noise as well: "
                "override noise(shape, rng), from which prior, corrupt and steps all draw "
                "(noise = GaussianProcess.noise states that steps add plain noise)"
            )

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction: PredictionName = "epsilon",
        *,
        objective: Objective | None = None,
        times: TimeSampler | None = None,
        learns_variance: bool = False,
        offset_noise: float = 0.0,
    ):
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction {prediction!r}: one of {', '.join(PREDICTIONS)}")
        _check_schedule(schedule)
        last_alpha = float(schedule.at(torch.ones(1)).alpha)
        if prediction == "epsilon" and last_alpha == 0:
            raise ValueError(
                "the schedule ends with zero terminal SNR, where noise prediction says nothing "
                'about the clean state: use prediction="v" or "x0"'
            )
        if last_alpha > LARGEST_FINAL_ALPHA:
            warnings.warn(
                f"the schedule ends at alpha {last_alpha:.3f}: sampling starts from pure noise, "
                "which training will never have seen",
                stacklevel=2,
            )
        self.schedule = schedule
        self.prediction = PREDICTIONS[prediction]()
        self.objective = SimpleLoss() if objective is None else objective
        if learns_variance and isinstance(self.objective, SimpleLoss):
            raise ValueError(
                "learns_variance=True with an objective that never trains the variance: use "
                "objective=HybridLoss() and times=DiscreteTimes()"
            )
        self.times = UniformTimes() if times is None else times
        self.learns_variance, self.offset_noise = learns_variance, offset_noise

    def draw_level(self, batch: int, rng: Rng | None) -> NoiseLevel:
        """A training level for each of ``batch`` samples."""
        return self.schedule.at(self.times.draw(self.schedule, batch, rng))

    def corrupt(
        self,
        x0: Float[Tensor, " batch *state"],
        level: NoiseLevel,
        rng: Rng | None,
        mask: Tensor | None = None,
    ) -> Corrupted:
        """A draw from q(x_t | x_0), eq. (1); padding is noised like the rest.

        Raises:
            TypeError: if the states are no floating-point numbers.
        """
        check_states(x0)
        noise = self.noise(x0.shape, rng).to(x0.device, x0.dtype)
        if self.offset_noise:
            one_each = (*x0.shape[:2], *[1] * (x0.ndim - 2))
            noise = noise + self.offset_noise * normal(one_each, rng).to(noise)
        return Corrupted(combine(level.alpha, x0, level.sigma, noise), x0, noise, level)

    def loss(
        self, output: Tensor, corrupted: Corrupted, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """The objective for each sample, a mean over the places where the mask is 1.

        Weighted as the draw of the times asks, which learns from it while training.

        Raises:
            ValueError: if the output does not have the shape that the state asks for.
        """
        self._check_shape(output, corrupted.xt)
        loss = self.objective(self, output, corrupted, mask)
        time = corrupted.level.time
        weight = self.times.weight(time).to(loss)
        if torch.is_grad_enabled():
            self.times.observe(time, loss)
        return loss * weight

    def estimate(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> Estimate:
        """The denoiser's output read as (clean, noise).

        Raises:
            ValueError: if the output does not have the shape that the state asks for.
        """
        self._check_shape(output, xt)
        prediction, fraction = self.split(output)
        return self.prediction.estimate(prediction, xt, level, fraction)

    def _check_shape(self, output: Tensor, xt: Tensor) -> None:
        """An output that would only broadcast to the state trains and samples, but wrongly."""
        batch, *state = xt.shape
        if self.learns_variance:
            state[0] *= 2
        if output.shape != (batch, *state):
            raise ValueError(
                f"the denoiser returned {tuple(output.shape)}, but states of "
                f"{tuple(xt.shape)} ask for {(batch, *state)}"
            )

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction, and the variance fraction in [0, 1] where one is learned."""
        if not self.learns_variance:
            return output, None
        prediction, raw = output.chunk(2, dim=1)
        return prediction, (raw + 1) / 2

    def noise(self, shape: Sequence[int], rng: Rng | None) -> Tensor:
        """Draw standard normal noise, for training, the prior and the steps of samplers alike.

        A process whose states lie in a subspace, such as points with their centre of mass at
        zero, overrides this alone.
        """
        return normal(shape, rng)

    def prior(self, shape: Sequence[int], rng: Rng | None) -> Tensor:
        """Draw the noise where sampling starts."""
        return self.noise(shape, rng)

    def levels(self, times: TimestepSchedule) -> list[NoiseLevel]:
        """The levels a walk over these times visits, and the one where it ends."""
        return times.levels(self.schedule)

    walk_state = corrupt

    def prior_nats(
        self, x0: Tensor, level: NoiseLevel, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """See :func:`multidiff.core.gaussian.likelihood.prior_nats`."""
        return prior_nats(self, x0, level, mask)

    def step_nats(
        self,
        output: Tensor,
        corrupted: Corrupted,
        earlier: NoiseLevel,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, " batch"]:
        """See :func:`multidiff.core.gaussian.likelihood.step_nats`."""
        return step_nats(self, output, corrupted, earlier, mask, **options)

    def check_levels(self, levels: Sequence[NoiseLevel]) -> None:
        """Refuse a walk from pure noise whose first step drowns the state in the network's error.

        From the predicted noise the clean state is ``(xt - sigma noise) / alpha``. A step
        from alpha near 0 to a much larger one multiplies the network's error by their ratio. A
        projection that clips the clean state keeps it in bounds.

        Raises:
            ValueError: if the error grows fiftyfold; from tenfold on there is a warning.
        """
        first, second = levels[0], levels[1]
        gain = float((second.alpha / first.alpha).flatten()[0])
        if gain <= LARGE_GAIN or not isinstance(self.prediction, EpsilonPrediction):
            return
        cond = (
            f"the first step, from alpha {float(first.alpha[0]):.2g} to "
            f"{float(second.alpha[0]):.2g}, multiplies the error of a noise prediction by "
            f"{gain:.0f}: start later (log_snr_timesteps(n), leading_timesteps(n)), clip the "
            f"clean state "
            '(project=clip()), or train with prediction="v"'
        )
        if gain > LARGEST_GAIN:
            raise ValueError(cond)
        warnings.warn(cond, stacklevel=3)


def check_states(states: Tensor) -> None:
    """Refuse states to which noise cannot be added.

    Raises:
        TypeError: if they are integers or truth values.
    """
    if not states.is_floating_point():
        raise TypeError(
            f"states of {states.dtype}: Gaussian noise needs floating-point states (bytes: "
            "states / 127.5 - 1; tokens: MaskProcess)"
        )


def _check_schedule(schedule: NoiseSchedule) -> None:
    if isinstance(schedule, type) or not callable(getattr(schedule, "at", None)):
        raise TypeError(
            f"schedule {schedule!r}: give a schedule, such as md.BetaSchedule.cosine() or "
            "md.LogSNRSchedule()"
        )
    last = schedule.at(torch.ones(1))
    scale = float((last.alpha**2 + last.sigma**2).sqrt())
    if scale > LARGEST_FINAL_SCALE:
        raise ValueError(
            f"the schedule ends at alpha {float(last.alpha):.3g}, sigma {float(last.sigma):.3g}, "
            "but sampling starts from noise of deviation 1: divide both by "
            "sqrt(alpha^2 + sigma^2), the same process in other units"
        )
