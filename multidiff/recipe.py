"""Recipes: a YAML file becomes checked objects, or a list of everything wrong with it.

A mapping with ``use: Name`` stands for an object: the name is looked up in a table of parts,
its constructor's signature is the schema of the other keys. Every fault is found before
anything is built, and each is told with its file and line.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from multidiff.errors import InputError

Catalogue = Mapping[str, str]
USE = "use"


# --------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Node:
    """A value of the file and where it stands: a scalar, a list of nodes, or a dict of them."""

    value: Any
    place: str

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _Reader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``1e-4`` is a number, ``no`` and ``on`` are words."""


_Reader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)",
        "-+.0123456789",
    ),
):
    _Reader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def _scalar(reader: _Reader, node: yaml.ScalarNode) -> Any:
    if node.tag.endswith(":int"):
        return int(node.value.replace("_", ""), 0 if "x" in node.value else 10)
    if node.tag.endswith(":float"):
        return float(node.value.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return reader.construct_object(node, deep=True)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Node:
    """Read a recipe and put ``key.path=value`` overrides into it.

    Raises:
        InputError: if the file cannot be read, is no YAML, or an override has no place in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    tree = parse(text, str(path))
    for override in overrides:
        tree = _overridden(tree, override)
    return tree


def parse(text: str, name: str) -> Node:
    """Text of a recipe as nodes; ``name`` is the file's in places.

    Raises:
        InputError: if it is no YAML mapping, or a key stands in it twice.
    """
    reader = _Reader(text)
    try:
        root = reader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise InputError(f"{name}{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{name}: a recipe is a mapping of keys to values")
    return _with_places(reader, root, name)


def _with_places(reader: _Reader, node: yaml.Node, name: str) -> Node:
    place = f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = f"{name}:{key_node.start_mark.line + 1}"
            if key in values:
                raise InputError(f"{line}: {key} stands twice; keep one")
            child = _with_places(reader, value_node, name)
            values[key] = Node(child.value, line)
        return Node(values, place)
    if isinstance(node, yaml.SequenceNode):
        return Node([_with_places(reader, child, name) for child in node.value], place)
    return Node(_scalar(reader, typing.cast(yaml.ScalarNode, node)), place)


def _overridden(tree: Node, override: str) -> Node:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"{override!r}: an override is key.path=value")
    reader = _Reader(text)
    try:
        root = reader.get_single_node()
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: the value is no YAML ({error})") from error
    place = f"command line ({path})"
    value = Node(None, place) if root is None else _with_places(reader, root, place)
    return _put(tree, path.split("."), value, override)


def _put(tree: Node, keys: Sequence[str], value: Node, override: str) -> Node:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(tree.value, dict):
        child = tree.value.get(key, Node({}, value.place))
        return Node({**tree.value, key: _put(child, rest, value, override)}, tree.place)
    if isinstance(tree.value, list) and key.isdigit() and int(key) < len(tree.value):
        items = list(tree.value)
        items[int(key)] = _put(items[int(key)], rest, value, override)
        return Node(items, tree.place)
    raise InputError(f"{override!r}: {key!r} has no place in the recipe")


# -------------------------------------------------------------------------- checking


@dataclass(frozen=True)
class Part:
    """A checked value: how to build it, and what it is, written out with its defaults."""

    build: Callable[[], Any]
    resolved: Any


class Checker:
    """Checks nodes against types, collecting every fault.

    Args:
        catalogue: from names that ``use`` may name to ``module:attribute``.
    """

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self.faults: list[str] = []

    def part(self, node: Node, wanted: Any) -> Part:
        """A node checked against the type it must have."""
        options = _alternatives(wanted)
        if isinstance(node.value, dict):
            if USE in node.value:
                return self._used(node, options)
            concrete = [one for one in options if is_dataclass(one)]
            if len(concrete) == 1:
                return self._constructed(node, concrete[0])
        if isinstance(node.value, list):
            item_types = _item_types(options, len(node.value))
            if item_types is not None:
                parts = [self.part(n, t) for n, t in zip(node.value, item_types, strict=True)]
                kind = tuple if any(typing.get_origin(one) is tuple for one in options) else list
                return Part(lambda: kind(p.build() for p in parts), [p.resolved for p in parts])
        return self._plain(node, wanted)

    def _used(self, node: Node, options: Sequence[Any]) -> Part:
        name = node.value[USE].value
        target = self.catalogue.get(str(name))
        if target is None:
            known = _nearest(str(name), self.catalogue)
            return self._fault(node.value[USE].place, f"no part is called {name!r}{known}")
        constructor = locate(target)
        if not any(_fits(constructor, one) for one in options):
            wanted = " or ".join(_name_of(one) for one in options)
            return self._fault(node.value[USE].place, f"{name} is no {wanted}")
        return self._constructed(node, constructor, str(name))

    def _constructed(self, node: Node, constructor: Any, name: str | None = None) -> Part:
        parameters = inspect.signature(constructor).parameters
        hints = _hints(constructor)
        given = {key: child for key, child in node.value.items() if key != USE}
        for key in given:
            if key not in parameters:
                known = _nearest(key, parameters)
                self._fault(given[key].place, f"{_name_of(constructor)} has no {key!r}{known}")
        arguments: dict[str, Part] = {}
        for key, parameter in parameters.items():
            if key in given:
                arguments[key] = self.part(given[key], hints.get(key, Any))
            elif parameter.default is inspect.Parameter.empty:
                self._fault(node.place, f"{_name_of(constructor)} needs {key!r}")
        resolved = {USE: name} if name else {}
        for key, parameter in parameters.items():
            if key in arguments:
                resolved[key] = arguments[key].resolved
            elif _is_plain(parameter.default):
                resolved[key] = _listed(parameter.default)

        def build() -> Any:
            built = {key: argument.build() for key, argument in arguments.items()}
            try:
                return constructor(**built)
            except ValueError as error:
                raise InputError(f"{node.place}: {error}") from error

        return Part(build, resolved)

    def _plain(self, node: Node, wanted: Any) -> Part:
        value = node.plain()
        if wanted in (Any, inspect.Parameter.empty):
            return Part(lambda: value, value)
        try:
            adapter = pydantic.TypeAdapter(
                wanted, config=pydantic.ConfigDict(arbitrary_types_allowed=True)
            )
            checked = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            why = error.errors()[0]["msg"]
            return self._fault(node.place, f"{value!r} is not right here: {_lower(why)}")
        return Part(lambda: checked, value)

    def _fault(self, place: str, text: str) -> Part:
        self.faults.append(f"{place}: {text}")
        return Part(lambda: None, None)


def check_section(tree: Node, sections: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Part]:
    """Check a recipe's sections.

    Args:
        tree: the recipe.
        sections: the type of each section that may stand in it.
        catalogue: the parts that may be used.

    Raises:
        InputError: if anything is wrong, with every fault on a line of its own.
    """
    checker = Checker(catalogue)
    parts = {}
    for key, node in tree.value.items():
        if key in sections:
            parts[key] = checker.part(node, sections[key])
        else:
            known = _nearest(key, sections)
            checker.faults.append(f"{node.place}: a recipe has no section {key!r}{known}")
    if checker.faults:
        raise InputError("\n".join(checker.faults))
    return parts


def to_yaml(resolved: Any) -> str:
    """A resolved recipe as text that reads back to the same."""
    return yaml.safe_dump(resolved, sort_keys=False, default_flow_style=None, width=100)


# --------------------------------------------------------------------------- types


def _alternatives(wanted: Any) -> list[Any]:
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(wanted) if one is not type(None)]
    return [wanted]


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


def locate(target: str) -> Any:
    """The object that ``module:attribute`` names."""
    module, _, attributes = target.partition(":")
    return functools.reduce(getattr, attributes.split("."), importlib.import_module(module))


def _fits(constructor: Any, wanted: Any) -> bool:
    """Whether what a constructor makes can stand where a type is wanted."""
    if not inspect.isclass(constructor):
        constructor = _hints(constructor).get("return", Any)
    if wanted in (Any, inspect.Parameter.empty) or not inspect.isclass(constructor):
        return True
    if not inspect.isclass(wanted):
        return False
    if getattr(wanted, "_is_protocol", False):
        members = [m for m in vars(wanted) if not m.startswith("_") or m == "__call__"]
        return all(hasattr(constructor, member) for member in members)
    return issubclass(constructor, wanted)


def _hints(constructor: Any) -> dict[str, Any]:
    target = constructor.__init__ if inspect.isclass(constructor) else constructor
    if inspect.isclass(constructor) and is_dataclass(constructor):
        target = constructor
    return typing.get_type_hints(target)


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
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(names))}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
