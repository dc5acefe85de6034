"""Shared base of token processes: training levels, sampling levels, checks of logits."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from multidiff.core.discrete.schedules import MaskLevel, MaskSchedule
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.random import Rng, uniform


class TokenProcess:
    """Diffusion of tokens ``0 .. size - 1``, a scheduled fraction of which is kept.

    Args:
        size: number of tokens.
        schedule: fraction of tokens kept over time.
        first: cleanest time drawn in training.

    Raises:
        ValueError: if there are no tokens, or the time is not in [0, 1).
    """

    def __init__(self, size: int, schedule: MaskSchedule, first: float):
        if size < 1 or not 0 <= first < 1:
            raise ValueError(f"size {size} is under 1, or first {first:g} is not in [0, 1)")
        self.size, self.schedule, self.first = size, schedule, first

    def draw_level(self, batch: int, rng: Rng | None) -> MaskLevel:
        """Draw a training level for each of ``batch`` samples, at times in [first, 1].

        One generator (or None) stratifies the draws: each sample draws from its own stratum of
        the times. With one generator for each sample, samples are independent and their times
        are plain uniform draws.
        """
        draw = uniform((batch,), rng)
        if rng is None or isinstance(rng, torch.Generator):
            draw = (uniform((batch,), rng).argsort() + draw) / batch
        return self.schedule.at(self.first + (1 - self.first) * (1 - draw))

    def levels(self, times: TimestepSchedule) -> list[MaskLevel]:
        """Return the levels of sampling with these timesteps, and the clean one at its end."""
        visits = self.schedule.at(times.times(cast(Any, self.schedule)))
        x0 = self.schedule.at(torch.zeros(1, dtype=torch.float64))
        return [visits[i : i + 1] for i in range(times.num_steps)] + [x0]

    def check_width(self, logits: Tensor) -> None:
        """Reject logits for another number of tokens.

        Raises:
            ValueError: if the last dimension is not ``size``.
        """
        if logits.shape[-1] != self.size:
            raise ValueError(
                f"the network returns {logits.shape[-1]} logits for each position, expected one "
                f"for each of {self.size} tokens (a mask, number {self.size}, is never predicted)"
            )
