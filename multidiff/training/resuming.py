"""Going on from a checkpoint: whether it is this run's, and what is worth a line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from multidiff.training.checkpoints import Checkpoint
from multidiff.training.record import KINDS, RECIPE_FILE, Record
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.training.trainer import Trainer


def checked_kinds(allow_changed: Collection[str]) -> None:
    """Refuse kinds of changes that do not exist.

    Raises:
        InputError: if one does not.
    """
    for kind in allow_changed:
        if kind not in KINDS:
            raise InputError(f"--allow-changed {kind}: {' or '.join(KINDS)}, of which both may go")


def continued(
    found: Checkpoint, record: Record, allow_changed: Collection[str], name: str
) -> tuple[Record, list[str]]:
    """Return a run's record with its past, and its new changes, a line each.

    Args:
        found: the checkpoint.
        record: of the run as it is now.
        allow_changed: kinds of changes that are meant.
        name: of the run, for messages.

    Raises:
        InputError: if the run is another one than the checkpoint's.
    """
    past = found.record.history
    record = record.continuing(found.record, found.step, allow_changed, name)
    new = record.history[len(past) :]
    return record, [f"changed: {change}" for entry in new for change in entry["changes"]]


def check_assets(found: Checkpoint, texts: Mapping[str, str], name: str) -> None:
    """Refuse other assets than the weights were trained with.

    Raises:
        InputError: if a file that both have, such as a vocabulary, differs.
    """
    for asset, text in texts.items():
        if asset != RECIPE_FILE and found.texts.get(asset, text) != text:
            raise InputError(
                f"{name}: {asset} is not the one in the checkpoint of step {found.step}, with "
                "which the weights were trained; give the model that one"
            )


def rate_and_precision(found: Checkpoint, plan: Trainer, precision: str, name: str) -> list[str]:
    """Return what harmless changes do to the steps to come, a line each.

    Raises:
        InputError: if fewer steps are asked for than are done.
    """
    if plan.steps < found.step:
        raise InputError(
            f"{name}: trainer.steps is {plan.steps}, and {found.step} steps are done; "
            "set as many or more"
        )
    notes = []
    steps = dict(found.record.recipe.get("trainer", {})).get("steps", plan.steps)
    if plan.decay != "none" and steps != plan.steps:
        notes.append(f"the learning rate falls over {plan.steps} steps now, not over {steps}")
    before = found.numbers.get("precision", precision)
    if before != precision:
        notes.append(f"the network is computed in {precision} now, not in {before}")
    return notes
