"""From recipe to objects: every error is found before anything is built.

A mapping with ``use: Name`` stands for an object: the name is looked up in the registry of
components, and its constructor's signature is the schema of the other keys.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import pydantic

from multidiff.config.recipe import Node
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion
from multidiff.utils.readers import DataWithheld, reading, reason_of

Catalogue = Mapping[str, str]
USE = "use"
SHOWN = 200


@dataclass(frozen=True)
class Spec:
    """A checked value: how to build it, and its resolved form with defaults filled in.

    Attributes:
        build: function that makes the object.
        resolved: the recipe's values, with defaults.
        where: file and line.
        constructor: constructor that takes ``arguments``; None for a plain value or a list.
        arguments: specs of the arguments by name, or by index in a list.
        make: function that makes the object from arguments that are built already.
    """

    build: Callable[[], Any]
    resolved: Any
    where: str = ""
    constructor: Any = None
    arguments: Mapping[Any, Spec] = field(default_factory=dict)
    make: Callable[[Mapping[Any, Any]], Any] | None = None


class Checker:
    """Checks nodes against types, collecting every error.

    Args:
        catalogue: registry: names that ``use`` accepts -> ``module:attribute``.
    """

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self.faults: list[str] = []

    def part(self, node: Node, wanted: Any) -> Spec:
        """Check a node against the type it must have."""
        options = _alternatives(wanted)
        if isinstance(node.value, dict):
            if USE in node.value:
                return self._used(node, options)
            concrete = [one for one in options if is_dataclass(one)]
            if len(concrete) == 1:
                return self._constructed(node, concrete[0])
            named = [one for one in node.value.values() if isinstance(one.value, dict)]
            kind = _value_type(options)
            if kind is not None and any(USE in one.value for one in named):
                return self._mapping(node, kind)
        if isinstance(node.value, list):
            item_types = _item_types(options, len(node.value))
            if item_types is not None:
                parts = [self.part(n, t) for n, t in zip(node.value, item_types, strict=True)]
                kind = tuple if any(typing.get_origin(one) is tuple for one in options) else list
                return Spec(
                    lambda: kind(p.build() for p in parts),
                    [p.resolved for p in parts],
                    node.where,
                    arguments=dict(enumerate(parts)),
                    make=lambda built: kind(built.values()),
                )
        return self._plain(node, wanted)

    def _mapping(self, node: Node, wanted: Any) -> Spec:
        """Check components by names of the recipe's own, such as the parts of a joint process."""
        parts = {key: self.part(one, wanted) for key, one in node.value.items()}
        return Spec(
            lambda: {key: one.build() for key, one in parts.items()},
            {key: one.resolved for key, one in parts.items()},
            node.where,
            arguments=parts,
            make=dict,
        )

    def _used(self, node: Node, options: Sequence[Any]) -> Spec:
        name = node.value[USE].value
        target = self.catalogue.get(str(name))
        if target is None and ":" in str(name) and any(_by_path(one) for one in options):
            target = str(name)
        if target is None:
            known = _nearest(str(name), self.catalogue)
            return self._fault(node.value[USE].where, f"unknown component {name!r}{known}")
        try:
            constructor = locate(target)
        except (ImportError, AttributeError) as error:
            if target != name:
                raise
            return self._fault(node.value[USE].where, f"{name}: {reason_of(error)}")
        if not any(_fits(constructor, one) for one in options):
            wanted = " or ".join(_name_of(one) for one in options)
            lacks = _lacking(constructor, options)
            return self._fault(node.value[USE].where, f"{name} is not a {wanted}{lacks}")
        return self._constructed(node, constructor, str(name))

    def _constructed(self, node: Node, constructor: Any, name: str | None = None) -> Spec:
        parameters = inspect.signature(constructor).parameters
        hints = _hints(constructor)
        given = {key: child for key, child in node.value.items() if key != USE}
        for key in given:
            if key not in parameters:
                known = _nearest(key, parameters)
                self._fault(given[key].where, f"{_name_of(constructor)} has no {key!r}{known}")
        arguments: dict[str, Spec] = {}
        for key, parameter in parameters.items():
            if key in given:
                arguments[key] = self.part(given[key], hints.get(key, Any))
                self._check_name(given[key], hints.get(key, Any))
            elif parameter.default is inspect.Parameter.empty:
                self._fault(node.where, f"{_name_of(constructor)} needs {key!r}")
        resolved = {USE: name} if name else {}
        for key, parameter in parameters.items():
            if key in arguments:
                resolved[key] = arguments[key].resolved
            elif _is_plain(parameter.default):
                resolved[key] = _listed(parameter.default)

        def make(built: Mapping[Any, Any]) -> Any:
            problem = f"{_name_of(constructor)} cannot be built from these values"
            with reading(node.where, problem, "correct them"):
                try:
                    return constructor(**built)
                except DataWithheld:
                    raise
                except ValueError as error:
                    raise InputError(f"{node.where}: {error}") from error

        def build() -> Any:
            return make({key: argument.build() for key, argument in arguments.items()})

        return Spec(build, resolved, node.where, constructor, arguments, make)

    def _check_name(self, node: Node, wanted: Any) -> None:
        """Check a name by the functions in its annotation, ``Annotated[str, check]``."""
        if isinstance(node.value, str):
            for check in _name_checks(wanted):
                try:
                    check(node.value)
                except ValueError as error:
                    self._fault(node.where, str(error))

    def _plain(self, node: Node, wanted: Any) -> Spec:
        value = node.plain()
        if wanted in (Any, inspect.Parameter.empty):
            return Spec(lambda: value, value, node.where)
        options = _alternatives(wanted)
        fields = options[0] if all(is_dataclass(one) for one in options) else None
        if fields is not None and value is not None:
            keys = [one.name for one in dataclasses.fields(fields)]
            like = f"{{{keys[0]}: {value}}}" if isinstance(value, str) else ", ".join(keys)
            return self._fault(
                node.where, f"{_shown(value)} is not valid here: write a mapping, {like}"
            )
        try:
            adapter = _adapter(wanted)
            checked = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            why = error.errors()[0]["msg"]
            return self._fault(node.where, f"{_shown(value)} is not valid here: {_lower(why)}")
        except Exception as error:  # raised by values that its checks do not handle
            return self._fault(
                node.where, f"{_shown(value)} is not valid here: {_lower(reason_of(error))}"
            )
        return Spec(lambda: checked, value, node.where)

    def _fault(self, where: str, text: str) -> Spec:
        self.faults.append(f"{where}: {text}")
        return Spec(lambda: None, None)


