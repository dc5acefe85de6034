"""Rectified flow: the straight path from data to noise (Liu et al. 2022; Lipman et al. 2022).

    xt = (1 - t) x0 + t noise,    flow = noise - x0 = d xt / d t

Stable Diffusion 3 (Esser et al. 2024) trains on it with logit-normal times and samples on evenly
spaced times that are shifted towards the noise for large images. Everything else of a flow model
is the same as of any other Gaussian path: processes, samplers, guidance and bounds read the level.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import in_float64
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule, checked_times
from multidiff.core.gaussian.timesteps import TimestepSchedule, log_snr_ends


def shift_times(time: Float[Tensor, " batch"], shift: float) -> Float[Tensor, " batch"]:
    """Return times moved towards the noise: ``shift t / (1 + (shift - 1) t)``.

    Esser et al. 2024, eq. 23. A factor above 1 spends more of the times at large noise, which large
    images need; 1 changes nothing.
    """
    return shift * time / (1 + (shift - 1) * time)


class RectifiedFlow:
    """The noise schedule ``alpha = 1 - t``, ``sigma = t``.

    Its log SNR is +inf at time 0 and -inf at time 1, where a network cannot predict the noise:
    use ``prediction="flow"``, "v" or "x0".
    """

    num_steps = None

    def at(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        """Return the level at each time in [0, 1]."""
        time = checked_times(time).clamp(0, 1)
        return NoiseLevel(time, 1 - time, time)

    def time_at(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at which the schedule reaches each log signal-to-noise ratio."""
        return torch.sigmoid(-in_float64(log_snr) / 2)


def shifted_timesteps(num_steps: int, shift: float = 0.4) -> TimestepSchedule:
    """Return a schedule even in the flow's time ``sigma / (alpha + sigma)``, then shifted.

    On a rectified flow with shift 1 these are evenly spaced times; on any other path they are the
    levels of the same noise-to-signal ratios, from the noisiest level down. At few steps it is
    the best schedule known on every path, see docs/paths.md. Stable Diffusion 3 shifts by 3 at
    1024 x 1024 pixels.

    Args:
        num_steps: number of steps.
        shift: above 1 towards the noise, below 1 towards the data (:func:`shift_times`).

    Raises:
        ValueError: if ``num_steps`` is less than 1, or the shift is not above 0.
    """
    if num_steps < 1 or not shift > 0:
        raise ValueError(f"{num_steps} steps with shift {shift:g}: both must be above 0")

    def find(schedule: NoiseSchedule) -> Tensor:
        noisiest = schedule.at(torch.ones(1, dtype=torch.float64)).log_snr
        cleanest = torch.tensor([log_snr_ends(schedule)[1]], dtype=torch.float64)
        # Ends in the clock before the shift; the schedule would end at 0, one step on.
        first, last = (
            float(shift_times(torch.sigmoid(-end / 2), 1 / shift)) for end in (noisiest, cleanest)
        )
        even = torch.linspace(min(first, 1), 0, num_steps + 1, dtype=torch.float64)[:-1]
        if even[-1] < last:
            even = torch.linspace(first, last, num_steps, dtype=torch.float64)
        return schedule.time_at(-2 * torch.logit(shift_times(even, shift).clamp(max=1)))

    return TimestepSchedule(num_steps, find)


def flow_match_timesteps(num_steps: int, shift: float = 1.0, table: int = 1000) -> TimestepSchedule:
    """Return the times of Stable Diffusion 3, as diffusers' FlowMatchEulerDiscreteScheduler.

    They are even between 1 and the shifted first step of a table, and shifted then: the shift acts
    twice, and the last step is larger than in :func:`shifted_timesteps`. For a
    :class:`RectifiedFlow`, whose DDIM step is the flow's Euler step.

    Args:
        num_steps: number of steps.
        shift: above 1 towards the noise (:func:`shift_times`).
        table: number of training timesteps there.

    Raises:
        ValueError: if ``num_steps`` is less than 1, or the shift is not above 0.
    """
    if num_steps < 1 or not shift > 0:
        raise ValueError(f"{num_steps} steps with shift {shift:g}: both must be above 0")
    last = shift * (1 / table) / (1 + (shift - 1) / table)
    times = shift_times(torch.linspace(1, last, num_steps, dtype=torch.float64), shift)
    return TimestepSchedule(num_steps, lambda _: times)
