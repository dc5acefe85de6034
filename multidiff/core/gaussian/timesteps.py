"""Training times, and the timesteps that sampling visits.

Training draws one time for each sample: a :class:`TimeSampler`. Sampling goes from the
noisiest time back to the clean end: a :class:`TimestepSchedule`, which has a number of steps
and computes its times for a given noise schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.devices import finest_dtype
from multidiff.core.draws import draws_nothing
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule, clean_level
from multidiff.core.random import Rng, uniform

# --------------------------------------------------------------------------- training


@runtime_checkable
class TimeSampler(Protocol):
    """Distribution of training times."""

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """Draw a time in [0, 1] for each sample."""
        ...

    def weight(self, time: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return loss weights at these times that keep the mean that of uniform times."""
        ...

    def observe(self, time: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]) -> None:
        """Learn from the losses at these times, which may be none."""
        ...


@draws_nothing
def _between(first: float, last: float, fraction: Tensor) -> Tensor:
    return first + (last - first) * (1 - fraction)


class UniformTimes:
    """Continuous times, uniform between two bounds.

    On a :class:`~multidiff.core.gaussian.schedules.BetaSchedule` this is WaveGrad's draw: a step
    uniformly, then a level uniformly between it and the step before (Chen et al. 2020,
    algorithm 1).

    Args:
        first: cleanest time drawn.
        last: noisiest time drawn.
    """

    def __init__(self, first: float = 0.0, last: float = 1.0):
        if not 0 <= first < last <= 1:
            raise ValueError(f"times must satisfy 0 <= first < last <= 1, not {first}, {last}")
        self.first, self.last = first, last

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """See :class:`TimeSampler`."""
        # 1 - u lies in (0, 1]: the noisiest time is drawn, the noiseless one never is.
        return _between(self.first, self.last, uniform((batch,), rng))

    @draws_nothing
    def weight(self, time: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`TimeSampler`."""
        return torch.ones_like(time)

    def observe(self, time: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]) -> None:
        """See :class:`TimeSampler`."""


class DiscreteTimes(UniformTimes):
    """The times of the schedule's table, all equally likely (Ho et al. 2020)."""

    def __init__(self):
        super().__init__()

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """See :class:`TimeSampler`."""
        steps = table_length(schedule, "discrete times")
        return (torch.floor(uniform((batch,), rng) * steps) + 1) / steps


class ImportanceTimes(nn.Module):
    """Table times drawn in proportion to the root mean square of their recent losses.

    Nichol & Dhariwal 2021, section 3.3 (eq. 18). Until every step has ``history`` losses the
    draw is uniform. :meth:`weight` divides by the probability, so the mean is unbiased. The
    losses are buffers, saved in checkpoints.

    Args:
        steps: length of the schedule's table.
        history: number of losses kept for each step.
        uniform_ratio: fraction of the probability spread evenly, so that none reaches 0.
    """

    def __init__(self, steps: int, history: int = 10, uniform_ratio: float = 0.001):
        if steps < 1 or history < 1 or not 0 < uniform_ratio <= 1:
            raise ValueError("importance times need steps >= 1, history >= 1, 0 < share <= 1")
        super().__init__()
        self.steps, self.history, self.uniform_ratio = steps, history, uniform_ratio
        self.losses: Tensor
        self.counts: Tensor
        self.register_buffer("losses", torch.zeros(steps, history, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(steps, dtype=torch.int64))

    def _apply(self, fn: Callable, recurse: bool = True) -> ImportanceTimes:
        """Move the losses like a module's buffers; to a device without float64 as float32."""
        target = fn(torch.empty(0)).device
        self.losses = self.losses.to(finest_dtype(target))
        return super()._apply(fn, recurse)

    def probabilities(self) -> Float[Tensor, " steps"]:
        """Return the current probability of each step of the table."""
        flat = torch.full_like(self.losses[:, 0], 1 / self.steps)
        if (self.counts < self.history).any():
            return flat
        root = self.losses.square().mean(dim=1).sqrt()
        return (1 - self.uniform_ratio) * root / root.sum() + self.uniform_ratio * flat

    def draw(self, schedule: NoiseSchedule, batch: int, rng: Rng | None) -> Float[Tensor, " batch"]:
        """See :class:`TimeSampler`."""
        if schedule.num_steps != self.steps:
            raise ValueError(f"times for {self.steps} steps, a schedule of {schedule.num_steps}")
        draws = uniform((batch,), rng)
        edges = self.probabilities().cumsum(0).to(draws.device)
        step = torch.searchsorted(edges, draws * edges[-1], right=True).clamp(max=self.steps - 1)
        return (step + 1) / self.steps

    def weight(self, time: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :class:`TimeSampler`."""
        step = self._step(time)
        return 1 / (self.steps * self.probabilities()[step.to(self.losses.device)]).to(time.device)

    def observe(self, time: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]) -> None:
        """See :class:`TimeSampler`; with several processes each learns from all of them."""
        steps, losses = self._step(time).cpu().double(), loss.detach().cpu().double()
        pairs = torch.stack([steps, losses], dim=1)
        for step, value in _from_every_process(pairs).tolist():
            row = int(step)
            self.losses[row, int(self.counts[row]) % self.history] = value
            self.counts[row] += 1

    def _step(self, time: Tensor) -> Tensor:
        return (time * self.steps).round().long() - 1


def _from_every_process(pairs: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return pairs
    everyone: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, pairs)
    return torch.cat(everyone)


# --------------------------------------------------------------------------- sampling


@dataclass(frozen=True)
class TimestepSchedule:
    """The times that sampling visits, computed for a given noise schedule.

    Attributes:
        num_steps: exact number of steps.
        find: function from the schedule to those times, strictly decreasing.
        end: function from the schedule to the final time; None is the clean level, where nearly
            all timestep schedules end.
    """

    num_steps: int
    find: Callable[[NoiseSchedule], Float[Tensor, " steps"]]
    end: Callable[[NoiseSchedule], float] | None = None

    def times(self, schedule: NoiseSchedule) -> Float[Tensor, " steps"]:
        """Return the times visited, noisiest first.

        Raises:
            ValueError: if the noise schedule has fewer timesteps than there are steps.
        """
        times = self.find(schedule)
        if len(times) != self.num_steps or not bool((times[1:] < times[:-1]).all()):
            raise ValueError(
                f"{self.num_steps} steps do not fit a schedule of {schedule.num_steps} steps: two "
                "of them fall on one time"
            )
        return times

    def levels(self, schedule: NoiseSchedule) -> list[NoiseLevel]:
        """Return the level of each step and, last, the final level (batch of one)."""
        each = schedule.at(self.times(schedule))
        visits = [each[i : i + 1] for i in range(self.num_steps)]
        last = clean_level()
        if self.end is not None:
            last = schedule.at(torch.tensor([self.end(schedule)], dtype=torch.float64))
        return [marked(one) for one in (*visits, last)]

    def tail(self, num_steps: int) -> TimestepSchedule:
        """Return only the last steps, to start sampling at an intermediate level.

        Raises:
            ValueError: if the schedule has fewer steps, or the number is less than 1.
        """
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"the last {num_steps} of {self.num_steps} steps do not exist")
        return TimestepSchedule(
            num_steps, lambda schedule: self.times(schedule)[-num_steps:], self.end
        )


def marked(level: NoiseLevel) -> NoiseLevel:
    """Return a level of one row with its position on the path: ``end``."""
    end = "clean" if float(level.sigma) == 0 else "noise" if float(level.alpha) == 0 else "between"
    return NoiseLevel(*level.parts(), end)


def uniform_timesteps(num_steps: int, first: float = 1.0) -> TimestepSchedule:
    """Return evenly spaced times from ``first`` down, between the table's timesteps if needed.

    Raises:
        ValueError: if there is no step, or the first time is outside (0, 1].
    """
    _at_least_one(num_steps)
    if not 0 < first <= 1:
        raise ValueError(f"first time {first:g}: must be above 0 and at most 1")
    visits = torch.linspace(first, 0, num_steps + 1, dtype=torch.float64)[:-1]
    return TimestepSchedule(num_steps, lambda _: visits)


def leading_timesteps(
    num_steps: int, offset: int = 0, stop_short: bool = False
) -> TimestepSchedule:
    """Return every ``T // n``-th timestep from the clean end: 900, 800 .. 0 for 10 of 1000.

    It skips the noisiest timesteps. Released Stable Diffusion 1.x samples with ``offset=1``
    and stops at the level of timestep 0 instead of the clean one (``stop_short``).
    If all timesteps are visited there is no room for an offset: sampling goes
    from the noisiest timestep to the clean end (where others read past their table).
    """
    spaced = _on_table(
        "leading times", num_steps, lambda steps: torch.arange(num_steps) * (steps // num_steps)
    )

    def shift(schedule: NoiseSchedule) -> int:
        steps = table_length(schedule)
        return min(offset, steps - 1 - (num_steps - 1) * (steps // num_steps))

    def find(schedule: NoiseSchedule) -> Tensor:
        return spaced(schedule).flip(0) + shift(schedule) / table_length(schedule)

    def first_step(schedule: NoiseSchedule) -> float:
        return 1 / table_length(schedule) if shift(schedule) == offset else 0.0

    return TimestepSchedule(num_steps, find, first_step if stop_short else None)


def trailing_timesteps(num_steps: int) -> TimestepSchedule:
    """Return timesteps spaced evenly from the noisy end: 999, 899 .. 99 for 10 of 1000.

    The spacing for zero terminal SNR (Lin et al. 2023, table 2), rounded as diffusers does.
    """
    positions = partial(trailing_positions, num_steps)
    return TimestepSchedule(num_steps, _on_table("trailing times", num_steps, positions))


def trailing_positions(num_steps: int, steps: int) -> Float[Tensor, " steps"]:
    """Return positions on a table, 0 to ``steps - 1``, spaced evenly from its noisy end.

    Halves round to even, after an error that is that of ``numpy.arange`` in diffusers.
    """
    spacing = (steps - steps / num_steps) - steps
    rows = torch.arange(num_steps, dtype=torch.float64)
    return (steps + rows * spacing).round() - 1


def linspace_timesteps(num_steps: int) -> TimestepSchedule:
    """Return both ends of the table and even timesteps between: 999, 888 .. 0 for 10 of 1000."""

    def positions(steps: int) -> Tensor:
        return torch.linspace(steps - 1, 0, num_steps, dtype=torch.float64)

    return TimestepSchedule(num_steps, _on_table("linspace times", num_steps, positions))


def log_snr_timesteps(
    num_steps: int, lowest: float | None = None, highest: float | None = None
) -> TimestepSchedule:
    """Return times at evenly spaced log signal-to-noise ratios.

    Args:
        num_steps: number of steps.
        lowest: log SNR of the first level; the schedule's noisiest by default (its
            noisiest with any signal, if it ends without).
        highest: log SNR of the last level; the schedule's cleanest by default.
    """
    _at_least_one(num_steps)

    def find(schedule: NoiseSchedule) -> Tensor:
        first, last = log_snr_ends(schedule)
        first = first if lowest is None else lowest
        last = last if highest is None else highest
        return schedule.time_at(torch.linspace(first, last, num_steps, dtype=torch.float64))

    return TimestepSchedule(num_steps, find)


def karras_timesteps(num_steps: int, rho: float = 7.0) -> TimestepSchedule:
    """Return times at which ``(sigma / alpha)^(1 / rho)`` is even (Karras et al. 2022, eq. 5).

    Both ends of the schedule are visited, and then the clean level; for an infinite end
    (a rectified flow's) the time a thousandth before.

    Args:
        num_steps: number of steps.
        rho: 7 concentrates steps at small noise; towards infinity it is :func:`log_snr_timesteps`.

    Raises:
        ValueError: if ``num_steps`` is less than 1, or rho is not above 0.
    """
    _at_least_one(num_steps)
    if not rho > 0:
        raise ValueError(f"rho {rho:g} must be above 0")

    def find(schedule: NoiseSchedule) -> Tensor:
        first, last = (math.exp(-end / (2 * rho)) for end in log_snr_ends(schedule))
        roots = torch.linspace(first, last, num_steps, dtype=torch.float64)
        return schedule.time_at(-2 * rho * torch.log(roots))

    return TimestepSchedule(num_steps, find)


def explicit_log_snrs(log_snrs: Sequence[float]) -> TimestepSchedule:
    """Return the given log signal-to-noise ratios as a timestep schedule, noisiest first."""
    _at_least_one(len(log_snrs))
    wanted = torch.tensor(log_snrs, dtype=torch.float64)
    return TimestepSchedule(len(log_snrs), lambda schedule: schedule.time_at(wanted))


def betas_as_times(betas: Sequence[float]) -> TimestepSchedule:
    """Return the levels of a short table of betas, located on a longer schedule.

    The published few-step schedules of WaveGrad and DiffWave have this form. Many begin far
    from pure noise although sampling starts there; docs/audio.md has the list.
    """
    alpha_bar = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)
    return explicit_log_snrs(torch.logit(alpha_bar).flip(0).tolist())


def _on_table(
    what: str, num_steps: int, positions: Callable[[int], Tensor]
) -> Callable[[NoiseSchedule], Tensor]:
    """Map positions 0 .. T-1, possibly fractional, to the times of the nearest timesteps."""
    _at_least_one(num_steps)

    def find(schedule: NoiseSchedule) -> Tensor:
        steps = table_length(schedule, what)
        if num_steps > steps:
            raise ValueError(f"{num_steps} steps asked of a schedule that has {steps}")
        return (positions(steps).double().round() + 1) / steps

    return find


def log_snr_ends(schedule: NoiseSchedule) -> tuple[float, float]:
    """Return both ends, or the log SNR one step (or thousandth) before where one is infinite."""
    table, beside = schedule.num_steps, 1 / (schedule.num_steps or 1000)
    clean_end = beside if table else 0.0
    ends = torch.tensor([1.0, 1.0 - beside, clean_end, beside], dtype=torch.float64)
    lowest, next_lowest, highest, next_highest = schedule.at(ends).log_snr.tolist()
    return (
        next_lowest if math.isinf(lowest) else lowest,
        next_highest if math.isinf(highest) else highest,
    )


def table_length(schedule: NoiseSchedule, what: str = "table times") -> int:
    """Return the number of steps of a schedule's table.

    Raises:
        ValueError: if it has none.
    """
    if schedule.num_steps is None:
        raise ValueError(
            f"{what} need a schedule with a table: use uniform_timesteps or log_snr_timesteps"
        )
    return schedule.num_steps


def _at_least_one(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"{num_steps} steps: at least one is needed")
