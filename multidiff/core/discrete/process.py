"""What every process of tokens shares: levels to train on, levels to visit, logits to expect."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from multidiff.core.discrete.schedules import MaskLevel, MaskSchedule
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.random import Rng, uniform


class TokenProcess:
    """Tokens ``0 .. size - 1`` on a schedule of shares that are kept.

    Args:
        size: number of tokens.
        schedule: share kept over time.
        first: cleanest time that training draws.

    Raises:
        ValueError: if there is no token, or the time is not in [0, 1).
    """

    def __init__(self, size: int, schedule: MaskSchedule, first: float):
        if size < 1 or not 0 <= first < 1:
            raise ValueError(f"size {size} is under 1, or first {first:g} is not in [0, 1)")
        self.size, self.schedule, self.first = size, schedule, first

    def draw_level(self, batch: int, rng: Rng | None) -> MaskLevel:
        """Return a training level for each of ``batch`` samples, at times in [first, 1].

        One generator (or none) spreads them: each sample has a stratum of the times of its
        own, drawn for it. With one generator each, samples are independent and their times are
        plain uniform draws.
        """
        draw = uniform((batch,), rng)
        if rng is None or isinstance(rng, torch.Generator):
            draw = (uniform((batch,), rng).argsort() + draw) / batch
        return self.schedule.at(self.first + (1 - self.first) * (1 - draw))

    def levels(self, times: TimestepSchedule) -> list[MaskLevel]:
        """Return the levels that these times visit, and the clean one where they end."""
        visits = self.schedule.at(times.times(cast(Any, self.schedule)))
        x0 = self.schedule.at(torch.zeros(1, dtype=torch.float64))
        return [visits[i : i + 1] for i in range(times.num_steps)] + [x0]

    def check_width(self, logits: Tensor) -> None:
        """Refuse logits of another number of tokens.

        Raises:
            ValueError: if the last dimension is not ``size``.
        """
        if logits.shape[-1] != self.size:
            raise ValueError(
                f"the network returns {logits.shape[-1]} logits for each position, not one for "
                f"each of {self.size} tokens (a mask, number {self.size}, is never predicted)"
            )
