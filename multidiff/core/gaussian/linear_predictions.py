"""The table of predictions, and those that mix x0 and noise.

Every prediction is ``p = A x0 + B noise`` with coefficients that follow from the level. With
``xt = alpha x0 + sigma noise`` it determines the pair, with ``D = A sigma - B alpha``:

    x0 = (sigma p - B xt) / D,    noise = (A xt - alpha p) / D

    epsilon   A = 0               B = 1
    x0        A = 1               B = 0
    v         A = -sigma          B = alpha
    flow      A = -1              B = 1
    edm       A = sigma / (d R)   B = -d alpha / R     R^2 = sigma^2 + d^2 alpha^2

with d the standard deviation of the data. The first two have their own classes, which avoid a
division by 0 at a level without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.predictions import (
    EpsilonPrediction,
    Prediction,
    VPrediction,
    X0Prediction,
    combine,
)
from multidiff.core.gaussian.schedules import NoiseLevel, readable
from multidiff.core.protocols import Corrupted, Estimate

Coefficient = Callable[[NoiseLevel], Float[Tensor, " batch"]]
# D below this fraction of its two terms is rounding error only.
SINGULAR = 1e-9


class LinearPrediction:
    """The network returns ``A x0 + B noise``.

    Args:
        name: name for error messages.
        x0_coefficient: function from a level to A.
        noise_coefficient: function from a level to B.
    """

    def __init__(self, name: str, x0_coefficient: Coefficient, noise_coefficient: Coefficient):
        self.name, self.x0_coefficient = name, x0_coefficient
        self.noise_coefficient = noise_coefficient

    def target(self, corrupted: Corrupted) -> Tensor:
        """Return what a perfect network would return."""
        level = corrupted.level
        return combine(
            self.x0_coefficient(level), corrupted.x0,
            self.noise_coefficient(level), corrupted.noise,
        )  # fmt: skip

    def estimate(
        self, output: Tensor, xt: Tensor, level: NoiseLevel, fraction: Tensor | None = None
    ) -> Estimate:
        """Return the output read as (x0, noise).

        Raises:
            ValueError: if the prediction does not determine the pair at a level. Levels are
                checked only on the CPU, since a GPU would have to be waited for.
        """
        a, b = self.x0_coefficient(level), self.noise_coefficient(level)
        determinant = a * level.sigma - b * level.alpha
        if readable(determinant):
            self._check(determinant, a, b, level)
        x0 = combine(level.sigma / determinant, output, -b / determinant, xt)
        noise = combine(a / determinant, xt, -level.alpha / determinant, output)
        return Estimate(x0, noise, fraction)

    def squared_error_per_x0(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        """Return the squared error of the prediction for a squared error of 1 in x0."""
        a, b = self.x0_coefficient(level), self.noise_coefficient(level)
        return ((a * level.sigma - b * level.alpha) / level.sigma) ** 2

    def _check(self, determinant: Tensor, a: Tensor, b: Tensor, level: NoiseLevel) -> None:
        terms = (a * level.sigma).abs() + (b * level.alpha).abs()
        singular = determinant.abs() <= SINGULAR * terms
        if bool(singular.any()):
            where = float(level.time[singular][0])
            raise ValueError(
                f"prediction {self.name!r} does not determine x0 at time {where:.4g}: there it is "
                "a multiple of xt (A sigma = B alpha); choose other coefficients, or times "
                "without that level"
            )


class FlowPrediction(LinearPrediction):
    """The network returns ``noise - x0``, the velocity of a rectified flow (Liu et al. 2022)."""

    def __init__(self):
        super().__init__(
            "flow",
            lambda level: -torch.ones_like(level.alpha),
            lambda level: torch.ones_like(level.alpha),
        )


class EDMPrediction(LinearPrediction):
    """The network returns F, EDM's preconditioned output (Karras et al. 2022, table 1).

    Its target has unit variance at every level. With ``data_std`` 1 on a variance-preserving
    path, F is minus the velocity v.

    Args:
        data_std: standard deviation of the data.

    Raises:
        ValueError: if ``data_std`` is not above 0.
    """

    def __init__(self, data_std: float = 0.5):
        if not data_std > 0:
            raise ValueError(f"data_std {data_std:g} must be above 0")
        self.data_std = data_std
        super().__init__(
            "edm",
            lambda level: level.sigma / (data_std * self._scale(level)),
            lambda level: -data_std * level.alpha / self._scale(level),
        )

    def _scale(self, level: NoiseLevel) -> Float[Tensor, " batch"]:
        return torch.sqrt(level.sigma**2 + (self.data_std * level.alpha) ** 2)


PREDICTIONS: dict[str, Callable[[], Prediction]] = {
    "epsilon": EpsilonPrediction,
    "x0": X0Prediction,
    "v": VPrediction,
    "flow": FlowPrediction,
    "edm": EDMPrediction,
}


def register_prediction(
    name: str, x0_coefficient: Coefficient, noise_coefficient: Coefficient
) -> None:
    """Register ``A x0 + B noise`` as a prediction that processes and recipes can name.

    Args:
        name: a new name.
        x0_coefficient: function from a level to A, ``(batch,)``.
        noise_coefficient: function from a level to B, ``(batch,)``.

    Raises:
        ValueError: if the name is taken.
    """
    if name in PREDICTIONS:
        raise ValueError(f"prediction {name!r} exists already: choose another name")
    PREDICTIONS[name] = lambda: LinearPrediction(name, x0_coefficient, noise_coefficient)


def prediction_named(name: str) -> Prediction:
    """Return a new prediction by its name.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in PREDICTIONS:
        raise ValueError(f"no prediction {name!r}: one of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[name]()


# Recipes check the name by the function, before anything is built.
PredictionName = Annotated[str, prediction_named]
