"""Recipes as trees: a YAML file in which every value keeps its file and line."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_text, reading, reason_of


@dataclass(frozen=True)
class Node:
    """A value and its location in the file: a scalar, a list of nodes, or a dict of nodes."""

    value: Any
    where: str

    def plain(self) -> Any:
        """Return the value without locations."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


# Reading pure YAML takes a second for each 80 kB.
MOST_BYTES = 128 << 10
# Aliases expand: a recipe has at most this many values in all.
MOST_VALUES = 100_000
LONGEST_NUMBER = 100
DEEPEST = 100
BRACKETS = re.compile(r"[\[\]{}]")
SHOWN = 40
TAG = "tag:yaml.org,2002:"
BASES = {"0o": 8, "0x": 16, "0b": 2}
# Scalars without a type in YAML 1.2 are plain strings.
TEXTS = ("str", "timestamp", "value", "merge")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Node:
    """Read a recipe and apply ``key.path=value`` overrides to it.

    Raises:
        InputError: if the file cannot be read or is not YAML, or an override does not fit it.
    """
    tree = parse(read_text(path, MOST_BYTES), str(path))
    for override in overrides:
        tree = _overridden(tree, override)
    return tree


def parse(text: str, name: str) -> Node:
    """Return the text of a recipe, in YAML 1.2, as nodes.

    ``1e-4`` is a number; ``on``, ``yes`` and dates are texts.

    Args:
        text: text of the recipe.
        name: file name, used in locations.

    Raises:
        InputError: if it is not a YAML mapping, or a key appears twice in a mapping.
    """
    tree = _nodes(text, name)
    if tree is None or not isinstance(tree.value, dict):
        raise InputError(f"{name}: a recipe is a mapping of keys to values")
    return tree


def _nodes(text: str, name: str) -> Node | None:
    """Return the YAML document as nodes; None if it is empty."""
    try:
        _check_depth(text, name)
        with reading(name, "is not YAML", "correct it"):
            root = _composed(text)
            if any(
                line.startswith("%YAML") and line.split()[1:] != ["1.2"]
                for line in text.splitlines()
            ):
                raise InputError(f"{name}: is read as YAML 1.2; remove the line %YAML")
            return None if root is None else _Locations(name).node(root)
    except InputError as fault:
        raise _with_line(fault, text, name) from fault.__cause__


@lru_cache(maxsize=64)
def _composed(text: str) -> Any:
    """Return the nodes of the YAML library; a process reads the same recipes again and again."""
    return YAML(typ="safe", pure=True).compose(text)


def _check_depth(text: str, name: str) -> None:
    """Reject brackets nested deeper than in any recipe: the library is slow to do so."""
    depth = 0
    for found in BRACKETS.finditer(text):
        depth += 1 if found[0] in "[{" else -1
        if depth > DEEPEST:
            line = text.count("\n", 0, found.start()) + 1
            raise InputError(f"{name}:{line}: is nested too deeply; flatten it")


def _with_line(fault: InputError, text: str, name: str) -> InputError:
    """Add the line that the YAML library complains about."""
    error = fault.__cause__
    if isinstance(error, RecursionError):
        return InputError(f"{name}: is nested too deeply, or in itself; flatten it")
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        character = error.character if isinstance(error.character, str) else chr(error.character)
        return InputError(f"{name}:{line}: holds the character {character!r}; remove it")
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, YAMLError) and mark is not None:
        reason = getattr(error, "problem", None) or reason_of(error)
        if reason.startswith("but "):
            reason = f"{getattr(error, 'context', '')}, {reason}"
        return InputError(f"{name}:{mark.line + 1}: {reason}; correct the YAML")
    return fault


class _Locations:
    """Converter from parsed YAML to nodes.

    Args:
        name: file name, used in locations.
    """

    def __init__(self, name: str):
        self.name, self.left = name, MOST_VALUES

    def node(self, found: Any) -> Node:
        """Return a value and all values in it as nodes."""
        where = f"{self.name}:{found.start_mark.line + 1}"
        self.left -= 1
        if self.left < 0:
            raise InputError(f"{where}: more than {MOST_VALUES} values; use fewer aliases")
        kind = str(found.tag).removeprefix(TAG)
        if isinstance(found, ScalarNode):
            return Node(_scalar(found.value, kind, where), where)
        if kind not in ("map", "seq"):
            raise InputError(f"{where}: the tag {kind!r} is not supported; remove it")
        if isinstance(found, SequenceNode):
            return Node([self.node(child) for child in found.value], where)
        values: dict[str, Node] = {}
        for key_node, value_node in found.value:
            line = f"{self.name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, ScalarNode):
                raise InputError(f"{line}: a key must be a word, not a list or a mapping")
            key = str(key_node.value)
            if key in values:
                raise InputError(f"{line}: {key} appears twice; keep one")
            values[key] = Node(self.node(value_node).value, line)
        return Node(values, where)


def _scalar(text: str, kind: str, where: str) -> Any:
    """Return the value of a scalar of one of YAML 1.2's types."""
    if kind in TEXTS:
        return text
    if kind == "null":
        return None
    if kind not in ("bool", "int", "float"):
        raise InputError(f"{where}: the tag {kind!r} is not supported; remove it")
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return _number(text.replace("_", "").lower(), kind)
    except (KeyError, ValueError) as error:
        raise InputError(f"{where}: {text[:SHOWN]!r} is not a valid {kind}; correct it") from error


def _number(text: str, kind: str) -> int | float:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("too long for a number")
    if kind == "float":
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    base = BASES.get(digits[:2], 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


def _overridden(tree: Node, override: str) -> Node:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"{override!r}: an override has the form key.path=value")
    where = f"command line ({path})"
    value = _nodes(text, where) or Node(None, where)
    return _put(tree, path.split("."), value, override)


def _put(tree: Node, keys: Sequence[str], value: Node, override: str) -> Node:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(tree.value, dict):
        child = tree.value.get(key, Node({}, value.where))
        return Node({**tree.value, key: _put(child, rest, value, override)}, tree.where)
    if isinstance(tree.value, list) and key.isdigit() and int(key) < len(tree.value):
        items = list(tree.value)
        items[int(key)] = _put(items[int(key)], rest, value, override)
        return Node(items, tree.where)
    raise InputError(f"{override!r}: the recipe has no {key!r} at that path")


def to_yaml(resolved: Any) -> str:
    """Return a resolved recipe as YAML text that reads back to the same values."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.width = None, 100  # pyright: ignore[reportAttributeAccessIssue]
    writer.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    text = io.StringIO()
    writer.dump(resolved, text)
    return text.getvalue()
