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


# Aliases say much in few words: a recipe says no more than this all in all.
MOST_VALUES = 100_000
LONGEST_NUMBER = 100


def _scalar(reader: _Reader, node: yaml.ScalarNode) -> Any:
    if node.tag.endswith(":int"):
        if len(node.value) > LONGEST_NUMBER:
            raise ValueError("longer than a number can be")
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
    tree = _nodes(text, name)
    if tree is None or not isinstance(tree.value, dict):
        raise InputError(f"{name}: a recipe is a mapping of keys to values")
    return tree


def _nodes(text: str, name: str) -> Node | None:
    """What YAML says; None if that is nothing."""
    try:
        reader = _Reader(text)
        root = reader.get_single_node()
        return None if root is None else _Places(reader, name).node(root)
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply, or in itself; write it flatter") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{name}{line}: {reason}; mend the YAML") from error


class _Places:
    """Makes nodes of what YAML found.

    Args:
        reader: that found it.
        name: of the file.
    """

    def __init__(self, reader: _Reader, name: str):
        self.reader, self.name, self.left = reader, name, MOST_VALUES

    def node(self, found: yaml.Node) -> Node:
        """A value and those in it."""
        place = f"{self.name}:{found.start_mark.line + 1}"
        self.left -= 1
        if self.left < 0:
            raise InputError(f"{place}: more than {MOST_VALUES} values; write fewer aliases")
        if isinstance(found, yaml.MappingNode):
            values: dict[str, Node] = {}
            for key_node, value_node in found.value:
                key = str(key_node.value)
                line = f"{self.name}:{key_node.start_mark.line + 1}"
                if key in values:
                    raise InputError(f"{line}: {key} stands twice; keep one")
                values[key] = Node(self.node(value_node).value, line)
            return Node(values, place)
        if isinstance(found, yaml.SequenceNode):
            return Node([self.node(child) for child in found.value], place)
        scalar = typing.cast(yaml.ScalarNode, found)
        try:
            return Node(_scalar(self.reader, scalar), place)
        except (yaml.YAMLError, ValueError, AttributeError) as error:  # of a tag, such as !!int
            kind = scalar.tag.rpartition(":")[2]
            raise InputError(f"{place}: {scalar.value[:40]!r} is no {kind}; mend it") from error


def _overridden(tree: Node, override: str) -> Node:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"{override!r}: an override is key.path=value")
    place = f"command line ({path})"
    value = _nodes(text, place) or Node(None, place)
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
