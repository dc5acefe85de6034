"""Timesteps of published schedulers: a table's steps, places between them, and Karras' ratios.

The schedulers of the diffusers library differ in the steps that they visit, in the level that
sampling ends at, and in whether the network receives the time of the level or a rounded one. A
:class:`LevelSchedule` gives levels with times of their own; here ``ratio`` is ``sigma / alpha``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.timesteps import (
    TimestepSchedule,
    marked,
    table_length,
    trailing_positions,
)

Spacing = Literal["leading", "trailing", "linspace"]
# Stands for the ratio of a level without signal where that must be finite: alpha^2 is 2^-24.
LARGEST_RATIO = (2.0**24 - 1) ** 0.5
KARRAS_RHO = 7.0


@dataclass(frozen=True)
class LevelSchedule(TimestepSchedule):
    """Timesteps whose levels are given, so that a level's time need not be that of its ratio.

    Attributes:
        visit: function from the schedule to the levels visited, the final one last.
    """

    visit: Callable[[NoiseSchedule], NoiseLevel] = field(kw_only=True)

    def times(self, schedule: NoiseSchedule) -> Float[Tensor, " steps"]:
        """Return the times that the network receives, noisiest first; some may be equal."""
        return self.find(schedule)

    def levels(self, schedule: NoiseSchedule) -> list[NoiseLevel]:
        """Return the level of each step and, last, the final level (batch of one)."""
        found = self.visit(schedule)
        return [marked(found[i : i + 1]) for i in range(self.num_steps + 1)]

    def tail(self, num_steps: int) -> TimestepSchedule:
        """See :meth:`~multidiff.core.gaussian.timesteps.TimestepSchedule.tail`."""
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"the last {num_steps} of {self.num_steps} steps do not exist")
        return level_schedule(num_steps, lambda schedule: self.visit(schedule)[-num_steps - 1 :])


def level_schedule(num_steps: int, visit: Callable[[NoiseSchedule], NoiseLevel]) -> LevelSchedule:
    """Return a schedule of given levels (see :class:`LevelSchedule`)."""
    return LevelSchedule(num_steps, lambda schedule: visit(schedule).time[:-1], visit=visit)


def table_timesteps(
    num_steps: int,
    spacing: Spacing,
    *,
    offset: int = 0,
    final: Literal["clean", "first"] = "clean",
    fractional: bool = False,
    inner: bool = False,
    karras: bool = False,
) -> LevelSchedule:
    """Return the timesteps of a scheduler of the diffusers library.

    Args:
        num_steps: number of steps.
        spacing: position of the steps on the table (Lin et al. 2023, table 2).
        offset: number of steps by which leading ones are moved towards the noise.
        final: where sampling ends: at the clean level, or at the table's first one.
        fractional: whether times may lie between steps, as in the Euler, Heun and LMS schedulers;
            ratios are interpolated linearly. Otherwise they are rounded.
        inner: whether leading and linspace positions are those of one step more, of which the
            cleanest is left out, as in the DPM-Solver, UniPC and DEIS schedulers.
        karras: whether the ratios are spaced as in Karras et al. 2022 (eq. 5), between the ends of
            these positions if they are fractional, else between the ends of the table.

    Raises:
        ValueError: if ``num_steps`` is less than 1; later, if the table has fewer steps.
    """
    if num_steps < 1:
        raise ValueError(f"{num_steps} steps: at least one is needed")

    def visit(schedule: NoiseSchedule) -> NoiseLevel:
        steps = table_length(schedule, f"{spacing} times")
        if num_steps > steps:
            raise ValueError(f"{num_steps} steps asked of a schedule that has {steps}")
        table = _ratios(schedule, steps, finite=fractional or inner)
        position = _positions(num_steps, spacing, steps, offset, fractional, inner)
        ratio = _between(table, position)
        if karras:
            ends = (ratio[0], ratio[-1]) if fractional else (table[-1], table[0])
            ratio = karras_ratios(num_steps, *ends)
            position = _position_of(table, ratio)
            position = position if fractional else position.round()
        # Without room for the offset all steps are visited, and then the clean level.
        ends_clean = final == "clean" or (spacing == "leading" and position[-1] < offset)
        found = _levels(position, ratio, steps, None if ends_clean else table[0])
        return _unscaled_end(found) if fractional else found

    return level_schedule(num_steps, visit)


def lcm_timesteps(
    num_steps: int, original_steps: int = 50, final: Literal["clean", "first"] = "clean"
) -> LevelSchedule:
    """Return timesteps among those that a latent consistency model was distilled on.

    Luo et al. 2023: of ``original_steps`` even ones, such as 999, 979 .. 19, those nearest below
    an even division, from the noisy end.

    Args:
        num_steps: number of steps.
        original_steps: number of steps of the distillation.
        final: where sampling ends: at the clean level, or at the table's first one.

    Raises:
        ValueError: if there are more steps than in the distillation, or less than 1.
    """
    if not 1 <= num_steps <= original_steps:
        raise ValueError(
            f"{num_steps} steps: from 1 to {original_steps}, those of the distillation"
        )

    def visit(schedule: NoiseSchedule) -> NoiseLevel:
        steps = table_length(schedule, "the times of a distilled model")
        even = torch.arange(original_steps, 0, -1) * (steps // original_steps) - 1
        position = even[torch.arange(num_steps) * original_steps // num_steps].double()
        table = _ratios(schedule, steps, finite=False)
        first = table[0] if final == "first" else None
        return _levels(position, _between(table, position), steps, first)

    return level_schedule(num_steps, visit)


def karras_ratios(
    num_steps: int, first: Tensor, last: Tensor, rho: float = KARRAS_RHO
) -> Float[Tensor, " steps"]:
    """Return ratios between two ends whose roots ``ratio^(1 / rho)`` are even (eq. 5)."""
    even = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    start, end = first ** (1 / rho), last ** (1 / rho)
    return (start + even * (end - start)) ** rho


def _ratios(schedule: NoiseSchedule, steps: int, finite: bool) -> Float[Tensor, " steps"]:
    """Return ``sigma / alpha`` of each step of the table."""
    level = schedule.at(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    ratio = level.sigma / level.alpha
    return torch.where(ratio.isinf(), LARGEST_RATIO, ratio) if finite else ratio


def _positions(
    num_steps: int, spacing: Spacing, steps: int, offset: int, fractional: bool, inner: bool
) -> Float[Tensor, " steps"]:
    """Return positions on the table, 0 to ``steps - 1``, noisiest first."""
    count = num_steps + inner
    back = torch.arange(num_steps, dtype=torch.float64)
    if count > steps:  # all steps, where those of one more do not exist
        return steps - 1 - back
    if spacing == "trailing":
        return trailing_positions(num_steps, steps)
    up = torch.arange(count - 1, count - 1 - num_steps, -1, dtype=torch.float64)
    if spacing == "linspace":
        even = up * ((steps - 1) / (count - 1)) if count > 1 else up + steps - 1
        return even if fractional else even.round()
    # No room for an offset if all steps are visited.
    return up * (steps // count) + min(offset, steps - 1 - (count - 1) * (steps // count))


def _between(table: Tensor, position: Tensor) -> Tensor:
    """Return the table's values at positions, linear between two of them."""
    below = position.floor().long()
    above = position.ceil().long()
    return torch.where(
        below == above, table[below], torch.lerp(table[below], table[above], position - below)
    )


