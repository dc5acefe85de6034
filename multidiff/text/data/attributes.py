"""Meaning representations: the content of a sentence as values of attributes."""

from __future__ import annotations

from collections.abc import Mapping

from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

# The number of an unspecified attribute (see multidiff.core.guidance).
UNSPECIFIED = -1
NEAR = 5  # number of similar names that a message lists


class MeaningTable:
    """Attributes, their values, and a number for each value and each absence.

    A meaning becomes one number for each attribute: that of its value, or the attribute's own
    number for "not mentioned", or -1 where it is unspecified.

    Args:
        attributes: values of each attribute, such as ``food: [Italian, French]``.
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
        """Number of distinct numbers."""
        return self._next()

    def whole(self, meaning: Mapping[str, str]) -> list[int]:
        """Return the numbers of a complete meaning: missing attributes are not to be mentioned.

        Raises:
            InputError: if an attribute or a value is not in the table.
        """
        given = self.partial(meaning)
        absences = self.absent.values()
        return [
            absence if number == UNSPECIFIED else number
            for number, absence in zip(given, absences, strict=True)
        ]

    def partial(self, meaning: Mapping[str, str]) -> list[int]:
        """Return the numbers of a meaning whose missing attributes are unspecified.

        Raises:
            InputError: if an attribute or a value is not in the table.
        """
        for attribute, value in meaning.items():
            self.check(attribute, value)
        return [
            self.number[attribute, meaning[attribute]] if attribute in meaning else UNSPECIFIED
            for attribute in self.attributes
        ]

    def check(self, attribute: str, value: str) -> None:
        """Check that an attribute has a value.

        Raises:
            InputError: if not, naming the nearest known ones.
        """
        if attribute not in self.attributes:
            raise InputError(
                f"{attribute}={value}: unknown attribute; "
                f"{suggestion(attribute, self.attributes, NEAR, 0.5)}"
            )
        if (attribute, value) not in self.number:
            known = suggestion(value, self.attributes[attribute], NEAR, 0.5)
            raise InputError(f"{attribute}={value}: unknown value of {attribute}; {known}")
