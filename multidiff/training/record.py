"""What a run is made of, kept in each checkpoint, and whether a run that goes on is the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multidiff.utils.errors import InputError, printable
from multidiff.utils.fingerprint import difference

RECIPE, DATA = KINDS = "recipe", "data"
# As a model's folder calls it: the changes stand at its head, as comments.
RECIPE_FILE = "recipe.yaml"
# What a run may change without becoming another one: how long it goes on, what it reports and
# keeps, and how the same numbers are worked out.
HARMLESS = {
    f"trainer.{name}"
    for name in (
        *(
            "steps",
            "log_every",
            "save_every",
            "keep_checkpoints",
            "validate_every",
            "validation_batches",
        ),
        *("workers", "threads", "compile"),
    )
}
# Where data lie is not what they are: their fingerprints are compared in its place.
LOCATIONS = ("path", "folder", "vocabulary.model")
SHOWN = 4


@dataclass(frozen=True)
class Record:
    """A run's recipe and data, and the changes that it went through.

    Attributes:
        recipe: resolved, as plain values by section.
        data: fingerprints by where the data stand in the recipe.
        history: ``{"step": steps done before, "changes": [...]}``, oldest first.
    """

    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> str:
        """Return it as text, the same for the same run."""
        values = {"recipe": self.recipe, "data": self.data, "history": list(self.history)}
        return json.dumps(values, indent=1, default=_plain) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Return what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(values["recipe"], values["data"], tuple(values["history"]))

    def with_history(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Return files by name, with the changes as comments at the head of the recipe."""
        lines = [
            printable(f"# Changed at step {entry['step']}: {change}") + "\n"
            for entry in self.history
            for change in entry["changes"]
        ]
        return {
            name: "".join(lines) + text if name == RECIPE_FILE else text
            for name, text in texts.items()
        }

    def continuing(self, before: Record, step: int, allowed: Collection[str], name: str) -> Record:
        """Return the record of this run as one that goes on from a checkpoint.

        Args:
            before: the checkpoint's record.
            step: the checkpoint's.
            allowed: kinds of changes that are meant: ``recipe`` and ``data``.
            name: of the run, for the message.

        Raises:
            InputError: if the run is another one, in a line that names what changed.
        """
        now = Record.from_json(self.to_json())
        found = {
            RECIPE: recipe_changes(before.recipe, now.recipe),
            DATA: data_changes(before.data, now.data),
        }
        write_error = [kind for kind in KINDS if found[kind] and kind not in allowed]
        if write_error:
            what = "; ".join(f"{kind}: {_some(found[kind])}" for kind in write_error)
            options = " ".join(f"--allow-changed {kind}" for kind in write_error)
            raise InputError(
                f"{name}: is another run than its checkpoint: {what}; "
                f"undo that, or if it is meant add {options}"
            )
        changes = [f"{kind}: {change}" for kind in KINDS for change in found[kind]]
        new = ({"step": step, "changes": changes},) if changes else ()
        return Record(now.recipe, now.data, (*before.history, *new))

    def check_recipe(self, now: Mapping[str, Any], allowed: Collection[str], name: str) -> None:
        """Refuse to go on with another recipe, before its parts are built.

        Raises:
            InputError: see :meth:`continuing`.
        """
        Record(now, {}).continuing(Record(self.recipe, {}), 0, allowed, name)


def fingerprints(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprints of the data of a run's parts, by where they stand in its recipe.

    Args:
        parts: by section; those without a method ``data_fingerprint`` have none.
    """
    found = {}
    for section, part in parts.items():
        for key, one in getattr(part, "data_fingerprint", dict)().items():
            found[f"{section}.{key}"] = one
    return found


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed between two recipes, but for what is harmless."""
    was, is_now = dict(_flat(before)), dict(_flat(now))
    changes = []
    for key in {**was, **is_now}:
        if key in HARMLESS or _is_location(key):
            continue
        if key not in was:
            changes.append(f"{key} is new ({_shown(is_now[key])})")
        elif key not in is_now:
            changes.append(f"{key} is gone (it was {_shown(was[key])})")
        elif json.dumps(was[key]) != json.dumps(is_now[key]):
            changes.append(f"{key} was {_shown(was[key])}, is {_shown(is_now[key])}")
    return changes


def data_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed between the fingerprints of data.

    What a vocabulary was made from may be gone: the checkpoint holds the vocabulary.
    """
    changes = []
    for key in {**before, **now}:
        if key not in now and key.startswith("model."):
            continue
        if key not in now or key not in before:
            changes.append(f"{key} {'is gone' if key not in now else 'is new'}")
        elif found := difference(before[key], now[key]):
            changes.append(f"{key}: {found}")
    return changes


def _is_location(key: str) -> bool:
    return any(key.endswith(f".{location}") for location in LOCATIONS)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in nested ones, by their keys with dots between."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{key}.{number}")
    else:
        yield key, value


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _some(changes: list[str]) -> str:
    more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(changes[:SHOWN]) + more


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set) else str(value)