def check_section(tree: Node, sections: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Spec]:
    """Check a recipe's sections.

    Args:
        tree: the recipe.
        sections: type of each allowed section, or its ``module:attribute``.
        catalogue: registry of the components that may be used.

    Raises:
        InputError: if anything is wrong, with every error on a line of its own.
    """
    checker = Checker(catalogue)
    parts = {}
    for key, node in tree.value.items():
        if key in sections:
            wanted = sections[key]
            wanted = locate(wanted) if isinstance(wanted, str) else wanted
            if isinstance(node.value, dict) and USE not in node.value:
                checker.faults.append(f"{node.where}: {key} needs 'use', which names its class")
                continue
            parts[key] = checker.part(node, wanted)
        else:
            known = _nearest(key, sections)
            checker.faults.append(f"{node.where}: a recipe has no section {key!r}{known}")
    if checker.faults:
        raise InputError(*checker.faults)
    return parts


def _adapter(wanted: Any) -> pydantic.TypeAdapter:
    """Return a validator for a type; for classes that are not plain data it checks isinstance."""
    try:
        return pydantic.TypeAdapter(
            wanted, config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
    except pydantic.errors.PydanticUserError:  # a type that has a configuration of its own
        return pydantic.TypeAdapter(wanted)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _alternatives(wanted: Any) -> list[Any]:
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(wanted) if one is not type(None)]
    return [wanted]


def _name_checks(wanted: Any) -> list[Callable[[str], Any]]:
    """Return the functions that raise ValueError for a name that is unknown."""
    annotated = [one for one in _alternatives(wanted) if hasattr(one, "__metadata__")]
    return [check for one in annotated for check in one.__metadata__ if callable(check)]


def _item_types(options: Sequence[Any], count: int) -> list[Any] | None:
    for one in options:
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        if origin in (list, Sequence, typing.get_origin(Sequence[int])) and arguments:
            return [arguments[0]] * count
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return [arguments[0]] * count
        if origin is tuple and len(arguments) == count:
            return list(arguments)
    return None


def _value_type(options: Sequence[Any]) -> Any:
    """Return the type of a mapping's values; None where no alternative is a mapping."""
    for one in options:
        arguments = typing.get_args(one)
        if typing.get_origin(one) in (dict, Mapping) and len(arguments) == 2:
            return arguments[1]
    return None


def locate(target: str) -> Any:
    """Return the object that ``module:attribute`` names."""
    module, _, attributes = target.partition(":")
    return functools.reduce(getattr, attributes.split("."), importlib.import_module(module))


def _by_path(kind: Any) -> bool:
    """Return whether ``module:Class`` may name a component of a type, as users' own are."""
    return getattr(kind, "by_path", False) is True


def _fits(constructor: Any, wanted: Any) -> bool:
    """Return whether the result of a constructor is of a wanted type."""
    if not inspect.isclass(constructor):
        constructor = _hints(constructor).get("return", Any)
    if wanted in (Any, inspect.Parameter.empty) or not inspect.isclass(constructor):
        return True
    if not inspect.isclass(wanted):
        return False
    if getattr(wanted, "_is_protocol", False):
        return all(hasattr(constructor, member) for member in _members(wanted))
    return issubclass(constructor, wanted)


def _members(protocol: Any) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_") or name == "__call__"]


def _lacking(constructor: Any, options: Sequence[Any]) -> str:
    """Return which methods of the wanted protocol a constructor's class lacks."""
    if len(options) != 1 or not getattr(options[0], "_is_protocol", False):
        return ""
    lacks = [name for name in _members(options[0]) if not hasattr(constructor, name)]
    return f": it has no {', '.join(lacks)}" if lacks else ""


def _hints(constructor: Any) -> dict[str, Any]:
    target = constructor.__init__ if inspect.isclass(constructor) else constructor
    if inspect.isclass(constructor) and is_dataclass(constructor):
        target = constructor
    return typing.get_type_hints(target, include_extras=True)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value


def _name_of(thing: Any) -> str:
    return getattr(thing, "__name__", str(thing))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    names = [one for one in known if one not in ("self", USE)]
    return f"; {suggestion(name, sorted(names))}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
