"""Meaning representations: what a sentence is to say, as values of attributes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from multidiff.utils.errors import InputError

# The number of an attribute that nothing is said of (see multidiff.core.guidance).
UNSPECIFIED = -1
SHOWN = 5


class MeaningTable:
    """Attributes, their values, and a number for each value and each absence.

    A meaning becomes one number for each attribute: that of its value, or the attribute's own
    number for "not mentioned", or -1 where that is left open.

    Args:
        attributes: the values of each, such as ``food: [Italian, French]``.
    """

    def __init__(self, attributes: dict[str, tuple[str, ...]]):
        if not attributes:
            raise ValueError("a table of meanings needs at least one attribute")
        self.attributes = attributes
        self.absent: dict[str, int] = {}
        self.number: dict[tuple[str, str], int] = {}
        for attribute, values in attributes.items():
            self.absent[attribute] = self._next()
            for value in values:
                if (attribute, value) in self.number:
                    raise ValueError(f"attribute {attribute!r} has the value {value!r} twice")
                self.number[attribute, value] = self._next()

    def _next(self) -> int:
        return len(self.absent) + len(self.number)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self._next()

    def whole(self, meaning: Mapping[str, str]) -> list[int]:
        """A meaning in full: an attribute that does not stand in it is not to be mentioned.

        Raises:
            InputError: if an attribute or a value is none of the table's.
        """
        given = self.partial(meaning)
        absences = self.absent.values()
        return [
            absence if number == UNSPECIFIED else number
            for number, absence in zip(given, absences, strict=True)
        ]

    def partial(self, meaning: Mapping[str, str]) -> list[int]:
        """A meaning of which the rest is left open.

        Raises:
            InputError: if an attribute or a value is none of the table's.
        """
        for attribute, value in meaning.items():
            self.check(attribute, value)
        return [
            self.number[attribute, meaning[attribute]] if attribute in meaning else UNSPECIFIED
            for attribute in self.attributes
        ]

    def check(self, attribute: str, value: str) -> None:
        """See whether an attribute has a value.

        Raises:
            InputError: if not, naming the nearest that there are.
        """
        if attribute not in self.attributes:
            raise InputError(
                f"{attribute}={value}: no such attribute; {nearest(attribute, self.attributes)}"
            )
        if (attribute, value) not in self.number:
            known = nearest(value, self.attributes[attribute])
            raise InputError(f"{attribute}={value}: {attribute} has no such value; {known}")


def nearest(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a word."""
    words = list(known)
    lower = {one.lower(): one for one in reversed(words)}
    near = [lower[one] for one in difflib.get_close_matches(word.lower(), lower, SHOWN, 0.5)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f"there are {', '.join(words[:SHOWN])}{more}"
