"""Recipes as trees: a YAML file, read so that every value knows its file and line."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from multidiff.errors import InputError


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


def to_yaml(resolved: Any) -> str:
    """A resolved recipe as text that reads back to the same."""
    return yaml.safe_dump(resolved, sort_keys=False, default_flow_style=None, width=100)
