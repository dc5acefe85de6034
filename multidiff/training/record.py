"""Record of a run's recipe and data, kept in each checkpoint to compare when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multidiff.utils.errors import InputError, printable
from multidiff.utils.fingerprint import difference

RECIPE, DATA = KINDS = "recipe", "data"
# As in a model's folder: changes are written at its head, as comments.
RECIPE_FILE = "recipe.yaml"
# Settings that may change without making it a different run: its length, what it reports and
# keeps, and how the same numbers are computed.
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
            "early_stopping",
            "keep_best",
            "callbacks",
            "trackers",
        ),
        *("workers", "threads", "compile", "gradient_checkpointing"),
    )
}
# The location of data does not identify them: their fingerprints are compared instead.
LOCATIONS = (
    *("path", "folder", "store", "vocabulary.model", "row_groups.cache_gb"),
    *(f"row_groups.store.{name}" for name in ("endpoint", "region", "anonymous", "patience_s")),
)
OFF: tuple[Any, ...] = (None, [], {})
SHOWN = 4


@dataclass(frozen=True)
class Record:
    """A run's recipe and data, and the changes made to them when it was resumed.

    Attributes:
        recipe: resolved recipe, as plain values by section.
        data: fingerprints by the key of the data in the recipe.
        history: ``{"step": steps done before, "changes": [...]}``, oldest first.
    """

    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> str:
        """Return the record as text, equal for equal runs."""
        values = {"recipe": self.recipe, "data": self.data, "history": list(self.history)}
        return json.dumps(values, indent=1, default=_plain) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Return the record that :meth:`to_json` wrote."""
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
        """Return the record of this run, resumed from a checkpoint.

        Args:
            before: the checkpoint's record.
            step: the checkpoint's step.
            allowed: kinds of changes that are allowed: ``recipe`` and ``data``.
            name: name of the run, for messages.

        Raises:
            InputError: if the runs differ, in a line that names what changed.
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
                f"{name}: differs from the run in its checkpoint: {what}; "
                f"undo that, or add {options} to accept it"
            )
        changes = [f"{kind}: {change}" for kind in KINDS for change in found[kind]]
        new = ({"step": step, "changes": changes},) if changes else ()
        return Record(now.recipe, now.data, (*before.history, *new))

    def check_recipe(self, now: Mapping[str, Any], allowed: Collection[str], name: str) -> None:
        """Refuse to continue with another recipe, before its components are built.

        Raises:
            InputError: see :meth:`continuing`.
        """
        Record(now, {}).continuing(Record(self.recipe, {}), 0, allowed, name)


def fingerprints(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprints of the data of a run's components, by their key in its recipe.

    Args:
        parts: components by section; those without a method ``data_fingerprint`` have none.
    """
    found = {}
    for section, part in parts.items():
        for key, one in getattr(part, "data_fingerprint", dict)().items():
            found[f"{section}.{key}"] = one
    return found


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed between two recipes, except harmless settings."""
    was, is_now = dict(_flat(before)), dict(_flat(now))
    changes = []
    for key in {**was, **is_now}:
        if _is_harmless(key) or _is_location(key):
            continue
        if key not in was:
            if is_now[key] in OFF:  # a setting that older versions do not have
                continue
            changes.append(f"{key} is new ({_shown(is_now[key])})")
        elif key not in is_now:
            changes.append(f"{key} was removed (it was {_shown(was[key])})")
        elif json.dumps(was[key]) != json.dumps(is_now[key]):
            changes.append(f"{key} was {_shown(was[key])}, is {_shown(is_now[key])}")
    return changes


def data_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed between the fingerprints of data.

    The source of a vocabulary may be missing: the checkpoint holds the vocabulary.
    """
    changes = []
    for key in {**before, **now}:
        if key not in now and key.startswith("model."):
            continue
        if key not in now or key not in before:
            changes.append(f"{key} {'was removed' if key not in now else 'is new'}")
        elif found := difference(before[key], now[key]):
            changes.append(f"{key}: {found}")
    return changes


def _is_harmless(key: str) -> bool:
    return ".".join(key.split(".")[:2]) in HARMLESS


def _is_location(key: str) -> bool:
    return any(key.endswith(f".{location}") for location in LOCATIONS)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the plain values in nested ones, by their keys joined with dots."""
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
