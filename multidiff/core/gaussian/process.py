"""The Gaussian process: ``xt = alpha x0 + sigma noise``, its losses and estimates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.draws import draws_nothing
from multidiff.core.gaussian.likelihood import prior_nats, step_nats
from multidiff.core.gaussian.linear_predictions import PredictionName, prediction_named
from multidiff.core.gaussian.losses import Objective, SimpleLoss
from multidiff.core.gaussian.predictions import ROUNDING, Prediction, combine
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.timesteps import TimeSampler, TimestepSchedule, UniformTimes
from multidiff.core.protocols import Corrupted, Estimate
from multidiff.core.random import Rng, normal

# Factors on the network's error in a step: from the first a warning, from the second an error.
LARGE_GAIN, LARGEST_GAIN = 10.0, 50.0
# With more signal than this the noisiest level is far from pure noise, and sampling, which
# starts from pure noise, starts where no training example was.
LARGEST_FINAL_SIGNAL = 0.5


class GaussianProcess:
    """Gaussian diffusion of states of any shape ``(batch, ...)``.

    Args:
        schedule: noise schedule.
        prediction: prediction of the network: "epsilon", "x0", "v", "flow", "edm", a name given to
            :func:`~multidiff.core.gaussian.linear_predictions.register_prediction`, or an object.
        objective: training loss; mean squared error of the prediction by default.
        times: distribution of the training times; uniform by default.
        learns_variance: whether the network returns twice the channels (dimension 1), the second
            half being the position of the reverse variance (Nichol & Dhariwal 2021, eq. 15).
        offset_noise: standard deviation of additional noise that is constant within a channel
            (dimension 1). A network trained with some (0.1 is usual) learns to change a whole
            image's brightness, which plain noise never hides. Sampling has none.

    Raises:
        TypeError: if the schedule is not one, such as a name.
        ValueError: if the prediction is unknown, if the schedule ends where the prediction does
            not determine x0 (epsilon without any signal), or if nothing would train a learned
            variance.
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
        prediction: PredictionName | Prediction = "epsilon",
        *,
        objective: Objective | None = None,
        times: TimeSampler | None = None,
        learns_variance: bool = False,
        offset_noise: float = 0.0,
    ):
        _check_schedule(schedule)
        self.schedule = schedule
        named = prediction_named(prediction) if isinstance(prediction, str) else prediction
        self.prediction = named
        last = schedule.at(torch.ones(1))
        if float(named.squared_error_per_x0(last)) == 0:
            raise ValueError(
                f"prediction {prediction!r}: the schedule ends with zero terminal SNR, where it "
                'does not determine x0: use prediction="v", "flow" or "x0"'
            )
        signal = float(last.alpha / torch.hypot(last.alpha, last.sigma))
        if signal > LARGEST_FINAL_SIGNAL:
            warnings.warn(
                f"the schedule ends at alpha {float(last.alpha):.3f}, sigma "
                f"{float(last.sigma):.3f}: sampling starts from pure noise, which training will "
                "never have seen",
                stacklevel=2,
            )
        self.objective = SimpleLoss() if objective is None else objective
        if learns_variance and isinstance(self.objective, SimpleLoss):
            raise ValueError(
                "learns_variance=True with an objective that never trains the variance: use "
                "objective=HybridLoss() and times=DiscreteTimes()"
            )
        self.times = UniformTimes() if times is None else times
        self.learns_variance, self.offset_noise = learns_variance, offset_noise

    def draw_level(self, batch: int, rng: Rng | None) -> NoiseLevel:
        """Draw a training level for each of ``batch`` samples."""
        return self.schedule.at(self.times.draw(self.schedule, batch, rng))

    def corrupt(
        self,
        x0: Float[Tensor, " batch *state"],
        level: NoiseLevel,
        rng: Rng | None,
        mask: Tensor | None = None,
    ) -> Corrupted:
        """Draw from q(x_t | x_0), eq. (1); padding is noised like the rest.

        Raises:
            TypeError: if the states are not floating-point numbers.
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
        """Return the objective for each sample, a mean over the positions where the mask is 1.

        It is weighted as the distribution of times requires, which learns from it in training.

        Raises:
            ValueError: if the output does not have the shape that the state requires.
        """
        self._check_shape(output, corrupted.xt)
        loss = self.objective(self, output, corrupted, mask)
        time = corrupted.level.time
        weight = self.times.weight(time).to(loss)
        if torch.is_grad_enabled():
            self.times.observe(time, loss)
        return loss * weight

    def estimate(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> Estimate:
        """Return the denoiser's output read as (x0, noise).

        Raises:
            ValueError: if the output does not have the shape that the state requires.
        """
        self._check_shape(output, xt)
        prediction, fraction = self.split(output)
        return self.prediction.estimate(prediction, xt, level, fraction)

    @draws_nothing
    def _check_shape(self, output: Tensor, xt: Tensor) -> None:
        """Reject an output that only broadcasts to the state: it would train, but wrongly."""
        batch, *state = xt.shape
        if self.learns_variance:
            state[0] *= 2
        if output.shape != (batch, *state):
            raise ValueError(
                f"the denoiser returned {tuple(output.shape)}, but states of "
                f"{tuple(xt.shape)} ask for {(batch, *state)}"
            )

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the prediction, and the variance fraction in [0, 1] if one is learned."""
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
        """Draw the noise where sampling starts: of unit variance on a variance-preserving path."""
        return _scaled(self.noise(shape, rng), self.start_scale())

    def start_scale(self, level: NoiseLevel | None = None) -> float:
        """Return the standard deviation of pure noise at a level, ``hypot(alpha, sigma)``.

        Args:
            level: level where sampling starts; the noisiest by default.
        """
        level = self.schedule.at(torch.ones(1)) if level is None else level
        scale = float(torch.hypot(level.alpha, level.sigma).flatten()[0])
        return 1.0 if abs(scale - 1) < ROUNDING else scale

    def start_at(self, prior: Tensor, level: NoiseLevel) -> Tensor:
        """Return a draw of the prior at the scale of the level where sampling starts."""
        return _scaled(prior, self.start_scale(level) / self.start_scale())

    def levels(self, times: TimestepSchedule) -> list[NoiseLevel]:
        """Return the levels visited with these times, and the final one."""
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
        """Reject levels between which a step amplifies the network's error too much.

        An error of the network is multiplied by ``sigma / |D|`` in the x0 estimate
        (:mod:`~multidiff.core.gaussian.linear_predictions`), of which the next state takes
        ``alpha``. For epsilon predictions that is the ratio of the two alphas: large where a step
        starts from nearly pure noise. A projection that clips the x0 estimate bounds it.

        Raises:
            ValueError: if the error grows fiftyfold; from tenfold on there is a warning.
        """
        # The last step takes the estimate itself, from a level that is nearly clean.
        there = [level.alpha.flatten()[:1] for level in levels[1:-1]]
        if not there:
            return
        here = [self.prediction.squared_error_per_x0(one).flatten()[:1] for one in levels[:-2]]
        gains = torch.cat(there) / torch.cat(here).sqrt()
        step = int(gains.argmax())
        if float(gains[step]) <= LARGE_GAIN:
            return
        first, second = levels[step], levels[step + 1]
        problem = (
            f"step {step + 1}, from alpha {float(first.alpha[0]):.2g} to "
            f"{float(second.alpha[0]):.2g}, multiplies the network's error by "
            f"{float(gains[step]):.0f}: start later (log_snr_timesteps(n), "
            "leading_timesteps(n)), clip the x0 estimate (project=clip()), or train with "
            'prediction="v"'
        )
        if float(gains[step]) > LARGEST_GAIN:
            raise ValueError(problem)
        warnings.warn(problem, stacklevel=3)


def _scaled(noise: Tensor, scale: float) -> Tensor:
    return noise if scale == 1 else noise * scale


@draws_nothing
def check_states(states: Tensor) -> None:
    """Reject states to which noise cannot be added.

    Raises:
        TypeError: if they are integers or booleans.
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
