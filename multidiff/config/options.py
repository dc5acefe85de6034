"""Options of a command that depend on the model, read from its function's signature.

Keyword-only parameters are options; a parameter whose type is an
:class:`~multidiff.config.option_set.OptionSet` stands for all options of that class. An option
given twice accumulates if it takes several values, and is rejected otherwise. Options that take
several texts can read them from a file too: ``--NAME-file FILE``, one text per line, or ``-`` for
standard input, which ``--NAME -`` reads as well.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pydantic

from multidiff.config.option_set import OptionSet, flag, options_in
from multidiff.utils.errors import InputError
from multidiff.utils.lines import STANDARD_INPUT, read_lines
from multidiff.utils.names import suggestion

FROM_FILE = "-file"


@dataclass(frozen=True)
class CommandOptions:
    """The options of a command's function.

    Attributes:
        kinds: type of each option's value, without ``| None``, by parameter or field.
        sets: classes of options, by the parameter that takes an object of each.
    """

    kinds: Mapping[str, Any]
    sets: Mapping[str, type[OptionSet]] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, str]:
        """Return the parameter or field behind each option."""
        return {flag(name).removeprefix("--"): name for name in self.kinds}

    @property
    def from_files(self) -> set[str]:
        """Return the options that read values of other options from a file."""
        taking = self.flags.items()
        return {f"{one}{FROM_FILE}" for one, name in taking if self.kinds[name] == list[str]}


def options_of(
    function: Callable[..., Any], taken: Iterable[str] = (), owner: Any = None
) -> CommandOptions:
    """Return the options of a function.

    Args:
        function: function whose keyword-only parameters are the options.
        taken: parameters that the command fills in itself.
        owner: model whose own option sets may be of classes derived from the function's.
    """
    hints = typing.get_type_hints(function)
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in set(taken)
    ]
    kinds: dict[str, Any] = {}
    sets: dict[str, type[OptionSet]] = {}
    for name in names:
        kind = _bare(hints.get(name, str))
        if inspect.isclass(kind) and issubclass(kind, OptionSet):
            held = getattr(owner, name, None)
            sets[name] = kind = type(held) if isinstance(held, kind) else kind
            fields = typing.get_type_hints(kind)
            kinds |= {one: _bare(fields[one]) for one in options_in(kind)}
        else:
            kinds[name] = kind
    return CommandOptions(kinds, sets)


def read_options(
    arguments: Sequence[str],
    function: Callable[..., Any],
    taken: Iterable[str],
    load: Callable[[str], Any] | None = None,
    usual: Mapping[str, str] = {},
    owner: Any = None,
    positionals: list[str] | None = None,
) -> dict[str, Any]:
    """Return ``--name value`` pairs as keyword arguments of a function.

    A bool option takes no value; a tuple's values are separated by commas; a list has one value
    for each time that the option is given, and so does a tuple of any length; a model is given by
    name, and loaded; in an option set, the options that are given replace the owner's.

    Args:
        arguments: arguments that the command did not parse itself.
        function: function whose keyword-only parameters are the options.
        taken: parameters that the command fills in itself.
        load: function that loads a model by its name.
        usual: default models of options by name, used if they can be loaded.
        owner: model whose attributes hold the default option sets; for missing ones the
            class's own defaults are used.
        positionals: list that receives arguments that belong to no option; None rejects them.

    Raises:
        InputError: if an option is unknown, its value is missing or wrong, or it is given
            twice but takes one value.
    """
    options = options_of(function, taken, owner)
    values: dict[str, Any] = {}
    for option, text in _pairs(arguments, options, positionals):
        name = options.flags.get(option) or options.flags[option.removesuffix(FROM_FILE)]
        _take(values, option, name, text, options.kinds[name], load)
    for name, text in usual.items():
        model = _model_in(options.kinds[name])
        if name not in values and model is not None and load is not None:
            with suppress(InputError):  # the command reports missing models if it needs them
                values[name] = _model(name, text, model, load)
    for name, kind in options.sets.items():
        given = {one: values.pop(one) for one in options_in(kind) if one in values}
        values[name] = getattr(owner, name, kind()).replace(**given)
    return values


def _take(
    values: dict[str, Any],
    option: str,
    name: str,
    text: str | None,
    kind: Any,
    load: Callable[[str], Any] | None,
) -> None:
    """Add the value of one option to the values."""
    model = _model_in(kind)
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


def values_from_text(kind: type[OptionSet], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of an option set that ``options_as_text`` wrote.

    Args:
        kind: the class.
        texts: texts by name; those that are no options of the class are left out.

    Raises:
        InputError: if a text is not a value of its option.
    """
    hints = typing.get_type_hints(kind)
    names = [name for name in options_in(kind) if name in texts]
    return {
        name: _value(flag(name).removeprefix("--"), texts[name], _bare(hints[name]))
        for name in names
    }


