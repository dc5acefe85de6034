"""Noise schedules: from a time in [0, 1] to the amounts of signal and noise.

The state at time ``t`` is ``xt = alpha(t) * x0 + sigma(t) * noise`` with
``alpha^2 + sigma^2 = 1`` (variance preserving; Ho et al. 2020, eq. 4, where
``alpha^2`` is written as alpha-bar). Time 0 is the clean end, time 1 the noisiest.

A table of ``T`` betas puts its step ``k = 0 .. T-1`` at time ``(k + 1) / T``; between two
steps ``alpha`` is interpolated linearly, which is the continuous noise level of WaveGrad
(Chen et al. 2020, section 2.3). Everything is kept in float64: ``1 - alpha^2`` taken from
a float32 table is wrong by 1e-4 where the noise is smallest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import finest_dtype, in_float64
from multidiff.core.draws import draws_nothing

# A beta of 1 destroys the signal in one step; tables that are made from an alpha-bar
# function stop short of it (Nichol & Dhariwal 2021, section 3.2).
LARGEST_BETA = 0.999
# Tolerance for rounding of a time out of [0, 1].
SLACK = 1e-6


# Position of a level on its path, known without reading the tensors, which would cost a graph break
# in torch.compile and a wait for the GPU.
End = Literal["clean", "between", "noise"]


def readable(value: Tensor) -> bool:
    """Return whether a tensor's values may be read: on the CPU, and not while it is traced."""
    here = type(value) is Tensor and value.device.type == "cpu"
    return here and not torch.compiler.is_compiling()


@dataclass(frozen=True)
class NoiseLevel:
    """Noise level of each state of a batch.

    The network receives the whole level and embeds what suits it: Stable Diffusion the
    time, WaveGrad ``alpha``, others ``log_snr``.

    Attributes:
        time: 0 (clean) to 1 (noisiest).
        alpha: scale of the clean signal.
        sigma: scale of the noise; ``alpha^2 + sigma^2 = 1`` on a variance-preserving path.
        end: "clean" without noise, "noise" without signal, "between" otherwise, for the whole
            batch; None if it is not known without reading the tensors.
    """

    time: Float[Tensor, " batch"]
    alpha: Float[Tensor, " batch"]
    sigma: Float[Tensor, " batch"]
    end: End | None = None

    def timestep(self, steps: int) -> Float[Tensor, " batch"]:
        """Return the level as the timestep that diffusers' networks read, 0 to steps - 1.

        Timestep ``k`` lies at time ``(k + 1) / steps``; levels between two timesteps get
        fractions. The time itself lies in [0, 1]: a network that embeds it as a timestep learns
        nothing about the level.

        Args:
            steps: number of timesteps, 1000 for most published networks.

        Raises:
            ValueError: if ``steps`` is less than 1.
        """
        if steps < 1:
            raise ValueError(f"{steps} steps: a table has at least one")
        exact = self.time * steps - 1
        whole = exact.round()
        near = (exact - whole).abs() < 1e-6 * steps
        return torch.where(near, whole, exact).clamp(min=0).float()

    @property
    @draws_nothing
    def log_snr(self) -> Float[Tensor, " batch"]:
        """``2 log(alpha / sigma)``: +inf where clean, -inf where no signal is left."""
        return 2 * (torch.log(self.alpha) - torch.log(self.sigma))

    def to(self, device: torch.device | str) -> NoiseLevel:
        """Return the same level on another device (as float32 where float64 is missing)."""
        dtype = finest_dtype(device)
        return self._each(lambda part: part.to(device=device, dtype=dtype))

    def expand(self, batch: int) -> NoiseLevel:
        """Return one level for every state of a batch of that size."""
        return self._each(lambda part: part.expand(batch))

    def __getitem__(self, rows: slice | Tensor) -> NoiseLevel:
        return self._each(lambda part: part[rows])

    @draws_nothing
    def _each(self, function: Callable[[Tensor], Tensor]) -> NoiseLevel:
        time, alpha, sigma = (function(part) for part in self.parts())
        return NoiseLevel(time, alpha, sigma, self.end)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three tensors, in the order of construction."""
        return self.time, self.alpha, self.sigma


def clean_level(batch: int = 1) -> NoiseLevel:
    """Return the level without any noise, where sampling ends."""
    zero = torch.zeros(batch, dtype=torch.float64)
    return NoiseLevel(zero, torch.ones_like(zero), zero, "clean")


def checked_times(time: Tensor) -> Float[Tensor, " batch"]:
    """Return times as float64, on the CPU where their device does not have it.

    Raises:
        TypeError: if they are integers: timesteps, perhaps.
        ValueError: if they leave [0, 1]; only plain tensors on the CPU are checked, since a GPU
            would have to be waited for.
    """
    if not time.is_floating_point():
        raise TypeError(
            f"times of {time.dtype}: times are floating point in [0, 1]; step k of a table of T "
            "steps lies at (k + 1) / T"
        )
    inside = (time >= -SLACK) & (time <= 1 + SLACK)
    if readable(time) and not bool(inside.all()):
        raise ValueError(
            f"time {float(time[~inside][0]):g} is not in [0, 1]; step k of a table of T "
            "steps lies at (k + 1) / T"
        )
    return in_float64(time)


@runtime_checkable
class NoiseSchedule(Protocol):
    """A curve of noise levels over time, and its inverse."""

    @property
    def num_steps(self) -> int | None:
        """Number of entries of the table, or None for a curve without one."""
        ...

    def at(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        """Return the level at each time in [0, 1]."""
        ...

    def time_at(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at which the schedule reaches each log signal-to-noise ratio."""
        ...


