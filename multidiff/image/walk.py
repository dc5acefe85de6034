"""How a picture model walks from noise to a picture, where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from multidiff.core.protocols import Solver
from multidiff.core.solvers import SOLVERS
from multidiff.core.times import (
    TimeGrid,
    even_times,
    leading_times,
    linspace_times,
    log_snr_times,
    trailing_times,
)
from multidiff.errors import InputError

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
        rescale: how far guided predictions are brought back to the conditional deviation,
            0 to 1 (Lin et al. 2023, section 3.4).
    """

    steps: int = 50
    grid: GridName = "even"
    solver: str = "ddim"
    guidance: float = 1.0
    rescale: float = 0.0

    def times(self, steps: int | None, table: int | None, strength: float = 1.0) -> TimeGrid:
        """The times of a walk of exactly so many steps.

        Args:
            steps: how many; the default where None.
            table: length of the schedule's table, if it has one.
            strength: a walk from the middle begins at this time, and has all the steps.

        Raises:
            InputError: if there cannot be so many.
        """
        count = self.steps if steps is None else steps
        most = table if table and strength == 1 and self.grid not in ("even", "log-snr") else None
        if not 1 <= count <= (most or MOST_STEPS):
            raise InputError(
                f"--steps {count}: from 1 to {most or MOST_STEPS} for the grid {self.grid!r}"
            )
        if strength == 1:
            return GRIDS[self.grid](count)
        visits = torch.linspace(strength, 0, count + 1, dtype=torch.float64)[:-1]
        return TimeGrid(count, lambda _: visits)

    def solver_named(self, name: str | None) -> Solver:
        """A solver; the default where None.

        Raises:
            InputError: if there is none of that name.
        """
        name = self.solver if name is None else name
        if name not in SOLVERS:
            raise InputError(f"no solver {name!r}: one of {', '.join(SOLVERS)}")
        return SOLVERS[name]()
