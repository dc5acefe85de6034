"""How a text model walks from noise to a text, where nobody says otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from multidiff.core.discrete.samplers import (
    Ancestral,
    Confidence,
    RandomOrder,
    Remasking,
    TokenDraw,
    UnmaskingSolver,
)
from multidiff.models.sampling_config import Walk, named, token_temperature
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class TextWalk(Walk):
    """The walk's defaults.

    Attributes:
        steps: see :class:`~multidiff.models.sampling_config.Walk`.
        grid: likewise.
        solver: likewise.
        guidance: scale, for orders with a meaning; 1 is off.
        temperature: of the words that clamping chooses among.
    """

    steps: int = 200
    solver: str = "ddpm"
    temperature: float = 1.0

    def checked_temperature(self, temperature: float | None) -> float:
        """A temperature; the default where None.

        Raises:
            InputError: if it is none.
        """
        temperature = self.temperature if temperature is None else temperature
        if not 0 < temperature < math.inf:
            raise InputError(f"--temperature {temperature:g}: more than 0; 1 is as learned")
        return temperature


# What the name of a walk from masks to tokens stands for.
MASK_SOLVERS: dict[str, Callable[[TokenDraw], UnmaskingSolver]] = {
    "ancestral": lambda draw: Ancestral(draw=draw),
    "confidence": lambda draw: Confidence(draw=draw),
    "random": lambda draw: RandomOrder(draw=draw),
    "remasking": lambda draw: Remasking(draw=draw),
}


@dataclass(frozen=True)
class MaskWalk(TextWalk):
    """The defaults of a walk from masks to tokens.

    Attributes:
        steps: of the walk; 0 for as many as a text has tokens.
        grid: unused: its times are even.
        solver: one of ancestral, confidence, random and remasking.
        guidance: see :class:`TextWalk`.
        temperature: of the tokens; 0 takes the likeliest.
        nucleus: tokens are drawn among the likeliest up to this probability.
    """

    steps: int = 0
    solver: str = "random"
    nucleus: float = 1.0

    def mask_steps(self, steps: int | None) -> int | None:
        """How many steps are made; None for as many as there are tokens.

        Raises:
            InputError: if there cannot be so many.
        """
        return None if steps is None and self.steps == 0 else self.count(steps, None)

    def mask_solver(
        self, name: str | None, temperature: float | None, nucleus: float | None
    ) -> UnmaskingSolver:
        """A solver; each of these the default where None.

        Raises:
            InputError: if there is none of that name, or tokens cannot be drawn so.
        """
        solver = named(MASK_SOLVERS, self.solver if name is None else name, "solver")
        temperature = token_temperature(self.temperature if temperature is None else temperature)
        nucleus = self.nucleus if nucleus is None else nucleus
        if not 0 < nucleus <= 1:
            raise InputError(f"--nucleus {nucleus:g}: above 0, up to 1 (all)")
        return solver(TokenDraw(temperature, nucleus))