class BetaSchedule:
    """A table of betas, ``q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)``.

    Args:
        betas: the variances, each inside (0, 1).

    Raises:
        ValueError: if a beta is not inside (0, 1); the message names it.
    """

    def __init__(self, betas: Sequence[float] | Tensor):
        table = torch.as_tensor(betas, dtype=torch.float64).flatten().cpu()
        if table.numel() == 0:
            raise ValueError("betas are empty: give at least one")
        wrong = ~((table > 0) & (table < 1))
        if wrong.any():
            step = int(wrong.nonzero()[0])
            raise ValueError(
                f"beta {float(table[step]):g} at step {step} of {len(table)} is not inside (0, 1): "
                "a beta of 1 or more leaves no signal; use more steps or smaller betas"
            )
        self._set_alphas_cumprod(torch.cumprod(1 - table, dim=0))

    def _set_alphas_cumprod(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod
        self._alpha_knots = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod.sqrt()])

    @property
    def num_steps(self) -> int:
        """Length of the table, ``T``."""
        return len(self.alphas_cumprod)

    @property
    def betas(self) -> Float[Tensor, " steps"]:
        """Betas that correspond to the table of cumulated alphas."""
        knots = self._alpha_knots**2
        return 1 - knots[1:] / knots[:-1]

    @draws_nothing
    def at(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        """See :class:`NoiseSchedule`; exact at every ``k / T``, linear in alpha between."""
        wanted = checked_times(time)
        position = (wanted * self.num_steps).clamp(0, self.num_steps)
        nearest = position.round()
        # k / T * T misses k by an ulp for some k; the entry itself is meant, not a neighbour.
        rounding = 4 * self.num_steps * torch.finfo(time.dtype).eps
        position = torch.where((position - nearest).abs() < rounding, nearest, position)
        below = position.floor().long().clamp(max=self.num_steps - 1)
        fraction = position - below
        knots = self._alpha_knots.to(time.device)
        alpha = torch.lerp(knots[below], knots[below + 1], fraction)
        return NoiseLevel(wanted, alpha, ((1 - alpha) * (1 + alpha)).sqrt())

    def time_at(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`NoiseSchedule`.

        Raises:
            ValueError: if a level is noisier than the schedule's noisiest.
        """
        alpha = torch.sigmoid(in_float64(log_snr)).sqrt()
        descending = self._alpha_knots.to(alpha.device)
        if not torch.compiler.is_compiling() and (alpha < descending[-1] - 1e-12).any():
            raise ValueError(
                f"a level with alpha {float(alpha.min()):.4g} is noisier than the schedule's "
                f"noisiest, alpha {float(descending[-1]):.4g}"
            )
        # searchsorted needs an ascending table: mirror it.
        upper = torch.searchsorted(-descending, -alpha).clamp(1, self.num_steps)
        left, right = descending[upper - 1], descending[upper]
        return (upper - 1 + (left - alpha) / (left - right)) / self.num_steps

    def with_zero_terminal_snr(self) -> BetaSchedule:
        """Return the schedule shifted and scaled so that its last step has no signal at all.

        Lin et al. 2023, algorithm 1: the square roots of the cumulated alphas keep their
        first value and end at 0. Such a schedule cannot be used with epsilon prediction.
        """
        roots = self.alphas_cumprod.sqrt()
        first, last = roots[0], roots[-1]
        rescaled = BetaSchedule.__new__(BetaSchedule)
        rescaled._set_alphas_cumprod(((roots - last) * first / (first - last)) ** 2)
        return rescaled

    @classmethod
    def zero_terminal_snr(cls, schedule: BetaSchedule) -> BetaSchedule:
        """Return another schedule's :meth:`with_zero_terminal_snr`, for recipes."""
        return schedule.with_zero_terminal_snr()

    @classmethod
    def linear(
        cls, steps: int = 1000, first: float | None = None, last: float | None = None
    ) -> BetaSchedule:
        """Return betas that grow linearly: 1e-4 to 0.02 over 1000 steps (Ho et al. 2020).

        If ``first`` or ``last`` is not given, its default is multiplied by ``1000 / steps``,
        so that any number of steps ends at about the same noise (Nichol & Dhariwal 2021).

        Raises:
            ValueError: if that makes a beta of 1 or more, as at 20 steps or fewer.
        """
        scale = 1000 / steps
        low = 1e-4 * scale if first is None else first
        high = 0.02 * scale if last is None else last
        return cls(torch.linspace(low, high, steps, dtype=torch.float64))

    @classmethod
    def scaled_linear(
        cls, steps: int = 1000, first: float = 0.00085, last: float = 0.012
    ) -> BetaSchedule:
        """Return square roots of beta that grow linearly, as in Stable Diffusion.

        That code calls it "linear"; diffusers calls it "scaled_linear".
        """
        roots = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64)
        return cls(roots**2)

    @classmethod
    def cosine(cls, steps: int = 1000, offset: float = 0.008) -> BetaSchedule:
        """``alpha-bar(u) = cos^2(pi/2 (u + offset) / (1 + offset))`` (Nichol & Dhariwal 2021)."""
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return cls._from_alpha_bar(torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2)

    @classmethod
    def sqrt(cls, steps: int = 2000, offset: float = 1e-4) -> BetaSchedule:
        """``alpha-bar(u) = 1 - sqrt(u + offset)`` (Diffusion-LM, Li et al. 2022, appendix A)."""
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return cls._from_alpha_bar(1 - torch.sqrt(u + offset))

    @classmethod
    def _from_alpha_bar(cls, alpha_bar: Tensor) -> BetaSchedule:
        return cls((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA))


class LogSNRSchedule:
    """Log signal-to-noise ratio linear in time, without a table.

    Time 0 is the level ``highest``, not quite clean: the last reverse step goes from there
    to the clean estimate.

    Args:
        highest: log SNR at time 0.
        lowest: log SNR at time 1.

    Raises:
        ValueError: if ``lowest`` is not below ``highest``.
    """

    num_steps = None

    def __init__(self, highest: float = 10.0, lowest: float = -10.0):
        if not lowest < highest:
            raise ValueError(f"lowest log SNR {lowest:g} is not below the highest, {highest:g}")
        self.highest, self.lowest = highest, lowest

    @draws_nothing
    def at(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        """See :class:`NoiseSchedule`."""
        time = checked_times(time)
        log_snr = self.highest + (self.lowest - self.highest) * time
        return NoiseLevel(time, torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())

    def time_at(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`NoiseSchedule`.

        Raises:
            ValueError: if a level lies outside the schedule's range.
        """
        wanted = in_float64(log_snr)
        outside = (wanted < self.lowest - 1e-9) | (wanted > self.highest + 1e-9)
        if not torch.compiler.is_compiling() and outside.any():
            raise ValueError(
                f"log SNR {[round(float(x), 3) for x in wanted]} leaves the schedule's range "
                f"{self.lowest:g} .. {self.highest:g}"
            )
        return (wanted - self.highest) / (self.lowest - self.highest)
