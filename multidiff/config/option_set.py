"""Options declared once, as fields of a dataclass: default, help, range and group of each.

The same class is read by recipes (its fields are keys), by the command line (its fields are
options, see :mod:`multidiff.config.options`) and by Python (``replace``)::

    @dataclass(frozen=True)
    class Sampling(OptionSet):
        steps: int = option(50, "number of reverse steps", least=1, most=10_000)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, Self

from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

OPTION = "option"


@dataclass(frozen=True)
class Option:
    """Help, group and range of one field.

    Attributes:
        help: one line for ``--help``.
        group: heading under which ``--help`` lists it.
        least: smallest value; None without a bound.
        above: value that it must exceed; None without a bound.
        most: largest value; None without a bound.
        note: meaning of a special value, such as "1 is off".
        choices: allowed names; empty if any text is allowed.
    """

    help: str
    group: str = "Sampling"
    least: float | None = None
    above: float | None = None
    most: float | None = None
    note: str = ""
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """Return the range and its note as text; empty without either."""
        if self.least is not None and self.most is not None:
            bounds = f"from {self.least:g} to {self.most:g}"
        elif self.least is not None:
            bounds = f"{self.least:g} or more"
        elif self.above is not None:
            bounds = f"above {self.above:g}" + (
                "" if self.most is None else f", up to {self.most:g}"
            )
        else:
            bounds = ""
        return "; ".join(part for part in (bounds, self.note) if part)

    @property
    def has_bounds(self) -> bool:
        """Return whether its values are numbers within bounds."""
        return {self.least, self.above, self.most} != {None}

    def check(self, name: str, value: Any) -> None:
        """Reject a value that the option cannot have.

        Args:
            name: name on the command line, such as ``--top-p``.
            value: its value, of the field's type.

        Raises:
            InputError: if the value is out of range or not among the choices.
        """
        if self.choices and value not in self.choices:
            raise InputError(f"{name} {value}: {suggestion(value, self.choices)}")
        if not isinstance(value, Real) or isinstance(value, bool):
            return
        number = float(value)
        wrong = math.isnan(number) or (self.has_bounds and math.isinf(number))
        wrong = wrong or (self.least is not None and number < self.least)
        wrong = wrong or (self.above is not None and number <= self.above)
        if wrong or (self.most is not None and number > self.most):
            shown = value if isinstance(value, Integral) else f"{value:g}"
            raise InputError(f"{name} {shown}: {self.range or 'a number'}")


def option(
    default: Any,
    help: str,  # as argparse, click and typer call it
    *,
    group: str = "Sampling",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    note: str = "",
    choices: Iterable[str] = (),
) -> Any:
    """Return a dataclass field that is also an option (see :class:`Option`)."""
    about = Option(help, group, least, above, most, note, tuple(choices))
    return field(default=default, metadata={OPTION: about})


@dataclass(frozen=True)
class OptionSet:
    """Base of dataclasses whose fields are options.

    Attributes:
        overrides: values set by :meth:`replace`, relative to the first object.
    """

    overrides: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __post_init__(self) -> None:
        for name, about in options_in(type(self)).items():
            value = getattr(self, name)
            _check_type(self, name, value)
            about.check(flag(name), value)

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with other values; None keeps an option.

        Raises:
            TypeError: if an option is unknown.
            InputError: if a value is out of range.
        """
        self.check_names(overrides)
        given = {name: value for name, value in overrides.items() if value is not None}
        return self.with_overrides(given, given)

    def check_names(self, names: Iterable[str]) -> None:
        """Reject unknown option names.

        Raises:
            TypeError: if an option is unknown.
        """
        known = options_in(type(self))
        for name in names:
            if name not in known:
                hint = suggestion(name, known)
                raise TypeError(f"{type(self).__name__} has no option {name!r}; {hint}")

    def with_overrides(self, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Self:
        """Return a copy with other values, some of which count as overrides."""
        new = dataclasses.replace(self, **values)
        object.__setattr__(new, "overrides", {**self.overrides, **overrides})
        return new


def options_in(kind: type) -> dict[str, Option]:
    """Return the options that a class declares, by name; empty for any other class."""
    if not dataclasses.is_dataclass(kind):
        return {}
    fields = dataclasses.fields(kind)
    return {one.name: one.metadata[OPTION] for one in fields if OPTION in one.metadata}


def options_as_text(options: OptionSet) -> dict[str, str]:
    """Return the options' values as text by name, for files and reports; without those unset."""
    known = {name: getattr(options, name) for name in options_in(type(options))}
    return {name: value_as_text(value) for name, value in known.items() if value is not None}


def value_as_text(value: Any) -> str:
    """Return an option's value as the command line reads it: numbers short, but exact."""
    if isinstance(value, tuple):
        return ",".join(map(value_as_text, value))
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return str(value)


def flag(name: str) -> str:
    """Return a field's name on the command line; that of a Python keyword ends in ``_``."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def _check_type(owner: OptionSet, name: str, value: Any) -> None:
    """Reject a value whose type differs from the default's: number, text or bool."""
    default, about = getattr(type(owner), name), options_in(type(owner))[name]
    if default is None:
        if value is None or not about.has_bounds:
            return
        kind, wanted = Real, "a number"
    elif isinstance(default, bool):
        kind, wanted = bool, "True or False"
    elif isinstance(default, int):
        kind, wanted = Integral, "an integer"
    elif isinstance(default, float):
        kind, wanted = Real, "a number"
    elif isinstance(default, str):
        kind, wanted = str, "a text"
    else:
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{flag(name)} {value!r:.60}: {wanted}")
