"""How a model walks from noise to a sample, where nobody says otherwise."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from multidiff.core.gaussian.flow import shifted_timesteps
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.timesteps import (
    TimestepSchedule,
    karras_timesteps,
    leading_timesteps,
    linspace_timesteps,
    log_snr_timesteps,
    trailing_timesteps,
    uniform_timesteps,
)
from multidiff.core.protocols import Sampler
from multidiff.utils.errors import InputError

Value = TypeVar("Value")
GridName = Literal["leading", "trailing", "linspace", "even", "log-snr", "karras", "shifted"]
GRIDS: dict[str, Callable[[int], TimestepSchedule]] = {
    # What released Stable Diffusion does: one place later than the plain grid, and a last step
    # to the table's first level instead of the clean one.
    "leading": partial(leading_timesteps, offset=1, stop_short=True),
    "trailing": trailing_timesteps,
    "linspace": linspace_timesteps,
    "even": uniform_timesteps,
    "log-snr": log_snr_timesteps,
    "karras": karras_timesteps,
    "shifted": shifted_timesteps,
}
MOST_STEPS = 10_000


@dataclass(frozen=True)
class SamplingConfig:
    """The walk's defaults.

    Attributes:
        steps: of the sampler.
        grid: which times are visited.
        sampler: its name.
        guidance_scale: scale; 1 is off.
    """

    steps: int = 50
    grid: GridName = "even"
    sampler: str = "ddim"
    guidance_scale: float = 1.0

    def times(self, steps: int | None, table: int | None) -> TimestepSchedule:
        """The times of a walk of exactly so many steps.

        Args:
            steps: how many; the default where None.
            table: length of the schedule's table, if it has one.

        Raises:
            InputError: if there cannot be so many.
        """
        needs_table = self.grid in ("leading", "trailing", "linspace")
        return GRIDS[self.grid](self.count(steps, table if needs_table else None))

    def count(self, steps: int | None, most: int | None) -> int:
        """How many steps are made.

        Raises:
            InputError: if there cannot be so many.
        """
        count = self.steps if steps is None else steps
        if not 1 <= count <= (most or MOST_STEPS):
            raise InputError(
                f"--steps {count}: from 1 to {most or MOST_STEPS} for the grid {self.grid!r}"
            )
        return count

    def sampler_named(self, name: str | None) -> Sampler:
        """A sampler; the default where None (see :func:`sampler_named`)."""
        return sampler_named(self.sampler if name is None else name)

    def checked_guidance(self, guidance_scale: float | None) -> float:
        """A guidance scale; the default where None.

        Raises:
            InputError: if it is none.
        """
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        if not 0 <= guidance_scale < math.inf:
            raise InputError(f"--guidance-scale {guidance_scale:g}: 0 or more; 1 is off")
        return guidance_scale


def sampler_named(name: str) -> Sampler:
    """A sampler with its defaults.

    Raises:
        InputError: if there is none of that name.
    """
    return named(SAMPLERS, name, "sampler")()


def named(table: Mapping[str, Value], name: str, kind: str) -> Value:
    """What a name stands for in a table of samplers or orders.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        meant = f", perhaps {near[0]!r}" if near else ""
        raise InputError(f"no {kind} {name!r}{meant}: one of {', '.join(table)}")
    return table[name]


def token_temperature(temperature: float) -> float:
    """A temperature of tokens that are drawn.

    Raises:
        InputError: if it is none.
    """
    if not 0 <= temperature < math.inf:
        raise InputError(f"--temperature {temperature:g}: 0 (the likeliest) or more")
    return temperature
