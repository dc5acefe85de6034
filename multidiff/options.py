"""Options that a model's wing adds to a command, read from its function's signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pydantic

from multidiff.errors import InputError


def read_options(
    arguments: Sequence[str],
    function: Callable[..., Any],
    taken: Iterable[str],
    load: Callable[[str], Any] | None = None,
    usual: Mapping[str, str] = {},
) -> dict[str, Any]:
    """``--name value`` pairs as keyword arguments of a function.

    A flag of type bool stands alone; a tuple takes its values with commas between; a list is
    one for each time that the option is given; a model is named, and loaded.

    Args:
        arguments: what the command did not read itself.
        function: whose keyword-only parameters are the options.
        taken: parameters that the command fills itself.
        load: makes a model of its name.
        usual: names of models for options that are not given, as far as they can be had.

    Raises:
        InputError: if there is no such option, its value is missing or not right.
    """
    hints = typing.get_type_hints(function)
    known = {
        name.replace("_", "-"): name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in set(taken)
    }
    values: dict[str, Any] = {}
    left = list(arguments)
    while left:
        word = left.pop(0)
        option, equals, attached = word.removeprefix("--").partition("=")
        if not word.startswith("--") or option not in known:
            raise InputError(f"{word}: no such option here; {_offer(known)}")
        hint = hints[known[option]]
        if hint is bool and not equals:
            values[known[option]] = True
            continue
        if not equals and not left:
            raise InputError(f"--{option}: needs a value")
        text = attached if equals else left.pop(0)
        kind = _model_in(hint)
        if typing.get_origin(hint) is list:
            item = _value(option, text, typing.get_args(hint)[0])
            values.setdefault(known[option], []).append(item)
        elif kind is None or load is None:
            values[known[option]] = _value(option, text, hint)
        else:
            values[known[option]] = _model(option, text, kind, load)
    for name, text in usual.items():
        kind = _model_in(hints[name])
        if name not in values and kind is not None and load is not None:
            with suppress(InputError):  # the command says what it lacks where it needs it
                values[name] = _model(name, text, kind, load)
    return values


def _model_in(hint: Any) -> type | None:
    """The class of models that an option names, if it is of that kind."""
    kinds = [one for one in (hint, *typing.get_args(hint)) if inspect.isclass(one)]
    return next((one for one in kinds if hasattr(one, "settle")), None)


def _model(option: str, name: str, kind: type, load: Callable[[str], Any]) -> Any:
    found = load(name)
    if not isinstance(found, kind):
        raise InputError(f"--{option} {name}: is a {type(found).__name__}, not a {kind.__name__}")
    return found


def _value(option: str, text: str, hint: Any) -> Any:
    is_tuple = typing.get_origin(hint) is tuple
    try:
        adapter = pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(allow_inf_nan=False))
        return adapter.validate_python(text.split(",") if is_tuple else text)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"--{option} {text}: {reason[:1].lower()}{reason[1:]}") from error


def _offer(known: dict[str, str]) -> str:
    return f"this model adds {', '.join(f'--{k}' for k in known)}" if known else "it adds none"
