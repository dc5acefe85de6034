"""How a text model walks from noise to a text, where nobody says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from multidiff.errors import InputError
from multidiff.walks import Walk


@dataclass(frozen=True)
class TextWalk(Walk):
    """The walk's defaults.

    Attributes:
        steps: see :class:`~multidiff.walks.Walk`.
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
        if not temperature > 0:
            raise InputError(f"--temperature {temperature:g}: more than 0; 1 is as learned")
        return temperature
