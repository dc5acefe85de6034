"""How a model walks from noise to a sample, where nobody says otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from multidiff.core.gaussian.samplers import SOLVERS
from multidiff.core.gaussian.timesteps import (
    TimeGrid,
    even_times,
    leading_times,
    linspace_times,
    log_snr_times,
    trailing_times,
)
from multidiff.core.protocols import Solver
from multidiff.utils.errors import InputError

Value = TypeVar("Value")
GridName = Literal["leading", "trailing", "linspace", "even", "log-snr"]
GRIDS: dict[str, Callable[[int], TimeGrid]] = {
    # What released Stable Diffusion does: one place later than the plain grid, and a last step
    # to the table's first level instead of the clean one.
    "leading": partial(leading_times, offset=1, stop_short=True),
    "trailing": trailing_times,
    "linspace": linspace_times,
    "even": even_times,
    "log-snr": log_snr_times,
}
MOST_STEPS = 10_000


@dataclass(frozen=True)
class Walk:
    """The walk's defaults.

    Attributes:
        steps: of the solver.
        grid: which times are visited.
        solver: its name.
        guidance: scale; 1 is off.
    """

    steps: int = 50
    grid: GridName = "even"
    solver: str = "ddim"
    guidance: float = 1.0

    def times(self, steps: int | None, table: int | None) -> TimeGrid:
        """The times of a walk of exactly so many steps.

        Args:
            steps: how many; the default where None.
            table: length of the schedule's table, if it has one.

        Raises:
            InputError: if there cannot be so many.
        """
        needs_table = self.grid not in ("even", "log-snr")
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

    def solver_named(self, name: str | None) -> Solver:
        """A solver; the default where None (see :func:`solver_named`)."""
        return solver_named(self.solver if name is None else name)

    def checked_guidance(self, guidance: float | None) -> float:
        """A guidance scale; the default where None.

        Raises:
            InputError: if it is none.
        """
        guidance = self.guidance if guidance is None else guidance
        if not 0 <= guidance < math.inf:
            raise InputError(f"--guidance {guidance:g}: 0 or more; 1 is off")
        return guidance


def solver_named(name: str) -> Solver:
    """A solver with its defaults.

    Raises:
        InputError: if there is none of that name.
    """
    return named(SOLVERS, name, "solver")()


def named(table: Mapping[str, Value], name: str, kind: str) -> Value:
    """What a name stands for in a table of solvers or orders.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in table:
        raise InputError(f"no {kind} {name!r}: one of {', '.join(table)}")
    return table[name]


def token_temperature(temperature: float) -> float:
    """A temperature of tokens that are drawn.

    Raises:
        InputError: if it is none.
    """
    if not 0 <= temperature < math.inf:
        raise InputError(f"--temperature {temperature:g}: 0 (the likeliest) or more")
    return temperature