def _position_of(table: Tensor, ratio: Tensor) -> Tensor:
    """Return the positions of ratios on the table, linear in their logarithms."""
    logs, wanted = table.log(), ratio.log()
    above = torch.searchsorted(logs, wanted).clamp(1, len(table) - 1)
    low, high = logs[above - 1], logs[above]
    return above - 1 + ((wanted - low) / (high - low)).clamp(0, 1)


def _levels(position: Tensor, ratio: Tensor, steps: int, final: Tensor | None) -> NoiseLevel:
    """Return levels of these ratios, at the times of these positions, and the final level."""
    last = torch.zeros(1, dtype=torch.float64) if final is None else final[None]
    time = torch.cat([(position + 1) / steps, (last > 0).double() / steps])
    ratio = torch.cat([ratio, last])
    alpha = torch.rsqrt(1 + ratio**2)
    return NoiseLevel(time, alpha, torch.where(ratio.isinf(), 1.0, ratio * alpha))


def _unscaled_end(level: NoiseLevel) -> NoiseLevel:
    """Return levels whose last has a signal of 1, as states of Euler's scheduler are decoded."""
    alpha = torch.cat([level.alpha[:-1], torch.ones_like(level.alpha[-1:])])
    sigma = torch.cat([level.sigma[:-1], level.sigma[-1:] / level.alpha[-1:]])
    return NoiseLevel(level.time, alpha, sigma)
