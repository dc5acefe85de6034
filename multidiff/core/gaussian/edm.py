"""The variance-exploding path and EDM's parts (Karras et al. 2022).

    xt = x0 + sigma noise,    sigma from 80 down to 0.002

EDM's preconditioning (table 1) is two parts here: the prediction "edm" is the network's output F
of ``D = c_skip xt + c_out F``, and :class:`ScaledInput` is ``c_in``. Its loss weight makes every
level count the same for F, so the plain mean squared error of F is EDM's loss.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.devices import in_float64
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.schedules import NoiseLevel, checked_times

# Tolerance for rounding past an end of the schedule.
SLACK = 1e-9


class VarianceExploding:
    """The noise schedule ``alpha = 1``, ``sigma^(1/rho)`` linear in time.

    Sampling starts from noise of standard deviation ``highest``, far above the data's. Evenly
    spaced times are EDM's schedule except its last level, which
    :func:`~multidiff.core.gaussian.timesteps.karras_timesteps` visits as well.

    Args:
        lowest: sigma at time 0, where the last step goes to the x0 estimate.
        highest: sigma at time 1.
        rho: concentration of times at small sigma.

    Raises:
        ValueError: if the sigmas are not 0 < lowest < highest, or rho is not above 0.
    """

    num_steps = None

    def __init__(self, lowest: float = 0.002, highest: float = 80.0, rho: float = 7.0):
        if not (0 < lowest < highest and rho > 0):
            raise ValueError(
                f"sigma from {lowest:g} to {highest:g} with rho {rho:g}: needs "
                "0 < lowest < highest and rho > 0"
            )
        self.lowest, self.highest, self.rho = lowest, highest, rho
        self._first, self._last = lowest ** (1 / rho), highest ** (1 / rho)

    def at(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        """Return the level at each time in [0, 1]."""
        time = checked_times(time)
        sigma = (self._first + time * (self._last - self._first)) ** self.rho
        return NoiseLevel(time, torch.ones_like(time), sigma)

    def time_at(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at which the schedule reaches each log signal-to-noise ratio.

        Raises:
            ValueError: if a level lies outside the schedule's range.
        """
        wanted = in_float64(log_snr)
        lowest, highest = -2 * math.log(self.highest), -2 * math.log(self.lowest)
        outside = (wanted < lowest - SLACK) | (wanted > highest + SLACK)
        if not torch.compiler.is_compiling() and outside.any():
            raise ValueError(
                f"log SNR {[round(float(x), 3) for x in wanted]} leaves the schedule's range "
                f"{lowest:.4g} .. {highest:.4g}"
            )
        root = torch.exp(-wanted / (2 * self.rho))
        return ((root - self._first) / (self._last - self._first)).clamp(0, 1)


class ScaledInput(nn.Module):
    """A network that reads noisy states scaled to unit variance: EDM's ``c_in``.

    The state is divided by ``sqrt(data_std^2 alpha^2 + sigma^2)``, its standard deviation where
    the data have ``data_std``. Without it a network on the variance-exploding path reads values of
    80. Attributes of the network are found on the wrapper as well.

    Args:
        network: any denoiser.
        data_std: standard deviation of the data, 0.5 for images in [-1, 1].

    Raises:
        ValueError: if ``data_std`` is not above 0.
    """

    def __init__(self, network: nn.Module, data_std: float = 0.5):
        super().__init__()
        if not data_std > 0:
            raise ValueError(f"data_std {data_std:g} must be above 0")
        self.network, self.data_std = network, data_std

    def forward(self, xt: Tensor, level: NoiseLevel, condition: Any = None) -> Tensor:
        """Return the network's output for the scaled state."""
        scale = torch.rsqrt((self.data_std * level.alpha) ** 2 + level.sigma**2)
        return self.network((spread(scale, xt) * xt).to(xt.dtype), level, condition)

    def __getattr__(self, name: str) -> Any:
        """Look a name up on the wrapper, then on the network."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":
                raise
            return getattr(super().__getattr__("network"), name)
