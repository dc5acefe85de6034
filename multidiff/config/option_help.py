"""Lines of ``--help`` for the options of a command's function: one source for each text.

The help, group and range of an :class:`~multidiff.config.option_set.OptionSet` option are declared
there; the docstring's ``Args`` section is the help of every other parameter.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from multidiff.config.option_set import Option, flag, options_in
from multidiff.config.options import FROM_FILE, options_of

METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
LONGEST_METAVAR = 24
# Prefix of parameters that control what is printed or written.
SHOWN = "show_"


@dataclass(frozen=True)
class HelpEntry:
    """One line of help.

    Attributes:
        name: option and metavar, such as ``--steps INTEGER``.
        help: description, with range and default.
        group: heading.
    """

    name: str
    help: str
    group: str


def help_entries(
    function: Callable[..., Any],
    taken: Iterable[str] = (),
    owner: Any = None,
    usual: Mapping[str, str] = {},
    group: str = "Inputs",
) -> list[HelpEntry]:
    """Return the help of every option of a function.

    Args:
        function: function whose keyword-only parameters are the options.
        taken: parameters that the command fills in itself.
        owner: model whose option sets are the defaults; None shows no defaults of sets.
        usual: default models of options by name.
        group: heading of the options that are in no set.
    """
    options = options_of(function, taken, owner)
    entries = []
    for parameter, kind in options.sets.items():
        held = getattr(owner, parameter, None if owner is None else kind())
        for name, about in options_in(kind).items():
            default = default_text(usual.get(name, getattr(held, name, None)))
            text = "; ".join(part for part in (about.help, _range(about)) if part) + default
            entries.append(HelpEntry(_name(name, options.kinds[name], about), text, about.group))
    described, signature = argument_help(function), inspect.signature(function).parameters
    for name, kind in options.kinds.items():
        if name not in signature:
            continue
        default = default_text(usual.get(name, signature[name].default))
        own = "Output" if name.startswith(SHOWN) else group
        text = described.get(name, "") + default
        entries.append(HelpEntry(_name(name, kind), text, own))
        if kind == list[str]:
            read = f"file of values of {flag(name)}, one per line; - reads standard input"
            entries.append(HelpEntry(f"{flag(name)}{FROM_FILE} FILE", read, own))
    return entries


def argument_help(function: Callable[..., Any]) -> dict[str, str]:
    """Return the ``Args`` section of a Google style docstring, by parameter."""
    found: dict[str, str] = {}
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        start = re.match(r" {4}\**(\w+): (.*)", line)
        if start:
            name, found[start[1]] = start[1], start[2]
        elif line.strip():
            found[name] += f" {line.strip()}"
    return {name: _plain(text) for name, text in found.items()}


def _plain(text: str) -> str:
    """Return a docstring's sentence without markup and full stop."""
    return re.sub(r"``([^`]*)``", r"\1", text).removesuffix(".")


def _range(about: Option) -> str:
    """Return the range of an option, or its choices where the metavar does not list them."""
    if not about.choices:
        return about.range
    listed = f"one of {', '.join(about.choices)}" if _is_long(about) else ""
    return "; ".join(part for part in (listed, about.note) if part)


def _is_long(about: Option) -> bool:
    return len("|".join(about.choices)) > LONGEST_METAVAR


def _name(name: str, kind: Any, about: Option | None = None) -> str:
    """Return an option with the metavar of its value."""
    if about is None or not about.choices:
        value = _metavar(kind)
    else:
        value = "NAME" if _is_long(about) else "|".join(about.choices)
    return f"{flag(name)} {value}".rstrip()


def _metavar(kind: Any) -> str:
    if kind is bool:
        return ""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin is list:
        return _metavar(arguments[0])
    if origin is tuple:
        return ",".join("..." if one is Ellipsis else _metavar(one) for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return "|".join(map(_metavar, arguments))
    return METAVARS.get(kind, "MODEL" if hasattr(kind, "load_assets") else "VALUE")


def default_text(default: Any) -> str:
    """Return a default for display in the help; empty without one."""
    is_unset = default is None or default is False or default is inspect.Parameter.empty
    if is_unset or default in ("", (), []):
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"  [default: {shown:g}]" if isinstance(shown, float) else f"  [default: {shown}]"
