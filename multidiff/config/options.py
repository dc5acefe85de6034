"""Options that a modality adds to a command, read from its function's signature.

An option given twice adds up where it takes several values, and is refused otherwise. Options that
take several texts can read them from a file too: ``--NAME-file FILE``, one text a line, or ``-``
for standard input, which ``--NAME -`` reads as well.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pydantic

from multidiff.utils.errors import InputError
from multidiff.utils.lines import STANDARD_INPUT, read_lines

FROM_FILE = "-file"


def read_options(
    arguments: Sequence[str],
    function: Callable[..., Any],
    taken: Iterable[str],
    load: Callable[[str], Any] | None = None,
    usual: Mapping[str, str] = {},
) -> dict[str, Any]:
    """``--name value`` pairs as keyword arguments of a function.

    A flag of type bool stands alone; a tuple takes its values with commas between; a list is
    one for each time that the option is given, and so is a tuple of any length; a model is named,
    and loaded.

    Args:
        arguments: what the command did not read itself.
        function: whose keyword-only parameters are the options.
        taken: parameters that the command fills itself.
        load: makes a model of its name.
        usual: names of models for options that are not given, as far as they can be had.

    Raises:
        InputError: if there is no such option, its value is missing or not right, or it is given
            twice and takes one value.
    """
    hints, known = _options_of(function, taken)
    values: dict[str, Any] = {}
    for option, text in _pairs(arguments, known, hints):
        name = known.get(option) or known[option.removesuffix(FROM_FILE)]
        kind, model = hints[name], _model_in(hints[name])
        if kind == list[str]:
            values.setdefault(name, []).extend(_texts(f"--{option}", text or ""))
        elif typing.get_origin(kind) is list:
            item = _value(option, text, typing.get_args(kind)[0])
            values.setdefault(name, []).append(item)
        elif _adds_up(kind):
            values[name] = (*values.get(name, ()), *_value(option, text, kind))
        elif name in values:
            refuse_repeated([f"--{option}"] * 2)
        elif text is None:
            values[name] = True
        elif model is not None and load is not None:
            values[name] = _model(option, text, model, load)
        else:
            values[name] = _value(option, text, kind)
    for name, text in usual.items():
        model = _model_in(hints[name])
        if name not in values and model is not None and load is not None:
            with suppress(InputError):  # the command says what it lacks where it needs it
                values[name] = _model(name, text, model, load)
    return values


def option_names(function: Callable[..., Any]) -> set[str]:
    """Return the names of all options of a function, those that read files among them."""
    hints, known = _options_of(function, ())
    return {*known, *_from_files(known, hints)}


def _options_of(
    function: Callable[..., Any], taken: Iterable[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The types of a function's parameters, and which of them is meant by each option."""
    hints = {name: _bare(hint) for name, hint in typing.get_type_hints(function).items()}
    known = {
        name.replace("_", "-"): name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in set(taken)
    }
    return hints, known


def _from_files(known: Mapping[str, str], hints: Mapping[str, Any]) -> set[str]:
    """The options that read what others take from a file."""
    return {f"{one}{FROM_FILE}" for one, name in known.items() if hints[name] == list[str]}


def _pairs(
    arguments: Sequence[str], known: Mapping[str, str], hints: Mapping[str, Any]
) -> list[tuple[str, str | None]]:
    """Each option and its value, in their order; None for a flag."""
    from_files = _from_files(known, hints)
    pairs: list[tuple[str, str | None]] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        option, equals, attached = word.removeprefix("--").partition("=")
        if not word.startswith("--") or option not in {*known, *from_files}:
            raise InputError(f"{word}: no such option here; {_offer(known)}")
        is_flag = option in known and hints[known[option]] is bool
        if is_flag and not equals:
            pairs.append((option, None))
            continue
        if not equals and not left:
            raise InputError(f"--{option}: needs a value")
        pairs.append((option, attached if equals else left.pop(0)))
    return pairs


def texts_of(option: str, texts: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """Return the texts that an option gives, and then those of its files.

    Args:
        option: its name, such as ``--prompt``.
        texts: values of the option; ``-`` stands for the lines of standard input.
        files: values of ``--NAME-file``.

    Raises:
        InputError: if a file cannot be read.
    """
    pairs = [(option, text) for text in texts or ()]
    pairs += [(f"{option}{FROM_FILE}", name) for name in files or ()]
    return [text for name, value in pairs for text in _texts(name, value)]


def _texts(option: str, value: str) -> list[str]:
    """The texts that one value of an option stands for."""
    if option.endswith(FROM_FILE) or value == STANDARD_INPUT:
        return read_lines(value, option)
    return [value]


def refuse_repeated(names: Iterable[str], fix: str = "keep one") -> None:
    """Refuse what is named twice and takes one value.

    Args:
        names: as they were given.
        fix: what the user can do.

    Raises:
        InputError: if one stands there twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: is given twice and takes one value; {fix}")


def _bare(hint: Any) -> Any:
    """A hint without ``| None``, which no option can say."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(hint) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _adds_up(hint: Any) -> bool:
    """Whether a tuple may have any number of values."""
    return typing.get_origin(hint) is tuple and Ellipsis in typing.get_args(hint)


def _model_in(hint: Any) -> type | None:
    """The class of models that an option names, if it is of that kind."""
    kinds = [one for one in (hint, *typing.get_args(hint)) if inspect.isclass(one)]
    return next((one for one in kinds if hasattr(one, "load_assets")), None)


def _model(option: str, name: str, kind: type, load: Callable[[str], Any]) -> Any:
    found = load(name)
    if not isinstance(found, kind):
        raise InputError(f"--{option} {name}: is {_a(type(found))}, needs {_a(kind)}")
    return found


def _a(kind: type) -> str:
    """Return a class's name behind its article."""
    name = kind.__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _value(option: str, text: str | None, hint: Any) -> Any:
    is_tuple = typing.get_origin(hint) is tuple
    try:
        adapter = pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(allow_inf_nan=False))
        return adapter.validate_python(text.split(",") if is_tuple and text else text)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"--{option} {text}: {reason[:1].lower()}{reason[1:]}") from error


def _offer(known: Mapping[str, str]) -> str:
    return f"this model adds {', '.join(f'--{k}' for k in known)}" if known else "it adds none"