def option_names(function: Callable[..., Any]) -> set[str]:
    """Return the names of all options of a function, including those that read files."""
    options = options_of(function)
    return {*options.flags, *options.from_files}


def _pairs(
    arguments: Sequence[str], options: CommandOptions, positionals: list[str] | None
) -> list[tuple[str, str | None]]:
    """Return each option and its value, in their order; None for a flag."""
    flags, known = options.flags, {*options.flags, *options.from_files}
    pairs: list[tuple[str, str | None]] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("--") and positionals is not None:
            positionals.append(word)
            continue
        option, equals, attached = word.removeprefix("--").partition("=")
        if not word.startswith("--") or option not in known:
            hint = suggestion(f"--{option}", sorted(f"--{one}" for one in known))
            raise InputError(f"{word}: no such option here; {hint}")
        is_flag = option in flags and options.kinds[flags[option]] is bool
        if is_flag and not equals:
            pairs.append((option, None))
            continue
        if not equals and not left:
            raise InputError(f"--{option}: needs a value")
        pairs.append((option, attached if equals else left.pop(0)))
    return pairs


def options_alone(arguments: Sequence[str], options: CommandOptions) -> list[str]:
    """Return arguments that :func:`read_options` has read, without the positional ones."""
    left, found = list(arguments), []
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            continue
        found.append(word)
        option, equals, _ = word.removeprefix("--").partition("=")
        is_flag = options.kinds.get(options.flags.get(option, "")) is bool
        if not equals and not is_flag:
            found.append(left.pop(0))
    return found


def texts_of(option: str, texts: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """Return the texts that an option gives, followed by those of its files.

    Args:
        option: name of the option, such as ``--prompt``.
        texts: values of the option; ``-`` stands for the lines of standard input.
        files: values of ``--NAME-file``.

    Raises:
        InputError: if a file cannot be read.
    """
    pairs = [(option, text) for text in texts or ()]
    pairs += [(f"{option}{FROM_FILE}", name) for name in files or ()]
    return [text for name, value in pairs for text in _texts(name, value)]


def _texts(option: str, value: str) -> list[str]:
    """Return the texts that one value of an option refers to."""
    if option.endswith(FROM_FILE) or value == STANDARD_INPUT:
        return read_lines(value, option)
    return [value]


def refuse_repeated(names: Iterable[str], fix: str = "keep one") -> None:
    """Reject a name that is given twice but takes one value.

    Args:
        names: names as they were given.
        fix: what the user can do.

    Raises:
        InputError: if one is given twice.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: is given twice but takes one value; {fix}")


def _bare(hint: Any) -> Any:
    """Return a hint without ``| None``, which no option can express."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(hint) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _adds_up(hint: Any) -> bool:
    """Return whether a tuple may have any number of values."""
    return typing.get_origin(hint) is tuple and Ellipsis in typing.get_args(hint)


def _model_in(hint: Any) -> type | None:
    """Return the class of model that an option names; None for other kinds."""
    kinds = [one for one in (hint, *typing.get_args(hint)) if inspect.isclass(one)]
    return next((one for one in kinds if hasattr(one, "load_assets")), None)


def _model(option: str, name: str, kind: type, load: Callable[[str], Any]) -> Any:
    found = load(name)
    if not isinstance(found, kind):
        raise InputError(f"--{option} {name}: is {_a(type(found))}, needs {_a(kind)}")
    return found


def _a(kind: type) -> str:
    """Return a class's name with its article."""
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
