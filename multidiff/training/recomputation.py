"""Gradient checkpointing of a task: activations are computed again in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from multidiff.utils.errors import InputError

SWITCH = "gradient_checkpointing"


def begin_checkpointing(task: nn.Module) -> list[Any]:
    """Switch gradient checkpointing on in every part that has it, and return those parts.

    A part has it by an attribute ``gradient_checkpointing``, as in diffusers and transformers.

    Raises:
        InputError: if no part has it.
    """
    parts = [part for part in task.modules() if hasattr(part, SWITCH)]
    if not parts:
        raise InputError(
            f"trainer.{SWITCH}: no part of {type(task).__name__} has it (transformers and UNets "
            "do); leave it out"
        )
    parts = [part for part in parts if not getattr(part, SWITCH)]
    for part in parts:
        setattr(part, SWITCH, True)
    return parts


def end_checkpointing(parts: list[Any]) -> None:
    """Switch it off again where :func:`begin_checkpointing` switched it on."""
    for part in parts:
        setattr(part, SWITCH, False)
