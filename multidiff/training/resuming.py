"""Checks when a run is resumed: that the checkpoint belongs to it, and what changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from multidiff.training.checkpoints import Checkpoint
from multidiff.training.record import KINDS, RECIPE_FILE, Record
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.training.trainer import Trainer


def checked_kinds(allow_changed: Collection[str]) -> None:
    """Reject unknown kinds of changes.

    Raises:
        InputError: if a kind is unknown.
    """
    for kind in allow_changed:
        if kind not in KINDS:
            raise InputError(f"--allow-changed {kind}: expected {' or '.join(KINDS)}, or both")


def continued(
    found: Checkpoint, record: Record, allow_changed: Collection[str], name: str
) -> tuple[Record, list[str]]:
    """Return a run's record with its history, and its new changes, a line each.

    Args:
        found: the checkpoint.
        record: record of the run as it is now.
        allow_changed: kinds of changes that are allowed.
        name: name of the run, for messages.

    Raises:
        InputError: if the checkpoint belongs to a different run.
    """
    past = found.record.history
    record = record.continuing(found.record, found.step, allow_changed, name)
    new = record.history[len(past) :]
    return record, [f"changed: {change}" for entry in new for change in entry["changes"]]


def check_assets(found: Checkpoint, texts: Mapping[str, str], name: str) -> None:
    """Reject assets that differ from those the weights were trained with.

    Raises:
        InputError: if a file that both have, such as a vocabulary, differs.
    """
    for asset, text in texts.items():
        if asset != RECIPE_FILE and found.texts.get(asset, text) != text:
            raise InputError(
                f"{name}: {asset} differs from the one in the checkpoint of step {found.step}, "
                "which the weights were trained with; use that one"
            )


def rate_and_precision(found: Checkpoint, plan: Trainer, precision: str, name: str) -> list[str]:
    """Return the effects of harmless changes on the steps to come, a line each.

    Raises:
        InputError: if ``trainer.steps`` is less than the steps already done.
    """
    if plan.steps < found.step:
        raise InputError(
            f"{name}: trainer.steps is {plan.steps}, but {found.step} steps are done; "
            "set that many or more"
        )
    notes = []
    steps = dict(found.record.recipe.get("trainer", {})).get("steps", plan.steps)
    if plan.decay != "none" and steps != plan.steps:
        notes.append(f"the learning rate now decays over {plan.steps} steps instead of {steps}")
    before = found.numbers.get("precision", precision)
    if before != precision:
        notes.append(f"the network now computes in {precision} instead of {before}")
    return notes
